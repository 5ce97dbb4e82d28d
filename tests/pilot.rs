//! The two-rate loop under experts whose timing the test decides.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails here")]

use arrayvec::ArrayVec;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;
use tandem::control::{Localizer, PathFollower, PathFollowerConfig, StateFilterConfig};
use tandem::kv_cache::{KvSnapshot, KvWriter, Layout, PrefixMeta, SlotPool};
use tandem::model::{ActionExpert, ModelError, RefreshRequest, UnderstandingExpert};
use tandem::pilot::{ClockName, Pilot, Run, RunFile};
use tandem::scene::{
    Command, Driver, FrameId, GeoReference, Gnss, Imu, Observation, Pose, Trajectory,
};
use tandem::tensor::DType;
use tandem::timing::{StageTimes, Timestamp};

const TICK: Duration = Duration::from_millis(50);

/// How a test's understanding expert behaves.
enum Slow {
    /// Answers at once.
    Prompt,
    /// Answers when told to.
    WhenTold(Receiver<()>),
    /// Fails at these versions, answers at once otherwise.
    FailsAt(&'static [u64]),
}

impl UnderstandingExpert for Slow {
    fn refresh(
        &mut self,
        request: &RefreshRequest,
        mut writer: KvWriter,
        _: &mut StageTimes,
    ) -> Result<KvSnapshot, ModelError> {
        match self {
            Self::Prompt => {}
            // A test that failed drops its end: the thread must end then, too.
            Self::WhenTold(told) => drop(told.recv()),
            Self::FailsAt(versions) if versions.contains(&request.version) => {
                return Err(ModelError::Tokenize("as the test asked".into()));
            }
            Self::FailsAt(_) => {}
        }
        for tensor in writer.slot_mut().tensors_mut() {
            tensor.as_mut_slice::<f32>().fill(request.version as f32);
        }
        Ok(writer.seal(PrefixMeta {
            version: request.version,
            frames: ArrayVec::from_iter([request.version]),
            captured_at: request.captured_at,
            valid_length: 1,
            next_position: 1,
        }))
    }
}

/// An action expert that checks what it reads, and drives straight on.
struct Fast {
    now: Timestamp,
    /// The first tick at which the history suffices for a refresh.
    ready_at: u64,
    frame: u64,
    /// Whether the trajectory holds a NaN.
    is_broken: bool,
}

impl ActionExpert for Fast {
    fn observe(&mut self, observation: &Observation, _: &Pose) -> Result<(), ModelError> {
        (self.now, self.frame) = (observation.time, observation.frame.0);
        Ok(())
    }

    fn refresh_request(&self, version: u64) -> Option<RefreshRequest> {
        (self.frame >= self.ready_at).then(|| RefreshRequest {
            version,
            captured_at: self.now,
            frames: ArrayVec::new(),
            target_points_m: [[10.0, 0.0]; 2],
            speed_mps: 0.0,
        })
    }

    fn act(&mut self, prefix: &KvSnapshot, _: &mut StageTimes) -> Result<Trajectory, ModelError> {
        for tensor in prefix.slot().tensors() {
            let version = prefix.meta().version as f32;
            assert!(tensor.as_slice::<f32>().iter().all(|&value| value == version), "torn prefix");
        }
        let step = if self.is_broken { f32::NAN } else { 2.0 };
        Ok(Trajectory {
            path: (1..=20).map(|i| [i as f32, 0.0]).collect(),
            waypoints: (1..=6).map(|i| [i as f32 * step, 0.0]).collect(),
            spacing: Duration::from_millis(500),
        })
    }
}

struct Setup {
    run: RunFile,
    slow: Slow,
    ready_at: u64,
    is_broken: bool,
    slots: usize,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            run: RunFile::default(),
            slow: Slow::Prompt,
            ready_at: 1,
            is_broken: false,
            slots: 3,
        }
    }
}

impl Setup {
    fn pilot(self) -> Pilot {
        let layout = Layout {
            layers: 2,
            heads: 1,
            capacity: 4,
            key_dim: 8,
            value_dim: 4,
            dtype: DType::F32,
        };
        let fast = Fast {
            now: Timestamp::ZERO,
            ready_at: self.ready_at,
            frame: 0,
            is_broken: self.is_broken,
        };
        Pilot::new(
            &Run::try_from(&self.run).unwrap(),
            Box::new(self.slow),
            Box::new(fast),
            Localizer::new(StateFilterConfig::default(), GeoReference::default()),
            PathFollower::new(PathFollowerConfig::default()),
            SlotPool::new(layout, self.slots),
        )
        .unwrap()
    }
}

fn observation(frame: u64) -> Observation {
    let GeoReference { latitude_deg, longitude_deg } = GeoReference::default();
    Observation {
        frame: FrameId(frame),
        time: Timestamp::after(TICK * frame as u32),
        camera: None,
        lidar: None,
        imu: Imu { compass_rad: std::f64::consts::FRAC_PI_2, ..Imu::default() },
        gnss: Gnss { latitude_deg, longitude_deg, altitude_m: 0.0 },
        speed_mps: 0.0,
        truth: None,
    }
}

/// Drives `ticks` ticks and writes which prefix each acted on and how old it was in ticks, as
/// `version@age`, or `-` without a prefix.
fn drive(pilot: &mut Pilot, ticks: std::ops::RangeInclusive<u64>) -> String {
    let words: Vec<String> = ticks
        .map(|frame| {
            let control = pilot.drive(&observation(frame)).unwrap();
            assert_eq!(control.report.frame, FrameId(frame));
            match control.report.prefix {
                None => {
                    assert_eq!(control.command, Command::FULL_BRAKE, "no prefix, so brake");
                    "-".to_owned()
                }
                Some(prefix) => {
                    let age = prefix.age.as_millis() / TICK.as_millis();
                    format!("{}@{age}", prefix.version)
                }
            }
        })
        .collect();
    words.join(" ")
}

fn virtual_run(refresh_latency_millis: f64, refresh_period_ticks: u32) -> RunFile {
    RunFile { refresh_latency_millis, refresh_period_ticks, ..RunFile::default() }
}

#[test]
fn without_latency_virtual_time_is_lockstep() {
    let mut pilot = Setup { run: virtual_run(0.0, 2), ..Setup::default() }.pilot();
    assert_eq!(drive(&mut pilot, 1..=6), "1@0 1@1 2@0 2@1 3@0 3@1");
}

#[test]
fn a_prefix_is_seen_exactly_when_its_virtual_latency_has_passed() {
    let mut pilot = Setup { run: virtual_run(100.0, 2), ..Setup::default() }.pilot();
    assert_eq!(drive(&mut pilot, 1..=8), "- - 1@2 1@3 2@2 2@3 3@2 3@3");
    // One millisecond more is one tick more; a refresh that outlasts its period delays the next.
    let mut pilot = Setup { run: virtual_run(101.0, 2), ..Setup::default() }.pilot();
    assert_eq!(drive(&mut pilot, 1..=8), "- - - 1@3 1@4 1@5 2@3 2@4");
    assert!(pilot.statistics().refreshes_delayed > 0);
}

#[test]
fn a_refresh_waits_until_the_history_suffices() {
    let mut pilot = Setup { ready_at: 4, run: virtual_run(0.0, 2), ..Setup::default() }.pilot();
    assert_eq!(drive(&mut pilot, 1..=6), "- - - 1@0 1@1 2@0");
    assert_eq!(pilot.statistics().ticks_without_prefix, 3);
}

#[test]
fn a_refresh_that_fails_leaves_the_old_prefix_in_use_and_its_slot_free() {
    let slow = Slow::FailsAt(&[2, 3, 4, 5]);
    let mut pilot = Setup { slow, run: virtual_run(0.0, 1), ..Setup::default() }.pilot();
    assert_eq!(drive(&mut pilot, 1..=6), "1@0 1@1 1@2 1@3 1@4 6@0");
    let statistics = pilot.statistics();
    assert_eq!((statistics.refreshes_failed, statistics.slots_exhausted), (4, 0));
}

#[test]
fn a_trajectory_that_is_not_finite_is_braked_for() {
    let mut pilot = Setup { is_broken: true, ..Setup::default() }.pilot();
    let control = pilot.drive(&observation(1)).unwrap();
    assert_eq!(control.command, Command::FULL_BRAKE);
    assert_eq!(pilot.statistics().trajectories_not_finite, 1);
}

#[test]
fn a_finite_trajectory_is_followed() {
    let mut pilot = Setup::default().pilot();
    let control = pilot.drive(&observation(1)).unwrap();
    assert!(control.command.throttle > 0.0 && control.command.brake == 0.0);
}

#[test]
fn with_one_slot_a_refresh_finds_none_free_and_the_tick_goes_on() {
    let mut pilot = Setup { slots: 1, run: virtual_run(0.0, 1), ..Setup::default() }.pilot();
    assert_eq!(drive(&mut pilot, 1..=3), "1@0 1@1 1@2");
    assert_eq!(pilot.statistics().slots_exhausted, 2);
}

#[test]
fn on_the_wall_clock_ticks_never_wait_for_a_refresh() {
    let (tell, told) = sync_channel(8);
    let run = RunFile { clock: ClockName::Wall, refresh_period_ticks: 2, ..RunFile::default() };
    let mut pilot = Setup { slow: Slow::WhenTold(told), run, ..Setup::default() }.pilot();
    let tell = tell; // Dropped before the pilot, which waits for its thread.
    // The expert answers nothing: if a tick waited, this would hang.
    assert_eq!(drive(&mut pilot, 1..=5), "- - - - -");
    assert_eq!(pilot.statistics().refreshes_delayed, 3);
    let frame = drive_until_prefix(&mut pilot, &tell, 6);
    // Now the next refresh hangs, and the prefix grows old in use.
    let words = drive(&mut pilot, frame + 1..=frame + 3);
    assert!(words.split(' ').all(|word| word.starts_with("1@")), "{words}");
    tell.send(()).unwrap(); // Let the thread end.
}

/// Lets one refresh finish and ticks until its prefix is seen; returns that tick.
fn drive_until_prefix(pilot: &mut Pilot, tell: &SyncSender<()>, mut frame: u64) -> u64 {
    tell.send(()).unwrap();
    loop {
        if pilot.drive(&observation(frame)).unwrap().report.prefix.is_some() {
            return frame;
        }
        frame += 1;
        std::thread::yield_now();
    }
}

#[test]
fn a_pilot_that_is_dropped_ends_its_thread() {
    let (tell, told) = sync_channel(8);
    let mut pilot = Setup { slow: Slow::WhenTold(told), ..Setup::default() }.pilot();
    let tell = tell;
    tell.send(()).unwrap();
    drive(&mut pilot, 1..=1);
    drop(pilot);
    // The expert, and with it the receiver, went with its thread.
    assert!(tell.send(()).is_err());
}
