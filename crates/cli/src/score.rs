//! `tandem score`: what a folder of result files comes to.

use super::maps::TownMaps;
use super::{Outcome, campaign, print};
use anyhow::{Context, bail};
use clap::ValueEnum;
use std::path::{Path, PathBuf};
use tandem_evaluation::results::{Figure, ResultFolder, RouteSet, ScoreCard};
use tandem_evaluation::scoring::{Ability, DEVIATIONS, Rule};

/// The set that published scores are of.
const OFFICIAL_SET: &str = "routes/bench2drive220.xml";

#[derive(clap::Args)]
pub(super) struct Arguments {
    /// Result file, or folder of result files: of the Bench2Drive harness (also with a folder per
    /// process), of its merge tool, of `tandem eval` or of `tandem merge`
    #[arg(value_name = "DIR|FILE")]
    results: PathBuf,
    /// Route file that the results are of [default: routes/bench2drive220.xml of the folder that the
    /// variable TANDEM_BENCH2DRIVE names]
    #[arg(long, value_name = "FILE")]
    routes: Option<PathBuf>,
    /// Only these routes of the file: ids and ranges in file order, e.g. 1,5-9
    #[arg(long, default_value = "", value_name = "IDS")]
    subset: String,
    /// Whose arithmetic
    #[arg(long, value_enum, default_value_t = RuleArgument::Official)]
    rule: RuleArgument,
    /// Folder with SAVE_NAME/metric_info.json of every drive, for smoothness
    #[arg(long, value_name = "DIR")]
    motion: Option<PathBuf>,
    /// Folder with TOWN.xodr for each town of the routes, or one map, for the junctions that traffic
    /// signs depend on; without it they are guessed
    #[arg(long, value_name = "DIR|FILE")]
    map: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum RuleArgument {
    /// As the official tools compute, defects included
    Official,
    /// With their defects put right
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
    let is_right = card.missing.is_empty() && card.contradictions.is_empty();
    Ok(if is_right { Outcome::Done } else { Outcome::CheckFailed })
}

/// The official route file, if the environment says where it is.
pub(super) fn official_route_file() -> Option<PathBuf> {
    #[expect(clippy::disallowed_methods, reason = "cli reads the environment")]
    let folder = std::env::var_os("TANDEM_BENCH2DRIVE");
    Some(PathBuf::from(folder?).join(OFFICIAL_SET))
}

fn route_file(named: Option<&Path>) -> anyhow::Result<PathBuf> {
    let Some(file) = named.map(Path::to_owned).or_else(official_route_file) else {
        bail!(
            "which routes are these results of? Name the route file with --routes FILE, or set \
             TANDEM_BENCH2DRIVE to a folder that holds {OFFICIAL_SET}"
        );
    };
    Ok(file)
}

/// The card, and in what the two rules differ.
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
    print::line(&card.summary());
    let repeated = match card.repetitions {
        1 => String::new(),
        repetitions => format!(", each driven {repetitions} times"),
    };
    let confirmed = if card.is_route_file_confirmed {
        "the results were made with it"
    } else {
        "the results do not say what they were made with; ids, towns and scenarios fit"
    };
    let name = card.route_set.unwrap_or("no set of Bench2Drive");
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
    print::line(&format!("routes {} ({name}{repeated})", card.route_file));
    print::line(&format!("SHA-256 {}: {confirmed}", card.route_file_sha256));
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
        "approximate: traffic signs of failed routes depend on junctions, which are guessed from gaps \
         between key points; give the maps of the towns with --map DIR"
    } else {
        "junctions, which traffic signs of failed routes depend on, are those of the maps"
    });

    print::line("");
    let count = |(name, count): (&String, &usize)| vec![name.clone(), count.to_string()];
    print::line(&print::table(
        &["status", "drives"],
        &card.statuses.iter().map(count).collect::<Vec<_>>(),
    ));
    print::line("");
    let counted: Vec<_> = card.infractions.iter().filter(|(_, n)| **n > 0).map(count).collect();
    print::line(&print::table(&["infraction", "count"], &counted));

    print::line("");
    for (note, routes) in &card.notes {
        print::line(&format!("{}: {note}", routes.join(", ")));
        print::line("");
    }
    if !card.contradictions.is_empty() {
        let count = card.contradictions.len();
        print::line(&format!(
            "driving scores that are not the product of their parts, as if edited ({count}):"
        ));
        card.contradictions.iter().for_each(|one| print::line(&format!("  {one}")));
        print::line("");
    }
    if !card.missing.is_empty() {
        let missing = card.missing.join(", ");
        print::line(&format!("{} drives have no record: {missing}", card.missing.len()));
        print::line("");
    }
    print::line(&format!("figures by rule ({} was used)", card.rule));
    for point in DEVIATIONS {
        print::line(&format!("  {}", point.figure));
        print::line(&format!("    official: {}", point.official));
        print::line(&format!("    corrected: {}", point.corrected));
    }
}

fn figure(figure: &Figure, show: impl Fn(f64) -> String) -> String {
    match (figure.value, &figure.why_none) {
        (Some(value), _) => format!("{} over {} drives", show(value), figure.drives),
        (None, why) => format!("none: {}", why.as_deref().unwrap_or("no drive has a value")),
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
    let mut text = print::table(&["ability, %", "routes", "as 0.0.4", "as 0.0.3"], &rows);
    if let Err(error) = &card.abilities.abilities {
        text += &format!("\nnone by this rule: {error}");
    }
    text
}
