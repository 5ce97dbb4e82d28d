//! Where the official harness goes on in a result file that an earlier process left.

use serde_json::Value;

/// Statuses after which a route, and every one after it, is driven again.
const DRIVEN_AGAIN: [&str; 3] = ["Failed", "Failed - Simulation crashed", "Failed - Agent crashed"];

/// The index of the first of `route_ids` that the harness drives when it resumes the file with this
/// text; `None` if it starts anew.
pub fn resume_index(text: &str, route_ids: &[String]) -> Option<usize> {
    let file: Value = serde_json::from_str(text).ok()?;
    let entry_status = file.get("entry_status")?.as_str()?;
    let body = file.get("_checkpoint")?;
    let progress = body.get("progress")?.as_array()?;
    let [done, total] = [0, 1].map(|place| progress.get(place).and_then(Value::as_u64));
    let records = body.get("records")?.as_array()?;
    if entry_status == "Invalid" || total? != route_ids.len() as u64 {
        return None;
    }
    let done = usize::try_from(done?).ok()?;
    let mut next = done;
    for (index, route_id) in route_ids.iter().enumerate().take(done) {
        let Some(record) = records.get(index) else {
            // The file was written before the last record was.
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
