//! Latencies of the networks compared with their lower bounds (roofline).

use crate::print;
use crate::roofline::{DeviceRates, Engine, threads_of};
use std::num::NonZeroUsize;
use std::path::Path;
use tandem::pilot::Run;
use tandem::timing::{Percentile, Stage};
use tandem_profile::page::{PeakRate, RooflineChart, RooflineRow};
use tandem_profile::roofline::lower_bound::{
    ExpertPeakRates, LowerBounds, StageLowerBound, lower_bounds,
};
use tandem_profile::roofline::peak_rates::{PeakRates, Source};
use tandem_profile::{LatencyFile, PhaseName};

/// Lower bounds of an engine on a device.
pub(super) struct EngineLowerBounds {
    /// For the networks of a prefill.
    understanding: PeakRates,
    /// For the networks of a tick.
    action: PeakRates,
    lower_bounds: LowerBounds,
    /// Number of frames per prefill that no earlier prefill has read.
    frames: usize,
}

impl EngineLowerBounds {
    /// Computes the lower bounds of `engine` on `device` for the threads and refresh period of
    /// `run`.
    pub(super) fn new(engine: &Path, device: &str, run: &Run) -> anyhow::Result<Self> {
        let rates = DeviceRates::of(device)?;
        let peak_rates = |threads| rates.peak_rates(NonZeroUsize::new(threads));
        let understanding = peak_rates(run.threads.understanding)?;
        let action = peak_rates(run.threads.action)?;
        let engine = Engine::with_options(engine, run.model.as_ref())?;
        let frames =
            new_frames(engine.frames, run.refresh_period_ticks, engine.frame_spacing_ticks);
        let experts = ExpertPeakRates { understanding: &understanding, action: &action };
        let lower_bounds = lower_bounds(&engine.costs, experts, frames)?;
        Ok(Self { understanding, action, lower_bounds, frames })
    }

    /// True if the peak rates are those of another device than the profiled one.
    fn is_predicted(&self) -> bool {
        matches!(self.action.source, Source::Datasheet { .. })
    }

    /// Formats the latency of each stage in the loop and alone, and its lower bound.
    pub(super) fn table(&self, file: &LatencyFile) -> String {
        let rows: Vec<Vec<String>> = self
            .rows(file)
            .iter()
            .map(|row| {
                let times = |p50: Option<f64>| {
                    p50.map_or(["–".to_owned(), "–".to_owned()], |ms| {
                        [ms, ms / row.floor_ms].map(print::three_digits)
                    })
                };
                let stage = Stage::named(&row.stage).expect("rows have the names of stages");
                let [alone, alone_over] = times(alone(file, stage));
                let [in_loop, in_loop_over] = times(row.measured_p50_ms);
                vec![
                    row.stage.clone(),
                    print::three_digits(row.flops / 1e9),
                    print::three_digits(row.bytes / 1e6),
                    print::three_digits(row.floor_ms),
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
            "min traffic MB",
            "lower bound ms",
            "p50 ms alone",
            "× bound",
            "p50 ms in loop",
            "× bound",
        ];
        let kind = if self.is_predicted() {
            "PREDICTED from its datasheet, not the profiled device"
        } else {
            "measured on the machine that the file names"
        };
        format!(
            "lower bounds on {} ({kind}){}; {} new frames per prefill\n{}",
            self.action.name,
            self.threads(),
            self.frames,
            print::table(&header, &rows)
        )
    }

    /// Returns the roofline chart of the HTML report.
    pub(super) fn chart(&self, file: &LatencyFile) -> RooflineChart {
        let used: Vec<_> =
            self.lower_bounds.stages.iter().flat_map(|s| s.work.flops.keys()).collect();
        let roofs = |rates: &PeakRates| {
            let of_used = rates.flops_per_s.iter().filter(|(dtype, _)| used.contains(dtype));
            let roofs = of_used.map(|(dtype, &flops_per_s)| PeakRate {
                name: format!("{dtype}, {}{}", rates.name, threads_of(rates)),
                bytes_per_s: rates.bytes_per_s,
                flops_per_s,
            });
            roofs.collect::<Vec<_>>()
        };
        let mut peak_rates = roofs(&self.action);
        if self.understanding.threads != self.action.threads {
            peak_rates.extend(roofs(&self.understanding));
        }
        RooflineChart { ceilings: peak_rates, rows: self.rows(file) }
    }

    /// Formats the number of threads of the peak rates: ", 1 thread".
    fn threads(&self) -> String {
        match self.understanding.threads == self.action.threads {
            true => threads_of(&self.action),
            false => format!(
                "{} for the networks of a tick{} for the networks of a prefill",
                threads_of(&self.action),
                threads_of(&self.understanding)
            ),
        }
    }

    /// Returns one row per stage, summed over its runs in one tick or prefill.
    fn rows(&self, file: &LatencyFile) -> Vec<RooflineRow> {
        let stages = self.lower_bounds.stages.iter().filter(|stage| stage.runs > 0);
        let row = |stage: &StageLowerBound| {
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

/// Returns the number of frames of a prompt that no earlier prefill has read, in the steady state.
/// Frames of a prompt are `spacing` ticks apart and prefills `period` ticks, so an earlier prefill
/// started with the `period / gcd(period, spacing)`-th frame before the newest.
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
    fn frames_of_an_earlier_prefill_are_not_new() {
        let new = |period| new_frames(4, period, 5);
        // At period 2, the third newest frame was the newest one five prefills earlier.
        assert_eq!([1, 2, 3, 4, 5, 10, 7].map(new), [1, 2, 3, 4, 1, 2, 4]);
    }
}
