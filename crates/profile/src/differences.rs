//! Facts other than latencies that differ between compared profiles.

use super::latency_file::{LatencyFile, PhaseName};
use serde::Serialize;
use serde_json::Value;
use std::collections::BTreeMap;

/// A fact other than a latency that is not the same in all files.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Difference {
    /// Name of the fact, e.g. `machine: cores`.
    pub what: String,
    pub a: String,
    pub b: String,
}

/// Load averages within this distance count as equal: a profile itself causes as much.
const NEAR_LOAD: f64 = 0.5;

/// Shares of the processor time within this distance count as equal.
const NEAR_SHARE: f64 = 0.05;

/// Machine facts that vary between profiles of one machine; the load is compared separately.
const VARYING: [&str; 2] = ["clocks", "load at the start"];

const ABSENT: &str = "absent";

/// Returns facts that are not the same in all files, loads first. All files must have the phase.
pub(super) fn differences(sides: [&[&LatencyFile]; 2], phase: PhaseName) -> Vec<Difference> {
    let facts = sides.map(|files| files.iter().map(|file| facts(file, phase)).collect::<Vec<_>>());
    let mut names: Vec<&String> = Vec::new();
    for (name, _) in facts.iter().flatten().flatten() {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    let values = |side: usize, name: &String| {
        let mut found: Vec<&str> = Vec::new();
        for file in &facts[side] {
            let value = file.iter().find(|fact| fact.0 == *name).map_or(ABSENT, |fact| &fact.1);
            if !found.contains(&value) {
                found.push(value);
            }
        }
        found.join(" | ")
    };
    let of_texts = names.into_iter().map(|name| {
        let [a, b] = [0, 1].map(|side| values(side, name));
        Difference { what: name.clone(), a, b }
    });
    let of_loads = loads(sides, phase);
    of_loads
        .into_iter()
        .chain(of_texts.filter(|fact| fact.a != fact.b || fact.a.contains(" | ")))
        .collect()
}

/// Returns all facts of a file by name, in reading order.
fn facts(file: &LatencyFile, phase: PhaseName) -> Vec<(String, String)> {
    let mut facts = vec![("version of tandem".to_owned(), file.tandem.clone())];
    let machine = file.machine.facts().into_iter();
    facts.extend(
        machine
            .filter(|(what, _)| !VARYING.contains(&what.as_str()))
            .map(|(what, value)| (format!("machine: {what}"), value)),
    );
    facts.push(("back end".to_owned(), file.engine.backend.clone()));
    for (network, hash) in &file.engine.graphs_sha256 {
        facts.push((format!("network {network}"), format!("SHA-256 {hash}")));
    }
    let mut run = BTreeMap::new();
    let value = serde_json::to_value(&file.run).expect("a run file is plain data");
    flatten("run", &value, &mut run);
    facts.extend(run);
    facts.push(("observations".to_owned(), file.observations.clone()));
    facts.push(("real-time options".to_owned(), file.real_time.lines().join("; ")));
    if let Some(phase) = file.phase(phase) {
        facts.push(("warm-up".to_owned(), phase.warm_up.to_string()));
    }
    facts
}

/// Returns the loads of the machine that differ.
fn loads(sides: [&[&LatencyFile]; 2], phase: PhaseName) -> Vec<Difference> {
    let load = sides.map(|files| files.iter().map(|file| file.machine.load_1min).collect());
    let share = |file: &&LatencyFile| file.phase(phase).and_then(|phase| phase.others_share);
    let shares = sides.map(|files| files.iter().map(share).collect());
    [
        range("machine: load at the start", load, NEAR_LOAD, |load| format!("{load:.2}")),
        range("machine: processor time used by other processes", shares, NEAR_SHARE, |share| {
            format!("{:.0} %", 100.0 * share)
        }),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// Returns the ranges of a value in A and B; `None` if all values are within `near`.
fn range(
    what: &str,
    sides: [Vec<Option<f64>>; 2],
    near: f64,
    text: impl Fn(f64) -> String,
) -> Option<Difference> {
    let ends = |values: &[Option<f64>]| {
        let known = values.iter().copied().flatten();
        let least = known.clone().min_by(f64::total_cmp)?;
        Some((least, known.max_by(f64::total_cmp)?))
    };
    let all = sides.concat();
    let (least, most) = ends(&all)?;
    if most - least <= near && all.iter().all(Option::is_some) {
        return None;
    }
    let text_of = |values: &[Option<f64>]| match ends(values) {
        Some((least, most)) if most > least => format!("{} to {}", text(least), text(most)),
        Some((only, _)) => text(only),
        None => ABSENT.to_owned(),
    };
    Some(Difference { what: what.to_owned(), a: text_of(&sides[0]), b: text_of(&sides[1]) })
}

/// Collects every leaf of `value` by path, as text.
fn flatten(path: &str, value: &Value, into: &mut BTreeMap<String, String>) {
    match value {
        Value::Object(keys) => {
            for (key, value) in keys {
                flatten(&format!("{path}.{key}"), value, into);
            }
        }
        leaf => {
            into.insert(path.to_owned(), leaf.to_string());
        }
    }
}
