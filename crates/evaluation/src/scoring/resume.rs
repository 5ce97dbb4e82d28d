//! Computes where the official harness resumes a result file of an earlier process.

use serde_json::Value;

/// Statuses for which the route and all later ones are driven again.
const DRIVEN_AGAIN: [&str; 3] = ["Failed", "Failed - Simulation crashed", "Failed - Agent crashed"];

/// Returns the index in `route_ids` at which the harness resumes the result file with this text;
/// `None` if it starts from the beginning.
pub fn resume_index(text: &str, route_ids: &[String]) -> Option<usize> {
    let file: Value = serde_json::from_str(text).ok()?;
    let entry_status = file.get("entry_status")?.as_str()?;
    let body = file.get("_checkpoint")?;
    let progress = body.get("progress")?.as_array()?;
    let [done, total] = [0, 1].map(|idx| progress.get(idx).and_then(Value::as_u64));
    let records = body.get("records")?.as_array()?;
    if entry_status == "Invalid" || total? != route_ids.len() as u64 {
        return None;
    }
    let done = usize::try_from(done?).ok()?;
    let mut next = done;
    for (index, route_id) in route_ids.iter().enumerate().take(done) {
        let Some(record) = records.get(index) else {
            // The file was written before its last record.
            next = records.len().saturating_sub(1);
            break;
        };
        if record.get("route_id")?.as_str()? != route_id {
            return None;
        }
        if DRIVEN_AGAIN.contains(&record.get("status")?.as_str()?) {
            next = index;
            break;
        }
    }
    Some(if entry_status == "Crashed" { next.saturating_sub(1) } else { next })
}
