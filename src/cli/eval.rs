//! `tandem eval`: drive routes and score them.

use super::drive::{Drive, cancel_on_interrupt, latency_table, prefix_age_line};
use super::driver::{DriverFactory, DriverName};
use super::report::{self, Part};
use super::{Outcome, print};
use crate::evaluation::criteria::TICK_CAP;
use crate::evaluation::routes::parse_routes;
use crate::pilot::{Run, RunFile};
use crate::scene::Route;
use crate::timing::Stage;
use anyhow::{Context, bail};
use std::path::PathBuf;

pub(super) const NOTE: &str = "Scores of the embedded world are not CARLA scores.";

#[derive(clap::Args)]
pub(super) struct Arguments {
    /// Route file in the Bench2Drive XML format
    #[arg(long, value_name = "FILE")]
    routes: PathBuf,
    /// Folder that `tandem build` or `tandem export` wrote (driver automot)
    #[arg(long, value_name = "DIR")]
    engine: Option<PathBuf>,
    /// Who drives
    #[arg(long, value_enum)]
    driver: DriverName,
    /// Folder for results; finished routes in it are kept and not driven again
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Run file (YAML): clock, periods, seed, threads; see configs/
    #[arg(long, value_name = "FILE")]
    run: Option<PathBuf>,
    /// Only these routes of the file, comma-separated ids
    #[arg(long, value_delimiter = ',', value_name = "IDS")]
    only: Vec<u32>,
    /// End a route after so many ticks
    #[arg(long, default_value_t = TICK_CAP, value_name = "TICKS")]
    tick_cap: u64,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<Outcome> {
    let file = match &arguments.run {
        Some(path) => RunFile::read(path)?,
        None => RunFile::default(),
    };
    let run = Run::try_from(&file)?;
    let text = std::fs::read_to_string(&arguments.routes)
        .with_context(|| format!("cannot read route file {}", arguments.routes.display()))?;
    let routes = parse_routes(&text, &arguments.routes.display().to_string())?;
    let routes = select(routes, &arguments.only)?;
    let real_time = run.real_time.apply_process();
    let factory = DriverFactory::new(arguments.driver, arguments.engine.as_deref(), &run)?;
    let drive = Drive {
        folder: &arguments.out,
        routes: &routes,
        route_file: text.as_bytes(),
        driver: arguments.driver,
        factory: &factory,
        run_file: &file,
        run: &run,
        real_time: &real_time,
        engine: arguments.engine.as_deref(),
        tick_cap: arguments.tick_cap,
    };
    let cancel = cancel_on_interrupt()?;
    let campaign = drive.all(&cancel)?;
    let page = arguments.out.join("report.html");
    let driver = arguments.driver.as_str();
    let budget = (arguments.driver == DriverName::Automot).then_some(run.act_budget);
    let facts = report::facts(
        format!("tandem eval --routes {} --driver {driver}", arguments.routes.display()),
        &file,
        factory.backend(),
    );
    let part = Part { driver, driven: &campaign, tick_budget: budget };
    report::write(&page, "tandem eval", NOTE, &facts, &[part])?;
    if arguments.json {
        print::line(&serde_json::to_string_pretty(&campaign.to_json())?);
    } else {
        print::line(&campaign.scores());
        print::line("");
        if campaign.statistics.stage(Stage::Tick).count() > 0 {
            print::line(&latency_table(&campaign.statistics));
            print::line(&prefix_age_line(&campaign.statistics));
        }
        print::line(&format!("results in {}, look at {}", arguments.out.display(), page.display()));
        print::line(NOTE);
    }
    if campaign.summary.is_cancelled {
        print::note("interrupted: finished routes are kept, the same command goes on from here");
        return Ok(Outcome::CheckFailed);
    }
    Ok(Outcome::Done)
}

fn select(routes: Vec<Route>, only: &[u32]) -> anyhow::Result<Vec<Route>> {
    if only.is_empty() {
        return Ok(routes);
    }
    if let Some(missing) = only.iter().find(|id| !routes.iter().any(|route| route.id == **id)) {
        bail!("the route file has no route {missing}");
    }
    Ok(routes.into_iter().filter(|route| only.contains(&route.id)).collect())
}
