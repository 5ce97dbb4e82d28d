//! `tandem merge`: results of several folders, put together.

use super::{Outcome, campaign, print};
use crate::evaluation::gather::Gathered;
use crate::evaluation::score_card::ResultFolder;
use std::path::{Path, PathBuf};

/// Drives without a record that are named.
const NAMED: usize = 20;

#[derive(clap::Args)]
pub(super) struct Arguments {
    /// Folders of result files: shards of one campaign of `tandem eval`, or of the Bench2Drive harness
    #[arg(value_name = "DIR", required = true)]
    folders: Vec<PathBuf>,
    /// New folder for everything, or a file (*.json) for the merged table alone
    #[arg(long, value_name = "DIR|FILE")]
    out: PathBuf,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<Outcome> {
    let folders = arguments.folders.iter().map(|folder| ResultFolder::read(folder));
    let gathered = Gathered::new(folders.collect::<Result<_, _>>()?)?;
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
        print::line(&format!("merged in {}", arguments.out.display()));
        if gathered.run.is_some() {
            print::line(campaign::NOTE);
        }
    }
    let is_whole = gathered.merged.finished == gathered.total;
    Ok(if is_whole { Outcome::Done } else { Outcome::CheckFailed })
}

fn is_file(out: &Path) -> bool {
    !out.is_dir() && out.extension().is_some_and(|end| end == "json")
}
