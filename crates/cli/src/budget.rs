//! Verdicts of a budget, for people.

use super::print;
use tandem_profile::Verdict;

/// One line for each limit, and how many were not kept.
pub(super) fn verdict_table(verdicts: &[Verdict]) -> String {
    let rows: Vec<Vec<String>> = verdicts
        .iter()
        .map(|verdict| {
            let outcome = match (&verdict.cannot_tell, verdict.is_kept) {
                (Some(why), _) => format!("cannot tell: {why}"),
                (None, true) => "kept".to_owned(),
                (None, false) => "NOT KEPT".to_owned(),
            };
            vec![
                verdict.what.clone(),
                verdict.limit.to_string(),
                verdict.found.map(|found| found.to_string()).unwrap_or_default(),
                verdict.count.to_string(),
                outcome,
            ]
        })
        .collect();
    let broken = verdicts.iter().filter(|verdict| !verdict.is_kept).count();
    format!(
        "{}\n{broken} of {} limits not kept",
        print::table(&["limit on", "limit", "found", "count", ""], &rows),
        verdicts.len()
    )
}
