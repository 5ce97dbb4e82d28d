//! `tandem report`: writes an HTML report on results, or drives as MCAP files. `demo` and `eval`
//! write the same report next to their results.

use super::drive::STILL_FILE;
use super::driver::DriverName;
use super::maps::TownMaps;
use super::results::WARM_UP_TICKS;
use super::{Outcome, campaign, doctor, print};
use anyhow::{Context, bail};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tandem::pilot::{ClockName, Run, RunFile};
use tandem::scene::RouteId;
use tandem_evaluation::campaign::RunJson;
use tandem_evaluation::campaign::log::RouteLog;
use tandem_evaluation::report::sweep::{self, Sweep};
use tandem_evaluation::report::{Report, ReportRun, render, write_mcap};
use tandem_evaluation::results::{ResultFolder, RouteSet, ScoreCard};
use tandem_evaluation::scoring::{Checkpoint, Record, Rule, file_stem, split_route_id};

/// File in the result folder with the facts on run and machine.
const FACTS_FILE: &str = "facts.json";

#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  tandem report results/autopilot --routes routes/bends.xml
  tandem report results/autopilot --mcap foxglove")]
pub(super) struct Arguments {
    /// Result folders of `tandem eval` or `tandem demo`, or the parent folder of several settings
    #[arg(value_name = "DIR", required = true)]
    folders: Vec<PathBuf>,
    /// Route file of the results; adds abilities and scores by both rules
    #[arg(long, value_name = "FILE")]
    routes: Option<PathBuf>,
    /// Folder with TOWN.xodr for each town of the routes, or one map, to find the junctions that
    /// the traffic-sign ability depends on; without it, junctions are estimated
    #[arg(long, value_name = "DIR|FILE", requires = "routes")]
    map: Option<PathBuf>,
    /// Include only these routes, comma-separated ids
    #[arg(long, value_delimiter = ',', value_name = "IDS")]
    only: Vec<String>,
    /// Report to write [default: report.html in the first folder]
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Instead of a report, write each drive as an MCAP file for Foxglove into this folder
    #[arg(long, value_name = "DIR", conflicts_with_all = ["out", "routes"])]
    mcap: Option<PathBuf>,
}

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<Outcome> {
    let mut folders = Vec::new();
    for folder in &arguments.folders {
        folders.extend(result_folders(folder)?);
    }
    if let Some(out) = &arguments.mcap {
        return write_mcaps(&folders, &arguments.only, out);
    }
    let set = match &arguments.routes {
        None => None,
        Some(path) => {
            let mut set = route_set(path, &arguments.only)?;
            let maps = TownMaps::find(arguments.map.as_deref(), &set.routes)?;
            set.first_junctions = maps.first_junctions(&set.routes)?;
            Some(set)
        }
    };
    let page = arguments.out.clone();
    let page = page.unwrap_or_else(|| arguments.folders[0].join("report.html"));
    let mut results: Vec<Results> =
        folders.iter().map(|folder| Results::read(folder)).collect::<anyhow::Result<_>>()?;
    if results.len() > 1 {
        for results in &mut results {
            results.name_by_folder();
        }
    }
    let mut parts = Vec::new();
    for results in &results {
        let mut drives = results.run.drives().unwrap_or(0);
        if !arguments.only.is_empty() {
            let is_wanted = |id: &&RouteId| arguments.only.iter().any(|only| only == id.as_str());
            let kept = results.run.routes.iter().filter(is_wanted).count();
            drives = kept * results.run.repetitions as usize;
        }
        parts.push(Part {
            driver: &results.name,
            folder: &results.folder,
            drives_total: drives,
            tick_budget: results.tick_budget,
            set: set.as_ref(),
            only: &arguments.only,
        });
    }
    let labels: Vec<&str> = results.iter().filter_map(|results| results.label.as_deref()).collect();
    let note = match (&labels[..], results.len()) {
        ([], _) => campaign::NOTE.to_owned(),
        ([label], 1) => format!("{} {label}", campaign::NOTE),
        _ => format!(
            "{} Emulated hardware: commands arrived after the latencies of each run, independent of \
             this machine's speed.",
            campaign::NOTE
        ),
    };
    let facts = facts_of_all(&results);
    let swept = arguments.folders.iter().find_map(|folder| read_sweep(folder).transpose());
    let swept = swept.transpose()?;
    write_page(&page, "tandem report", &note, &facts, &parts, swept.as_ref())?;
    print::line(&format!("report: {}", page.display()));
    Ok(Outcome::Done)
}

/// Reads the sweep in `folder`, if it contains one.
fn read_sweep(folder: &Path) -> anyhow::Result<Option<Sweep>> {
    let path = folder.join("sweep.json");
    if !path.is_file() {
        return Ok(None);
    }
    let text = std::fs::read_to_string(&path)
        .with_context(|| format!("cannot read {}", path.display()))?;
    let sweep: Sweep = serde_json::from_str(&text)
        .with_context(|| format!("{} is not a sweep of this tandem version", path.display()))?;
    if sweep.format != sweep::FORMAT {
        bail!(
            "{} has format {}, but this tandem reads format {}: run the same `tandem sweep` again",
            path.display(),
            sweep.format,
            sweep::FORMAT
        );
    }
    Ok(Some(sweep))
}

/// Writes the logs of all drives as MCAP files, several result folders into a subfolder each.
fn write_mcaps(folders: &[PathBuf], only: &[String], out: &Path) -> anyhow::Result<Outcome> {
    let mut written = 0;
    for folder in folders {
        let into = match (folders, folder.file_name()) {
            ([_, _, ..], Some(name)) => out.join(name),
            _ => out.to_owned(),
        };
        std::fs::create_dir_all(&into)
            .with_context(|| format!("cannot create folder {}", into.display()))?;
        for record in records(folder, only)? {
            let log = log_file(folder, &record.route_id);
            if !log.is_file() {
                print::note(&format!("{} has no log and is skipped", record.route_id));
                continue;
            }
            let file = into.join(format!("{}.mcap", file_stem(&record.route_id)));
            let messages = write_mcap(&file, &read_log(&log)?)?;
            print::line(&format!("{}: {messages} messages", file.display()));
            written += 1;
        }
    }
    if written == 0 {
        bail!("nothing was written: no drive has a log");
    }
    Ok(Outcome::Done)
}

/// Returns `folder` if it has a `run.json`, or else its subfolders that have one.
fn result_folders(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    if folder.join("run.json").is_file() {
        return Ok(vec![folder.to_owned()]);
    }
    let entries = std::fs::read_dir(folder)
        .with_context(|| format!("cannot read result folder {}", folder.display()))?;
    let mut found: Vec<PathBuf> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.join("run.json").is_file())
        .collect();
    found.sort();
    if found.is_empty() {
        bail!(
            "neither {} nor its subfolders contain a run.json: give a folder written by `tandem eval`",
            folder.display()
        );
    }
    Ok(found)
}

/// Run and facts of a result folder.
struct Results {
    folder: PathBuf,
    name: String,
    run: RunJson,
    tick_budget: Option<Duration>,
    facts: Vec<(String, String)>,
    label: Option<String>,
}

impl Results {
    fn read(folder: &Path) -> anyhow::Result<Self> {
        let path = folder.join("run.json");
        let text = std::fs::read_to_string(&path)
            .with_context(|| format!("cannot read {}", path.display()))?;
        let run: RunJson = serde_json::from_str(&text)
            .with_context(|| format!("{} is not a run.json of tandem", path.display()))?;
        let provenance = &run.provenance;
        let file = provenance.settings.get("run");
        let file = file.and_then(|text| {
            RunFile::of_any_version(&mut serde_json::Deserializer::from_str(text)).ok()
        });
        let checked = file.as_ref().and_then(|file| Run::try_from(file).ok());
        let driver = DriverName::named(&provenance.driver);
        let is_timed = driver.is_some_and(DriverName::has_tick_budget);
        let facts = std::fs::read_to_string(folder.join(FACTS_FILE)).ok();
        let facts = facts.and_then(|text| serde_json::from_str(&text).ok());
        let facts = facts.unwrap_or_else(|| provenance_facts(&run, file.as_ref()));
        Ok(Self {
            folder: folder.to_owned(),
            name: provenance.driver.clone(),
            tick_budget: checked.filter(|_| is_timed).map(|run| run.act_budget),
            facts,
            label: file
                .as_ref()
                .and_then(|file| emulation_label(file, provenance.settings.get("hardware"))),
            run,
        })
    }
}

impl Results {
    /// Adds the folder's name to the driver's, to distinguish several runs of one driver.
    fn name_by_folder(&mut self) {
        if let Some(name) = self.folder.file_name() {
            let name = name.to_string_lossy();
            if name != self.name {
                self.name = format!("{}, {name}", self.name);
            }
        }
    }
}

/// Returns the facts common to all runs, followed by those of single runs with their names.
fn facts_of_all(all: &[Results]) -> Vec<(String, String)> {
    let Some((first, others)) = all.split_first() else { return Vec::new() };
    let is_common = |fact: &(String, String)| others.iter().all(|one| one.facts.contains(fact));
    let mut facts: Vec<_> = first.facts.iter().filter(|fact| is_common(fact)).cloned().collect();
    let common = facts.len();
    for results in all {
        let own = results.facts.iter().filter(|fact| !facts[..common].contains(fact));
        let own: Vec<_> =
            own.map(|(name, value)| (format!("{}: {name}", results.name), value.clone())).collect();
        facts.extend(own);
    }
    facts
}

fn provenance_facts(run: &RunJson, file: Option<&RunFile>) -> Vec<(String, String)> {
    let provenance = &run.provenance;
    let fixed = [
        ("tandem", provenance.tandem_version.clone()),
        ("driver", provenance.driver.clone()),
        ("seed", provenance.seed.to_string()),
        ("route file (SHA-256)", provenance.route_file_sha256.clone()),
        ("repetitions", run.repetitions.to_string()),
    ];
    let fixed = fixed.map(|(name, value)| (name.to_owned(), value));
    let clock = file.map(|file| ("clock".to_owned(), clock_text(file)));
    // The run file is too long for the report; its clock represents it.
    let settings = provenance.settings.clone().into_iter();
    let settings = settings.filter(|(name, _)| name != "run" || file.is_none());
    fixed.into_iter().chain(clock).chain(settings).collect()
}

/// Returns the label of a report with emulated latencies; `hardware` names the machine, if
/// recorded.
pub(super) fn emulation_label(run: &RunFile, hardware: Option<&String>) -> Option<String> {
    let is_emulated = run.clock == ClockName::Virtual
        && !(run.slow_latency.is_zero() && run.fast_latency.is_zero());
    is_emulated.then(|| {
        let hardware = hardware.map_or(String::new(), |hardware| format!(" {hardware}."));
        format!(
            "Emulated hardware: commands arrived after the given latencies (slow {}, fast {}; \
             milliseconds), independent of this machine's speed.{hardware}",
            run.slow_latency, run.fast_latency
        )
    })
}

/// Reads the routes of `path`; only those in `only`, unless it is empty.
pub(super) fn route_set(path: &Path, only: &[String]) -> anyhow::Result<RouteSet> {
    let mut set = RouteSet::read(path, "")?;
    if !only.is_empty() {
        set.routes.retain(|route| only.iter().any(|id| id == route.id.as_str()));
    }
    Ok(set)
}

/// Input of one driver's part of the report.
pub(super) struct Part<'a> {
    pub(super) driver: &'a str,
    pub(super) folder: &'a Path,
    /// Number of drives of the campaign, finished or not; 0: the number of records.
    pub(super) drives_total: usize,
    /// `None` for a driver without latency budget.
    pub(super) tick_budget: Option<Duration>,
    /// Routes of the results; adds scores by both rules.
    pub(super) set: Option<&'a RouteSet>,
    /// Ids of the routes to include; all if empty.
    pub(super) only: &'a [String],
}

/// Writes the report atomically.
pub(super) fn write(
    page: &Path,
    title: &str,
    note: &str,
    facts: &[(String, String)],
    parts: &[Part<'_>],
) -> anyhow::Result<()> {
    write_page(page, title, note, facts, parts, None)
}

fn write_page(
    page: &Path,
    title: &str,
    note: &str,
    facts: &[(String, String)],
    parts: &[Part<'_>],
    sweep: Option<&Sweep>,
) -> anyhow::Result<()> {
    let runs: Vec<ReportRun> = parts.iter().map(Part::read).collect::<anyhow::Result<_>>()?;
    let html = render(&Report { title, note, facts, runs: &runs, sweep });
    print::write_file(page, html.as_bytes())
}

/// Writes the facts on run and machine for later reports.
pub(super) fn write_facts(folder: &Path, facts: &[(String, String)]) -> anyhow::Result<()> {
    print::write_file(&folder.join(FACTS_FILE), &serde_json::to_vec_pretty(facts)?)
}

impl Part<'_> {
    /// Reads the results, one drive at a time.
    fn read(&self) -> anyhow::Result<ReportRun> {
        let records = records(self.folder, self.only)?;
        let total = if self.drives_total == 0 { records.len() } else { self.drives_total };
        if total == 0 {
            let which = if self.only.is_empty() { "" } else { " of the routes in --only" };
            let folder = self.folder.display();
            bail!("{folder} contains no results{which}");
        }
        let mut run = ReportRun::new(self.driver, total, WARM_UP_TICKS, self.tick_budget);
        // The image is from the first drive.
        let mut still = std::fs::read(self.folder.join(STILL_FILE)).ok();
        for record in records {
            let path = log_file(self.folder, &record.route_id);
            let log = path.is_file().then(|| read_log(&path)).transpose()?;
            run.add(record, log.as_ref(), still.take().as_deref());
        }
        if let Some(set) = self.set {
            let repetitions = total.checked_div(set.routes.len()).unwrap_or(1).max(1);
            let mut by_type = BTreeMap::new();
            for route in &set.routes {
                let kind = route.scenarios.first().map_or("", |scenario| &scenario.kind);
                *by_type.entry(kind.to_owned()).or_insert(0) += repetitions;
            }
            run.set_types(by_type);
            for rule in [Rule::Official, Rule::Corrected] {
                // A folder without results has no score card.
                let Ok(mut folder) = ResultFolder::read(self.folder) else { break };
                folder.records.retain(|record| is_wanted(self.only, &record.route_id));
                run.add_card(ScoreCard::new(folder, set, None, rule)?);
            }
        }
        Ok(run)
    }
}

/// True if the route is in `only`, or `only` is empty.
fn is_wanted(only: &[String], route_id: &str) -> bool {
    only.is_empty() || only.iter().any(|id| id == split_route_id(route_id).0)
}

/// Reads all records of a result folder, sorted by route number and repetition.
fn records(folder: &Path, only: &[String]) -> anyhow::Result<Vec<Record>> {
    let folder = folder.join("routes");
    let Ok(entries) = std::fs::read_dir(&folder) else { return Ok(Vec::new()) };
    let mut records = Vec::new();
    for entry in entries {
        let path = entry.with_context(|| format!("cannot read {}", folder.display()))?.path();
        if path.extension().is_none_or(|extension| extension != "json") {
            continue;
        }
        let text = std::fs::read_to_string(&path)
            .with_context(|| format!("cannot read {}", path.display()))?;
        let checkpoint: Checkpoint = serde_json::from_str(&text)
            .with_context(|| format!("{} is not a result file of tandem", path.display()))?;
        records.extend(checkpoint.body.records);
    }
    records.retain(|record| is_wanted(only, &record.route_id));
    // By length first, so that 2 precedes 10.
    records.sort_by_key(|record| (record.route_id.len(), record.route_id.clone()));
    Ok(records)
}

fn log_file(folder: &Path, route_id: &str) -> PathBuf {
    folder.join("logs").join(format!("{}.json", file_stem(route_id)))
}

fn read_log(path: &Path) -> anyhow::Result<RouteLog> {
    let text =
        std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    serde_json::from_str(&text).with_context(|| format!("cannot read the log {}", path.display()))
}

/// Returns the facts on run and machine: name and value.
pub(super) fn facts(
    command: String,
    run: &RunFile,
    emulated: &[String],
    backend: Option<&str>,
) -> Vec<(String, String)> {
    let threads = format!(
        "{} for the action expert, {} for the understanding expert",
        run.threads.action, run.threads.understanding
    );
    let mut facts: Vec<(String, String)> = [
        ("tandem", env!("CARGO_PKG_VERSION").to_owned()),
        ("command", command),
        ("clock", clock_text(run)),
        ("refresh", format!("every {} ticks of 50 ms", run.refresh_period_ticks)),
        ("tick budget", format!("{} ms", run.act_budget_millis)),
        ("threads", threads),
        ("seed", run.seed.to_string()),
        ("back end", backend.unwrap_or("none").to_owned()),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into();
    let emulated = emulated.iter().map(|label| ("latencies".to_owned(), label.clone()));
    facts.extend(emulated);
    facts.extend(doctor::machine());
    facts
}

/// Formats the time mode with its latencies.
fn clock_text(run: &RunFile) -> String {
    match run.clock {
        ClockName::Lockstep => "lockstep: the world waits".to_owned(),
        ClockName::Virtual => format!(
            "virtual: slow latency {}, fast latency {} (milliseconds), action steps {}",
            run.slow_latency,
            run.fast_latency,
            run.fast_releases.as_str()
        ),
        ClockName::Wall => "wall: real time".to_owned(),
    }
}
