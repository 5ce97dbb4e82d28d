//! The array script for Slurm, run with the environment of a Slurm task and a substitute for
//! `scontrol` that logs its arguments.

#![cfg(target_os = "linux")]

use super::command::text;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

const SCRIPT: &str = "integrations/slurm/tandem_array.sh";

/// Environment of a job array.
struct Cluster {
    folder: tempfile::TempDir,
}

impl Cluster {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let scontrol = folder.path().join("scontrol");
        fs::write(&scontrol, "#!/bin/sh\necho \"$@\" >> \"$(dirname \"$0\")/asked\"\n").unwrap();
        fs::set_permissions(&scontrol, fs::Permissions::from_mode(0o755)).unwrap();
        Self { folder }
    }

    fn out(&self) -> PathBuf {
        self.folder.path().join("out")
    }

    /// Calls of `scontrol` so far.
    fn scontrol_calls(&self) -> String {
        fs::read_to_string(self.folder.path().join("asked")).unwrap_or_default()
    }

    /// Command of task `id` of the array `ids`, as Slurm starts it.
    fn task(&self, id: u32, ids: &[u32], arguments: &[&str]) -> Command {
        let mut command = Command::new("bash");
        let path = format!("{}:{}", self.folder.path().display(), "/usr/bin:/bin");
        command
            .arg(SCRIPT)
            .args(arguments)
            .current_dir(tandem_testkit::ROOT)
            .env("PATH", path)
            .env("TANDEM", env!("CARGO_BIN_EXE_tandem"))
            .env("SLURM_ARRAY_JOB_ID", "70")
            .env("SLURM_ARRAY_TASK_ID", id.to_string())
            .env("SLURM_ARRAY_TASK_MIN", ids.iter().min().unwrap().to_string())
            .env("SLURM_ARRAY_TASK_MAX", ids.iter().max().unwrap().to_string())
            .env("SLURM_ARRAY_TASK_COUNT", ids.len().to_string())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }
}

#[track_caller]
fn ended(output: &Output, code: i32) -> String {
    let printed = text(&output.stdout) + &text(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{printed}");
    printed
}

#[test]
fn array_tasks_share_one_campaign() {
    let cluster = Cluster::new();
    let out = cluster.out();
    let arguments =
        ["eval", "--routes", "routes/short.xml", "--driver", "autopilot", "--repetitions", "4"];
    let arguments = [&arguments[..], &["--out", out.to_str().unwrap()]].concat();
    let ids = [5, 6, 7];
    let tasks: Vec<Child> =
        ids.iter().map(|&id| cluster.task(id, &ids, &arguments).spawn().unwrap()).collect();
    for task in tasks {
        let printed = ended(&task.wait_with_output().unwrap(), 0);
        assert!(printed.contains("8 driven now, 0 kept from earlier runs"), "{printed}");
    }
    let merged: serde_json::Value =
        serde_json::from_str(&fs::read_to_string(out.join("merged.json")).unwrap()).unwrap();
    assert_eq!(merged["eval num"], 24);
    let printed = ended(&cluster.task(6, &ids, &arguments).output().unwrap(), 0);
    assert!(printed.contains("24 / 24 drives"), "{printed}");
    assert!(printed.contains("0 driven now, 8 kept from earlier runs"), "{printed}");
    assert_eq!(cluster.scontrol_calls(), "");
}

/// Sends a signal to a task while it drives two routes of two seconds of real time each. Returns
/// its cluster and output. A task that ends before the signal is repeated in another cluster.
fn signaled(name: &str, restarts: &str) -> (Cluster, Output) {
    for _ in 0..50 {
        let cluster = Cluster::new();
        let run = cluster.folder.path().join("wall.yaml");
        fs::write(&run, "clock: wall\n").unwrap();
        let task = slow(&cluster, &run).env("SLURM_RESTART_COUNT", restarts).spawn().unwrap();
        let claim = cluster.out().join("claims/RouteScenario_11_rep0.0");
        tandem_testkit::poll::until("a claim", || claim.exists().then_some(()));
        signal(name, &task);
        let output = task.wait_with_output().unwrap();
        if !output.status.success() {
            return (cluster, output);
        }
    }
    panic!("every task ended before {name} was sent");
}

fn slow(cluster: &Cluster, run: &Path) -> Command {
    let out = cluster.out();
    let arguments = ["eval", "--routes", "routes/short.xml", "--only", "11,12", "--tick-cap", "40"];
    let options = ["--driver", "autopilot", "--run", run.to_str().unwrap()];
    cluster.task(2, &[2], &[&arguments[..], &options, &["--out", out.to_str().unwrap()]].concat())
}

fn signal(name: &str, child: &Child) {
    let status = Command::new("kill").args([name, &child.id().to_string()]).status().unwrap();
    assert!(status.success());
}

#[test]
fn task_is_requeued_before_its_time_limit() {
    let (cluster, output) = signaled("-USR1", "0");
    let printed = ended(&output, 1);
    assert!(printed.contains("interrupted: finished routes are kept"), "{printed}");
    assert!(printed.contains("shard 1/1 continues after the time limit"), "{printed}");
    assert_eq!(cluster.scontrol_calls(), "requeue 70_2\n");
    let run = cluster.folder.path().join("wall.yaml");
    let again = slow(&cluster, &run).env("SLURM_RESTART_COUNT", "1").output().unwrap();
    assert!(ended(&again, 0).contains("2 / 2 routes finished"));
    assert_eq!(cluster.scontrol_calls(), "requeue 70_2\n", "requeued after it was done");
}

#[test]
fn canceled_task_is_not_requeued() {
    let (cluster, output) = signaled("-TERM", "0");
    let printed = ended(&output, 1);
    assert!(printed.contains("interrupted: finished routes are kept"), "{printed}");
    assert_eq!(cluster.scontrol_calls(), "");
}

#[test]
fn task_is_requeued_50_times_at_most() {
    let (cluster, output) = signaled("-USR1", "50");
    let printed = ended(&output, 2);
    assert!(
        printed.contains("restarted 50 times") && printed.contains("TANDEM_RESTARTS"),
        "{printed}"
    );

    let eval = ["eval", "--out", "nowhere"];
    let printed = ended(&cluster.task(1, &[1, 3], &eval).output().unwrap(), 2);
    assert!(printed.contains("the array has gaps"), "{printed}");
    let mut bare = cluster.task(1, &[1], &eval);
    let printed = ended(&bare.env_remove("SLURM_ARRAY_TASK_ID").output().unwrap(), 2);
    assert!(
        printed.contains("SLURM_ARRAY_TASK_ID is not set: submit with sbatch --array"),
        "{printed}"
    );
    let printed = ended(&cluster.task(1, &[1], &[]).output().unwrap(), 2);
    assert!(printed.contains("usage: tandem_array.sh eval"), "{printed}");
    assert_eq!(cluster.scontrol_calls(), "");
}
