//! Campaigns that receive a signal, are killed or exceed a time limit: they end at once in any
//! state, leave no process running, and keep finished drives.

#![cfg(target_os = "linux")]
#![expect(clippy::disallowed_methods, reason = "the test reads its environment")]

use super::command::{path, piped};
use std::fs::{self, File};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};
use tandem_evaluation::scoring::Checkpoint;
use tandem_testkit::automot::{TINY, networks};
use tandem_testkit::poll::until;

fn fifo(path: &Path) {
    assert!(Command::new("mkfifo").arg(path).status().unwrap().success());
}

fn signal(name: &str, process: u32) {
    let mut kill = Command::new("kill");
    let status = kill.args([&format!("-{name}"), &process.to_string()]).status().unwrap();
    assert!(status.success());
}

/// Returns whether a process runs. A zombie does not.
fn runs(process: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    stat.rsplit(") ").next().is_some_and(|rest| !rest.is_empty() && !rest.starts_with('Z'))
}

/// Child processes of `process`.
fn children(process: u32) -> Vec<u32> {
    let entries = fs::read_dir("/proc").unwrap().filter_map(|entry| {
        let name = entry.unwrap().file_name();
        name.to_str()?.parse::<u32>().ok()
    });
    let parent = |child: &u32| {
        let stat = fs::read_to_string(format!("/proc/{child}/stat")).unwrap_or_default();
        stat.rsplit(") ").next().and_then(|rest| rest.split(' ').nth(1)?.parse::<u32>().ok())
    };
    entries.filter(|child| parent(child) == Some(process)).collect()
}

/// Waits for the worker process of a command.
fn worker(command: &Child) -> u32 {
    until("a worker process", || children(command.id()).first().copied())
}

/// Waits until the command and its workers have ended.
#[track_caller]
fn ended(mut command: Child, workers: &[u32]) -> (ExitStatus, String) {
    let status = until("the command's end", || command.try_wait().unwrap());
    for &worker in workers {
        until("the worker's end", || (!runs(worker)).then_some(()));
    }
    let output = command.wait_with_output().unwrap();
    (status, String::from_utf8_lossy(&output.stderr).into_owned())
}

/// Returns whether this process ignores SIGHUP; its child processes inherit that.
fn is_hangup_ignored() -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:")).unwrap();
    u64::from_str_radix(mask.trim(), 16).unwrap() & 1 << (libc::SIGHUP - 1) != 0
}

/// Waits for a process that reads `pipe`, and returns
/// the write end. While it is open, that process blocks.
fn writer_of(pipe: &Path) -> File {
    let mut options = File::options();
    // Fails while the pipe has no reader.
    options.write(true).custom_flags(libc::O_NONBLOCK);
    until("a process that reads the pipe", || options.open(pipe).ok())
}

/// Exports networks whose tokenizer is a pipe without a writer, so that loading them never ends.
fn networks_that_never_load(folder: &Path) -> PathBuf {
    let engine = networks(TINY, folder);
    let tokenizer = engine.join("tokenizer.json");
    fs::remove_file(&tokenizer).unwrap();
    fifo(&tokenizer);
    engine
}

#[test]
fn one_signal_ends_a_campaign_that_is_still_loading() {
    let folder = tempfile::tempdir().unwrap();
    let engine = networks_that_never_load(folder.path());
    let out = folder.path().join("out");
    let arguments = ["eval", "--routes", "routes/short.xml", "--driver", "automot"];
    let arguments = [&arguments[..], &["--engine", path(&engine), "--out", path(&out)]].concat();
    for name in ["TERM", "INT", "HUP"] {
        if name == "HUP" && is_hangup_ignored() {
            eprintln!(
                "skipped: SIGHUP is ignored, as under nohup, and child processes inherit that"
            );
            continue;
        }
        let command = piped(&arguments).spawn().unwrap();
        let worker = worker(&command);
        let _held = writer_of(&engine.join("tokenizer.json"));
        signal(name, command.id());
        let (status, printed) = ended(command, &[worker]);
        assert_eq!(status.code(), Some(1), "SIG{name}: {printed}");
    }
    // A killed command ends its worker, too.
    let command = piped(&arguments).spawn().unwrap();
    let worker = worker(&command);
    let _held = writer_of(&engine.join("tokenizer.json"));
    signal("KILL", command.id());
    let (status, _) = ended(command, &[worker]);
    assert_eq!(status.signal(), Some(9));
}

#[test]
fn one_signal_ends_a_command_that_waits_for_its_route_file() {
    let folder = tempfile::tempdir().unwrap();
    let routes = folder.path().join("routes.xml");
    fifo(&routes);
    let out = folder.path().join("out");
    let arguments = ["eval", "--driver", "idle", "--routes", path(&routes), "--out", path(&out)];
    let command = piped(&arguments).spawn().unwrap();
    let held = writer_of(&routes);
    signal("TERM", command.id());
    let (status, printed) = ended(command, &[]);
    assert_eq!(status.code(), Some(1), "{printed}");
    drop(held);

    // A second signal ends it at once.
    let command = piped(&arguments).spawn().unwrap();
    let _held = writer_of(&routes);
    signal("INT", command.id());
    signal("INT", command.id());
    let (status, printed) = ended(command, &[]);
    assert_eq!(status.code(), Some(1), "{printed}");
}

fn fetching(script: &str, folder: &Path) -> (Command, PathBuf) {
    use std::os::unix::fs::PermissionsExt;
    let programs = folder.join("programs");
    fs::create_dir_all(&programs).unwrap();
    let python = programs.join("python3");
    fs::write(&python, script).unwrap();
    fs::set_permissions(&python, fs::Permissions::from_mode(0o755)).unwrap();
    let engine = folder.join("networks");
    let out = folder.join("built");
    let mut command = piped(&["build", "--network", path(&engine), "--out", path(&out)]);
    let cache = folder.join("cache");
    let search = std::env::join_paths(
        [programs].into_iter().chain(std::env::split_paths(&std::env::var_os("PATH").unwrap())),
    );
    command
        .env("PATH", search.unwrap())
        .env("TANDEM_CACHE_DIR", &cache)
        .env_remove("ORT_DYLIB_PATH");
    (command, cache)
}

#[test]
fn hanging_package_installer_ends_with_the_program() {
    let folder = tempfile::tempdir().unwrap();
    networks_that_never_load(folder.path());
    let ids = folder.path().join("ids");
    let script = format!(
        "#!/bin/sh\nsleep 1000 & echo $$ $! > '{0}.new'; mv '{0}.new' '{0}'; wait\n",
        ids.display()
    );
    for name in ["TERM", "KILL"] {
        let (mut command, _) = fetching(&script, folder.path());
        let command = command.spawn().unwrap();
        let text = until("pip's start", || fs::read_to_string(&ids).ok());
        let processes: Vec<u32> = text.split_whitespace().map(|id| id.parse().unwrap()).collect();
        assert!(processes.iter().all(|&process| runs(process)), "{text}");
        signal(name, command.id());
        ended(command, &processes);
        fs::remove_file(&ids).unwrap();
    }
}

#[test]
fn fetch_runs_no_python_files_of_the_current_folder() {
    let folder = tempfile::tempdir().unwrap();
    networks_that_never_load(folder.path());
    let here = folder.path().join("here");
    fs::create_dir(&here).unwrap();
    let evil = format!("open({:?}, 'w').write('x')\nraise SystemExit(1)\n", here.join("ran"));
    for module in ["pip.py", "zipfile.py", "sitecustomize.py", "python3"] {
        fs::write(here.join(module), &evil).unwrap();
    }
    let cache = folder.path().join("cache");
    let mut path_with_here = std::ffi::OsString::from(".:");
    path_with_here.push(std::env::var_os("PATH").unwrap());
    let (engine, out) = (folder.path().join("networks"), folder.path().join("built"));
    let status = piped(&["build", "--network", path(&engine), "--out", path(&out)])
        .current_dir(&here)
        .env("PATH", path_with_here)
        .env("PYTHONPATH", &here)
        // Without an index the fetch fails quickly after pip has started.
        .env("PIP_NO_INDEX", "1")
        .env_remove("PIP_FIND_LINKS")
        .env("TANDEM_CACHE_DIR", &cache)
        .env_remove("ORT_DYLIB_PATH")
        .output()
        .unwrap();
    let printed = String::from_utf8_lossy(&status.stderr);
    assert_eq!(status.status.code(), Some(2), "{printed}");
    assert!(printed.contains("pip could not fetch it"), "{printed}");
    assert!(!here.join("ran").exists(), "{printed}");
    let left: Vec<_> = fs::read_dir(&cache).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(left.len(), 1, "only the lock may be left: {left:?}");
}

fn record(out: &Path, route: u32) -> tandem_evaluation::scoring::Record {
    let file = out.join(format!("routes/RouteScenario_{route}_rep0.json"));
    let checkpoint: Checkpoint = serde_json::from_str(&fs::read_to_string(file).unwrap()).unwrap();
    checkpoint.body.records.into_iter().next().unwrap()
}

/// A campaign of two routes in real time, with a driver that never moves.
fn real_time_campaign(folder: &Path, further: &[&str]) -> (Command, PathBuf) {
    let (out, run) = (folder.join("out"), folder.join("wall.yaml"));
    fs::write(&run, "clock: wall\n").unwrap();
    let arguments = ["eval", "--routes", "routes/short.xml", "--only", "11,12", "--driver", "idle"];
    let mut command = piped(&arguments);
    command.arg("--run").arg(&run).arg("--out").arg(&out).args(further);
    (command, out)
}

#[test]
fn drive_over_its_time_limit_is_recorded_as_failed() {
    let folder = tempfile::tempdir().unwrap();
    // In real time, 4000 ticks take 200 seconds.
    let (mut campaign, out) = real_time_campaign(folder.path(), &["--route-timeout", "1"]);
    let command = campaign.spawn().unwrap();
    let output = command.wait_with_output().unwrap();
    let printed = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(printed.contains("2 / 2 routes finished"), "{printed}");
    assert!(printed.contains("2 by --route-timeout"), "{printed}");
    for route in [11, 12] {
        assert_eq!(record(&out, route).status, "Failed - Wall-time limit");
        let note = out.join(format!("crashes/RouteScenario_{route}_rep0.0"));
        assert!(fs::read_to_string(note).unwrap().contains("longer than --route-timeout 1"));
    }
    // Drives that were given up are not repeated.
    let output = campaign.output().unwrap();
    let printed = String::from_utf8_lossy(&output.stdout);
    assert!(printed.contains("0 driven now, 2 kept from earlier runs"), "{printed}");
}

#[test]
fn signal_keeps_finished_drives() {
    let folder = tempfile::tempdir().unwrap();
    // A drive takes 2 s and all of them 200 s, so that a late signal still interrupts the campaign.
    let further = ["--tick-cap", "40", "--repetitions", "50"];
    let (mut campaign, out) = real_time_campaign(folder.path(), &further);
    let command = campaign.spawn().unwrap();
    let worker = worker(&command);
    until("the first result", || {
        out.join("routes/RouteScenario_11_rep0.json").exists().then_some(())
    });
    signal("TERM", command.id());
    let (status, printed) = ended(command, &[worker]);
    assert_eq!(status.code(), Some(1), "{printed}");
    assert!(printed.contains("interrupted"), "{printed}");
    assert_eq!(record(&out, 11).status, "Failed - TickRuntime");
    assert_eq!(fs::read_dir(out.join("crashes")).unwrap().count(), 0, "nothing crashed");
}
