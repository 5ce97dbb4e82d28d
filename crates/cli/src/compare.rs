//! `tandem compare`: profiles, percentile by percentile.

use super::{Outcome, print};
use clap::ValueEnum;
use std::path::PathBuf;
use tandem_profile::{
    Change, Check, Comparison, LEAST_PROFILES, LatencyFile, LatencyFileError, Method, PhaseName,
    Row, compare,
};

#[derive(clap::Args)]
pub(super) struct Arguments {
    /// Profile to compare with (latency.json)
    #[arg(value_name = "A", required_unless_present = "several_a")]
    a: Option<PathBuf>,
    /// Profile to compare
    #[arg(value_name = "B", required_unless_present = "several_a")]
    b: Option<PathBuf>,
    /// Several profiles to compare with, four or more, taken in turn with those of --b
    #[arg(long = "a", value_name = "FILE", num_args = 1.., requires = "several_b", conflicts_with_all = ["a", "b"])]
    several_a: Vec<PathBuf>,
    /// Several profiles to compare
    #[arg(long = "b", value_name = "FILE", num_args = 1.., requires = "several_a")]
    several_b: Vec<PathBuf>,
    /// Which part of the profiles
    #[arg(long, value_enum, default_value_t = PhaseArgument::Paced)]
    phase: PhaseArgument,
    /// Seed of the bootstrap
    #[arg(long, default_value_t = Method::default().seed)]
    seed: u64,
    /// Exit with 1 if anything is slower in B, or if whether the tick is slower (alone, the refresh)
    /// cannot be told
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

/// The outcome as a check.
fn check_line(comparison: &Comparison) -> String {
    match comparison.check {
        Check::Kept => {
            "check: kept: the main latency was judged, and nothing is slower in B".to_owned()
        }
        Check::Slower => "check: NOT KEPT: something is slower in B".to_owned(),
        Check::NotJudged => {
            let why = comparison.not_judged.as_deref().unwrap_or("the table says why");
            format!(
                "check: NOT KEPT: whether the main latency is slower in B cannot be told: {why}"
            )
        }
    }
}

fn describe(comparison: &Comparison) -> String {
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
    lines.extend(comparison.not_judged.iter().map(|why| format!("Nothing is judged: {why}.")));
    lines.extend(method_lines(comparison));
    lines.join("\n")
}

/// How the intervals came about, and what they do not know.
fn method_lines(comparison: &Comparison) -> Vec<String> {
    let method = &comparison.method;
    let judged = comparison.rows.iter().filter(|row| row.interval.is_some()).count();
    let (confidence, relevant) = (100.0 * method.confidence, 100.0 * method.relevant);
    let seed = method.seed;
    let of_interest = format!(
        "differences below {relevant} % of the value, or of the tick or refresh that it is part of, \
         are of no interest"
    );
    if comparison.profiles != [1, 1] {
        let [a, b] = comparison.profiles;
        return vec![format!(
            "{a} profiles in A, {b} in B; values are geometric means. Intervals from divisions of \
             these profiles into two groups, {confidence} % confidence for all {judged} together, \
             seed {seed}; {of_interest}."
        )];
    }
    let mut lines = vec![format!(
        "Moving-block bootstrap, {confidence} % confidence for all {judged} intervals together, {} \
         replicates, seed {seed}; {of_interest}.",
        method.replicates
    )];
    lines.extend(comparison.drawn.iter().map(|drawn| {
        let ([a, b], [block_a, block_b]) = (drawn.lengths, drawn.blocks);
        let of = drawn.of;
        format!("{of}: {a} in A, {b} in B, drawn in blocks of {block_a} and {block_b}")
    }));
    lines.push(format!(
        "One profile a side does not show how much two starts of one engine differ: {:.0} % is \
         assumed, more where the halves of a profile differ by more. Smaller differences take \
         {LEAST_PROFILES} or more profiles a side, A and B in turn (--a FILES --b FILES).",
        100.0 * method.start_to_start
    ));
    lines
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
