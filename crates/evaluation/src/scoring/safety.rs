//! Degraded operation that a score does not show: held commands, rejected answers, stale inputs.

use super::python::round;
use serde::{Deserialize, Serialize};
use std::time::Duration;
use tandem_scene::{Observation, TICK, TickReport};

/// Counts of degraded ticks of one drive, and the greatest ages of the inputs of its commands.
///
/// Stored under tandem's own key `safety` of a record, which is omitted if all values are zero, as
/// for drivers that answer every tick at once from current sensor data.
#[derive(Clone, Copy, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct Safety {
    /// Ticks at which the command of the previous tick was applied again.
    pub commands_held: u64,
    /// Answers that contained a NaN or an infinity.
    pub answers_not_finite: u64,
    /// Prefills that ended in an error; the previous prefix stayed in use.
    pub prefills_failed: u64,
    /// Ticks at which the state filter diverged and was restarted.
    pub filter_restarts: u64,
    /// Greatest age of the prefix KV cache (of the scene, for drivers without one) that a command
    /// was computed from, seconds.
    pub oldest_prefix_s: f64,
    /// Greatest age of a camera image when the driver received it, seconds.
    pub oldest_camera_s: f64,
    /// Greatest age of a LiDAR sweep when the driver received it, seconds.
    pub oldest_lidar_s: f64,
}

impl Safety {
    /// Updates the ages of sensor data from a tick's observation.
    pub(crate) fn count_observation(&mut self, observation: &Observation) {
        for (_, camera) in observation.cameras.iter() {
            raise(&mut self.oldest_camera_s, observation.time.since(camera.captured_at));
        }
        if let Some(lidar) = &observation.lidar {
            let ticks = observation.frame.0.saturating_sub(lidar.id.0);
            raise(
                &mut self.oldest_lidar_s,
                TICK.saturating_mul(u32::try_from(ticks).unwrap_or(u32::MAX)),
            );
        }
    }

    /// Updates the counts and the age of the prefix from a tick's report.
    pub(crate) fn count_report(&mut self, report: &TickReport) {
        self.commands_held += u64::from(report.is_held);
        self.answers_not_finite += u64::from(report.is_answer_rejected);
        let has_failed = report.prefill.as_ref().is_some_and(|refresh| !refresh.is_published);
        self.prefills_failed += u64::from(has_failed);
        self.filter_restarts += u64::from(report.is_filter_restarted);
        if let Some(prefix) = &report.prefix {
            raise(&mut self.oldest_prefix_s, prefix.age);
        }
    }

    /// Adds another drive: counts are summed, ages are the greater ones.
    pub fn add(&mut self, other: &Self) {
        self.commands_held += other.commands_held;
        self.answers_not_finite += other.answers_not_finite;
        self.prefills_failed += other.prefills_failed;
        self.filter_restarts += other.filter_restarts;
        self.oldest_prefix_s = self.oldest_prefix_s.max(other.oldest_prefix_s);
        self.oldest_camera_s = self.oldest_camera_s.max(other.oldest_camera_s);
        self.oldest_lidar_s = self.oldest_lidar_s.max(other.oldest_lidar_s);
    }

    /// Returns `None` if all values are zero.
    pub(crate) fn if_any(self) -> Option<Self> {
        (self != Self::default()).then_some(self)
    }

    /// Returns the faults of the model and of the state filter as text; `None` without faults.
    pub fn faults(&self) -> Option<String> {
        let counts = [
            (self.answers_not_finite, "answers of the model were not finite"),
            (self.prefills_failed, "prefills failed"),
            (self.filter_restarts, "restarts of the state filter"),
        ];
        let faults = counts.iter().filter(|(count, _)| *count > 0);
        let faults: Vec<String> = faults.map(|(count, text)| format!("{count} {text}")).collect();
        (!faults.is_empty()).then(|| faults.join(", "))
    }
}

fn raise(oldest_s: &mut f64, age: Duration) {
    *oldest_s = oldest_s.max(round(age.as_secs_f64(), 3));
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use tandem_scene::{
        CameraFrame, CameraId, Cameras, FrameId, Gnss, Imu, LidarSweep, PrefillReport, PrefixInfo,
    };
    use tandem_timing::{StageSpans, Timestamp};

    /// Observation of a tick with the image and sweep of an earlier one.
    fn observation(tick: u64, seen_at: u64) -> Observation {
        let at = |tick: u64| Timestamp::after(TICK * tick as u32);
        let id = FrameId(seen_at);
        let (width, height, rgb) = (0, 0, Vec::new());
        Observation {
            frame: FrameId(tick),
            time: at(tick),
            cameras: Cameras::one(
                CameraId::FRONT,
                Arc::new(CameraFrame { id, captured_at: at(seen_at), width, height, rgb }),
            ),
            lidar: Some(Arc::new(LidarSweep { id, points: Vec::new() })),
            imu: Imu::default(),
            gnss: Gnss::default(),
            speed_mps: 0.0,
            truth: None,
        }
    }

    #[test]
    fn frozen_sensors_raise_their_age() {
        let mut safety = Safety::default();
        (1..=100).for_each(|tick| safety.count_observation(&observation(tick, tick)));
        assert_eq!(safety.if_any(), None);
        (101..=160).for_each(|tick| safety.count_observation(&observation(tick, 100)));
        (161..=200).for_each(|tick| safety.count_observation(&observation(tick, tick)));
        assert_eq!((safety.oldest_camera_s, safety.oldest_lidar_s), (3.0, 3.0));
        assert_eq!(safety.faults(), None);
    }

    #[test]
    fn events_are_counted_and_the_greatest_age_is_kept() {
        let mut safety = Safety::default();
        let age = |millis| Some(PrefixInfo { version: 1, age: Duration::from_millis(millis) });
        let failed =
            PrefillReport { version: 2, is_published: false, spans: StageSpans::default() };
        let published = PrefillReport { is_published: true, ..failed.clone() };
        for report in [
            TickReport { prefix: age(118_050), is_held: true, ..TickReport::default() },
            TickReport { prefix: age(50), prefill: Some(published), ..TickReport::default() },
            TickReport { prefill: Some(failed), is_answer_rejected: true, ..TickReport::default() },
            TickReport { is_filter_restarted: true, ..TickReport::default() },
        ] {
            safety.count_report(&report);
        }
        let expected = Safety {
            commands_held: 1,
            answers_not_finite: 1,
            prefills_failed: 1,
            filter_restarts: 1,
            oldest_prefix_s: 118.05,
            ..Safety::default()
        };
        assert_eq!(safety, expected);
        let mut both = Safety { oldest_prefix_s: 1.0, commands_held: 2, ..Safety::default() };
        both.add(&safety);
        assert_eq!((both.commands_held, both.oldest_prefix_s), (3, 118.05));
        let faults = both.faults().unwrap();
        assert!(
            faults.contains("1 answers of the model were not finite, 1 prefills failed"),
            "{faults}"
        );
    }
}
