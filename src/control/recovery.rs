//! Heuristics of the AutoMoT release for a stuck vehicle.
//!
//! Each of the three can be disabled. *Force move*: after standing for 15 s, apply throttle
//! regardless of the model. *Parking start*: a vehicle that has hardly moved since the start of the
//! route is boxed in and not forced. *Escape*: a vehicle that has stayed in one place for 75 s
//! steers to the left for 2 s, and the model receives target points to the side.

use crate::scene::{Command, Detour, Pose, RouteSkip, wrap_angle};
use glam::DVec2;
use std::collections::VecDeque;

/// Parameters of the force move heuristic.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct ForceMoveConfig {
    /// Ticks with a lower speed are counted, m/s.
    pub standing_below_mps: f64,
    /// A tick with a higher speed resets the count, m/s.
    pub moving_above_mps: f64,
    /// Count above which the vehicle is forced.
    pub after_ticks: u32,
    pub for_ticks: u32,
    /// Minimum throttle while the vehicle is forced.
    pub throttle: f64,
}

impl Default for ForceMoveConfig {
    /// Returns the values of the release.
    fn default() -> Self {
        Self {
            standing_below_mps: 0.1,
            moving_above_mps: 0.2,
            after_ticks: 300,
            for_ticks: 14,
            throttle: 0.4,
        }
    }
}

/// Parameters of the test for a vehicle that starts between parked vehicles.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct ParkingStartConfig {
    /// Ticks after the first one at which the test is made once.
    pub after_ticks: u64,
    /// Distance from the first position below which the vehicle is never forced, meters.
    pub within_m: f64,
}

impl Default for ParkingStartConfig {
    /// Returns the values of the release.
    fn default() -> Self {
        Self { after_ticks: 200, within_m: 6.0 }
    }
}

/// Parameters of the escape heuristic.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct EscapeConfig {
    /// Ticks between two snapshots of the position.
    pub snapshot_every_ticks: u64,
    /// Minimum age of the oldest snapshot for an escape, ticks.
    pub window_ticks: u64,
    /// Maximum distance of all snapshots from the oldest, meters.
    pub within_m: f64,
    pub for_ticks: u32,
    /// Command during an escape.
    pub command: Command,
    /// Target points for the model during an escape, in the ego frame (x forward, y right), meters.
    pub targets_m: [DVec2; 2],
    /// Offset of the target points to the right for each attempt, meters.
    pub sideways_per_attempt_m: f64,
    /// Route points that are skipped at the start of an escape.
    pub skip: RouteSkip,
    /// Change of heading that ends an escape, radians.
    pub turned_rad: f64,
    /// Distance that ends an escape, meters.
    pub moved_m: f64,
    /// Minimum number of ticks until the next escape.
    pub cooldown_ticks: u32,
}

impl Default for EscapeConfig {
    /// Returns the values of the release, which steers left with targets on the right.
    fn default() -> Self {
        Self {
            snapshot_every_ticks: 200,
            window_ticks: 1500,
            within_m: 5.0,
            for_ticks: 40,
            command: Command { steer: -0.65, throttle: 0.45, brake: 0.0 },
            targets_m: [DVec2::new(3.0, 5.0), DVec2::new(6.0, 5.0)],
            sideways_per_attempt_m: 1.5,
            skip: RouteSkip { points: 5, keep: 3 },
            turned_rad: 25.0_f64.to_radians(),
            moved_m: 6.0,
            cooldown_ticks: 2400,
        }
    }
}

/// Parameters of the heuristics; `None` disables one.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct RecoveryConfig {
    pub force_move: Option<ForceMoveConfig>,
    pub parking_start: Option<ParkingStartConfig>,
    pub escape: Option<EscapeConfig>,
}

impl RecoveryConfig {
    /// Disables all heuristics.
    pub const OFF: Self = Self { force_move: None, parking_start: None, escape: None };
}

impl Default for RecoveryConfig {
    /// Enables all heuristics with the values of the release.
    fn default() -> Self {
        Self {
            force_move: Some(ForceMoveConfig::default()),
            parking_start: Some(ParkingStartConfig::default()),
            escape: Some(EscapeConfig::default()),
        }
    }
}

/// State of the heuristics on a route.
pub struct Recovery {
    config: RecoveryConfig,
    stuck_ticks: u32,
    force_move_ticks: u32,
    parking_start: ParkingStart,
    /// Ticks and positions, oldest first.
    snapshots: VecDeque<(u64, DVec2)>,
    escape: Option<Escape>,
    attempts: u32,
    cooldown_ticks: u32,
    pose: Pose,
}

/// State of the parking start test.
enum ParkingStart {
    /// Before the first tick.
    NotStarted,
    /// First tick and position.
    Waiting {
        since_tick: u64,
        position: DVec2,
    },
    Tested {
        is_boxed_in: bool,
    },
}

/// An escape in progress.
struct Escape {
    started_at: Pose,
    ticks_left: u32,
}

impl Recovery {
    /// Creates the state at the start of a route.
    pub fn new(config: RecoveryConfig) -> Self {
        let snapshots = config.escape.map_or(0, |escape| {
            assert!(escape.snapshot_every_ticks > 0, "snapshot_every_ticks is 0");
            escape.window_ticks / escape.snapshot_every_ticks + 2
        });
        Self {
            config,
            stuck_ticks: 0,
            force_move_ticks: 0,
            parking_start: ParkingStart::NotStarted,
            snapshots: VecDeque::with_capacity(snapshots as usize),
            escape: None,
            attempts: 0,
            cooldown_ticks: 0,
            pose: Pose::default(),
        }
    }

    /// Updates the position of the vehicle. Called once per tick while the model drives,
    /// before it runs; `tick` counts from the start of the route, from 0. Returns changes to
    /// the route that the model receives.
    pub fn begin_tick(&mut self, tick: u64, world_from_ego: &Pose) -> Detour {
        self.pose = *world_from_ego;
        self.test_parking_start(tick);
        let Some(config) = self.config.escape else {
            return Detour::default();
        };
        self.cooldown_ticks = self.cooldown_ticks.saturating_sub(1);
        self.take_snapshot(tick, &config);
        let starts = self.escape.is_none()
            && self.cooldown_ticks == 0
            && is_one_place(&self.snapshots, tick, &config);
        if starts {
            self.attempts += 1;
            self.escape = Some(Escape { started_at: self.pose, ticks_left: config.for_ticks });
        }
        let is_shown = self.escape.as_ref().is_some_and(|escape| escape.ticks_left > 0);
        let sideways = DVec2::Y * config.sideways_per_attempt_m * f64::from(self.attempts);
        Detour {
            targets_m: is_shown.then(|| config.targets_m.map(|target| target + sideways)),
            skip: starts.then_some(config.skip),
        }
    }

    /// Returns `command`, or the command that replaces it. Called once per
    /// tick, after the controllers.
    pub fn override_command(&mut self, command: Command, speed_mps: f64) -> Command {
        let command = self.force_move(command, speed_mps);
        let (Some(config), Some(escape)) = (self.config.escape, &mut self.escape) else {
            return command;
        };
        let turned_rad = wrap_angle(self.pose.yaw_rad - escape.started_at.yaw_rad).abs();
        let moved_m = self.pose.position.distance(escape.started_at.position);
        if escape.ticks_left == 0 || turned_rad > config.turned_rad || moved_m > config.moved_m {
            self.escape = None;
            self.cooldown_ticks = config.cooldown_ticks;
            return command;
        }
        escape.ticks_left -= 1;
        self.stuck_ticks = 0;
        self.force_move_ticks = 0;
        config.command
    }

    /// Returns the number of ticks that the vehicle has been standing.
    pub fn stuck_ticks(&self) -> u32 {
        self.stuck_ticks
    }

    /// Returns the number of ticks that the vehicle will still be forced.
    pub fn force_move_ticks(&self) -> u32 {
        self.force_move_ticks
    }

    /// Returns true during an escape.
    pub fn is_escaping(&self) -> bool {
        self.escape.is_some()
    }

    /// Counts ticks at standstill and forces the vehicle. Forcing does not reset the count, so it
    /// continues until the vehicle moves.
    fn force_move(&mut self, command: Command, speed_mps: f64) -> Command {
        let Some(config) = self.config.force_move else {
            return command;
        };
        if speed_mps < config.standing_below_mps {
            self.stuck_ticks += 1;
        } else if speed_mps > config.moving_above_mps {
            self.stuck_ticks = 0;
        }
        let is_boxed_in = matches!(self.parking_start, ParkingStart::Tested { is_boxed_in: true });
        if self.stuck_ticks > config.after_ticks && !is_boxed_in {
            self.force_move_ticks = config.for_ticks;
        }
        if self.force_move_ticks == 0 {
            return command;
        }
        self.force_move_ticks -= 1;
        Command { throttle: command.throttle.max(config.throttle), brake: 0.0, ..command }
    }

    fn test_parking_start(&mut self, tick: u64) {
        let Some(config) = self.config.parking_start else {
            return;
        };
        let here = self.pose.position;
        match self.parking_start {
            ParkingStart::NotStarted => {
                self.parking_start = ParkingStart::Waiting { since_tick: tick, position: here };
            }
            ParkingStart::Waiting { since_tick, position }
                if tick >= since_tick + config.after_ticks =>
            {
                let is_boxed_in = here.distance(position) < config.within_m;
                self.parking_start = ParkingStart::Tested { is_boxed_in };
            }
            ParkingStart::Waiting { .. } | ParkingStart::Tested { .. } => {}
        }
    }

    fn take_snapshot(&mut self, tick: u64, config: &EscapeConfig) {
        if !tick.is_multiple_of(config.snapshot_every_ticks) {
            return;
        }
        while self.snapshots.front().is_some_and(|&(taken, _)| tick - taken > config.window_ticks) {
            self.snapshots.pop_front();
        }
        self.snapshots.push_back((tick, self.pose.position));
    }
}

/// Returns true if the oldest snapshot is old enough and all snapshots are near it.
fn is_one_place(snapshots: &VecDeque<(u64, DVec2)>, tick: u64, config: &EscapeConfig) -> bool {
    snapshots.front().is_some_and(|&(taken, oldest)| {
        tick - taken >= config.window_ticks
            && snapshots.iter().all(|(_, position)| position.distance(oldest) <= config.within_m)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The tick at which the model takes over in the release.
    const FIRST_TICK: u64 = 31;

    const BRAKING: Command = Command::FULL_BRAKE;

    /// Runs ticks up to `last` at speed 0 and pose `place(tick)`, and returns those at which the
    /// command was not [`BRAKING`].
    fn overrides(
        recovery: &mut Recovery,
        last: u64,
        place: impl Fn(u64) -> Pose,
    ) -> Vec<(u64, Command)> {
        (FIRST_TICK..=last)
            .filter_map(|tick| {
                recovery.begin_tick(tick, &place(tick));
                let command = recovery.override_command(BRAKING, 0.0);
                (command != BRAKING).then_some((tick, command))
            })
            .collect()
    }

    fn only(config: RecoveryConfig) -> Recovery {
        Recovery::new(config)
    }

    #[test]
    fn vehicle_is_forced_after_standing_for_300_ticks() {
        let mut recovery = Recovery::new(RecoveryConfig::default());
        let drives_off = |tick| Pose::new(if tick < 100 { 0.0 } else { 6.0 }, 0.0, 0.0);
        let forced = overrides(&mut recovery, 400, drives_off);
        assert_eq!(forced.first().map(|(tick, _)| *tick), Some(FIRST_TICK + 300));
        assert!(forced.iter().all(|(_, command)| command.throttle == 0.4 && command.brake == 0.0));
    }

    #[test]
    fn boxed_in_vehicle_is_not_forced() {
        let mut recovery = Recovery::new(RecoveryConfig::default());
        let creeps = |tick| Pose::new(if tick < 100 { 0.0 } else { 5.9 }, 0.0, 0.0);
        assert_eq!(overrides(&mut recovery, 1000, creeps), []);
    }

    #[test]
    fn escape_lasts_40_ticks_and_repeats_after_cooldown() {
        let mut recovery = only(RecoveryConfig { force_move: None, ..Default::default() });
        let ticks: Vec<u64> = overrides(&mut recovery, 4199, |_| Pose::new(1.0, 2.0, 0.0))
            .into_iter()
            .map(|(tick, command)| {
                assert_eq!(command, EscapeConfig::default().command);
                tick
            })
            .collect();
        // A snapshot is old enough only in the second half of every 200 ticks; the escape ended at
        // 1740.
        let expected: Vec<u64> = (1700..1740).chain(4140..4180).collect();
        assert_eq!(ticks, expected);
    }

    #[test]
    fn escape_moves_targets_aside_and_skips_route_points() {
        let mut recovery = Recovery::new(RecoveryConfig::default());
        for tick in FIRST_TICK..1700 {
            assert_eq!(recovery.begin_tick(tick, &Pose::default()), Detour::default());
            recovery.override_command(BRAKING, 0.0);
        }
        let targets_m = Some([DVec2::new(3.0, 6.5), DVec2::new(6.0, 6.5)]);
        let start = recovery.begin_tick(1700, &Pose::default());
        assert_eq!(start, Detour { targets_m, skip: Some(RouteSkip { points: 5, keep: 3 }) });
        recovery.override_command(BRAKING, 0.0);
        assert_eq!(recovery.stuck_ticks(), 0);
        for tick in 1701..1740 {
            let tick = recovery.begin_tick(tick, &Pose::default());
            assert_eq!(tick, Detour { targets_m, skip: None });
            recovery.override_command(BRAKING, 0.0);
        }
        assert_eq!(recovery.begin_tick(1740, &Pose::default()), Detour::default());
    }

    #[test]
    fn escape_ends_after_turning_or_moving() {
        for away in [Pose::new(6.1, 0.0, 0.0), Pose::new(0.0, 0.0, 0.45)] {
            let mut recovery = Recovery::new(RecoveryConfig::default());
            let place = |tick| if tick < 1710 { Pose::default() } else { away };
            let last = overrides(&mut recovery, 1720, place).last().map(|(tick, _)| *tick);
            assert_eq!(last, Some(1709));
            assert!(!recovery.is_escaping());
        }
    }

    #[test]
    fn snapshots_at_different_places_start_no_escape() {
        let mut recovery = Recovery::new(RecoveryConfig::default());
        let goes_once = |tick| Pose::new(if tick < 1600 { 0.0 } else { 5.1 }, 0.0, 0.0);
        assert_eq!(overrides(&mut recovery, 1799, goes_once), []);
    }
}
