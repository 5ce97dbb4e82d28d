//! The `tandem` command: one file per verb. The only crate that prints or parses arguments.
//!
//! Every verb prints text, or JSON with `--json`. Exit codes: 0 done, 1 a check failed, 2 the verb
//! could not run.

mod budget;
mod build;
mod campaign;
mod checkpoint;
mod compare;
mod demo;
mod doctor;
mod drive;
mod driver;
mod ending;
mod eval;
mod export;
mod help;
mod identity;
mod inspect;
mod latency;
mod manual;
mod maps;
mod merge;
mod print;
mod profile;
mod progress;
mod rebuild;
mod record;
mod report;
mod results;
mod roofline;
mod score;
mod sweep;
mod verify;
mod workers;

use clap::{Parser, Subcommand};
use std::io::{self, IsTerminal};
use tandem_files::install_truncation_handler;

/// Real-time runtime for driving vision-language-action models
#[derive(Parser)]
#[command(
    name = "tandem",
    version,
    max_term_width = 100,
    subcommand_value_name = "VERB",
    after_help = "`tandem help VERB` prints the options of a verb and an example."
)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

// The help lists the verbs by job, as `help::JOBS` groups them.
#[derive(Subcommand)]
enum Verb {
    /// Create or inspect checkpoints
    #[command(subcommand)]
    Checkpoint(checkpoint::Verb),
    /// Write the ONNX networks of a checkpoint
    Export(export::Arguments),
    /// Build engines for a device from ONNX networks
    Build(build::Arguments),

    /// Export a generated checkpoint, drive a route and write a report
    Demo(demo::Arguments),
    /// Drive routes and score the drives
    Eval(eval::Arguments),
    /// Compare scores over a grid of expert latencies
    Sweep(sweep::Arguments),
    /// Score a folder of result files
    Score(score::Arguments),
    /// Merge result folders of shards or of the Bench2Drive harness
    Merge(merge::Arguments),
    /// Write an HTML report on results, or MCAP files of drives
    Report(report::Arguments),
    /// Record a model's sensors while the autopilot drives a route
    Record(record::Arguments),

    /// Measure every stage of the real-time loop
    Profile(profile::Arguments),
    /// Compare profiles percentile by percentile
    Compare(compare::Arguments),
    /// Predict the minimum time of every stage on a device
    Roofline(roofline::Arguments),

    /// Print the contents of a network or engine folder
    Inspect(inspect::Arguments),
    /// Compare an engine with a reference layer by layer
    Verify(verify::Arguments),
    /// Check which devices and libraries this machine has
    Doctor(doctor::Arguments),

    /// Write shell completions or man pages
    #[command(hide = true)]
    Manual(manual::Arguments),
}

/// Outcome of a verb that ran.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Outcome {
    Done,
    /// A check failed, or the work was interrupted.
    CheckFailed,
}

fn main() {
    // No color codes in a log file.
    let has_colors = std::io::stderr().is_terminal() && !is_colorless();
    tracing_subscriber::fmt()
        .with_ansi(has_colors)
        .with_env_filter(
            tracing_subscriber::EnvFilter::try_from_default_env()
                .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("warn,ort=error")),
        )
        .with_writer(|| ShortLines)
        .init();
    if let Err(error) = install_truncation_handler() {
        tracing::warn!(
            "a weight file that is truncated while it is in use will end tandem by a signal: {error}"
        );
    }
    let cli = match help::parse() {
        Ok(cli) => cli,
        Err(error) if error.use_stderr() => error.exit(),
        // The help and the version.
        Err(text) => {
            print::output_result(text.print());
            ending::exit(exit_code(Ok(Outcome::Done)));
        }
    };
    let outcome = match cli.verb {
        Verb::Checkpoint(verb) => checkpoint::run(&verb),
        Verb::Export(arguments) => export::run(&arguments),
        Verb::Build(arguments) => build::run(&arguments),
        Verb::Demo(arguments) => demo::run(&arguments),
        Verb::Eval(arguments) => eval::run(&arguments),
        Verb::Sweep(arguments) => sweep::run(&arguments),
        Verb::Score(arguments) => score::run(&arguments),
        Verb::Merge(arguments) => merge::run(&arguments),
        Verb::Report(arguments) => report::run(&arguments),
        Verb::Record(arguments) => record::run(&arguments),
        Verb::Profile(arguments) => profile::run(&arguments),
        Verb::Compare(arguments) => compare::run(&arguments),
        Verb::Roofline(arguments) => roofline::run(&arguments),
        Verb::Inspect(arguments) => inspect::run(&arguments),
        Verb::Verify(arguments) => verify::run(&arguments),
        Verb::Doctor(arguments) => doctor::run(&arguments),
        Verb::Manual(arguments) => manual::run(&arguments),
    };
    ending::exit(exit_code(outcome))
}

/// Returns the exit code of the process. A verb has failed if its output could not be printed.
fn exit_code(outcome: anyhow::Result<Outcome>) -> u8 {
    let outcome = outcome.and_then(|outcome| print::output_error().map_or(Ok(outcome), Err));
    match outcome {
        Ok(Outcome::Done) => 0,
        Ok(Outcome::CheckFailed) => 1,
        Err(error) => {
            print::error(&error);
            2
        }
    }
}

/// True if the user disables colors for all programs: <https://no-color.org>.
fn is_colorless() -> bool {
    #[expect(clippy::disallowed_methods, reason = "cli reads the environment")]
    let value = std::env::var_os("NO_COLOR");
    value.is_some_and(|value| !value.is_empty())
}

/// Writes the log to standard error, one event per write, with long lines shortened.
struct ShortLines;

impl io::Write for ShortLines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(bytes);
        io::stderr().lock().write_all(print::short_lines(&text).as_bytes())?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().lock().flush()
    }
}
