//! The `tandem` command: one file per verb; the only crate that prints or parses arguments.
//!
//! Every verb prints for people, or JSON with `--json`. Exit codes: 0 done, 1 a check failed,
//! 2 it could not run.

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
mod identity;
mod inspect;
mod latency;
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
use tandem_files::tell_of_shortened_files;

/// Real-time runtime for driving vision-language-action models.
#[derive(Parser)]
#[command(name = "tandem", version, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Run the whole chain on a generated checkpoint: export, two-rate driving, scores, latencies
    Demo(demo::Arguments),
    /// Write the ONNX networks of a checkpoint
    Export(export::Arguments),
    /// Build engines for a device from networks
    Build(build::Arguments),
    /// Say what a folder of networks or engines holds
    Inspect(inspect::Arguments),
    /// Drive routes and score them
    Eval(eval::Arguments),
    /// Drive routes under a grid of latencies of both experts, and say what latency costs
    Sweep(sweep::Arguments),
    /// Say what a folder of result files comes to, ours or of the Bench2Drive harness
    Score(score::Arguments),
    /// Put the results of several folders together, of shards or of the Bench2Drive harness
    Merge(merge::Arguments),
    /// Make the page about results: scores, infractions, latencies, and every drive to replay
    Report(report::Arguments),
    /// Say what every stage of the real loop takes, and how that spreads
    Profile(profile::Arguments),
    /// Compare an engine with a reference, layer by layer
    Verify(verify::Arguments),
    /// Compare profiles, percentile by percentile
    Compare(compare::Arguments),
    /// Drive a route with the autopilot and keep what a model's sensors saw
    Record(record::Arguments),
    /// Make or look at checkpoints
    #[command(subcommand)]
    Checkpoint(checkpoint::Verb),
    /// Predict the least time that every stage can take on a device; nothing is run
    Roofline(roofline::Arguments),
    /// Say what this machine has, and what is missing for what
    Doctor(doctor::Arguments),
}

/// What a verb ended with, when it ran.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Outcome {
    /// Everything done.
    Done,
    /// A check failed, or the work was interrupted.
    CheckFailed,
}

/// Runs the command that the process was started with, and ends the process.
fn main() {
    // A log in a file has no colors.
    let has_colors = std::io::stderr().is_terminal() && !is_colorless();
    tracing_subscriber::fmt()
        .with_ansi(has_colors)
        .with_env_filter(
            tracing_subscriber::EnvFilter::try_from_default_env()
                .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("warn,ort=error")),
        )
        .with_writer(|| ShortLines)
        .init();
    if let Err(error) = tell_of_shortened_files() {
        tracing::warn!(
            "a weight file that is shortened while it is in use will end tandem by a signal: {error}"
        );
    }
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) if error.use_stderr() => error.exit(),
        // The help and the version.
        Err(text) => {
            print::output_result(text.print());
            ending::exit(exit_code(Ok(Outcome::Done)));
        }
    };
    let outcome = match cli.verb {
        Verb::Demo(arguments) => demo::run(&arguments),
        Verb::Export(arguments) => export::run(&arguments),
        Verb::Build(arguments) => build::run(&arguments),
        Verb::Inspect(arguments) => inspect::run(&arguments),
        Verb::Eval(arguments) => eval::run(&arguments),
        Verb::Sweep(arguments) => sweep::run(&arguments),
        Verb::Score(arguments) => score::run(&arguments),
        Verb::Merge(arguments) => merge::run(&arguments),
        Verb::Report(arguments) => report::run(&arguments),
        Verb::Profile(arguments) => profile::run(&arguments),
        Verb::Verify(arguments) => verify::run(&arguments),
        Verb::Compare(arguments) => compare::run(&arguments),
        Verb::Record(arguments) => record::run(&arguments),
        Verb::Checkpoint(verb) => checkpoint::run(&verb),
        Verb::Roofline(arguments) => roofline::run(&arguments),
        Verb::Doctor(arguments) => doctor::run(&arguments),
    };
    ending::exit(exit_code(outcome))
}

/// Returns the exit code of the process; what could not be printed was not done.
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

/// True if the user asks for no colors anywhere: <https://no-color.org>.
fn is_colorless() -> bool {
    #[expect(clippy::disallowed_methods, reason = "cli reads the environment")]
    let asked = std::env::var_os("NO_COLOR");
    asked.is_some_and(|asked| !asked.is_empty())
}

/// Standard error for the log: one event a write, with long lines shortened.
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
