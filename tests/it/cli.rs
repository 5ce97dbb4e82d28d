//! The `tandem` command: demo, export, evaluation, profiles, interruption and invalid input.

use super::command::{self, done, path, piped, run, text};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};

/// Runs a command that must fail with exit code 2 and
/// an error with all `fragments`, without a panic.
#[track_caller]
fn refused(arguments: &[&str], fragments: &[&str]) {
    command::refused(&run(arguments), fragments);
}

/// Synthesizes a tiny checkpoint in `folder`.
fn synth(folder: &Path) -> PathBuf {
    let out = folder.join("checkpoint");
    done(&["checkpoint", "synth", "--config", "configs/tiny.json", "--out", path(&out)]);
    out
}

fn result_file(out: &Path, route: u32) -> PathBuf {
    out.join("routes").join(format!("RouteScenario_{route}_rep0.json"))
}

#[test]
fn demo_runs_every_step() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("demo");
    let printed = done(&["demo", "--ticks", "60", "--out", path(&out)]);
    for fragment in [
        "random weights",
        "1 / 1 routes finished",
        "prefix age: p50 150 ms",
        "misses",
        "report.html",
    ] {
        assert!(printed.contains(fragment), "{fragment:?} is missing in: {printed}");
    }
    assert!(printed.contains("100.00"), "the autopilot completes the route: {printed}");
    let page = fs::read_to_string(out.join("report.html")).unwrap();
    assert!(page.contains("cannot drive") && page.contains("data:image/png"));
    assert!(result_file(&out.join("automot"), 1).is_file());
    // A second demo replaces the first; a folder with other files is refused.
    let json = done(&["demo", "--ticks", "45", "--out", path(&out), "--json"]);
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["autopilot"]["results"]["driving score"], 100.0);
    let foreign = folder.path().join("mine");
    fs::create_dir(&foreign).unwrap();
    fs::write(foreign.join("thesis.txt"), "precious").unwrap();
    refused(&["demo", "--out", path(&foreign)], &["mine", "files that are not a demo's"]);
    assert!(foreign.join("thesis.txt").is_file());
}

#[test]
fn eval_scores_resumes_and_prints_json() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    let arguments =
        ["eval", "--routes", "routes/bends.xml", "--driver", "autopilot", "--out", path(&out)];
    let printed = done(&arguments);
    assert!(printed.contains("2 / 2 routes finished, driving score 100.00"), "{printed}");
    let first = fs::read(out.join("merged.json")).unwrap();
    let json = done(&[&arguments[..], &["--json"]].concat());
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["results"]["eval num"], 2);
    assert_eq!(json["results"]["driving score"], 100.0);
    assert_eq!(
        fs::read(out.join("merged.json")).unwrap(),
        first,
        "a finished route was driven again"
    );
    let mut other = arguments.to_vec();
    other.extend(["--tick-cap", "50"]);
    refused(&other, &["other settings", "tick cap is 50"]);
}

#[test]
fn model_drives_in_real_time() {
    let folder = tempfile::tempdir().unwrap();
    let checkpoint = synth(folder.path());
    let engine = folder.path().join("engine");
    done(&["export", "--checkpoint", path(&checkpoint), "--out", path(&engine), "--check-values"]);
    let run_file = folder.path().join("wall.yaml");
    // Non-default options: the settings of the training, and the position drift of the AutoMoT
    // release.
    let options = "history_spacing_ticks: 10, instruction_mask: trained, positions: release";
    let model = format!("model: {{family: automot, {options}}}\n");
    fs::write(&run_file, format!("clock: wall\nrefresh_period_ticks: 2\n{model}")).unwrap();
    let out = folder.path().join("out");
    let json = done(&[
        "eval",
        "--routes",
        "routes/demo.xml",
        "--driver",
        "automot",
        "--engine",
        path(&engine),
        "--run",
        path(&run_file),
        "--tick-cap",
        "60",
        "--out",
        path(&out),
        "--json",
    ]);
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    // The number of answered ticks and of published prefills depends on the machine.
    let pilot = &json["pilot"];
    let count = |name: &str| pilot[name].as_u64().unwrap_or_else(|| panic!("no {name}: {pilot}"));
    assert!((1..=61).contains(&count("ticks")), "{pilot}");
    assert_eq!((count("refreshes_failed"), count("trajectories_not_finite")), (0, 0), "{pilot}");
    count("ticks_unanswered"); // Present, with any value.
    let running = count("refreshes_started") - count("refreshes_published");
    assert!(running <= 1, "{pilot}");
}

#[cfg(unix)]
#[test]
fn ctrl_c_keeps_finished_routes_and_eval_resumes() {
    let folder = tempfile::tempdir().unwrap();
    let run_file = folder.path().join("wall.yaml");
    fs::write(&run_file, "clock: wall\n").unwrap();
    let routes = tandem_routes();
    for attempt in 0..50 {
        // In real time each route takes a second, so that the second one can be interrupted.
        let out = folder.path().join(format!("out{attempt}"));
        let eval = ["eval", "--routes", "routes/bends.xml", "--driver", "autopilot"];
        let options = ["--run", path(&run_file), "--tick-cap", "20", "--out", path(&out)];
        let arguments = [&eval[..], &options].concat();
        let child = piped(&arguments).spawn().unwrap();
        let first = result_file(&out, routes[0]);
        tandem_testkit::poll::until("the first result", || first.exists().then_some(()));
        interrupt(&child);
        let output = child.wait_with_output().unwrap();
        if output.status.success() && result_file(&out, routes[1]).exists() {
            continue; // The signal arrived after the second route.
        }
        let printed = text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{printed}");
        // A machine that needs more than two seconds for the summary prints none.
        assert!(printed.contains("interrupted: "), "{printed}");
        if printed.contains("interrupted: finished routes are kept") {
            assert!(text(&output.stdout).contains("1 / 2 routes finished"));
        }
        assert!(!result_file(&out, routes[1]).exists(), "an interrupted route has no result");
        assert!(done(&arguments).contains("2 / 2 routes finished"));
        return;
    }
    panic!("every signal arrived after the second route");
}

#[cfg(unix)]
fn tandem_routes() -> Vec<u32> {
    let routes = Path::new(tandem_testkit::ROOT).join("routes/bends.xml");
    tandem_evaluation::routes::read_routes(&routes)
        .unwrap()
        .iter()
        .map(|route| route.id.as_str().parse().unwrap())
        .collect()
}

#[cfg(unix)]
fn interrupt(child: &Child) {
    let status = Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(status.success());
}

#[cfg(unix)]
#[test]
fn failed_export_leaves_no_folder() {
    let folder = tempfile::tempdir().unwrap();
    let checkpoint = synth(folder.path());
    let out = folder.path().join("engine");
    // A limit on file size simulates a full disk: writing fails at the same place.
    let script = format!(
        "trap '' XFSZ; ulimit -f 10000; exec {} export --checkpoint {} --out {}",
        env!("CARGO_BIN_EXE_tandem"),
        checkpoint.display(),
        out.display()
    );
    let output = Command::new("bash").args(["-c", &script]).output().unwrap();
    let error = text(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{error}");
    assert!(error.contains("cannot write") && error.contains("weights.bin"), "{error}");
    let left: Vec<_> =
        fs::read_dir(folder.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(left, ["checkpoint"], "a partial folder is left");
}

#[test]
fn broken_run_files_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let run_file = folder.path().join("run.yaml");
    let out = folder.path().join("out");
    let check = |content: &str, fragments: &[&str]| {
        fs::write(&run_file, content).unwrap();
        let arguments = [
            "eval",
            "--routes",
            "routes/demo.xml",
            "--driver",
            "autopilot",
            "--run",
            path(&run_file),
            "--out",
            path(&out),
        ];
        refused(&arguments, fragments);
    };
    check("sede: 3\n", &["run.yaml", "sede"]);
    check("act_budget_millis: 60\n", &["60 ms", "50 ms tick"]);
    check("seed: [1\n", &["run.yaml"]);
    check("device: tpu\n", &["run.yaml", "\"tpu\"", "cuda:N"]);
    check("fast_share: 1.5\n", &["fast_share is 1.5", "below 1"]);
    check("keep_warm_millis: 0\n", &["keep_warm_millis is 0"]);
    check("tick_guard_millis: 51\n", &["tick_guard_millis is 51"]);
    check("model: {family: someone}\n", &["someone", "automot"]);
    check("model: {family: automot, position: trained}\n", &["position", "positions"]);
    check("jpeg_quality: 0\n", &["jpeg_quality", "is 0", "1 to 100"]);
    assert!(!out.exists(), "the folder was created");
}

#[test]
fn broken_route_files_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let routes = folder.path().join("routes.xml");
    let out = folder.path().join("out");
    let good =
        fs::read_to_string(Path::new(tandem_testkit::ROOT).join("routes/straight.xml")).unwrap();
    let check = |content: &str, fragments: &[&str]| {
        fs::write(&routes, content).unwrap();
        let arguments =
            ["eval", "--routes", path(&routes), "--driver", "autopilot", "--out", path(&out)];
        refused(&arguments, fragments);
    };
    check(&good[..good.len() / 2], &["routes.xml"]);
    check("", &["routes.xml"]);
    let start = good.find("<waypoints>").unwrap();
    let end = good.find("</waypoints>").unwrap();
    check(
        &format!("{}{}", &good[..start + "<waypoints>".len()], &good[end..]),
        &["routes.xml", "at least 2"],
    );
    refused(
        &["eval", "--routes", "no-such.xml", "--driver", "autopilot", "--out", path(&out)],
        &["no-such.xml"],
    );
}

#[test]
fn broken_checkpoints_are_refused_before_writing() {
    let folder = tempfile::tempdir().unwrap();
    let checkpoint = synth(folder.path());
    let out = folder.path().join("engine");
    let weights = checkpoint.join("model.safetensors");
    let original = fs::read(&weights).unwrap();
    let export = ["export", "--checkpoint", path(&checkpoint), "--out", path(&out)];
    let check = |bytes: &[u8], fragments: &[&str]| {
        fs::write(&weights, bytes).unwrap();
        refused(&export, fragments);
        assert!(!out.exists(), "the folder was created");
    };
    check(&original[..original.len() - 1000], &["model.safetensors"]);
    check(
        &[&u64::MAX.to_le_bytes()[..], &original[8..]].concat(),
        &["model.safetensors", "header"],
    );
    check(b"short", &["model.safetensors"]);
    let header = u64::from_le_bytes(original[..8].try_into().unwrap()) as usize;
    let renamed = text(&original[8..8 + header]).replacen(
        "route_head.mlp.0.bias",
        "route_head.mlp.0.bios",
        1,
    );
    check(
        &[&original[..8], renamed.as_bytes(), &original[8 + header..]].concat(),
        &["route_head.mlp.0.bias"],
    );
    fs::write(&weights, &original).unwrap();
    let config = checkpoint.join("config.json");
    let sizes = fs::read_to_string(&config).unwrap();
    fs::write(&config, sizes.replacen("\"hidden_size\"", "\"hiden_size\"", 1)).unwrap();
    refused(&export, &["config.json", "hidden_size"]);
    refused(&["export", "--checkpoint", "no-such", "--out", path(&out)], &["no-such"]);
}

#[test]
fn export_warns_of_weights_that_are_not_finite() {
    let folder = tempfile::tempdir().unwrap();
    let checkpoint = synth(folder.path());
    let weights = checkpoint.join("model.safetensors");
    let mut bytes = fs::read(&weights).unwrap();
    let header = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let tensors: serde_json::Value = serde_json::from_slice(&bytes[8..header]).unwrap();
    let place = &tensors["route_head.mlp.0.weight"]["data_offsets"][0];
    let at = header + place.as_u64().unwrap() as usize;
    bytes[at..at + 4].copy_from_slice(&f32::NAN.to_le_bytes());
    fs::write(&weights, bytes).unwrap();
    let out = folder.path().join("engine");
    let arguments = ["export", "--checkpoint", path(&checkpoint), "--out", path(&out)];
    let output = run(&[&arguments[..], &["--check-values"]].concat());
    let printed = text(&output.stderr);
    assert!(output.status.success(), "{printed}");
    assert!(
        printed.contains("warning") && printed.contains("route_head.mlp.0.weight"),
        "{printed}"
    );
}

#[test]
fn export_warns_of_sparse_weights() {
    let folder = tempfile::tempdir().unwrap();
    let checkpoint = folder.path().join("checkpoint");
    let synth = ["checkpoint", "synth", "--config", "configs/tiny.json", "--sparse"];
    done(&[&synth[..], &["--out", path(&checkpoint)]].concat());
    let out = folder.path().join("engine");
    let output = run(&["export", "--checkpoint", path(&checkpoint), "--out", path(&out)]);
    let printed = text(&output.stderr);
    assert!(output.status.success(), "{printed}");
    assert!(printed.contains("warning") && printed.contains("is sparse"), "{printed}");
}

#[test]
fn missing_or_inconsistent_engine_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    let eval = |engine: &[&str], fragments: &[&str]| {
        let common =
            ["eval", "--routes", "routes/demo.xml", "--driver", "automot", "--out", path(&out)];
        refused(&[&common[..], engine].concat(), fragments);
    };
    eval(&[], &["--engine", "tandem export"]);
    eval(&["--engine", "no-such-engine"], &["no-such-engine", "tandem export"]);
    // The BEV encoder of the golden checkpoint has other output channels than its action expert
    // expects.
    let engine = folder.path().join("engine");
    done(&["export", "--checkpoint", "tests/data/automot", "--out", path(&engine)]);
    eval(&["--engine", path(&engine)], &["bev_tokens", "368", "1512"]);
}

#[test]
fn doctor_lists_every_part_and_what_it_enables() {
    let printed = done(&["doctor"]);
    for item in ["CPU", "ONNX Runtime", "TensorRT-RTX", "CARLA client", "driver"] {
        assert!(printed.contains(item), "{item} is missing in: {printed}");
    }
    let json: serde_json::Value = serde_json::from_str(&done(&["doctor", "--json"])).unwrap();
    assert!(json.as_array().unwrap().iter().all(|finding| !finding["allows"].is_null()));
}

#[test]
fn roofline_predicts_from_configuration_and_engine() {
    let printed = done(&["roofline", "--config", "configs/full.json", "--device", "H200"]);
    for fragment in
        ["PREDICTED", "datasheet", "no network was run", "2038509952", "memory", "0.858"]
    {
        assert!(printed.contains(fragment), "{fragment:?} is missing in: {printed}");
    }

    let folder = tempfile::tempdir().unwrap();
    let checkpoint = synth(folder.path());
    let engine = folder.path().join("engine");
    done(&["export", "--checkpoint", path(&checkpoint), "--out", path(&engine)]);
    let predict = |networks: &[&str], cached: &str| -> serde_json::Value {
        let rest = ["--device", "a100", "--frames-cached", cached, "--json"];
        serde_json::from_str(&done(&[&["roofline"], networks, &rest].concat())).unwrap()
    };
    let configured = predict(&["--config", "configs/tiny.json", "--precision", "f32"], "1");
    let exported = predict(&["--engine", path(&engine)], "1");
    assert_eq!(configured, exported, "an export and its configuration have equal costs");
    assert_eq!(configured["kind"], "predicted");
    assert_eq!(configured["floors"]["stages"][0]["runs"], 3);
    let fewer = predict(&["--engine", path(&engine)], "4");
    assert!(fewer["floors"]["refresh_ms"].as_f64() < configured["floors"]["refresh_ms"].as_f64());

    let engine = path(&engine);
    let config = "configs/tiny.json";
    refused(&["roofline", "--config", config, "--device", "h300"], &["h300", "h200", "rtx4090"]);
    refused(&["roofline", "--device", "h200"], &["--config", "--engine"]);
    refused(
        &["roofline", "--engine", engine, "--device", "h200", "--frames-cached", "5"],
        &["--frames-cached 5", "4 frames"],
    );
    refused(&["roofline", "--engine", engine, "--device", "thor"], &["f32", "thor", "bf16"]);
    refused(&["roofline", "--engine", "nowhere", "--device", "h200"], &["nowhere", "export"]);
    refused(
        &["roofline", "--config", config, "--device", "measured:configs/tiny.json"],
        &["configs/tiny.json is not a measurement", "doctor --measure"],
    );
    refused(&["doctor", "--threads", "2"], &["--measure"]);
}

#[test]
fn measured_machine_is_a_device() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("machine.json");
    let out = ["doctor", "--measure", "--threads", "1", "--out", path(&file), "--json"];
    let json: serde_json::Value = serde_json::from_str(&done(&out)).unwrap();
    let written: serde_json::Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    assert_eq!(json, written);
    assert!(json["not_measured"][0].as_str().unwrap().contains("GPU"), "{json}");
    let device = format!("measured:{}", path(&file));
    let printed = done(&["roofline", "--config", "configs/tiny.json", "--device", &device]);
    assert!(printed.contains("PREDICTED from measured rates"), "{printed}");
    assert!(!printed.contains("bf16"), "a CPU has no rate in bf16: {printed}");

    // The same machine with a second core, which doubles every rate.
    let mut two = written;
    for (samples, rate) in [("memory", "best_bytes_per_s"), ("matrices", "best_flops_per_s")] {
        let samples = two[samples].as_array_mut().unwrap();
        let mut doubled = samples.clone();
        for sample in &mut doubled {
            sample["threads"] = 2.into();
            sample[rate] = (2.0 * sample[rate].as_f64().unwrap()).into();
        }
        samples.extend(doubled);
    }
    fs::write(&file, two.to_string()).unwrap();
    let tick_ms = |threads: &[&str]| {
        let config = ["roofline", "--config", "configs/tiny.json", "--device", &device, "--json"];
        let printed: serde_json::Value =
            serde_json::from_str(&done(&[&config, threads].concat())).unwrap();
        printed["floors"]["tick_ms"].as_f64().unwrap()
    };
    let [one, both] = [tick_ms(&["--threads", "1"]), tick_ms(&["--threads", "2"])];
    assert!((one / both - 2.0).abs() < 1e-9, "{one} ms with one thread, {both} with two");
    assert_eq!(tick_ms(&[]), both);
}

/// `cargo run` selects the binary by the only `default-run` in the workspace; a second one would
/// make the README's main command ambiguous.
#[test]
fn cargo_run_defaults_to_tandem() {
    let root = Path::new(tandem_testkit::ROOT);
    let crates = fs::read_dir(root.join("crates")).unwrap().map(|entry| entry.unwrap().path());
    let chosen: Vec<String> = [".", "export", "benchmarks"]
        .into_iter()
        .map(|package| root.join(package))
        .chain(crates)
        .map(|package| fs::read_to_string(package.join("Cargo.toml")).unwrap())
        .flat_map(|manifest| manifest.lines().map(str::to_owned).collect::<Vec<_>>())
        .filter(|line| line.starts_with("default-run"))
        .collect();
    assert_eq!(chosen, ["default-run = \"tandem\""]);
}

/// Exports networks with small images, so that a tick takes milliseconds.
fn small_engine(folder: &Path) -> PathBuf {
    let (checkpoint, engine) = (folder.join("small"), folder.join("engine"));
    done(&["checkpoint", "synth", "--config", "configs/soak.json", "--out", path(&checkpoint)]);
    done(&["export", "--checkpoint", path(&checkpoint), "--out", path(&engine)]);
    engine
}

#[test]
fn profile_lists_every_stage_and_writes_its_files() {
    let folder = tempfile::tempdir().unwrap();
    let engine = small_engine(folder.path());
    let [out, trace, page] =
        ["latency.json", "trace.json", "page.html"].map(|name| folder.path().join(name));
    let common = ["profile", "--engine", path(&engine), "--warm-up", "2", "--observations", "20"];
    let printed = done(
        &[
            &common[..],
            &["--ticks", "30", "--out", path(&out), "--trace", path(&trace), "--operators"],
            &["--html", path(&page), "--device", "rtx4090"],
        ]
        .concat(),
    );
    for fragment in [
        "at the real period, with idle gaps (after 2 warm-up ticks)",
        "    state filter",
        "(rest of tick)",
        "networks alone, and in the loop",
        "overhead of the profiler",
        "first command computed from a prefix",
        "PREDICTED from its datasheet",
        "layer.0",
        "(between operators)",
    ] {
        assert!(printed.contains(fragment), "{fragment:?} is missing in: {printed}");
    }
    let file: serde_json::Value = serde_json::from_str(&fs::read_to_string(&out).unwrap()).unwrap();
    let phases = file["phases"].as_array().unwrap();
    let names: Vec<_> = phases.iter().map(|phase| phase["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["paced", "back_to_back", "action_alone", "understanding_alone"]);
    for phase in &phases[..3] {
        assert_eq!(phase["statistics"]["ticks"], 30);
        // Every tick has its stages and their rest.
        let count = |histogram: &serde_json::Value| -> u64 {
            let buckets = histogram["buckets"].as_array().unwrap();
            buckets.iter().map(|bucket| bucket[1].as_u64().unwrap()).sum()
        };
        for part in ["state filter", "planner", "bev", "action", "trajectory", "control"] {
            assert_eq!(count(&phase["statistics"]["stages"][part]), 30, "{part}");
        }
        assert_eq!(count(&phase["statistics"]["rests"]["tick"]), 30);
    }
    assert!(fs::read_to_string(&page).unwrap().contains("Roofline"));
    let timeline: serde_json::Value =
        serde_json::from_str(&fs::read_to_string(&trace).unwrap()).unwrap();
    let events = timeline["traceEvents"].as_array().unwrap();
    assert!(events.iter().filter(|event| event["name"] == "tick").count() >= 90);

    let json = done(
        &[
            &common[..],
            &["--ticks", "5", "--phases", "back-to-back", "--json"],
            &["--out", path(&out)],
        ]
        .concat(),
    );
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["phases"][0]["stages"]["tick"]["count"], 5);
}

#[test]
fn profile_on_a_separate_device_shows_copies() {
    let folder = tempfile::tempdir().unwrap();
    let engine = small_engine(folder.path());
    let emulated = folder.path().join("emulated.yaml");
    fs::write(&emulated, "device: emulated\n").unwrap();
    let profile = ["profile", "--engine", path(&engine), "--run", path(&emulated), "--json"];
    let few = ["--ticks", "5", "--warm-up", "1", "--observations", "2", "--phases", "back-to-back"];
    let json: serde_json::Value =
        serde_json::from_str(&done(&[&profile[..], &few].concat())).unwrap();
    let stages = &json["phases"][0]["stages"];
    for stage in ["upload", "bev", "action", "download"] {
        assert_eq!(stages[stage]["count"], 5, "{stage}");
    }

    // On every device except the host, engines first pass their golden run, if they have one.
    let again = [&profile[..], &few].concat();
    let warned = run(&again);
    assert!(text(&warned.stderr).contains("has no golden run"), "{}", text(&warned.stderr));
    done(&["verify", "--engine", path(&engine), "--reference", path(&engine), "--prompts", "1"]);
    let golden = engine.join("golden.json");
    let passed = run(&again);
    assert!(passed.status.success() && !text(&passed.stderr).contains("golden run"));
    let mut kept: serde_json::Value =
        serde_json::from_str(&fs::read_to_string(&golden).unwrap()).unwrap();
    kept["routes"][1][4] = serde_json::json!(1000.0);
    fs::write(&golden, kept.to_string()).unwrap();
    refused(&again, &["fail their golden run on an emulated device", "a route point is"]);
    kept["graphs_sha256"]["bev"] = serde_json::json!("0");
    fs::write(&golden, kept.to_string()).unwrap();
    refused(&again, &["golden.json", "another graph of network \"bev\"", "tandem verify"]);
    fs::write(&golden, "{").unwrap();
    refused(&again, &["golden.json", "tandem verify"]);
}

#[test]
fn impossible_profiles_are_refused_with_a_reason() {
    let folder = tempfile::tempdir().unwrap();
    let nowhere = folder.path().join("nowhere");
    refused(&["profile", "--engine", path(&nowhere)], &["nowhere", "tandem export"]);
    let engine = small_engine(folder.path());
    let with = |more: &[&str], fragments: &[&str]| {
        refused(&[&["profile", "--engine", path(&engine)], more].concat(), fragments);
    };
    with(&["--ticks", "0"], &["--ticks", "1 or more"]);
    with(&["--device", "abacus"], &["abacus", "rtx4090"]);
    with(&["--run", path(&nowhere)], &["nowhere"]);
    #[cfg(not(feature = "cuda"))]
    {
        let run = folder.path().join("gpu.yaml");
        fs::write(&run, "device: cuda:0\n").unwrap();
        with(&["--run", path(&run)], &["cannot use a GPU", "--features cuda"]);
    }
    let out = ["--ticks", "2", "--warm-up", "0", "--observations", "1", "--phases", "back-to-back"];
    with(&[&out[..], &["--out", "/proc/nowhere/latency.json"]].concat(), &["/proc/nowhere"]);
}
