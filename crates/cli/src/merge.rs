//! `tandem merge`: merges the results of several folders.

use super::{Outcome, campaign, print, score};
use std::path::{Path, PathBuf};
use tandem_evaluation::results::{CombineError, CombinedResults, ResultFolder, RouteSet};
use tandem_evaluation::scoring::FoundRecord;

/// Maximum number of missing drives that are listed.
const MAX_LISTED: usize = 20;

#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  tandem merge results/shard1 results/shard2 --out results/all
  tandem merge results/official --routes routes/bench2drive220.xml --out merged.json")]
pub(super) struct Arguments {
    /// Result files or folders: shards of one campaign of `tandem eval`, or Bench2Drive results
    #[arg(value_name = "DIR|FILE", required = true)]
    folders: Vec<PathBuf>,
    /// Route file of Bench2Drive results, to list the routes without a record [default:
    /// routes/bench2drive220.xml in the folder that the environment variable TANDEM_BENCH2DRIVE
    /// names, if its routes match the results]
    #[arg(long, value_name = "FILE")]
    routes: Option<PathBuf>,
    /// New folder for the merged results, or a file (*.json) for the merged table only
    #[arg(long, value_name = "DIR|FILE")]
    out: PathBuf,
    /// Print JSON instead of text
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<Outcome> {
    let folders = arguments.folders.iter().map(|folder| ResultFolder::read(folder));
    let folders: Vec<ResultFolder> = folders.collect::<Result<_, _>>()?;
    let combined = match &arguments.routes {
        Some(routes) => CombinedResults::new(folders, Some(&RouteSet::read(routes, "")?))?,
        None => {
            match score::official_route_file().and_then(|file| RouteSet::read(&file, "").ok()) {
                None => CombinedResults::new(folders, None)?,
                Some(set) => match CombinedResults::new(folders.clone(), Some(&set)) {
                    Err(CombineError::OtherRoutes { .. }) => CombinedResults::new(folders, None)?,
                    combined => combined?,
                },
            }
        }
    };
    let records = combined.merged.records().iter();
    let contradictions: Vec<String> = records.filter_map(FoundRecord::contradiction).collect();
    if is_file(&arguments.out) {
        combined.write_table(&arguments.out)?;
    } else {
        combined.write_folder(&arguments.out)?;
    }
    if arguments.json {
        let value = serde_json::json!({
            "results": combined.merged,
            "finished": combined.merged.finished,
            "total": combined.total,
            "divisor": combined.merged.divisor,
            "missing": combined.missing,
            "contradictions": contradictions,
        });
        print::line(&serde_json::to_string_pretty(&value)?);
    } else {
        print::line(&combined.summary());
        if !combined.missing.is_empty() {
            let count = combined.missing.len();
            let listed = combined.missing[..count.min(MAX_LISTED)].join(", ");
            let others = if count > MAX_LISTED { ", …; --json lists all" } else { "" };
            print::line(&format!("{count} drives have no record: {listed}{others}"));
        }
        for contradiction in &contradictions {
            print::line(&format!(
                "driving score is not the product of its factors: {contradiction}"
            ));
        }
        print::line(&format!("merged into {}", arguments.out.display()));
        if combined.run.is_some() {
            print::line(campaign::NOTE);
        }
    }
    let is_complete = combined.merged.finished == combined.total;
    let is_valid = is_complete && contradictions.is_empty();
    Ok(if is_valid { Outcome::Done } else { Outcome::CheckFailed })
}

fn is_file(out: &Path) -> bool {
    !out.is_dir() && out.extension().is_some_and(|end| end == "json")
}
