//! `tandem compare`: compares profiles percentile by percentile.

use super::{Outcome, print};
use clap::ValueEnum;
use std::path::PathBuf;
use tandem_profile::{
    Change, Check, Comparison, LatencyFile, LatencyFileError, MIN_PROFILES, Method, PhaseName, Row,
    compare,
};

#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  tandem compare before/latency.json after/latency.json --check
  tandem compare --a a1.json a2.json a3.json a4.json --b b1.json b2.json b3.json b4.json")]
pub(super) struct Arguments {
    /// Baseline profile (latency.json)
    #[arg(value_name = "A", required_unless_present = "several_a")]
    a: Option<PathBuf>,
    /// Profile to compare with the baseline
    #[arg(value_name = "B", required_unless_present = "several_a")]
    b: Option<PathBuf>,
    /// Baseline profiles, four or more, measured alternately with those of --b
    #[arg(long = "a", value_name = "FILE", num_args = 1.., requires = "several_b", conflicts_with_all = ["a", "b"])]
    several_a: Vec<PathBuf>,
    /// Profiles to compare with those of --a
    #[arg(long = "b", value_name = "FILE", num_args = 1.., requires = "several_a")]
    several_b: Vec<PathBuf>,
    /// Phase of the profiles to compare
    #[arg(long, value_enum, default_value_t = PhaseArgument::Paced)]
    phase: PhaseArgument,
    /// Seed of the bootstrap resampling
    #[arg(long, default_value_t = Method::default().seed)]
    seed: u64,
    /// Exit with 1 if any latency is slower in B, or if the change of the main latency (the tick;
    /// for understanding_alone, the prefill) is undecided
    #[arg(long)]
    check: bool,
    /// Print JSON instead of text
    #[arg(long)]
    json: bool,
}

/// Phases of `--phase`, named as in the file.
#[derive(Clone, Copy, Debug, ValueEnum)]
#[value(rename_all = "snake_case")]
enum PhaseArgument {
    Paced,
    #[value(alias = "back-to-back")]
    BackToBack,
    #[value(alias = "action-alone")]
    ActionAlone,
    #[value(alias = "understanding-alone")]
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
    let paths = match (&arguments.a, &arguments.b) {
        (Some(a), Some(b)) => [vec![a.clone()], vec![b.clone()]],
        _ => [arguments.several_a.clone(), arguments.several_b.clone()],
    };
    let read = |paths: &[PathBuf]| -> Result<Vec<_>, LatencyFileError> {
        paths.iter().map(|path| LatencyFile::read(path)).collect()
    };
    let [a, b] = [read(&paths[0])?, read(&paths[1])?];
    let method = Method { seed: arguments.seed, ..Method::default() };
    let comparison = compare(&a, &b, arguments.phase.into(), method)?;
    let outcome = check_line(&comparison);
    if arguments.json {
        print::line(&serde_json::to_string_pretty(&comparison)?);
        if arguments.check {
            print::note(&outcome);
        }
    } else {
        for (name, paths) in ["A", "B"].into_iter().zip(&paths) {
            for path in paths {
                print::line(&format!("{name} {}", path.display()));
            }
        }
        print::line(&describe(&comparison));
        if arguments.check {
            print::line(&format!("\n{outcome}"));
        }
    }
    let is_failed = arguments.check && comparison.check != Check::Kept;
    Ok(if is_failed { Outcome::CheckFailed } else { Outcome::Done })
}

/// Formats the result of `--check`.
fn check_line(comparison: &Comparison) -> String {
    match comparison.check {
        Check::Kept => {
            "check: passed: the main latency is decided, and no latency is slower in B".to_owned()
        }
        Check::Slower => "check: FAILED: at least one latency is slower in B".to_owned(),
        Check::NotJudged => {
            let reason = comparison.not_judged.as_deref().unwrap_or("see the table");
            format!("check: FAILED: the change of the main latency is undecided: {reason}")
        }
    }
}

fn describe(comparison: &Comparison) -> String {
    let mut lines = vec![comparison.phase.title().to_owned()];
    if !comparison.differences.is_empty() {
        lines.push("The profiles differ in more than their measurements:".to_owned());
        lines.extend(comparison.differences.iter().map(|difference| {
            format!("  {}: {} in A, {} in B", difference.what, difference.a, difference.b)
        }));
    }
    let rows: Vec<Vec<String>> = comparison.rows.iter().map(cells).collect();
    let header =
        ["latency", "", "count A", "count B", "A ms", "B ms", "B/A", "interval of B/A", "change"];
    lines.push(String::new());
    lines.push(print::table(&header, &rows));
    lines.extend(comparison.left_out.iter().map(|reason| format!("excluded: {reason}")));
    lines.push(String::new());
    let count = |change| comparison.rows.iter().filter(|row| row.change == change).count();
    lines.push(format!(
        "{} faster, {} slower, {} alike, {} undecided",
        count(Change::Faster),
        count(Change::Slower),
        count(Change::Alike),
        count(Change::CannotTell)
    ));
    lines.extend(comparison.not_judged.iter().map(|reason| format!("All undecided: {reason}.")));
    lines.extend(method_lines(comparison));
    lines.join("\n")
}

/// Formats the method of the intervals and its limits.
fn method_lines(comparison: &Comparison) -> Vec<String> {
    let method = &comparison.method;
    let judged = comparison.rows.iter().filter(|row| row.interval.is_some()).count();
    let (confidence, relevant) = (100.0 * method.confidence, 100.0 * method.relevant);
    let seed = method.seed;
    let threshold = format!(
        "differences below {relevant} % of the value, or of the tick or prefill that contains it, are \
         ignored"
    );
    if comparison.profiles != [1, 1] {
        let [a, b] = comparison.profiles;
        return vec![format!(
            "{a} profiles in A, {b} in B; values are geometric means. Intervals from permutations of \
             the profiles between the two groups, {confidence} % simultaneous confidence for all \
             {judged}, seed {seed}; {threshold}."
        )];
    }
    let mut lines = vec![format!(
        "Moving-block bootstrap, {confidence} % simultaneous confidence for all {judged} intervals, {} \
         replicates, seed {seed}; {threshold}.",
        method.replicates
    )];
    lines.extend(comparison.drawn.iter().map(|drawn| {
        let ([a, b], [block_a, block_b]) = (drawn.lengths, drawn.blocks);
        let of = drawn.of;
        format!("{of}: {a} in A, {b} in B, resampled in blocks of {block_a} and {block_b}")
    }));
    lines.push(format!(
        "One profile per side does not show the variation between two starts of an engine: {:.0} % is \
         assumed, or more if the halves of a profile differ by more. To detect smaller differences, \
         measure {MIN_PROFILES} or more profiles per side, A and B alternately (--a FILES --b FILES).",
        100.0 * method.start_to_start
    ));
    lines
}

fn cells(row: &Row) -> Vec<String> {
    let ms = |ns: Option<u64>| ns.map_or_else(String::new, print::millis);
    let interval = row.interval.map(|[low, high]| format!("{low:.3} – {high:.3}"));
    let change = match (&row.why, row.change) {
        (Some(reason), _) => format!("undecided: {reason}"),
        (None, Change::Faster) => "faster".to_owned(),
        (None, Change::Slower) => "SLOWER".to_owned(),
        (None, Change::Alike) => "alike".to_owned(),
        (None, Change::CannotTell) => "undecided".to_owned(),
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
        change,
    ]
}
