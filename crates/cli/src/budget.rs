//! Verdicts of a budget as a table.

use super::print;
use tandem_profile::{Quantity, Verdict};

/// Formats one row per limit and the number of limits that are not kept.
pub(super) fn verdict_table(verdicts: &[Verdict]) -> String {
    let rows: Vec<Vec<String>> = verdicts
        .iter()
        .map(|verdict| {
            let outcome = match (&verdict.cannot_tell, verdict.is_kept) {
                (Some(reason), _) => format!("not decidable: {reason}"),
                (None, true) => "kept".to_owned(),
                (None, false) => "NOT KEPT".to_owned(),
            };
            vec![
                verdict.what.clone(),
                cell(&verdict.limit),
                verdict.found.as_ref().map(cell).unwrap_or_default(),
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

fn cell(quantity: &Quantity) -> String {
    match quantity {
        Quantity::Ms(ms) => format!("{} ms", print::three_digits(*ms)),
        Quantity::Share(share) => format!("{} %", print::three_digits(share * 100.0)),
        Quantity::Skipped => "skipped".to_owned(),
    }
}
