//! `tandem compare`: two profiles, percentile by percentile.

use super::{Outcome, print};
use crate::profile::{Change, Comparison, LatencyFile, Method, PhaseName, Row, compare};
use clap::ValueEnum;
use std::path::PathBuf;

#[derive(clap::Args)]
pub(super) struct Arguments {
    /// Profile to compare with (latency.json)
    #[arg(value_name = "A")]
    a: PathBuf,
    /// Profile to compare
    #[arg(value_name = "B")]
    b: PathBuf,
    /// Which part of the profiles
    #[arg(long, value_enum, default_value_t = PhaseArgument::Paced)]
    phase: PhaseArgument,
    /// Seed of the bootstrap
    #[arg(long, default_value_t = Method::default().seed)]
    seed: u64,
    /// Exit with 1 if anything is slower in B
    #[arg(long)]
    check: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Phases as `--phase` names them: as the file does.
#[derive(Clone, Copy, Debug, ValueEnum)]
#[value(rename_all = "snake_case")]
enum PhaseArgument {
    Paced,
    BackToBack,
    ActionAlone,
    UnderstandingAlone,
}

impl From<PhaseArgument> for PhaseName {
    fn from(argument: PhaseArgument) -> Self {
        match argument {
            PhaseArgument::Paced => Self::Paced,
            PhaseArgument::BackToBack => Self::BackToBack,
            PhaseArgument::ActionAlone => Self::ActionAlone,
            PhaseArgument::UnderstandingAlone => Self::UnderstandingAlone,
        }
    }
}

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<Outcome> {
    let (a, b) = (LatencyFile::read(&arguments.a)?, LatencyFile::read(&arguments.b)?);
    let method = Method { seed: arguments.seed, ..Method::default() };
    let comparison = compare(&a, &b, arguments.phase.into(), method)?;
    if arguments.json {
        print::line(&serde_json::to_string_pretty(&comparison)?);
    } else {
        print::line(&format!("A {}", arguments.a.display()));
        print::line(&format!("B {}", arguments.b.display()));
        print::line(&describe(&comparison));
    }
    let is_failed = arguments.check && comparison.is_slower();
    Ok(if is_failed { Outcome::CheckFailed } else { Outcome::Done })
}

fn describe(comparison: &Comparison) -> String {
    let method = &comparison.method;
    let mut lines = vec![comparison.phase.title().to_owned()];
    if !comparison.differences.is_empty() {
        lines.push("The files differ in more than what was measured, so this compares:".to_owned());
        lines.extend(comparison.differences.iter().map(|difference| {
            format!("  {}: {} in A, {} in B", difference.what, difference.a, difference.b)
        }));
    }
    let rows: Vec<Vec<String>> = comparison.rows.iter().map(cells).collect();
    let header = ["latency", "", "count A", "count B", "A ms", "B ms", "B/A", "interval", ""];
    lines.push(String::new());
    lines.push(print::table(&header, &rows));
    lines.extend(comparison.left_out.iter().map(|why| format!("left out: {why}")));
    lines.push(String::new());
    let count = |change| comparison.rows.iter().filter(|row| row.change == change).count();
    lines.push(format!(
        "{} faster, {} slower, {} alike, {} can't be told",
        count(Change::Faster),
        count(Change::Slower),
        count(Change::Alike),
        count(Change::CannotTell)
    ));
    let judged = comparison.rows.iter().filter(|row| row.interval.is_some()).count();
    lines.push(format!(
        "Moving-block bootstrap, {} % confidence for all {judged} intervals together, {} replicates, seed {}; differences below {} % are of no interest.",
        100.0 * method.confidence,
        method.replicates,
        method.seed,
        100.0 * method.relevant
    ));
    lines.extend(comparison.drawn.iter().map(|drawn| {
        let ([a, b], [block_a, block_b]) = (drawn.lengths, drawn.blocks);
        let of = drawn.of;
        format!("{of}: {a} in A, {b} in B, drawn in blocks of {block_a} and {block_b}")
    }));
    lines.push(
        "They know these two runs only: take further profiles, A and B in turn, before believing in small differences."
            .to_owned(),
    );
    lines.join("\n")
}

fn cells(row: &Row) -> Vec<String> {
    let ms = |ns: Option<u64>| ns.map_or_else(String::new, |ns| format!("{:.3}", ns as f64 / 1e6));
    let interval = row.interval.map(|[low, high]| format!("{low:.3} – {high:.3}"));
    let verdict = match (&row.why, row.change) {
        (Some(why), _) => format!("can't tell: {why}"),
        (None, Change::Faster) => "faster".to_owned(),
        (None, Change::Slower) => "SLOWER".to_owned(),
        (None, Change::Alike) => "alike".to_owned(),
        (None, Change::CannotTell) => "can't tell".to_owned(),
    };
    vec![
        row.what.clone(),
        row.percentile.to_owned(),
        row.counts[0].to_string(),
        row.counts[1].to_string(),
        ms(row.ns[0]),
        ms(row.ns[1]),
        row.ratio.map_or_else(String::new, |ratio| format!("{ratio:.3}")),
        interval.unwrap_or_default(),
        verdict,
    ]
}
