//! `tandem score`: scores a folder of result files.

use super::maps::TownMaps;
use super::{Outcome, campaign, print};
use anyhow::{Context, bail};
use clap::ValueEnum;
use std::path::{Path, PathBuf};
use tandem_evaluation::results::{Figure, ResultFolder, RouteSet, ScoreCard};
use tandem_evaluation::scoring::{Ability, DEVIATIONS, Rule};

/// Route file of published scores.
const OFFICIAL_SET: &str = "routes/bench2drive220.xml";

#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  tandem score results/autopilot --routes routes/bends.xml
  tandem score results/official --routes routes/bench2drive220.xml --rule corrected --json")]
pub(super) struct Arguments {
    /// Result file, or folder of result files, written by the Bench2Drive harness (also one folder
    /// per process), its merge tool, `tandem eval` or `tandem merge`
    #[arg(value_name = "DIR|FILE")]
    results: PathBuf,
    /// Route file of the results [default: routes/bench2drive220.xml in the folder that the
    /// environment variable TANDEM_BENCH2DRIVE names]
    #[arg(long, value_name = "FILE")]
    routes: Option<PathBuf>,
    /// Score only these routes of the file: ids and ranges in file order, e.g. 1,5-9
    #[arg(long, default_value = "", hide_default_value = true, value_name = "IDS")]
    subset: String,
    /// Rule for computing the scores
    #[arg(long, value_enum, default_value_t = RuleArgument::Official)]
    rule: RuleArgument,
    /// Folder with SAVE_NAME/metric_info.json of every drive, for smoothness
    #[arg(long, value_name = "DIR")]
    motion: Option<PathBuf>,
    /// Folder with TOWN.xodr for each town of the routes, or one map, to find the junctions that
    /// the traffic-sign ability depends on; without it, junctions are estimated
    #[arg(long, value_name = "DIR|FILE")]
    map: Option<PathBuf>,
    /// Print JSON instead of text
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum RuleArgument {
    /// Same results as the official tools, including their defects
    Official,
    /// Defects of the official tools corrected
    Corrected,
}

impl From<RuleArgument> for Rule {
    fn from(argument: RuleArgument) -> Self {
        match argument {
            RuleArgument::Official => Self::Official,
            RuleArgument::Corrected => Self::Corrected,
        }
    }
}

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<Outcome> {
    let rule = arguments.rule.into();
    let folder = ResultFolder::read(&arguments.results)?;
    let is_ours = folder.run.is_some();
    let mut set = RouteSet::read(&route_file(arguments.routes.as_deref())?, &arguments.subset)?;
    set.first_junctions =
        TownMaps::find(arguments.map.as_deref(), &set.routes)?.first_junctions(&set.routes)?;
    let card = ScoreCard::new(folder, &set, arguments.motion.as_deref(), rule)?;
    if arguments.json {
        print::line(&to_json(&card)?);
    } else {
        describe(&card, is_ours);
    }
    let is_valid = card.missing.is_empty() && card.contradictions.is_empty();
    Ok(if is_valid { Outcome::Done } else { Outcome::CheckFailed })
}

/// Returns the official route file, if the environment variable names its folder.
pub(super) fn official_route_file() -> Option<PathBuf> {
    #[expect(clippy::disallowed_methods, reason = "cli reads the environment")]
    let folder = std::env::var_os("TANDEM_BENCH2DRIVE");
    Some(PathBuf::from(folder?).join(OFFICIAL_SET))
}

fn route_file(named: Option<&Path>) -> anyhow::Result<PathBuf> {
    let Some(file) = named.map(Path::to_owned).or_else(official_route_file) else {
        bail!(
            "the route file of these results is not known: give it with --routes FILE, or set \
             TANDEM_BENCH2DRIVE to a folder that contains {OFFICIAL_SET}"
        );
    };
    Ok(file)
}

/// Formats the card and the differences between the two rules.
fn to_json(card: &ScoreCard) -> anyhow::Result<String> {
    let mut value = serde_json::to_value(card)?;
    let deviations = DEVIATIONS.map(|point| {
        serde_json::json!({
            "figure": point.figure, "official": point.official, "corrected": point.corrected,
        })
    });
    let object = value.as_object_mut().context("a score card is an object")?;
    object.insert("rules".to_owned(), serde_json::Value::Array(deviations.to_vec()));
    Ok(serde_json::to_string_pretty(&value)?)
}

fn describe(card: &ScoreCard, is_ours: bool) {
    describe_scores(card);
    describe_routes(card);
    if is_ours {
        print::line(campaign::NOTE);
    }

    print::line("");
    let rows = [
        ("efficiency", figure(&card.efficiency, |value| format!("{value:.1} %"))),
        ("smoothness", figure(&card.smoothness, |value| format!("{:.1} %", value * 100.0))),
    ];
    for (name, value) in rows {
        print::line(&format!("{name}: {value}"));
    }

    print::line("");
    print::line(&ability_table(card));
    print::line(if card.abilities.is_approximate {
        "approximate: the traffic-sign ability of failed routes depends on junctions, which are \
         estimated from gaps between key points; give the maps of the towns with --map DIR"
    } else {
        "the junctions for the traffic-sign ability of failed routes are from the maps"
    });

    print::line("");
    let row = |(name, count): (&str, usize)| vec![name.to_owned(), count.to_string()];
    let statuses = card.statuses.iter().map(|(name, &count)| row((name, count)));
    print::line(&print::table(&["status", "drives"], &statuses.collect::<Vec<_>>()));
    print::line("");
    let counted = card.costly_infractions().filter(|(_, count)| *count > 0).map(row);
    let counted: Vec<_> = counted.collect();
    if counted.is_empty() {
        print::line("no infractions");
    } else {
        print::line(&print::table(&["infraction", "count"], &counted));
    }
    print::line(&format!(
        "minimum-speed values, which do not affect the score: {}",
        card.minimum_speed_values()
    ));

    print::line("");
    describe_problems(card);
    print::line(&format!("figures by rule (used: {})", card.rule));
    for point in DEVIATIONS {
        print::line(&format!("  {}", point.figure));
        print::line(&format!("    official: {}", point.official));
        print::line(&format!("    corrected: {}", point.corrected));
    }
}

/// Prints the scores, also by repetition.
fn describe_scores(card: &ScoreCard) {
    print::line(&card.summary());
    for one in &card.by_repetition {
        let routes = card.total / card.repetitions;
        let figures = one.driving_score.zip(one.success_rate).map(|(score, success)| {
            format!(", driving score {score:.2}, success rate {:.1} %", success * 100.0)
        });
        let (number, finished) = (one.repetition, one.finished);
        let figures = figures.unwrap_or_default();
        print::line(&format!(
            "repetition {number}: {finished} / {routes} routes finished{figures}"
        ));
    }
    print::line(&format!("rule {}, sums divided by {}", card.rule, card.divisor));
}

/// Prints the route file and whether the results name it.
fn describe_routes(card: &ScoreCard) {
    let repeated = match card.repetitions {
        1 => String::new(),
        repetitions => format!(", {repetitions} drives per route"),
    };
    let confirmed = if card.is_route_file_confirmed {
        "the results name this file"
    } else {
        "the results do not name their route file; ids, towns and scenarios match"
    };
    let name = card.route_set.unwrap_or("not a Bench2Drive set");
    print::line(&format!("routes {} ({name}{repeated})", card.route_file));
    print::line(&format!("SHA-256 {}: {confirmed}", card.route_file_sha256));
}

/// Prints notes on drives, contradictory records and missing drives.
fn describe_problems(card: &ScoreCard) {
    for (note, routes) in &card.notes {
        print::line(&format!("{}: {note}", routes.join(", ")));
        print::line("");
    }
    if !card.contradictions.is_empty() {
        let count = card.contradictions.len();
        print::line(&format!(
            "driving scores that are not the product of their factors ({count}):"
        ));
        card.contradictions.iter().for_each(|one| print::line(&format!("  {one}")));
        print::line("");
    }
    if !card.missing.is_empty() {
        let missing = card.missing.join(", ");
        print::line(&format!("{} drives have no record: {missing}", card.missing.len()));
        print::line("");
    }
}

fn figure(figure: &Figure, show: impl Fn(f64) -> String) -> String {
    match (figure.value, &figure.why_none) {
        (Some(value), _) => format!("{} over {} drives", show(value), figure.drives),
        (None, reason) => {
            format!("n/a: {}", reason.as_deref().unwrap_or("no drive has a value"))
        }
    }
}

fn ability_table(card: &ScoreCard) -> String {
    let tables = [&card.abilities, &card.abilities_003];
    let percent = |ratio: Option<f64>, is_approximate: bool| {
        let mark = if is_approximate { " (approximate)" } else { "" };
        ratio.map_or("–".to_owned(), |ratio| format!("{:.1}{mark}", ratio * 100.0))
    };
    let mut rows: Vec<Vec<String>> = Ability::ALL
        .into_iter()
        .enumerate()
        .map(|(place, ability)| {
            let routes = card.abilities.abilities.as_ref().map_or(0, |found| found.routes[place]);
            let mut row = vec![ability.key().to_owned(), routes.to_string()];
            row.extend(tables.map(|table| percent(table.ratio(place), table.is_guessed(ability))));
            row
        })
        .collect();
    let means = tables.map(|table| percent(table.mean(), table.is_approximate));
    rows.push(["mean".to_owned(), String::new()].into_iter().chain(means).collect());
    let header = ["ability", "routes", "version 0.0.4, %", "version 0.0.3, %"];
    let mut text = print::table(&header, &rows);
    if let Err(error) = &card.abilities.abilities {
        text += &format!("\nn/a by this rule: {error}");
    }
    text
}
