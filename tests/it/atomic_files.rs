//! Files and folders of the `tandem` command under kills, full disks, concurrent writers and links.

use super::command::text;
use std::fs;
use std::os::unix::fs::symlink;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use tempfile::{TempDir, tempdir};

fn tandem(folder: &TempDir) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tandem"));
    command.current_dir(folder.path()).stdin(Stdio::null());
    command
}

fn repository(path: &str) -> String {
    Path::new(tandem_testkit::ROOT).join(path).to_str().unwrap().to_owned()
}

fn run(folder: &TempDir, arguments: &[&str]) -> Output {
    tandem(folder).args(arguments).output().unwrap()
}

#[track_caller]
fn done(folder: &TempDir, arguments: &[&str]) {
    let output = run(folder, arguments);
    assert!(output.status.success(), "{arguments:?}: {}", text(&output.stderr));
}

/// Checks that a command failed with exit code 2 and one short error; returns the error.
#[track_caller]
fn refused(output: &Output) -> String {
    let error = text(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{error}");
    assert!(error.contains("error: ") && !error.contains("panicked"), "{error}");
    assert!(error.len() < 2_500, "{} bytes: {error}", error.len());
    error
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// Runs a command whose files may not exceed `blocks` blocks of at least 512 bytes. Beyond that, it
/// gets an error if `is_ignored`, a signal otherwise.
fn limited(folder: &TempDir, blocks: u32, is_ignored: bool, arguments: &[&str]) -> Output {
    let trap = if is_ignored { "trap '' XFSZ; " } else { "" };
    let script = format!("{trap}ulimit -c 0; ulimit -f {blocks}; exec \"$0\" \"$@\"");
    let mut command = Command::new("sh");
    command.args(["-c", &script, env!("CARGO_BIN_EXE_tandem")]).args(arguments);
    command.current_dir(folder.path()).stdin(Stdio::null()).output().unwrap()
}

fn eval<'a>(routes: &'a str, out: &'a str) -> Vec<&'a str> {
    let latency = ["--latency", "slow=300", "--tick-cap", "40", "--jobs", "1"];
    let mut arguments = vec!["eval", "--routes", routes, "--driver", "autopilot", "--out", out];
    arguments.extend(latency);
    arguments
}

#[test]
fn recordings_of_one_stem_do_not_collide() {
    let (folder, routes) = (tempdir().unwrap(), repository("routes/demo.xml"));
    fs::write(folder.path().join("x.partial"), "precious").unwrap();
    fs::write(folder.path().join("victim"), "precious").unwrap();
    symlink("victim", folder.path().join("y.partial")).unwrap();
    let record = |ticks: &str, out: &str| {
        let mut command = tandem(&folder);
        command.args(["record", "--routes", &routes, "--ticks", ticks, "--out", out]);
        command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    };
    let mut children = ["x.mcap", "x.bin", "y.mcap"].map(|out| record("20", out));
    assert!(children.iter_mut().all(|child| child.wait().unwrap().success()));
    let read = |name: &str| fs::read(folder.path().join(name)).unwrap();
    assert!(read("x.mcap") == read("x.bin") && read("x.mcap") == read("y.mcap"));
    assert_eq!((read("x.partial"), read("victim")), (b"precious".into(), b"precious".into()));
    assert_eq!(names(folder.path()).len(), 6, "{:?}", names(folder.path()));
}

#[test]
fn full_disk_leaves_a_recoverable_recording() {
    let (folder, routes) = (tempdir().unwrap(), repository("routes/demo.xml"));
    let record = ["record", "--routes", &routes, "--ticks", "60", "--out", "x.mcap"];
    // Less than one tick fits.
    let error = refused(&limited(&folder, 64, true, &record));
    assert!(error.contains("x.mcap") && error.contains("File too large"), "{error}");
    assert_eq!(names(folder.path()), [""; 0]);
    let error = refused(&limited(&folder, 2048, true, &record));
    assert!(error.contains("File too large") && error.contains("--recover"), "{error}");
    let left = names(folder.path());
    assert!(left.len() == 1 && left[0].starts_with(".x.mcap."), "{left:?}");
    assert!(error.contains(&left[0]), "{error}");
    let recovered = run(&folder, &["record", "--recover", &left[0], "--out", "y.mcap"]);
    assert_eq!(recovered.status.code(), Some(1), "{}", text(&recovered.stderr));
    assert!(folder.path().join("y.mcap").exists());
    fs::remove_file(folder.path().join("y.mcap")).unwrap();
    // The next recording removes it and the leftovers of a kill.
    let killed = limited(&folder, 64, false, &record);
    assert!(killed.status.signal().is_some(), "{:?}", killed.status);
    let left = names(folder.path());
    assert!(left.len() == 1 && left[0].starts_with(".x.mcap."), "{left:?}");
    done(&folder, &["record", "--routes", &routes, "--ticks", "2", "--out", "x.mcap"]);
    assert_eq!(names(folder.path()), ["x.mcap"]);
}

#[test]
fn killed_export_and_synth_leave_nothing_for_the_next() {
    let (folder, config) = (tempdir().unwrap(), repository("configs/tiny.json"));
    let synth = ["checkpoint", "synth", "--config", &config, "--out", "ck"];
    let export = ["export", "--checkpoint", "ck", "--out", "net", "--precision", "bf16"];
    assert!(limited(&folder, 64, false, &synth).status.signal().is_some());
    assert!(names(folder.path()).iter().all(|name| name.starts_with(".ck.")));
    done(&folder, &synth);
    assert_eq!(names(folder.path()), ["ck"]);
    assert!(limited(&folder, 64, false, &export).status.signal().is_some());
    // Partial folders of earlier versions had the process id in their name.
    fs::create_dir(folder.path().join(".net.export-4194305")).unwrap();
    done(&folder, &export);
    assert_eq!(names(folder.path()), ["ck", "net"]);
}

#[test]
fn merge_appears_complete_and_can_be_replayed() {
    let (folder, routes) = (tempdir().unwrap(), repository("routes/short.xml"));
    for (shard, out) in [("1/2", "s1"), ("2/2", "s2")] {
        let shard = ["--only", "11,12", "--shard", shard];
        done(&folder, &[&eval(&routes, out)[..], &shard].concat());
    }
    fs::write(folder.path().join("s1/crashes/RouteScenario_11_rep0.0"), "{}").unwrap();
    fs::write(folder.path().join("s2/crashes/RouteScenario_11_rep0.0"), "{}").unwrap();
    let merge = ["merge", "s1", "s2", "--out", "all"];
    let error = refused(&limited(&folder, 2, true, &merge));
    assert!(error.contains("File too large"), "{error}");
    assert_eq!(names(folder.path()), ["s1", "s2"]);
    assert!(limited(&folder, 2, false, &merge).status.signal().is_some());
    assert!(!folder.path().join("all").exists());
    done(&folder, &merge);
    assert_eq!(names(folder.path()), ["all", "s1", "s2"]);
    let all = folder.path().join("all");
    let expected = ["crashes", "facts.json", "logs", "merged.json", "routes", "run.json"];
    assert_eq!(names(&all)[..6], expected);
    let crashes = ["RouteScenario_11_rep0.0", "RouteScenario_11_rep0.1"];
    assert_eq!(names(&all.join("crashes")), crashes);
    let replay = ["--only", "11,12", "--latency", "replayed:all", "--tick-cap", "40"];
    let eval = ["eval", "--routes", &routes, "--driver", "autopilot", "--out", "again"];
    done(&folder, &[&eval[..], &replay].concat());
    let score = |out: &str| fs::read(folder.path().join(out).join("merged.json")).unwrap();
    assert!(score("all") == score("again"), "a replayed drive is the same drive");
    let occupied = refused(&run(&folder, &merge));
    assert!(occupied.contains("is not empty"), "{occupied}");
}

#[test]
fn demos_in_one_folder_leave_a_usable_checkpoint() {
    let folder = tempdir().unwrap();
    // An earlier version was killed while clearing this folder.
    fs::create_dir_all(folder.path().join("demo/checkpoint")).unwrap();
    let demo = || {
        let mut command = tandem(&folder);
        command.args(["demo", "--ticks", "3", "--out", "demo"]);
        command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
    };
    let children: Vec<_> = (0..3).map(|_| demo()).collect();
    let outputs: Vec<Output> =
        children.into_iter().map(|child| child.wait_with_output().unwrap()).collect();
    assert!(outputs.iter().any(|output| output.status.success()));
    for output in outputs.iter().filter(|output| !output.status.success()) {
        let error = refused(output);
        assert!(error.contains("another demo is running in demo"), "{error}");
    }
    done(&folder, &["export", "--checkpoint", "demo/checkpoint", "--out", "net"]);
    // Clearing keeps the marker, so a kill at any time leaves it.
    fs::remove_dir_all(folder.path().join("demo/engine")).unwrap();
    done(&folder, &["demo", "--ticks", "3", "--out", "demo"]);
}

#[test]
fn town_and_save_name_stay_in_the_motion_folder() {
    let folder = tempdir().unwrap();
    let routes = fs::read_to_string(repository("routes/short.xml")).unwrap();
    let (before, after) = routes.split_once("town=\"").unwrap();
    let (_, after) = after.split_once('"').unwrap();
    let routes = format!("{before}town=\"/../../../../escaped\"{after}");
    fs::write(folder.path().join("routes.xml"), routes).unwrap();
    let motion = ["--only", "11", "--motion", "m/a/b"];
    done(&folder, &[&eval("routes.xml", "out")[..], &motion].concat());
    let motion = names(&folder.path().join("m/a/b"));
    assert!(motion.len() == 1 && motion[0].contains("escaped"), "{motion:?}");
    assert_eq!(names(folder.path()), ["m", "out", "routes.xml"]);
}

#[test]
fn refused_start_leaves_no_folder() {
    let (folder, routes) = (tempdir().unwrap(), repository("routes/short.xml"));
    fs::create_dir(folder.path().join("empty")).unwrap();
    let replay = ["--latency", "replayed:empty", "--out", "out"];
    let eval = ["eval", "--routes", &routes, "--driver", "autopilot"];
    let error = refused(&run(&folder, &[&eval[..], &replay].concat()));
    assert!(error.contains("cannot drive route 11") && error.contains("schedule"), "{error}");
    assert_eq!(names(folder.path()), ["empty"]);
}

#[test]
fn leftover_partial_files_are_removed_by_the_next_run() {
    let (folder, routes) = (tempdir().unwrap(), repository("routes/short.xml"));
    let eval = [&eval(&routes, "out")[..], &["--only", "11"]].concat();
    done(&folder, &eval);
    let left = ["claims/.RouteScenario_11_rep0.0.abcdefghijkl.part", ".run.json.abcdefghijkl.part"]
        .map(|name| folder.path().join("out").join(name));
    left.iter().for_each(|path| fs::write(path, "{").unwrap());
    done(&folder, &eval);
    assert!(left.iter().all(|path| !path.exists()));
}

#[test]
fn full_standard_output_is_an_error_of_every_verb() {
    let (folder, routes) = (tempdir().unwrap(), repository("routes/short.xml"));
    done(&folder, &[&eval(&routes, "out")[..], &["--only", "11"]].concat());
    let config = repository("configs/tiny.json");
    let verbs: [&[&str]; 7] = [
        &["score", "out", "--routes", &routes, "--json"],
        &["merge", "out", "--out", "merged.json"],
        &["report", "out", "--out", "page.html"],
        &["checkpoint", "synth", "--config", &config, "--out", "ck"],
        &["record", "--routes", &routes, "--ticks", "2", "--out", "x.mcap"],
        &["--help"],
        &["--version"],
    ];
    for verb in verbs {
        let full = fs::File::options().write(true).open("/dev/full").unwrap();
        let output = tandem(&folder).args(verb).stdout(full).output().unwrap();
        let error = refused(&output);
        assert!(error.contains("cannot write to standard output: No space"), "{verb:?}: {error}");
    }
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let output = tandem(&folder).args(verbs[0]).stdout(writer).output().unwrap();
    assert_ne!(output.status.code(), Some(2), "{}", text(&output.stderr));
}

#[test]
fn counts_and_long_names_of_files_give_one_short_error() {
    let (folder, routes) = (tempdir().unwrap(), repository("routes/short.xml"));
    let eval = [&eval(&routes, "out")[..], &["--only", "11"]].concat();
    done(&folder, &eval);
    let config = repository("configs/tiny.json");
    done(&folder, &["checkpoint", "synth", "--config", &config, "--out", "ck"]);
    let run_json = folder.path().join("out/run.json");
    let good = fs::read_to_string(&run_json).unwrap();
    let long = "x".repeat(100_000);
    let readers: [&[&str]; 4] = [
        &["report", "out", "--out", "page.html"],
        &["merge", "out", "--out", "merged"],
        &["score", "out", "--routes", &routes],
        &eval,
    ];
    let changed = [
        good.replace("\"repetitions\": 1", "\"repetitions\": 10000000"),
        good.replace("\"repetitions\": 1", &format!("\"repetitions\": \"{long}\"")),
    ];
    for changed in &changed {
        assert_ne!(changed, &good);
        fs::write(&run_json, changed).unwrap();
        for reader in readers {
            let error = refused(&run(&folder, reader));
            assert!(error.contains("repetitions") || error.contains("xxx"), "{reader:?}: {error}");
        }
    }
    fs::write(
        &run_json,
        good.replace("\"driver\": \"autopilot\"", &format!("\"driver\": \"{long}\"")),
    )
    .unwrap();
    let error = refused(&run(&folder, &eval));
    assert!(error.contains("other settings") && error.contains("driver is autopilot"), "{error}");
    // Files of every other kind with a name that is too long to print.
    let json = format!("{{\"{long}\": \"{long}\", \"format\": \"{long}\"}}");
    fs::write(folder.path().join("long.json"), &json).unwrap();
    fs::write(folder.path().join("long.yaml"), format!("{long}: {long}\n")).unwrap();
    let xml = format!("<routes><route id=\"{long}\" town=\"{long}\"><{long}/></route></routes>");
    fs::write(folder.path().join("long.xml"), xml).unwrap();
    fs::write(folder.path().join("ck/config.json"), &json).unwrap();
    let drive = ["--driver", "autopilot", "--out", "new"];
    let with_run = ["eval", "--routes", &routes, "--run", "long.yaml"];
    let with_map = ["eval", "--routes", &routes, "--map", "long.xml"];
    let readers: [Vec<&str>; 8] = [
        [&["eval", "--routes", "long.xml"][..], &drive].concat(),
        [&with_run[..], &drive].concat(),
        [&with_map[..], &drive].concat(),
        vec!["record", "--routes", "long.xml", "--out", "new.mcap"],
        vec!["export", "--checkpoint", "ck", "--out", "new"],
        vec!["checkpoint", "synth", "--config", "long.json", "--out", "new"],
        vec!["compare", "long.json", "long.json"],
        vec!["roofline", "--config", "long.json"],
    ];
    for reader in readers {
        refused(&run(&folder, &reader));
    }
    assert!(!folder.path().join("new").exists());
}

#[test]
fn log_in_a_file_has_no_colors() {
    let (folder, routes) = (tempdir().unwrap(), repository("routes/short.xml"));
    let arguments = [&eval(&routes, "out")[..], &["--only", "11"]].concat();
    let output = tandem(&folder).args(arguments).env("RUST_LOG", "trace").output().unwrap();
    assert!(output.status.success());
    assert!(!output.stderr.contains(&0x1b), "{}", text(&output.stderr));
}
