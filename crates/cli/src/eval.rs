//! `tandem eval`: drive routes and score them.

use super::campaign::{CampaignArguments, NOTE, Role, drive_with_workers, work};
use super::drive::{Drive, Variant, check_safety, latency_table, prefix_age_line};
use super::driver::DriverName;
use super::latency::LatencyArgument;
use super::report::{self, Part};
use super::{Outcome, print};
use std::path::PathBuf;
use tandem::pilot::Pace;
use tandem::timing::Stage;
use tandem_evaluation::campaign::Holder;

#[derive(clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    campaign: CampaignArguments,
    /// Virtual time with these latencies, milliseconds: slow=400,fast=35, distributions such as
    /// slow=lognormal:p50=300,p99=700, file:latency.json for both as recorded, replayed:DIR for both
    /// as in the drives of DIR; with `busy`, one inference at a time. See configs/run.yaml
    #[arg(long, value_name = "SPEC")]
    latency: Option<LatencyArgument>,
    /// Keep each drive's motion in DIR/SAVE_NAME/metric_info.json, which `tandem score --motion DIR`
    /// computes smoothness from
    #[arg(long, value_name = "DIR")]
    motion: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<Outcome> {
    let asked = &arguments.campaign;
    let role = asked.role()?;
    let mut file = asked.run_file()?;
    if let Some(latency) = &arguments.latency {
        latency.apply(&mut file);
    }
    let variants = [Variant::new(asked.driver.as_str(), file)?];
    let [Variant { file, timed, .. }] = &variants;
    let run = &timed.run;
    let routes = asked.read_routes()?;
    let drive = Drive { motion: arguments.motion.as_deref(), ..asked.drive(&routes, &variants) };
    let cancel = match role {
        Role::Worker(told) => return told.work(|told| work(&drive, told)).map(|()| Outcome::Done),
        Role::Supervisor { cancel } => cancel,
    };
    let jobs = asked.jobs(run)?;
    let Some((ready, tally)) = drive_with_workers(&drive, jobs, asked, &cancel)? else {
        return Ok(Outcome::CheckFailed);
    };
    let campaign = drive.collect(&drive.campaign(&ready.settings, &ready.sensors), tally)?;
    let safety = campaign.safety();
    let backend = ready.backend;
    let page = asked.out.join("report.html");
    let driver = asked.driver.as_str();
    let budget = (asked.driver == DriverName::Automot).then_some(run.act_budget);
    let facts = report::facts(
        format!("tandem eval --routes {} --driver {driver}", asked.routes.display()),
        file,
        &timed.emulated,
        backend.as_deref(),
    );
    report::keep_facts(&asked.out, &facts)?;
    let mut set = report::route_set(&asked.routes, &asked.only)?;
    set.first_junctions = routes.maps.first_junctions(&set.routes)?;
    let part = Part {
        driver,
        folder: &asked.out,
        drives_total: campaign.drives_total,
        tick_budget: budget,
        set: Some(&set),
        only: &asked.only,
    };
    let hardware = (!timed.emulated.is_empty()).then(|| timed.emulated.join("; "));
    let note = match report::emulation_label(file, hardware.as_ref()) {
        Some(label) => format!("{NOTE} {label}"),
        None => NOTE.to_owned(),
    };
    report::write(&page, "tandem eval", &note, &facts, &[part])?;
    if arguments.json {
        let mut json = campaign.to_json();
        json["emulated_hardware"] = serde_json::json!(timed.emulated);
        print::line(&serde_json::to_string_pretty(&json)?);
    } else {
        print::line(&campaign.scores());
        print::line(&campaign.origins());
        print::line("");
        if let Some(table) = campaign.safety_table() {
            print::line(&table);
            print::line("");
        }
        if campaign.statistics.stage(Stage::TICK).count() > 0 {
            print::line(&latency_table(&campaign.statistics));
        }
        if campaign.statistics.ticks() > campaign.statistics.ticks_without_prefix() {
            print::line(&prefix_age_line(&campaign.statistics));
        }
        if let (Pace::Virtual(_), Some(counted)) = (&run.pace, &campaign.pilot) {
            print::line(&format!(
                "virtual time: {} ticks driven now, {} missed their deadline, {} held a command; the \
                 oldest scene that a command of any drive rested on was {:.2} s old",
                counted.ticks, counted.deadline_misses, counted.ticks_held, safety.oldest_prefix_s
            ));
        }
        if let (Pace::Wall, Some(counted)) = (&run.pace, &campaign.pilot) {
            print::line(&format!(
                "real time: {} ticks answered now, {} of them missed their deadline; {} more went by \
                 without an answer",
                counted.ticks, counted.deadline_misses, counted.ticks_unanswered
            ));
        }
        for label in &timed.emulated {
            print::line(label);
        }
        print::line(&format!("results in {}, look at {}", asked.out.display(), page.display()));
        print::line(NOTE);
    }
    let checked = check_safety(&safety);
    if campaign.is_cancelled {
        print::note("interrupted: finished routes are kept, the same command goes on from here");
        return Ok(Outcome::CheckFailed);
    }
    for held in &campaign.elsewhere {
        let holder =
            held.holder.as_ref().map_or("an unknown process".to_owned(), Holder::to_string);
        print::note(&format!("{} is held by {holder}", held.route_id));
    }
    if !campaign.elsewhere.is_empty() {
        print::note(
            "if the processes that hold these drives are dead, the same command with --take-over \
             drives them",
        );
        return Ok(Outcome::CheckFailed);
    }
    Ok(checked)
}
