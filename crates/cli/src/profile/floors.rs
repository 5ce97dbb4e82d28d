//! What the networks took, beside the least that they can take.

use crate::print;
use crate::roofline::{DeviceRates, Engine, threads_of};
use std::num::NonZeroUsize;
use std::path::Path;
use tandem::pilot::Run;
use tandem::timing::{Percentile, Stage};
use tandem_profile::page::{Ceiling, RooflineChart, RooflineRow};
use tandem_profile::roofline::ceilings::{Ceilings, Source};
use tandem_profile::roofline::floor::{ExpertCeilings, Floors, StageFloor, floors};
use tandem_profile::{LatencyFile, PhaseName};

/// Floors of an engine on a device.
pub(super) struct EngineFloors {
    /// Ceilings of the networks of a refresh.
    understanding: Ceilings,
    /// Ceilings of the networks of a tick.
    action: Ceilings,
    floors: Floors,
    /// Frames of a refresh that no earlier one has read.
    frames: usize,
}

impl EngineFloors {
    /// Floors of the networks of `engine` on `device`, with the threads and the refresh period of
    /// `run`.
    pub(super) fn new(engine: &Path, device: &str, run: &Run) -> anyhow::Result<Self> {
        let rates = DeviceRates::of(device)?;
        let ceilings = |threads| rates.ceilings(NonZeroUsize::new(threads));
        let understanding = ceilings(run.threads.understanding)?;
        let action = ceilings(run.threads.action)?;
        let engine = Engine::with_options(engine, run.model.as_ref())?;
        let frames =
            new_frames(engine.frames, run.refresh_period_ticks, engine.frame_spacing_ticks);
        let experts = ExpertCeilings { understanding: &understanding, action: &action };
        let floors = floors(&engine.costs, experts, frames)?;
        Ok(Self { understanding, action, floors, frames })
    }

    /// Whether the ceilings are another device's than the one that ran.
    fn is_predicted(&self) -> bool {
        matches!(self.action.source, Source::Datasheet { .. })
    }

    /// Each stage: what it took in the loop and alone, and its floor.
    pub(super) fn table(&self, file: &LatencyFile) -> String {
        let rows: Vec<Vec<String>> = self
            .rows(file)
            .iter()
            .map(|row| {
                let times = |p50: Option<f64>| {
                    p50.map_or(["–".to_owned(), "–".to_owned()], |ms| {
                        [format!("{ms:.3}"), format!("{:.1}", ms / row.floor_ms)]
                    })
                };
                let stage = Stage::named(&row.stage).expect("rows are named after stages");
                let [alone, alone_over] = times(alone(file, stage));
                let [in_loop, in_loop_over] = times(row.measured_p50_ms);
                vec![
                    row.stage.clone(),
                    format!("{:.3}", row.flops / 1e9),
                    format!("{:.1}", row.bytes / 1e6),
                    format!("{:.3}", row.floor_ms),
                    alone,
                    alone_over,
                    in_loop,
                    in_loop_over,
                ]
            })
            .collect();
        let header = [
            "network",
            "GFLOP",
            "least MB",
            "floor ms",
            "p50 alone",
            "× floor",
            "p50 in loop",
            "× floor",
        ];
        let kind = if self.is_predicted() {
            "PREDICTED from its datasheet: this machine is another one"
        } else {
            "measured on the machine that the file names"
        };
        format!(
            "floors on {} ({kind}){}; {} new frames a refresh\n{}",
            self.action.name,
            self.threads(),
            self.frames,
            print::table(&header, &rows)
        )
    }

    /// The page's chart.
    pub(super) fn chart(&self, file: &LatencyFile) -> RooflineChart {
        let used: Vec<_> = self.floors.stages.iter().flat_map(|s| s.work.flops.keys()).collect();
        let drawn = |ceilings: &Ceilings| {
            let rates = ceilings.flops_per_s.iter().filter(|(dtype, _)| used.contains(dtype));
            let drawn = rates.map(|(dtype, &flops_per_s)| Ceiling {
                name: format!("{dtype}, {}{}", ceilings.name, threads_of(ceilings)),
                bytes_per_s: ceilings.bytes_per_s,
                flops_per_s,
            });
            drawn.collect::<Vec<_>>()
        };
        let mut ceilings = drawn(&self.action);
        if self.understanding.threads != self.action.threads {
            ceilings.extend(drawn(&self.understanding));
        }
        RooflineChart { ceilings, rows: self.rows(file) }
    }

    /// The threads whose rates the floors stand on: ", 1 thread".
    fn threads(&self) -> String {
        match self.understanding.threads == self.action.threads {
            true => threads_of(&self.action),
            false => format!(
                "{} for networks of every tick{} for networks of refreshes",
                threads_of(&self.action),
                threads_of(&self.understanding)
            ),
        }
    }

    /// All runs of each stage in one tick or refresh together.
    fn rows(&self, file: &LatencyFile) -> Vec<RooflineRow> {
        let stages = self.floors.stages.iter().filter(|stage| stage.runs > 0);
        let row = |stage: &StageFloor| {
            let runs = stage.runs as f64;
            RooflineRow {
                stage: stage.stage.name().to_owned(),
                floor_ms: runs * stage.floor.floor_ms,
                memory_ms: runs * stage.floor.memory_ms,
                compute_ms: runs * stage.floor.compute_ms,
                measured_p50_ms: in_loop(file, stage.stage),
                is_predicted: self.is_predicted(),
                flops: runs * stage.work.flops.values().sum::<u64>() as f64,
                bytes: runs * stage.work.bytes as f64,
            }
        };
        stages.map(row).collect()
    }
}

/// Frames of a prompt that no refresh before has read, once the loop is under way: frames stand
/// `spacing` ticks apart and refreshes `period` ticks, so that every `period / gcd(period, spacing)`-th
/// frame back is one that an earlier refresh began with.
fn new_frames(frames: usize, period: u64, spacing: u64) -> usize {
    let (mut a, mut b) = (period, spacing);
    while b > 0 {
        (a, b) = (b, a % b);
    }
    frames.min(usize::try_from(period / a).unwrap_or(usize::MAX))
}

fn p50_ms(file: &LatencyFile, phase: PhaseName, stage: Stage) -> Option<f64> {
    let took = file.phase(phase)?.statistics.stage(stage).percentile(Percentile::P50)?;
    Some(took.as_secs_f64() * 1e3)
}

fn in_loop(file: &LatencyFile, stage: Stage) -> Option<f64> {
    [PhaseName::Paced, PhaseName::BackToBack]
        .into_iter()
        .find_map(|phase| p50_ms(file, phase, stage))
}

fn alone(file: &LatencyFile, stage: Stage) -> Option<f64> {
    [PhaseName::ActionAlone, PhaseName::UnderstandingAlone]
        .into_iter()
        .find_map(|phase| p50_ms(file, phase, stage))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_that_an_earlier_refresh_read_are_not_new() {
        let new = |period| new_frames(4, period, 5);
        // At period 2, the third one was the first of the
        // refresh before the last but four.
        assert_eq!([1, 2, 3, 4, 5, 10, 7].map(new), [1, 2, 3, 4, 1, 2, 4]);
    }
}
