//! `tandem merge`: results of several folders, put together.

use super::{Outcome, campaign, print, score};
use std::path::{Path, PathBuf};
use tandem_evaluation::results::{GatherError, Gathered, ResultFolder, RouteSet};
use tandem_evaluation::scoring::FoundRecord;

/// Drives without a record that are named.
const NAMED: usize = 20;

#[derive(clap::Args)]
pub(super) struct Arguments {
    /// Folders of result files, or result files: shards of one campaign of `tandem eval`, or of the
    /// Bench2Drive harness
    #[arg(value_name = "DIR|FILE", required = true)]
    folders: Vec<PathBuf>,
    /// Route file that results of the Bench2Drive harness are of, to name routes without a record
    /// [default: routes/bench2drive220.xml of the folder that the variable TANDEM_BENCH2DRIVE names,
    /// if the results are of its routes]
    #[arg(long, value_name = "FILE")]
    routes: Option<PathBuf>,
    /// New folder for everything, or a file (*.json) for the merged table alone
    #[arg(long, value_name = "DIR|FILE")]
    out: PathBuf,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<Outcome> {
    let folders = arguments.folders.iter().map(|folder| ResultFolder::read(folder));
    let folders: Vec<ResultFolder> = folders.collect::<Result<_, _>>()?;
    let gathered = match &arguments.routes {
        Some(routes) => Gathered::new(folders, Some(&RouteSet::read(routes, "")?))?,
        None => {
            match score::official_route_file().and_then(|file| RouteSet::read(&file, "").ok()) {
                None => Gathered::new(folders, None)?,
                Some(set) => match Gathered::new(folders.clone(), Some(&set)) {
                    Err(GatherError::OtherRoutes { .. }) => Gathered::new(folders, None)?,
                    gathered => gathered?,
                },
            }
        }
    };
    let records = gathered.merged.records().iter();
    let contradictions: Vec<String> = records.filter_map(FoundRecord::contradiction).collect();
    if is_file(&arguments.out) {
        gathered.write_table(&arguments.out)?;
    } else {
        gathered.write_folder(&arguments.out)?;
    }
    if arguments.json {
        let value = serde_json::json!({
            "results": gathered.merged,
            "finished": gathered.merged.finished,
            "total": gathered.total,
            "divisor": gathered.merged.divisor,
            "missing": gathered.missing,
            "contradictions": contradictions,
        });
        print::line(&serde_json::to_string_pretty(&value)?);
    } else {
        print::line(&gathered.summary());
        if !gathered.missing.is_empty() {
            let count = gathered.missing.len();
            let named = gathered.missing[..count.min(NAMED)].join(", ");
            let others = if count > NAMED { ", …; --json names all" } else { "" };
            print::line(&format!("{count} drives have no record: {named}{others}"));
        }
        for one in &contradictions {
            print::line(&format!("not a product of its parts, as if edited: {one}"));
        }
        print::line(&format!("merged in {}", arguments.out.display()));
        if gathered.run.is_some() {
            print::line(campaign::NOTE);
        }
    }
    let is_right = gathered.merged.finished == gathered.total && contradictions.is_empty();
    Ok(if is_right { Outcome::Done } else { Outcome::CheckFailed })
}

fn is_file(out: &Path) -> bool {
    !out.is_dir() && out.extension().is_some_and(|end| end == "json")
}
