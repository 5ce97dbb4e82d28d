//! `tandem eval`: drives routes and scores the drives.

use super::campaign::{CampaignArguments, DrivenCampaign, Execution, NOTE};
use super::drive::Variant;
use super::latency::LatencyArgument;
use super::report::{self, Part};
use super::results::{Results, check_safety, latency_table, prefix_age_line};
use super::{Outcome, print};
use std::path::PathBuf;
use tandem::pilot::Pace;
use tandem::timing::Stage;
use tandem_evaluation::campaign::Holder;

#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  tandem eval --routes routes/bends.xml --driver autopilot --out results/autopilot
  tandem eval --routes routes/demo.xml --driver automot --engine engine --out results/automot
  tandem eval --routes routes/demo.xml --driver autopilot --latency fast=100 --out results/late")]
pub(super) struct Arguments {
    #[command(flatten)]
    campaign: CampaignArguments,
    /// Virtual time with these latencies, milliseconds (see configs/run.yaml): slow=400,fast=35;
    /// distributions such as slow=lognormal:p50=300,p99=700; file:latency.json for both experts as
    /// recorded; replayed:DIR for both experts as in DIR; with `busy`, one action step at a time
    #[arg(long, value_name = "SPEC")]
    latency: Option<LatencyArgument>,
    /// Write each drive's motion to DIR/SAVE_NAME/metric_info.json, for the smoothness of
    /// `tandem score --motion DIR`
    #[arg(long, value_name = "DIR")]
    motion: Option<PathBuf>,
    /// Print JSON instead of text
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<Outcome> {
    let options = &arguments.campaign;
    let role = options.role()?;
    let variants = [variant(arguments)?];
    let driven = match options.execute(role, &variants, arguments.motion.clone())? {
        Execution::Driven(driven) => driven,
        Execution::Ended(outcome) => return Ok(outcome),
    };
    let [variant] = &variants;
    let results = Results::collect(&driven.campaign, driven.remaining.clone(), &driven.tally)?;
    let page = write_page(arguments, variant, &driven, results.drives_total)?;
    if arguments.json {
        let mut json = results.to_json();
        json["emulated_hardware"] = serde_json::json!(variant.timed.emulated);
        print::line(&serde_json::to_string_pretty(&json)?);
    } else {
        present(&results, variant);
        print::line(&format!("results in {}, report: {}", options.out.display(), page.display()));
        print::line(NOTE);
    }
    Ok(outcome(&results))
}

/// Returns the run file with the latencies of `--latency`.
fn variant(arguments: &Arguments) -> anyhow::Result<Variant> {
    let mut file = arguments.campaign.run_file()?;
    if let Some(latency) = &arguments.latency {
        latency.apply(&mut file);
    }
    Variant::new(arguments.campaign.driver.as_str(), file)
}

/// Writes the report, and the facts on run and machine for later reports.
fn write_page(
    arguments: &Arguments,
    variant: &Variant,
    driven: &DrivenCampaign,
    drives_total: usize,
) -> anyhow::Result<PathBuf> {
    let options = &arguments.campaign;
    let (driver, emulated) = (options.driver.as_str(), &variant.timed.emulated);
    let facts = report::facts(
        format!("tandem eval --routes {} --driver {driver}", options.routes.display()),
        &variant.file,
        emulated,
        driven.backend.as_deref(),
    );
    report::write_facts(&options.out, &facts)?;
    let mut set = report::route_set(&options.routes, &options.only)?;
    set.first_junctions = driven.maps.first_junctions(&set.routes)?;
    let budget = options.driver.has_tick_budget().then_some(variant.timed.run.act_budget);
    let part = Part {
        driver,
        folder: &options.out,
        drives_total,
        tick_budget: budget,
        set: Some(&set),
        only: &options.only,
    };
    let hardware = (!emulated.is_empty()).then(|| emulated.join("; "));
    let note = match report::emulation_label(&variant.file, hardware.as_ref()) {
        Some(label) => format!("{NOTE} {label}"),
        None => NOTE.to_owned(),
    };
    let page = options.out.join("report.html");
    report::write(&page, "tandem eval", &note, &facts, &[part])?;
    Ok(page)
}

/// Prints scores, safety counters and latencies.
fn present(results: &Results, variant: &Variant) {
    print::line(&results.scores());
    print::line(&results.origins());
    print::line("");
    if let Some(table) = results.safety_table() {
        print::line(&table);
        print::line("");
    }
    if results.statistics.stage(Stage::TICK).count() > 0 {
        print::line(&latency_table(&results.statistics));
    }
    if results.statistics.ticks() > results.statistics.ticks_without_prefix() {
        print::line(&prefix_age_line(&results.statistics));
    }
    match (&variant.timed.run.pace, &results.pilot) {
        (Pace::Virtual(_), Some(counted)) => print::line(&format!(
            "virtual time: {} ticks driven now, {} missed their deadline, {} held the previous \
             command; maximum age of a prefix over all drives: {:.2} s",
            counted.ticks,
            counted.deadline_misses,
            counted.ticks_held,
            results.safety().oldest_prefix_s
        )),
        (Pace::Wall, Some(counted)) => print::line(&format!(
            "real time: {} ticks driven now, {} of them missed their deadline; {} more ticks had no \
             command",
            counted.ticks, counted.deadline_misses, counted.ticks_unanswered
        )),
        _ => {}
    }
    variant.timed.emulated.iter().for_each(|label| print::line(label));
}

/// Returns the outcome: everything was driven, without faults of a model. Prints what is missing.
fn outcome(results: &Results) -> Outcome {
    let checked = check_safety(&results.safety());
    if results.is_cancelled {
        print::note("interrupted: finished routes are kept; run the same command to continue");
        return Outcome::CheckFailed;
    }
    for held in &results.elsewhere {
        let holder =
            held.holder.as_ref().map_or("an unknown process".to_owned(), Holder::to_string);
        print::note(&format!("{} is held by {holder}", held.route_id));
    }
    if !results.elsewhere.is_empty() {
        print::note(
            "if the processes that hold these drives are dead, run the same command with --take-over \
             to drive them",
        );
        return Outcome::CheckFailed;
    }
    checked
}
