//! Times per operator of each network. Measured in separate runs, because the measurement slows
//! them.

use super::Profiling;
use crate::print;
use anyhow::Context;
use std::sync::Arc;
use tandem::engine::{Engine, OperatorProfile, PartTime};
use tandem::runtime::Loaded;
use tandem_profile::{LoopOptions, PhaseName, PrefillOptions, Replay, run_loop, run_prefills};

/// Measured runs of each network.
const RUNS: u64 = 50;

/// Runs before the measured ones.
const WARM_UP: u64 = 10;

/// Layers per row for networks with many layers.
const LAYERS_PER_GROUP: usize = 6;

/// Number of operators in the list of the slowest.
const SLOWEST: usize = 8;

/// Runs each expert alone and measures its operators.
pub(super) fn measure(profiling: &Profiling<'_>) -> anyhow::Result<Vec<OperatorProfile>> {
    let run = profiling.run.clone();
    let folder = profiling.arguments.out.with_extension("operators");
    let engine = &profiling.arguments.engine;
    let model = Loaded::open_measuring(engine, &run, &folder, &mut print::note)?;
    let mut alone = run.clone();
    alone.refresh_period_ticks = super::NEVER;
    let mut pilot = model.pilot(profiling.plan, &alone)?;
    let options = LoopOptions {
        name: PhaseName::ActionAlone,
        period: run.tick,
        budget: run.act_budget,
        warm_up: WARM_UP,
        ticks: RUNS,
    };
    let mut replay = Replay::new(profiling.observations.clone());
    run_loop(&mut *pilot, &mut replay, &options, &profiling.cancel, &mut |_| {})?;
    drop(pilot);
    let mut expert = model.slow_expert(profiling.plan)?;
    let options =
        PrefillOptions { frames: run.refresh_period_ticks, warm_up: WARM_UP, refreshes: RUNS };
    run_prefills(&mut *expert, &mut replay, &options, &profiling.cancel, &mut |_, _| {})?;
    let end = |engine: &Arc<dyn Engine>| {
        let profile = engine.end_operator_profile(WARM_UP);
        let profile = profile.context("this back end cannot measure single operators")?;
        Ok(profile?)
    };
    model.engines().into_iter().map(end).collect()
}

/// Formats the parts of each network and its slowest operators as tables.
pub(super) fn tables(profiles: &[OperatorProfile]) -> String {
    profiles.iter().map(table).collect::<Vec<_>>().join("\n\n")
}

fn table(profile: &OperatorProfile) -> String {
    let per_run = |ns: i64| print::three_digits(ns as f64 / profile.runs.max(1) as f64 / 1e6);
    let share = |ns: i64| format!("{:.1}", 100.0 * ns as f64 / profile.run_total_ns.max(1) as f64);
    let row = |name: &str, ns: i64| vec![name.to_owned(), per_run(ns), share(ns)];
    let mut rows: Vec<Vec<String>> = parts(profile)
        .iter()
        .map(|part| row(part.part.as_deref().unwrap_or("(no part)"), part.total_ns as i64))
        .collect();
    rows.push(row("(between operators)", profile.residual_ns()));
    rows.push(row("complete run", profile.run_total_ns as i64));
    let mut slowest: Vec<_> = profile.operators.iter().collect();
    slowest.sort_by_key(|operator| std::cmp::Reverse(operator.total_ns));
    let slow: Vec<Vec<String>> = slowest
        .into_iter()
        .take(SLOWEST)
        .map(|operator| {
            let mut cells = row(&operator.node, operator.total_ns as i64);
            cells.insert(1, operator.op_type.clone());
            cells
        })
        .collect();
    let cut_short = if profile.cut_short {
        "; the library's event buffer was full, later runs are missing"
    } else {
        ""
    };
    format!(
        "{}, operators measured by ONNX Runtime ({} runs, slowed by the measurement{cut_short})\n{}\n\n{}",
        profile.network,
        profile.runs,
        print::table(&["part", "ms per run", "%"], &rows),
        print::table(&["slowest operators", "type", "ms per run", "%"], &slow)
    )
}

/// Returns the parts of a network, with layers in groups if there are many.
fn parts(profile: &OperatorProfile) -> Vec<PartTime> {
    let parts = profile.parts();
    if parts.len() <= 3 * LAYERS_PER_GROUP {
        return parts;
    }
    profile.layer_groups("layer", LAYERS_PER_GROUP)
}

/// Formats the operator profiles as JSON.
pub(super) fn to_json(profiles: &[OperatorProfile]) -> serde_json::Value {
    let one = |profile: &OperatorProfile| {
        let parts: Vec<_> = profile
            .parts()
            .iter()
            .map(|part| {
                serde_json::json!({
                    "part": part.part, "operators": part.operators, "total_ns": part.total_ns,
                })
            })
            .collect();
        serde_json::json!({
            "network": profile.network,
            "runs": profile.runs,
            "run_total_ns": profile.run_total_ns,
            "between_operators_ns": profile.residual_ns(),
            "is_cut_short": profile.cut_short,
            "parts": parts,
        })
    };
    profiles.iter().map(one).collect()
}
