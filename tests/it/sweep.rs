//! `tandem sweep`: a grid of latencies, interrupted, resumed and refused.

use super::command::run;
use std::fs;
use std::path::Path;
use tandem_evaluation::report::sweep::{FORMAT, Sweep};

/// Runs a sweep over the two routes with bends that ends after a few ticks.
fn sweep(out: &Path, more: &[&str]) -> (Option<i32>, Sweep, String) {
    let out_folder = out.to_str().unwrap();
    let mut arguments = vec!["sweep", "--routes", "routes/bends.xml", "--driver", "autopilot"];
    arguments.extend([
        "--slow",
        "0,300",
        "--fast",
        "0,51",
        "--tick-cap",
        "120",
        "--out",
        out_folder,
    ]);
    arguments.extend(more);
    let output = run(&arguments);
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    let json = fs::read(out.join("sweep.json"));
    let json = json.unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&output.stderr)));
    (output.status.code(), serde_json::from_slice(&json).unwrap(), printed)
}

#[test]
fn every_cell_drives_the_same_routes_and_seeds() {
    let folder = tempfile::tempdir().unwrap();
    let (code, sweep, printed) = sweep(folder.path(), &["--repetitions", "2"]);
    assert_eq!(code, Some(0));
    assert_eq!((sweep.format, sweep.finished, sweep.total), (FORMAT, 16, 16));
    assert_eq!((sweep.routes, sweep.repetitions, sweep.base), (2, 2, Some(0)));
    let [zero, late, old, both] = &sweep.cells[..] else { panic!("{} cells", sweep.cells.len()) };
    assert_eq!(
        [zero, late, old, both].map(|cell| (cell.slow, cell.fast)),
        [(0, 0), (0, 1), (1, 0), (1, 1)]
    );
    let misses =
        |cell: &tandem_evaluation::report::sweep::Cell| cell.deadline_miss_rate.unwrap().value;
    assert_eq!((misses(zero), misses(late), misses(old)), (0.0, 1.0, 0.0), "51 ms are late");
    let age = |cell: &tandem_evaluation::report::sweep::Cell| cell.age.unwrap();
    assert_eq!((age(zero).ms.p99, age(late).ms.p50), (0.0, 100.0));
    // A prefill begins every 300 ms and is visible 300 ms later.
    assert_eq!((age(old).ms.p50, age(old).ms.p99), (400.0, 550.0));
    assert_eq!(age(both).ticks.p99, 13.0);
    assert!(age(old).meters.p99 > 1.0);
    let same = zero.difference.as_ref().unwrap();
    assert_eq!((same.pairs, same.driving_score.value), (4, 0.0));
    assert!(sweep.note.contains("not CARLA scores"));
    for fragment in ["16 of 16 drives finished", "not CARLA scores", "driving score"] {
        assert!(printed.contains(fragment), "{fragment:?} is missing in: {printed}");
    }
    let page = fs::read_to_string(folder.path().join("sweep.html")).unwrap();
    roxmltree::Document::parse_with_options(
        &page,
        roxmltree::ParsingOptions { allow_dtd: true, ..Default::default() },
    )
    .unwrap();
    assert!(page.contains("16 / 16") && page.contains("driver autopilot"));
}

#[test]
fn cell_without_latency_equals_the_plain_benchmark() {
    let folder = tempfile::tempdir().unwrap();
    let (swept, plain) = (folder.path().join("swept"), folder.path().join("plain"));
    sweep(&swept, &[]);
    let output = run(&[
        "eval",
        "--routes",
        "routes/bends.xml",
        "--driver",
        "autopilot",
        "--tick-cap",
        "120",
        "--out",
        plain.to_str().unwrap(),
    ]);
    assert_eq!(output.status.code(), Some(0));
    for entry in fs::read_dir(plain.join("routes")).unwrap() {
        let path = entry.unwrap().path();
        let ours = swept.join("slow=0,fast=0/routes").join(path.file_name().unwrap());
        assert_eq!(fs::read(ours).unwrap(), fs::read(path).unwrap());
    }
}

#[test]
fn interrupted_sweep_resumes_with_the_same_result() {
    let folder = tempfile::tempdir().unwrap();
    let (_, expected, _) = sweep(folder.path(), &[]);
    let bytes = fs::read(folder.path().join("sweep.json")).unwrap();
    let name = "RouteScenario_3_rep0.json";
    let lost = folder.path().join("slow=300,fast=51/routes").join(name);
    let lost_log = folder.path().join("slow=300,fast=51/logs").join(name);
    fs::remove_file(&lost).unwrap();
    fs::write(&lost_log, "{").unwrap();
    let (code, again, _) = sweep(folder.path(), &["--jobs", "2"]);
    assert_eq!((code, again), (Some(0), expected));
    assert_eq!(fs::read(folder.path().join("sweep.json")).unwrap(), bytes);
}

#[test]
fn incomplete_sweep_is_reported() {
    let folder = tempfile::tempdir().unwrap();
    let (_, sweep, printed) = sweep(folder.path(), &["--shard", "1/2"]);
    assert_eq!((sweep.finished, sweep.total), (4, 8));
    assert!(printed.contains("4 of 8 drives finished"), "{printed}");
}

#[test]
fn invalid_grid_is_refused_with_a_reason() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().to_str().unwrap();
    let refused = |slow: &str, fragment: &str| {
        let output = run(&[
            "sweep",
            "--routes",
            "routes/bends.xml",
            "--driver",
            "autopilot",
            "--slow",
            slow,
            "--out",
            out,
        ]);
        let message = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{message}");
        assert!(message.contains(fragment) && message.lines().count() <= 2, "{message}");
    };
    refused("0,quick", "\"quick\" is not a latency");
    refused("0,0", "0 twice");
    refused("0,-5", "between 0 and 60000 ms");
    refused("file:nowhere.json", "tandem profile");
}
