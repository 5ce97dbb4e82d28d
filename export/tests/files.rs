//! Atomic files and folders, with concurrent writers and after kills.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails here")]

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::Command;
use tandem_files::{
    AtomicFile, AtomicFolder, MappedFile, install_truncation_handler, write, write_new, write_with,
};
use tempfile::tempdir;

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// The temporary file of `name` in a folder.
fn part_of(folder: &Path, name: &str) -> String {
    let start = format!(".{name}.");
    let mut found = names(folder);
    found.retain(|found| found.starts_with(&start) && found.ends_with(".part"));
    assert_eq!(found.len(), 1, "{found:?}");
    found.remove(0)
}

#[test]
fn target_is_unchanged_until_the_new_file_is_complete() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("a.json");
    write(&path, b"old").unwrap();
    let mut file = AtomicFile::create(&path).unwrap();
    file.write_all(b"new, half").unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"old");
    drop(file);
    assert_eq!(names(folder.path()), ["a.json"]);
    let refused = write_with(&path, |file| {
        file.write_all(b"new")?;
        Err(io::Error::other("no more"))
    });
    assert_eq!(refused.unwrap_err().to_string(), "no more");
    assert_eq!(fs::read(&path).unwrap(), b"old");
    write(&path, b"new").unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"new");
    assert_eq!(names(folder.path()), ["a.json"]);
}

#[test]
fn concurrent_writers_of_one_path_do_not_mix() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("a.bin");
    std::thread::scope(|scope| {
        for letter in b'a'..b'e' {
            let path = &path;
            scope.spawn(move || {
                for _ in 0..25 {
                    write_with(path, |file| {
                        (0..50).try_for_each(|_| file.write_all(&[letter; 99]))
                    })
                    .unwrap();
                    let found = fs::read(path).unwrap();
                    assert_eq!(found.len(), 50 * 99);
                    assert!(found.iter().all(|&byte| byte == found[0]), "two writers in one file");
                }
            });
        }
    });
    assert_eq!(names(folder.path()), ["a.bin"]);
}

#[test]
fn one_of_many_new_files_is_created() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("claim");
    let won: usize = std::thread::scope(|scope| {
        let write = |number: u8| write_new(&path, &[number]).unwrap();
        let threads: Vec<_> = (0..8).map(|n| scope.spawn(move || usize::from(write(n)))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    assert_eq!(won, 1);
    assert_eq!(names(folder.path()), ["claim"]);
}

#[test]
fn files_of_other_names_and_link_targets_are_unchanged() {
    let folder = tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let others =
        ["run.partial", "run.mcap.partial", "victim", ".run.mcap.part", ".run.mcap.my.part"];
    for name in others {
        fs::write(at(name), "precious").unwrap();
    }
    symlink(at("victim"), at("run.mcap")).unwrap();
    symlink(at("victim"), at(".run.mcap.abcdefghijkl.part")).unwrap();
    write(&at("run.mcap"), b"new").unwrap();
    for name in others {
        assert_eq!(fs::read_to_string(at(name)).unwrap(), "precious", "{name}");
    }
    assert!(!at("run.mcap").is_symlink());
}

#[test]
fn folders_and_sockets_are_refused_as_files() {
    let folder = tempdir().unwrap();
    let refused = |path: &Path| write(path, b"x").unwrap_err().to_string();
    assert_eq!(refused(folder.path()), "it is a folder, not a file");
    let socket = folder.path().join("socket");
    let _listener = UnixListener::bind(&socket).unwrap();
    let link = folder.path().join("link");
    symlink(&socket, &link).unwrap();
    for path in [&socket, &link] {
        assert_eq!(refused(path), "it is a device, a pipe or a socket, not a file");
    }
    assert_eq!(refused(Path::new("/dev/null")), "it is a device, a pipe or a socket, not a file");
    assert_eq!(names(folder.path()), ["link", "socket"]);
}

#[test]
fn longest_file_name_can_be_written() {
    let folder = tempdir().unwrap();
    let name = "ü".repeat(127) + "x";
    assert_eq!(name.len(), 255);
    write(&folder.path().join(&name), b"x").unwrap();
    let raw = std::ffi::OsStr::from_bytes(b"\xff\xfe");
    write(&folder.path().join(raw), b"x").unwrap();
}

#[test]
fn temporary_file_is_removed_only_if_its_writer_is_dead() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("a.json");
    let dead = folder.path().join(".a.json.abcdefghijkl.part");
    fs::write(&dead, "half").unwrap();
    let other = folder.path().join(".b.json.abcdefghijkl.part");
    fs::write(&other, "half").unwrap();
    let living = AtomicFile::create(&path).unwrap();
    assert!(!dead.exists() && other.exists());
    let name = part_of(folder.path(), "a.json");
    write(&path, b"other").unwrap();
    assert!(folder.path().join(&name).exists());
    living.publish().unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"");
}

#[test]
fn folder_is_published_with_all_its_files() {
    let folder = tempdir().unwrap();
    let target = folder.path().join("deep/er/out");
    let new = AtomicFolder::create(&target).unwrap();
    new.write("routes/a.json", b"{}").unwrap();
    assert!(!target.exists());
    new.publish().unwrap();
    assert_eq!(names(&target), ["routes"]);
    assert_eq!(names(target.parent().unwrap()), ["out"]);

    let new = AtomicFolder::create(&target).unwrap();
    new.write("b.json", b"{}").unwrap();
    drop(new);
    assert_eq!(names(&target), ["routes"]);
    let new = AtomicFolder::create(&target).unwrap();
    new.write("b.json", b"{}").unwrap();
    new.publish().unwrap();
    assert_eq!(names(&target), ["b.json"]);
    assert_eq!(names(target.parent().unwrap()), ["out"]);
}

#[test]
fn new_folder_does_not_replace_files() {
    let folder = tempdir().unwrap();
    let target = folder.path().join("out");
    let publish = || {
        let new = AtomicFolder::create(&target).unwrap();
        new.write("a", b"new").unwrap();
        new.publish_new().unwrap()
    };
    assert!(publish());
    assert!(!publish());
    fs::remove_file(target.join("a")).unwrap();
    assert!(publish());
    fs::remove_dir_all(&target).unwrap();
    fs::write(&target, "a file").unwrap();
    assert!(!publish());
    assert_eq!(names(folder.path()), ["out"]);
}

#[test]
fn target_folder_of_a_link_is_replaced() {
    let folder = tempdir().unwrap();
    let (real, link) = (folder.path().join("disk/real"), folder.path().join("link"));
    fs::create_dir_all(&real).unwrap();
    symlink(&real, &link).unwrap();
    let new = AtomicFolder::create(&link).unwrap();
    new.write("a", b"new").unwrap();
    new.publish().unwrap();
    assert!(link.is_symlink());
    assert_eq!(fs::read(real.join("a")).unwrap(), b"new");
}

#[test]
fn temporary_folder_is_removed_only_if_its_writer_is_dead() {
    let folder = tempdir().unwrap();
    let target = folder.path().join("out");
    // A killed writer leaves the folder and its unlocked lock file.
    let dead = folder.path().join(".out.abcdefghijkl.part");
    fs::create_dir_all(dead.join("deep")).unwrap();
    File::create(folder.path().join(".out.abcdefghijkl.lock")).unwrap();
    let other_file = folder.path().join(".out.their-own.part");
    fs::create_dir(&other_file).unwrap();
    let living = AtomicFolder::create(&target).unwrap();
    living.write("a", b"living").unwrap();
    assert!(!dead.exists() && other_file.exists());
    let other = AtomicFolder::create(&target).unwrap();
    assert!(living.path().exists());
    drop(other);
    living.publish().unwrap();
    assert_eq!(names(folder.path()), [".out.their-own.part", "out"]);
    assert_eq!(fs::read(target.join("a")).unwrap(), b"living");
}

#[test]
fn concurrent_folder_writers_leave_one_complete_folder() {
    let folder = tempdir().unwrap();
    let target = folder.path().join("out");
    std::thread::scope(|scope| {
        for number in 0..4 {
            let target = &target;
            scope.spawn(move || {
                for _ in 0..10 {
                    let new = AtomicFolder::create(target).unwrap();
                    for name in ["a", "b"] {
                        new.write(name, &[number]).unwrap();
                    }
                    new.publish().unwrap();
                }
            });
        }
    });
    assert_eq!(names(&target), ["a", "b"]);
    assert_eq!(fs::read(target.join("a")).unwrap(), fs::read(target.join("b")).unwrap());
    assert_eq!(names(folder.path()), ["out"]);
}

/// Runs in a separate process, which it ends.
#[test]
#[ignore = "ends its process; run by the test below"]
fn read_beyond_the_end_of_a_truncated_mapped_file() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("weights.bin");
    fs::write(&path, vec![1; 1 << 20]).unwrap();
    install_truncation_handler().unwrap();
    let mapped = MappedFile::map(&File::open(&path).unwrap(), &path).unwrap();
    assert_eq!(mapped[1 << 19], 1);
    File::options().write(true).open(&path).unwrap().set_len(100).unwrap();
    assert_eq!(mapped[1 << 19], 1, "these bytes are gone");
}

#[test]
fn truncated_mapped_file_ends_the_process_with_an_error() {
    let name = "read_beyond_the_end_of_a_truncated_mapped_file";
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", name, "--ignored", "--nocapture"])
        .output()
        .unwrap();
    assert_eq!(child.status.code(), Some(2), "{child:?}");
    let output = String::from_utf8(child.stderr).unwrap();
    let line = output.lines().find(|line| line.starts_with("error: ")).unwrap();
    assert!(
        line.contains("weights.bin was truncated while it was in use; restore the complete"),
        "{line}"
    );
}
