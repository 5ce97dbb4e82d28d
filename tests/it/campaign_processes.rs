//! Campaigns of the program that are killed, run concurrently, run out of disk or are sharded:
//! their results equal those of an undisturbed campaign, byte for byte.

#![cfg(target_os = "linux")]

use super::command::{path, piped, text};
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;
use tandem_evaluation::scoring::Checkpoint;

const ROUTES: &str = "routes/short.xml";

/// Arguments of a campaign of 24 short drives into `out`.
fn eval<'a>(out: &'a Path, more: &[&'a str]) -> Vec<&'a str> {
    let common = ["eval", "--routes", ROUTES, "--driver", "autopilot", "--repetitions", "4"];
    [&common[..], &["--out", path(out)], more].concat()
}

#[track_caller]
fn done(arguments: &[&str]) -> Output {
    ended(arguments, 0)
}

/// Runs and checks the exit code.
#[track_caller]
fn ended(arguments: &[&str], code: i32) -> Output {
    let output = piped(arguments).output().unwrap();
    let printed = text(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {printed}");
    assert!(!printed.contains("panicked"), "{printed}");
    output
}

/// Names and bytes of the files in a result folder
/// that must not depend on the course of the campaign.
fn results(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut files = BTreeMap::new();
    for part in ["routes", "logs"] {
        for entry in fs::read_dir(folder.join(part)).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap();
            files.insert(format!("{part}/{name}"), fs::read(&path).unwrap());
        }
    }
    for name in ["merged.json", "run.json"] {
        files.insert(name.to_owned(), fs::read(folder.join(name)).unwrap());
    }
    files
}

#[track_caller]
fn assert_same(ours: &Path, undisturbed: &Path) {
    let (ours, undisturbed) = (results(ours), results(undisturbed));
    let names = |files: &BTreeMap<String, Vec<u8>>| files.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&ours), names(&undisturbed));
    for (name, bytes) in &ours {
        assert!(bytes == &undisturbed[name], "{name} differs: {}", text(bytes));
    }
}

/// Result folder of an undisturbed campaign with one worker.
fn undisturbed(folder: &Path) -> PathBuf {
    let out = folder.join("undisturbed");
    let printed = text(&done(&eval(&out, &["--jobs", "1"])).stdout);
    assert!(printed.contains("24 / 24 drives (6 routes, 4 times each) finished"), "{printed}");
    out
}

/// Returns a pseudorandom number below `below` and advances the seed.
fn sample(seed: &mut u64, below: u64) -> u64 {
    *seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    (*seed >> 33) % below
}

fn kill(target: &str) {
    // The process may have ended already, so the status is ignored.
    Command::new("kill").args(["-KILL", "--", target]).stderr(Stdio::null()).status().unwrap();
}

fn complete_results(folder: &Path) -> usize {
    let Ok(entries) = fs::read_dir(folder.join("routes")) else { return 0 };
    let names = entries.map(|entry| entry.unwrap().path());
    let check = |path: &PathBuf| {
        let text = fs::read_to_string(path).unwrap();
        let checkpoint: Checkpoint = serde_json::from_str(&text)
            .unwrap_or_else(|error| panic!("{} is incomplete: {error}", path.display()));
        assert_eq!(checkpoint.entry_status, "Finished");
    };
    names.filter(|path| path.extension().is_some_and(|end| end == "json")).inspect(check).count()
}

#[test]
fn campaign_killed_repeatedly_ends_with_the_same_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let undisturbed = undisturbed(folder.path());
    let (mut seed, mut kills, mut campaigns) = (6, 0, 0);
    // On a fast machine a campaign may end before its third kill; then another campaign is started.
    while kills < 3 {
        let out = folder.path().join(format!("killed{campaigns}"));
        kills += kills_until_done(&out, &mut seed);
        campaigns += 1;
        let printed = text(&done(&eval(&out, &["--jobs", "2"])).stdout);
        assert!(printed.contains("24 / 24 drives"), "{printed}");
        assert!(printed.contains("0 failed by crashes"), "{printed}");
        assert_same(&out, &undisturbed);
        assert_eq!(fs::read_dir(out.join("claims")).unwrap().filter(is_claim).count(), 0);
    }
}

/// Runs a campaign repeatedly and kills it after 5 to 125 ms, until it ends by itself, at most 60
/// times. Returns the number of kills.
fn kills_until_done(out: &Path, seed: &mut u64) -> u32 {
    let mut finished = 0;
    for kills in 0..60 {
        let mut child = piped(&eval(out, &["--jobs", "2"]))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .unwrap();
        std::thread::sleep(Duration::from_millis(5 + sample(seed, 120)));
        if child.try_wait().unwrap().is_some() {
            return kills;
        }
        // Kills the process group at once, as a power failure does, or the parent process only.
        let group = if kills % 2 == 0 { "-" } else { "" };
        kill(&format!("{group}{}", child.id()));
        child.wait().unwrap();
        let now = complete_results(out);
        assert!(now >= finished, "a result was lost: {finished} before, {now} now");
        finished = now;
    }
    60
}

fn is_claim(entry: &std::io::Result<fs::DirEntry>) -> bool {
    !entry.as_ref().unwrap().file_name().to_string_lossy().starts_with('.')
}

#[test]
fn two_campaigns_in_one_folder_share_the_work() {
    let folder = tempfile::tempdir().unwrap();
    let undisturbed = undisturbed(folder.path());
    let out = folder.path().join("crowded");
    let both: Vec<Child> =
        (0..2).map(|_| piped(&eval(&out, &["--jobs", "2", "--json"])).spawn().unwrap()).collect();
    let mut driven = 0;
    for child in both {
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", text(&output.stderr));
        let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(json["campaign"]["finished"], 24);
        driven += json["campaign"]["driven"].as_u64().unwrap();
    }
    assert_eq!(driven, 24, "each drive is driven once");
    assert_same(&out, &undisturbed);
}

/// Arguments of a campaign of one route that takes three seconds of real time.
fn slow<'a>(out: &'a Path, run: &'a Path) -> Vec<&'a str> {
    let eval = ["eval", "--routes", ROUTES, "--only", "11", "--driver", "autopilot"];
    [&eval[..], &["--tick-cap", "60", "--run", path(run), "--out", path(out)]].concat()
}

/// Waits for a worker process other than `not` that
/// drives. Returns `None` if the campaign has ended.
fn driving(campaign: &mut Child, out: &Path, not: u64) -> Option<u64> {
    tandem_testkit::poll::until("a claim", || {
        let claims = (0..9).rev().map(|g| out.join(format!("claims/RouteScenario_11_rep0.{g}")));
        let newest = claims.filter_map(|path| fs::read_to_string(path).ok()).next();
        let claim = newest.map(|text| serde_json::from_str::<serde_json::Value>(&text).unwrap());
        let process = claim.and_then(|claim| claim["holder"]["process"].as_u64());
        match process.filter(|process| *process != not) {
            Some(process) => Some(Some(process)),
            None => campaign.try_wait().unwrap().map(|_| None),
        }
    })
}

/// Output of a slow campaign whose worker was killed `deaths` times while it drove. A campaign that
/// ended earlier is repeated in another folder.
fn killed_while_driving(folder: &Path, deaths: usize) -> String {
    let run = folder.join("wall.yaml");
    fs::write(&run, "clock: wall\n").unwrap();
    let attempt = |attempt: usize| {
        let out = folder.join(format!("{deaths}-{attempt}"));
        let mut child = piped(&slow(&out, &run)).spawn().unwrap();
        let mut last = 0;
        for _ in 0..deaths {
            last = driving(&mut child, &out, last)?;
            kill(&last.to_string());
        }
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", text(&output.stderr));
        let printed = text(&output.stdout);
        printed.contains(&format!("{deaths} workers died now")).then_some(printed)
    };
    (0..50).find_map(attempt).expect("a worker is killed before its drive ends")
}

#[test]
fn dead_worker_is_replaced_and_deadly_drive_is_given_up() {
    let folder = tempfile::tempdir().unwrap();
    let printed = killed_while_driving(folder.path(), 1);
    assert!(
        printed.contains("TickRuntime") && printed.contains("0 failed by crashes"),
        "{printed}"
    );
    let printed = killed_while_driving(folder.path(), 2);
    assert!(printed.contains("Failed - Simulation crashed"), "{printed}");
    assert!(printed.contains("1 / 1 routes finished, driving score 0.00"), "{printed}");
    assert!(printed.contains("1 failed by crashes"), "{printed}");
}

#[test]
fn full_disk_is_one_error_and_the_campaign_resumes() {
    let folder = tempfile::tempdir().unwrap();
    let undisturbed = undisturbed(folder.path());
    let out = folder.path().join("full");
    // A limit on file size simulates a full disk: `run.json` fits, logs do not.
    let fits = fs::metadata(undisturbed.join("run.json")).unwrap().len() / 1024 + 2;
    let script = format!(
        "trap '' XFSZ; ulimit -f {fits}; exec {} {}",
        env!("CARGO_BIN_EXE_tandem"),
        eval(&out, &["--jobs", "2"]).join(" ")
    );
    let output = Command::new("bash")
        .args(["-c", &script])
        .current_dir(tandem_testkit::ROOT)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let printed = text(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{printed}");
    assert_eq!(printed.matches("error:").count(), 1, "{printed}");
    for fragment in ["cannot write", "logs/RouteScenario_", "run the same command again", "because"]
    {
        assert!(printed.contains(fragment), "{fragment:?} is missing in: {printed}");
    }
    for part in ["routes", "logs"] {
        assert_eq!(fs::read_dir(out.join(part)).unwrap().count(), 0, "{part} is not empty");
    }
    done(&eval(&out, &[]));
    assert_same(&out, &undisturbed);
}

#[test]
fn claim_of_another_machine_is_kept_until_taken_over() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    fs::create_dir_all(out.join("claims")).unwrap();
    let claim = r#"{"holder": {"host": "node7", "process": 1, "started": 1, "machine": "m",
                    "boot": "b", "namespace": "n", "since_unix_s": 0}}"#;
    fs::write(out.join("claims/RouteScenario_12_rep0.0"), claim).unwrap();
    let arguments = ["eval", "--routes", ROUTES, "--driver", "autopilot", "--out", path(&out)];
    let output = ended(&arguments, 1);
    let printed = text(&output.stderr);
    assert!(printed.contains("RouteScenario_12_rep0 is held by process 1 on node7"), "{printed}");
    assert!(printed.contains("--take-over"), "{printed}");
    assert!(text(&output.stdout).contains("5 / 6 routes finished"), "{}", text(&output.stdout));
    let output = done(&[&arguments[..], &["--take-over"]].concat());
    let printed = text(&output.stdout);
    assert!(printed.contains("6 / 6 routes finished"), "{printed}");
    assert!(printed.contains("1 driven now, 5 kept from earlier runs"), "{printed}");
}

#[test]
fn merged_shards_equal_one_campaign() {
    let folder = tempfile::tempdir().unwrap();
    let undisturbed = undisturbed(folder.path());
    let shards: Vec<PathBuf> = (1..=3).map(|n| folder.path().join(format!("shard{n}"))).collect();
    for (place, out) in shards.iter().enumerate() {
        let shard = format!("{}/3", place + 1);
        let printed = text(&done(&eval(out, &["--shard", &shard])).stdout);
        assert!(printed.contains("8 / 24 drives"), "{printed}");
    }
    let [first, second, third] = [0, 1, 2].map(|place: usize| path(&shards[place]));
    let merged = folder.path().join("merged");
    let printed = text(&done(&["merge", first, second, third, "--out", path(&merged)]).stdout);
    assert!(printed.contains("24 / 24 drives finished, driving score"), "{printed}");
    assert_same(&merged, &undisturbed);
    // A merged folder can be resumed as a campaign.
    let printed = text(&done(&eval(&merged, &[])).stdout);
    assert!(printed.contains("0 driven now, 24 kept from earlier runs"), "{printed}");
    let score = ["score", path(&merged), "--routes", ROUTES, "--rule", "corrected"];
    assert!(
        text(&done(&score).stdout).contains("24 / 24 drives (6 routes, 4 times each) finished")
    );

    let table = folder.path().join("table.json");
    let printed = ended(&["merge", second, first, "--out", path(&table)], 1);
    let printed = text(&printed.stdout);
    assert!(printed.contains("16 / 24 drives finished"), "{printed}");
    assert!(printed.contains("8 drives have no record: RouteScenario_13_rep0"), "{printed}");
    assert!(table.is_file());

    let refused = |arguments: &[&str], fragments: &[&str]| {
        let printed = text(&ended(arguments, 2).stderr);
        fragments.iter().for_each(|fragment| {
            assert!(printed.contains(fragment), "{fragment:?} is missing in: {printed}")
        });
    };
    let again = folder.path().join("again");
    let out = ["--out", path(&again)];
    refused(&["merge", first, path(&merged), out[0], out[1]], &["more than one record", "shard1"]);
    refused(&["merge", first, "--out", path(&merged)], &["merged", "is not empty"]);
    let other = folder.path().join("other");
    done(&["eval", "--routes", ROUTES, "--driver", "autopilot", "--out", path(&other)]);
    let fragments = ["other", "repetitions is 1, the first has 4"];
    refused(&["merge", first, path(&other), out[0], out[1]], &fragments);
    let foreign = folder.path().join("foreign");
    fs::create_dir(&foreign).unwrap();
    fs::copy(merged.join("routes/RouteScenario_11_rep0.json"), foreign.join("a.json")).unwrap();
    refused(&["merge", first, path(&foreign), out[0], out[1]], &["foreign", "no run.json"]);
    let printed = text(&ended(&["merge", path(&foreign), out[0], out[1]], 1).stdout);
    assert!(printed.contains("1 / 220 drives finished"), "{printed}");
}

#[test]
fn invalid_campaign_numbers_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    let refused = |more: &[&str], fragment: &str| {
        let printed = text(&ended(&eval(&out, more), 2).stderr);
        assert!(printed.contains(fragment), "{fragment:?} is missing in: {printed}");
    };
    refused(&["--shard", "0/4"], "from 1 to 4");
    refused(&["--shard", "half"], "INDEX/COUNT");
    refused(&["--jobs", "0"], "--jobs");
    let run = folder.path().join("run.yaml");
    fs::write(&run, "real_time: { pin_tick: [0] }\n").unwrap();
    refused(&["--jobs", "2", "--run", path(&run)], "--jobs 1");
    assert!(!out.exists(), "the folder was created");
}
