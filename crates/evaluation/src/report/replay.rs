//! Replays: logs embedded in the page, and their viewer.

use super::{Drive, ReportRun, scenario_type};
use crate::campaign::log::RouteLog;
use flate2::Compression;
use flate2::write::ZlibEncoder;
use serde_json::{Value, json};
use std::io::Write;

/// Maximum size of the replays of a page, bytes of text. With the charting library's 4.6 MB and the
/// tables, a page is smaller than 25 MB.
const REPLAY_BYTES: usize = 18 << 20;

/// Log in the form embedded in the page: its JSON, deflated, in base64.
pub(super) struct Packed(String);

impl Packed {
    pub(super) fn new(log: &RouteLog) -> Self {
        let json = serde_json::to_vec(log).expect("a log is serializable");
        let mut encoder = ZlibEncoder::new(Vec::new(), Compression::best());
        let written = encoder.write_all(&json).and_then(|()| encoder.finish());
        Self(base64(&written.expect("writing to memory succeeds")))
    }
}

/// Selection of the replays of a page.
pub(super) struct Replays<'a> {
    drives: Vec<(usize, &'a ReportRun, &'a Drive)>,
    /// True for each drive with an embedded log.
    is_embedded: Vec<bool>,
}

impl<'a> Replays<'a> {
    /// Selects the logs to embed: drives with infractions first, each group by ascending score.
    pub(super) fn new(runs: &'a [ReportRun]) -> Self {
        let drives: Vec<_> = runs
            .iter()
            .enumerate()
            .flat_map(|(idx, run)| run.drives.iter().map(move |drive| (idx, run, drive)))
            .collect();
        let mut order: Vec<usize> = (0..drives.len()).collect();
        let score = |idx: &usize| drives[*idx].2.record.scores.score_composed;
        let is_clean = |idx: &usize| drives[*idx].2.infractions.is_empty();
        order.sort_by(|a, b| is_clean(a).cmp(&is_clean(b)).then(score(a).total_cmp(&score(b))));
        let mut is_embedded = vec![false; drives.len()];
        let mut budget = REPLAY_BYTES;
        for idx in order {
            let Some(packed) = &drives[idx].2.replay else { continue };
            if let Some(rest) = budget.checked_sub(packed.0.len()) {
                (budget, is_embedded[idx]) = (rest, true);
            }
        }
        Self { drives, is_embedded }
    }

    /// Returns the viewer, with the number of logs that are not embedded.
    pub(super) fn section(&self) -> String {
        if self.drives.is_empty() {
            return "<h2 id=\"replay\">Replay</h2><p>No drive is finished.</p>".to_owned();
        }
        let has_log = self.drives.iter().filter(|(_, _, drive)| drive.replay.is_some()).count();
        let embedded = self.is_embedded.iter().filter(|is| **is).count();
        let missing = match has_log - embedded {
            0 => String::new(),
            missing => format!(
                "<p class=\"small\">{missing} replays are omitted to keep this page below 25 MB; \
                 drives with infractions have priority. <code>tandem report --only</code> writes a \
                 page of fewer routes.</p>"
            ),
        };
        format!("<h2 id=\"replay\">Replay</h2>{VIEWER}{missing}")
    }

    /// Returns the metadata of each drive for the viewer.
    pub(super) fn entries(&self) -> Vec<Value> {
        let entry = |(idx, (run_idx, run, drive)): (usize, &(usize, &ReportRun, &Drive))| {
            let (route, repetition) = drive.parts();
            let kind = scenario_type(&drive.record.scenario_name);
            let why = match &drive.replay {
                Some(_) => {
                    "This replay is omitted to keep the page small: write a page of fewer \
                     routes with tandem report --only."
                }
                None => "This drive has no log.",
            };
            let driver = if *run_idx > 0 { format!(" ({})", run.driver) } else { String::new() };
            json!({
                "id": route,
                "rep": repetition,
                "run": run_idx,
                "title": format!(
                    "{} · {kind} · {} · {:.2}{driver}",
                    super::scores::short_id(drive), drive.record.status,
                    drive.record.scores.score_composed
                ),
                "budget": run.tick_budget.map(|budget| budget.as_secs_f64() * 1e3),
                "replay": format!("replay-{idx}"),
                "still": drive.still.as_ref().map(|_| format!("still-{idx}")),
                "why": why,
            })
        };
        self.drives.iter().enumerate().map(entry).collect()
    }

    /// Returns the data elements at the end of the page.
    pub(super) fn scripts(&self) -> String {
        let mut out = String::new();
        for (idx, (_, _, drive)) in self.drives.iter().enumerate() {
            if let Some(packed) = drive.replay.as_ref().filter(|_| self.is_embedded[idx]) {
                out += "<script type=\"text/plain\" id=\"replay-";
                out += &format!("{idx}\">{}</script>\n", packed.0);
            }
            if let Some(still) = &drive.still {
                out += "<script type=\"text/plain\" id=\"still-";
                out += &format!("{idx}\">data:image/png;base64,{still}</script>\n");
            }
        }
        out
    }
}

const VIEWER: &str = include_str!("viewer.html");

/// Encodes base64 with padding (RFC 4648).
pub(super) fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let byte = |index: usize| u32::from(chunk.get(index).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for letter in 0..4 {
            if letter <= chunk.len() {
                out.push(char::from(LETTERS[(bits >> (18 - 6 * letter)) as usize & 63]));
            } else {
                out.push('=');
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_padded() {
        let cases =
            [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foobar", "Zm9vYmFy")];
        for (text, expected) in cases {
            assert_eq!(base64(text.as_bytes()), expected);
        }
    }
}
