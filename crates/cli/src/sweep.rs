//! `tandem sweep`: compares scores over a grid of latencies of both experts.

use super::campaign::{CampaignArguments, DrivenCampaign, Execution, NOTE};
use super::drive::Variant;
use super::results::{check_safety, total_safety};
use super::{Outcome, print, report};
use anyhow::{Context, bail};
use std::time::Duration;
use tandem::pilot::{ClockName, FastReleases, LatencySpec, RunFile, split_latencies};
use tandem_evaluation::campaign::{Campaign, Unit};
use tandem_evaluation::report::sweep::{
    AxisPoint, Cell, CellDrives, CellInput, DriveFigures, FORMAT, Intervals, Sweep,
};
use tandem_evaluation::scoring::{Record, Safety, write_json};

/// Note that is printed with every sweep.
const EMULATED: &str = "Latencies are emulated in virtual time.";

#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  tandem sweep --routes routes/demo.xml --driver autopilot --fast 0,100,200 --out results/sweep
  tandem sweep --routes routes/demo.xml --driver automot --engine engine --busy --out results/busy")]
pub(super) struct Arguments {
    #[command(flatten)]
    campaign: CampaignArguments,
    /// Latencies of a prefill, milliseconds, comma-separated; also distributions such as
    /// lognormal:p50=300,p99=700 and file:latency.json
    #[arg(long, default_value = "0,100,200,400,1000", value_name = "LIST")]
    slow: String,
    /// Latencies of an action step, in the format of --slow
    #[arg(long, default_value = "0,50,100,200", value_name = "LIST")]
    fast: String,
    /// Run one action step at a time, as on one GPU; without it, action steps overlap
    #[arg(long)]
    busy: bool,
    /// Time after a late or held command in which an infraction is attributed to it, milliseconds
    #[arg(long, default_value_t = 1000, value_name = "MS", value_parser = clap::value_parser!(u64).range(1..=600_000))]
    horizon: u64,
    /// Print JSON: the content of sweep.json
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<Outcome> {
    let options = &arguments.campaign;
    let role = options.role()?;
    let grid = Grid::new(arguments)?;
    let driven = match options.execute(role, &grid.variants, None)? {
        Execution::Driven(driven) => driven,
        Execution::Ended(outcome) => return Ok(outcome),
    };
    let safety = write_tables(&driven.campaign)?;
    let sweep = grid.figures(arguments, &driven.campaign)?;
    let json = options.out.join("sweep.json");
    write_json(&json, &sweep)?;
    let page = options.out.join("sweep.html");
    let facts = grid.facts(arguments, &sweep, driven.backend.as_deref());
    print::write_file(&page, sweep.page(&facts).as_bytes())?;
    if arguments.json {
        print::line(&serde_json::to_string_pretty(&sweep)?);
    } else {
        present(&sweep);
        print::line(&format!("figures in {}, report: {}", json.display(), page.display()));
        print::line(&sweep.note);
    }
    Ok(outcome(&driven, &safety))
}

/// Every slow latency combined with every fast one.
struct Grid {
    /// Run file of all cells, apart from the latencies.
    file: RunFile,
    slow: Vec<LatencySpec>,
    fast: Vec<LatencySpec>,
    /// One per cell, slow latencies outermost.
    variants: Vec<Variant>,
}

impl Grid {
    fn new(arguments: &Arguments) -> anyhow::Result<Self> {
        let mut file = arguments.campaign.run_file()?;
        file.clock = ClockName::Virtual;
        if arguments.busy {
            file.fast_releases = FastReleases::Busy;
        }
        let slow = axis("--slow", &arguments.slow)?;
        let fast = axis("--fast", &arguments.fast)?;
        let variants = variants(&file, &slow, &fast)?;
        Ok(Self { file, slow, fast, variants })
    }

    /// Returns the content of `sweep.json`.
    fn figures(&self, arguments: &Arguments, campaign: &Campaign) -> anyhow::Result<Sweep> {
        let horizon = Duration::from_millis(arguments.horizon);
        let (cells, resamples, confidence) = self.cells(campaign, horizon)?;
        let mut emulated: Vec<String> = Vec::new();
        for label in self.variants.iter().flat_map(|variant| &variant.timed.emulated) {
            if !emulated.contains(label) {
                emulated.push(label.clone());
            }
        }
        Ok(Sweep {
            format: FORMAT,
            tandem: env!("CARGO_PKG_VERSION").to_owned(),
            driver: arguments.campaign.driver.as_str().to_owned(),
            note: format!("{EMULATED} {NOTE}"),
            emulated,
            fast_releases: self.file.fast_releases.as_str().to_owned(),
            seed: self.file.seed,
            routes: campaign.routes.len(),
            repetitions: campaign.repetitions,
            finished: cells.iter().map(|cell| cell.finished).sum(),
            total: cells.iter().map(|cell| cell.total).sum(),
            resamples,
            confidence,
            horizon_ms: arguments.horizon,
            base: base(&self.slow, &self.fast),
            slow: self.slow.iter().map(point).collect(),
            fast: self.fast.iter().map(point).collect(),
            cells,
        })
    }

    /// Returns the report's facts on run and machine.
    fn facts(
        &self,
        arguments: &Arguments,
        sweep: &Sweep,
        backend: Option<&str>,
    ) -> Vec<(String, String)> {
        let options = &arguments.campaign;
        let command = format!(
            "tandem sweep --routes {} --driver {} --slow {} --fast {} --repetitions {}{}",
            options.routes.display(),
            options.driver.as_str(),
            arguments.slow,
            arguments.fast,
            options.repetitions,
            if arguments.busy { " --busy" } else { "" }
        );
        let mut facts = report::facts(command, &self.file, &sweep.emulated, backend);
        facts.retain(|(name, _)| name != "clock");
        facts
    }

    /// Returns the figures of every cell, the number of bootstrap resamples and the confidence
    /// level.
    fn cells(
        &self,
        campaign: &Campaign,
        horizon: Duration,
    ) -> anyhow::Result<(Vec<Cell>, usize, f64)> {
        let tick = self.variants[0].timed.run.tick;
        let figures = |unit: Unit| -> anyhow::Result<Option<DriveFigures>> {
            let Some(record) = campaign.record(unit) else { return Ok(None) };
            let log = campaign.read_log(unit)?;
            Ok(Some(DriveFigures::new(&record, &log, tick, horizon)))
        };
        let input = |setting: usize| -> anyhow::Result<CellInput> {
            let drives = (0..campaign.routes.len()).map(|route| {
                (0..campaign.repetitions)
                    .map(|repetition| figures(Unit { setting, repetition, route }))
                    .collect::<anyhow::Result<Vec<_>>>()
            });
            Ok(CellInput {
                name: self.variants[setting].name.clone(),
                slow: setting / self.fast.len(),
                fast: setting % self.fast.len(),
                drives: drives.collect::<anyhow::Result<CellDrives>>()?,
            })
        };
        let is_base = |variant: &Variant| {
            variant.file.slow_latency.is_zero() && variant.file.fast_latency.is_zero()
        };
        let base = self.variants.iter().position(is_base).map(input).transpose()?;
        let mut intervals = Intervals::default();
        let mut cells = Vec::with_capacity(self.variants.len());
        for setting in 0..self.variants.len() {
            // Only the drives of one cell and those of the baseline are in memory.
            let input = input(setting)?;
            let base = base.as_ref().map(|base| &base.drives);
            cells.push(Cell::new(&input, base, tick, &mut intervals));
        }
        Ok((cells, intervals.resamples(), intervals.confidence()))
    }
}

/// Prints the figures of all cells.
fn present(sweep: &Sweep) {
    let rows: Vec<Vec<String>> = sweep.rows().into_iter().map(Vec::from).collect();
    print::line(&print::table(&Sweep::HEADER, &rows));
    print::line(&format!(
        "{} of {} drives finished, {} routes x {} repetitions per cell; latencies in milliseconds; \
         {} % intervals over {} resamples of routes; infractions within {} ms after a late or held \
         command, and others",
        sweep.finished,
        sweep.total,
        sweep.routes,
        sweep.repetitions,
        100.0 * sweep.confidence,
        sweep.resamples,
        sweep.horizon_ms
    ));
    if sweep.base.is_none() {
        print::line("no baseline: include 0 in both lists to get differences to zero latency");
    }
    sweep.emulated.iter().for_each(|label| print::line(label));
}

/// Writes the table of each setting. Returns the safety counters of all drives.
fn write_tables(campaign: &Campaign) -> anyhow::Result<Safety> {
    let mut safety = Safety::default();
    for setting in 0..campaign.settings.len() {
        let records: Vec<Record> = campaign.table(setting)?.records().cloned().collect();
        safety.add(&total_safety(&records));
    }
    Ok(safety)
}

/// Returns the outcome: everything was driven, without faults of a model. Prints what is missing.
fn outcome(driven: &DrivenCampaign, safety: &Safety) -> Outcome {
    let checked = check_safety(safety);
    if driven.remaining.is_cancelled {
        print::note("interrupted: finished drives are kept; run the same command to continue");
        return Outcome::CheckFailed;
    }
    if !driven.remaining.elsewhere.is_empty() {
        print::note(
            "drives are claimed by other machines: if their processes are dead, run the same command \
             with --take-over to drive them",
        );
        return Outcome::CheckFailed;
    }
    checked
}

/// Parses a list of latencies.
fn axis(name: &str, list: &str) -> anyhow::Result<Vec<LatencySpec>> {
    let latencies: Vec<LatencySpec> = split_latencies(list)
        .iter()
        .map(|latency| latency.parse())
        .collect::<Result<_, _>>()
        .with_context(|| format!("{name} {list:?}"))?;
    for (place, latency) in latencies.iter().enumerate() {
        if latencies[..place].contains(latency) {
            bail!("{name} {list:?} has {latency} twice");
        }
        if let LatencySpec::Replayed(folder) = latency {
            bail!("{name}: a sweep cannot replay the schedules of {}", folder.display());
        }
    }
    Ok(latencies)
}

fn point(latency: &LatencySpec) -> AxisPoint {
    AxisPoint { latency: latency.to_string(), millis: latency.nominal_millis() }
}

/// Returns one variant per cell, slow latencies outermost.
fn variants(
    file: &RunFile,
    slow: &[LatencySpec],
    fast: &[LatencySpec],
) -> anyhow::Result<Vec<Variant>> {
    let mut variants = Vec::with_capacity(slow.len() * fast.len());
    for slow_latency in slow {
        for fast_latency in fast {
            let file = RunFile {
                slow_latency: slow_latency.clone(),
                fast_latency: fast_latency.clone(),
                ..file.clone()
            };
            let name = folder_name(&format!("slow={slow_latency},fast={fast_latency}"));
            variants.push(Variant::new(&name, file)?);
        }
    }
    Ok(variants)
}

/// Replaces the characters that the name of a setting cannot contain by `-`.
fn folder_name(name: &str) -> String {
    let fits = |letter: char| letter.is_ascii_alphanumeric() || "-_=,.".contains(letter);
    name.chars().map(|letter| if fits(letter) { letter } else { '-' }).collect()
}

/// Returns the index of the cell with zero latency.
fn base(slow: &[LatencySpec], fast: &[LatencySpec]) -> Option<usize> {
    let [slow_at, fast_at] = [slow, fast].map(|axis| axis.iter().position(LatencySpec::is_zero));
    Some(slow_at? * fast.len() + fast_at?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn invalid_latency_lists_are_rejected() {
        let refused = |list: &str, fragment: &str| {
            let error = format!("{:#}", axis("--slow", list).unwrap_err());
            assert!(error.contains("--slow") && error.contains(fragment), "{error}");
        };
        refused("0,100,100", "100 twice");
        refused("0,quick", "\"quick\"");
        refused("replayed:results", "cannot replay");
        refused("", "\"\"");
    }

    #[test]
    fn folder_names_contain_the_latencies() {
        let slow = axis("--slow", "0,lognormal:p50=300,p99=700").unwrap();
        let fast = axis("--fast", "0,50").unwrap();
        let file = RunFile { clock: ClockName::Virtual, ..RunFile::default() };
        let variants = variants(&file, &slow, &fast).unwrap();
        let names: Vec<&str> = variants.iter().map(|variant| variant.name.as_str()).collect();
        let long =
            ["slow=lognormal-p50=300,p99=700,fast=0", "slow=lognormal-p50=300,p99=700,fast=50"];
        assert_eq!(names, ["slow=0,fast=0", "slow=0,fast=50", long[0], long[1]]);
        assert_eq!(base(&slow, &fast), Some(0));
        assert_eq!(base(&slow, &fast[1..]), None);
    }
}
