//! `tandem report` on a folder of `tandem eval`.

use super::command::{done, path, run};

/// Runs a command that must fail; returns its error.
#[track_caller]
fn refused(arguments: &[&str]) -> String {
    let output = run(arguments);
    assert_eq!(output.status.code(), Some(2), "{arguments:?}");
    String::from_utf8(output.stderr).unwrap()
}

#[test]
fn results_become_a_page_and_mcap_files() {
    let folder = tempfile::tempdir().unwrap();
    let results = folder.path().join("results");
    let routes = "routes/demo.xml";
    done(&["eval", "--routes", routes, "--driver", "autopilot", "--out", path(&results)]);
    let by_eval = std::fs::read_to_string(results.join("report.html")).unwrap();
    assert!(by_eval.contains("1 / 1 routes finished") && by_eval.contains("<td>corrected</td>"));
    assert!(by_eval.contains("are not CARLA scores"));

    let page = folder.path().join("page.html");
    let printed = done(&["report", path(&results), "--routes", routes, "--out", path(&page)]);
    assert!(printed.contains("page.html"), "{printed}");
    let by_report = std::fs::read_to_string(&page).unwrap();
    // The page names run and machine of the drive, not of the report.
    assert!(by_report.contains("tandem eval --routes routes/demo.xml --driver autopilot"));
    let replay = |page: &str| {
        let start = page.find("id=\"replay-0\">").unwrap();
        page[start..].split("</script>").next().unwrap().to_owned()
    };
    assert_eq!(replay(&by_eval), replay(&by_report));

    // In folders of earlier versions AutoMoT's options are among the keys of the run.
    std::fs::remove_file(results.join("facts.json")).unwrap();
    let reported = || {
        done(&["report", path(&results), "--routes", routes, "--out", path(&page)]);
        std::fs::read_to_string(&page).unwrap()
    };
    let now = reported();
    assert!(now.contains("lockstep: "), "the clock, as text");
    let run = results.join("run.json");
    let was = std::fs::read_to_string(&run).unwrap();
    let earlier = was.replacen(r#"\"seed\":"#, r#"\"positions\":\"trained\",\"seed\":"#, 1);
    assert_ne!(earlier, was);
    std::fs::write(&run, earlier).unwrap();
    assert!(reported().contains("lockstep: "));

    let mcaps = folder.path().join("mcaps");
    let printed = done(&["report", path(&results), "--mcap", path(&mcaps)]);
    assert!(printed.contains("messages"), "{printed}");
    let files: Vec<_> =
        std::fs::read_dir(&mcaps).unwrap().map(|file| file.unwrap().path()).collect();
    assert_eq!(files.len(), 1);
    let bytes = std::fs::read(&files[0]).unwrap();
    assert!(mcap::MessageStream::new(&bytes).unwrap().all(|message| message.is_ok()));
}

#[test]
fn report_of_unusable_folder_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let nowhere = folder.path().join("nowhere");
    assert!(refused(&["report", path(&nowhere)]).contains("nowhere"));
    let empty = refused(&["report", path(folder.path())]);
    assert!(empty.contains("a run.json") && empty.contains("tandem eval"), "{empty}");

    let results = folder.path().join("results");
    let eval = ["eval", "--routes", "routes/demo.xml", "--driver", "autopilot", "--out"];
    done(&[&eval[..], &[path(&results), "--tick-cap", "20"]].concat());
    let other = refused(&["report", path(&results), "--routes", "routes/bends.xml"]);
    assert!(other.contains("SHA-256"), "{other}");
    let absent = refused(&["report", path(&results), "--only", "77"]);
    assert!(absent.contains("of the routes in --only"), "{absent}");

    let log = std::fs::read_dir(results.join("logs")).unwrap().next().unwrap().unwrap().path();
    let json = std::fs::read_to_string(&log).unwrap();
    std::fs::write(&log, json.replacen("\"format\":2", "\"format\":3", 1)).unwrap();
    let newer = refused(&["report", path(&results)]);
    assert!(newer.contains("RouteScenario") && newer.contains("this log has format 3"), "{newer}");
    std::fs::write(results.join("sweep.json"), "{}").unwrap();
    std::fs::write(&log, &json).unwrap();
    let swept = refused(&["report", path(&results)]);
    assert!(swept.contains("sweep.json") && swept.contains("is not a sweep"), "{swept}");
}
