//! What besides the numbers is not the same in profiles that are compared.

use super::latency_file::{LatencyFile, PhaseName};
use serde::Serialize;
use serde_json::Value;
use std::collections::BTreeMap;

/// Something besides the numbers that is not the same in all files.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Difference {
    /// Name of the fact.
    pub what: String,
    /// Its values in A.
    pub a: String,
    /// Its values in B.
    pub b: String,
}

/// Loads that are this near to each other are the same: a profile itself makes this much.
const NEAR_LOAD: f64 = 0.5;

/// Shares of the processor time that are this near to each other are the same.
const NEAR_SHARE: f64 = 0.05;

/// Machine facts that differ between any two profiles of one machine; the load is compared apart.
const FLEETING: [&str; 2] = ["clocks", "load at the start"];

const ABSENT: &str = "absent";

/// Facts that are not the same in all files, the machine first. Files must have the phase.
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

/// Every fact of a file by name, in reading order.
fn facts(file: &LatencyFile, phase: PhaseName) -> Vec<(String, String)> {
    let mut facts = vec![("version of tandem".to_owned(), file.tandem.clone())];
    let machine = file.machine.facts().into_iter();
    facts.extend(
        machine
            .filter(|(what, _)| !FLEETING.contains(&what.as_str()))
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

/// How busy the machine was, where that differs.
fn loads(sides: [&[&LatencyFile]; 2], phase: PhaseName) -> Vec<Difference> {
    let load = sides.map(|files| files.iter().map(|file| file.machine.load_1min).collect());
    let share = |file: &&LatencyFile| file.phase(phase).and_then(|phase| phase.others_share);
    let shares = sides.map(|files| files.iter().map(share).collect());
    [
        range("machine: load at the start", load, NEAR_LOAD, |load| format!("{load:.2}")),
        range("machine: cores' time that other processes took", shares, NEAR_SHARE, |share| {
            format!("{:.0} %", 100.0 * share)
        }),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// A number by its least and greatest value in A and B; `None` if all are near each other.
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
    let told = |values: &[Option<f64>]| match ends(values) {
        Some((least, most)) if most > least => format!("{} to {}", text(least), text(most)),
        Some((only, _)) => text(only),
        None => ABSENT.to_owned(),
    };
    Some(Difference { what: what.to_owned(), a: told(&sides[0]), b: told(&sides[1]) })
}

/// Every key of `value` with its path and its value as text.
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
