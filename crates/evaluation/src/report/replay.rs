//! Replays: logs packed into the page, and the viewer that plays them.

use super::{Drive, ReportRun, scenario_type};
use crate::campaign::log::RouteLog;
use flate2::Compression;
use flate2::write::ZlibEncoder;
use serde_json::{Value, json};
use std::io::Write;

/// Replays that a page holds, bytes of text. With the charting library's 4.6 MB and the tables, a
/// page stays below 25 MB.
const REPLAY_BYTES: usize = 18 << 20;

/// A log as the page holds it: its file, deflated, in base64.
pub(super) struct Packed(String);

impl Packed {
    pub(super) fn new(log: &RouteLog) -> Self {
        let json = serde_json::to_vec(log).expect("a log can be written as JSON");
        let mut encoder = ZlibEncoder::new(Vec::new(), Compression::best());
        let written = encoder.write_all(&json).and_then(|()| encoder.finish());
        Self(base64(&written.expect("memory takes what is written to it")))
    }
}

/// The replays of a page.
pub(super) struct Replays<'a> {
    drives: Vec<(usize, &'a ReportRun, &'a Drive)>,
    /// Whether each drive's log is in the page.
    is_held: Vec<bool>,
}

impl<'a> Replays<'a> {
    /// Chooses what is held: drives with infractions first, the lowest scores before others.
    pub(super) fn new(runs: &'a [ReportRun]) -> Self {
        let drives: Vec<_> = runs
            .iter()
            .enumerate()
            .flat_map(|(place, run)| run.drives.iter().map(move |drive| (place, run, drive)))
            .collect();
        let mut order: Vec<usize> = (0..drives.len()).collect();
        let score = |at: &usize| drives[*at].2.record.scores.score_composed;
        let is_clean = |at: &usize| drives[*at].2.infractions.is_empty();
        order.sort_by(|a, b| is_clean(a).cmp(&is_clean(b)).then(score(a).total_cmp(&score(b))));
        let mut is_held = vec![false; drives.len()];
        let mut left = REPLAY_BYTES;
        for at in order {
            let Some(packed) = &drives[at].2.replay else { continue };
            if let Some(rest) = left.checked_sub(packed.0.len()) {
                (left, is_held[at]) = (rest, true);
            }
        }
        Self { drives, is_held }
    }

    /// The viewer, and how many drives it cannot show.
    pub(super) fn section(&self) -> String {
        if self.drives.is_empty() {
            return "<h2 id=\"replay\">Replay</h2><p>No drive is finished.</p>".to_owned();
        }
        let has_log = self.drives.iter().filter(|(_, _, drive)| drive.replay.is_some()).count();
        let held = self.is_held.iter().filter(|held| **held).count();
        let missing = match has_log - held {
            0 => String::new(),
            missing => format!(
                "<p class=\"small\">{missing} replays are left out to keep this page below 25 MB; \
                 drives with infractions are kept first. <code>tandem report --only</code> makes a page \
                 of fewer routes.</p>"
            ),
        };
        format!("<h2 id=\"replay\">Replay</h2>{VIEWER}{missing}")
    }

    /// What the viewer knows of each drive.
    pub(super) fn entries(&self) -> Vec<Value> {
        let entry = |(at, (place, run, drive)): (usize, &(usize, &ReportRun, &Drive))| {
            let (route, repetition) = drive.parts();
            let kind = scenario_type(&drive.record.scenario_name);
            let why = match &drive.replay {
                Some(_) => {
                    "This replay is left out to keep the page small: make a page of fewer \
                            routes with tandem report --only."
                }
                None => "This drive has no log.",
            };
            let driver = if *place > 0 { format!(" ({})", run.driver) } else { String::new() };
            json!({
                "id": route,
                "rep": repetition,
                "run": place,
                "title": format!(
                    "{} · {kind} · {} · {:.2}{driver}",
                    super::scores::short_id(drive), drive.record.status,
                    drive.record.scores.score_composed
                ),
                "budget": run.tick_budget.map(|budget| budget.as_secs_f64() * 1e3),
                "replay": format!("replay-{at}"),
                "still": drive.still.as_ref().map(|_| format!("still-{at}")),
                "why": why,
            })
        };
        self.drives.iter().enumerate().map(entry).collect()
    }

    /// The data elements behind the page.
    pub(super) fn scripts(&self) -> String {
        let mut out = String::new();
        for (at, (_, _, drive)) in self.drives.iter().enumerate() {
            if let Some(packed) = drive.replay.as_ref().filter(|_| self.is_held[at]) {
                out += "<script type=\"text/plain\" id=\"replay-";
                out += &format!("{at}\">{}</script>\n", packed.0);
            }
            if let Some(still) = &drive.still {
                out += "<script type=\"text/plain\" id=\"still-";
                out += &format!("{at}\">data:image/png;base64,{still}</script>\n");
            }
        }
        out
    }
}

const VIEWER: &str = include_str!("viewer.html");

/// RFC 4648, with padding.
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
    fn base64_pads_as_the_standard_says() {
        let cases =
            [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foobar", "Zm9vYmFy")];
        for (text, expected) in cases {
            assert_eq!(base64(text.as_bytes()), expected);
        }
    }
}
