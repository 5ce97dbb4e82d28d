//! Heuristics that get a stuck vehicle going again.
//!
//! Three of them, each with a switch of its own. *Force move*: after standing for 15 s, give
//! throttle whatever the model says. *Parking start*: a vehicle that has hardly moved since the
//! route began is boxed in, so it must not be forced. *Escape*: a vehicle that has stayed in one
//! place for 75 s steers out to the left for 2 s, and the model is shown target points to the side.

use crate::scene::{Command, Detour, Pose, RouteSkip, wrap_angle};
use glam::DVec2;
use std::collections::VecDeque;

/// Throttle against standing still.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct ForceMoveConfig {
    /// A tick slower than this counts, m/s.
    pub standing_below_mps: f64,
    /// A tick faster than this ends counting, m/s.
    pub moving_above_mps: f64,
    /// It sets in when more ticks than this have counted.
    pub after_ticks: u32,
    /// For how many ticks it goes on.
    pub for_ticks: u32,
    /// At least this much throttle.
    pub throttle: f64,
}

impl Default for ForceMoveConfig {
    /// The release's numbers.
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

/// The test for a vehicle that starts between parked ones.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct ParkingStartConfig {
    /// Ticks after the first one at which it is made, once.
    pub after_ticks: u64,
    /// A vehicle that is nearer than this to where it was at its first tick is never forced, meters.
    pub within_m: f64,
}

impl Default for ParkingStartConfig {
    /// The release's numbers.
    fn default() -> Self {
        Self { after_ticks: 200, within_m: 6.0 }
    }
}

/// Steering out of a place that the vehicle can't leave.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct EscapeConfig {
    /// Ticks between two looks at the position.
    pub snapshot_every_ticks: u64,
    /// It takes looks at least this long back.
    pub window_ticks: u64,
    /// All looks are within this distance of the oldest, meters.
    pub within_m: f64,
    /// For how many ticks it goes on.
    pub for_ticks: u32,
    /// What the vehicle does meanwhile.
    pub command: Command,
    /// Target points that the model is shown meanwhile, in the ego frame (x forward, y right),
    /// meters.
    pub targets_m: [DVec2; 2],
    /// How much farther right they are with each attempt, meters.
    pub sideways_per_attempt_m: f64,
    /// Points of the route that are given up at its start.
    pub skip: RouteSkip,
    /// It ends when the heading has changed by more than this, radians.
    pub turned_rad: f64,
    /// It ends when the vehicle has moved farther than this, meters.
    pub moved_m: f64,
    /// Ticks after its end before the next one.
    pub cooldown_ticks: u32,
}

impl Default for EscapeConfig {
    /// The release's numbers. It steers left with targets on the right, as the release does.
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

/// Which heuristics are on.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct RecoveryConfig {
    /// Throttle against standing still.
    pub force_move: Option<ForceMoveConfig>,
    /// No such throttle for a vehicle that starts boxed in.
    pub parking_start: Option<ParkingStartConfig>,
    /// Steering out.
    pub escape: Option<EscapeConfig>,
}

impl RecoveryConfig {
    /// None of them.
    pub const OFF: Self = Self { force_move: None, parking_start: None, escape: None };
}

impl Default for RecoveryConfig {
    /// All of them, with the release's numbers.
    fn default() -> Self {
        Self {
            force_move: Some(ForceMoveConfig::default()),
            parking_start: Some(ParkingStartConfig::default()),
            escape: Some(EscapeConfig::default()),
        }
    }
}

/// The state of the heuristics over a route.
pub struct Recovery {
    config: RecoveryConfig,
    stuck_ticks: u32,
    force_move_ticks: u32,
    parking_start: ParkingStart,
    /// Tick and position of the looks, oldest first.
    snapshots: VecDeque<(u64, DVec2)>,
    escape: Option<Escape>,
    attempts: u32,
    cooldown_ticks: u32,
    pose: Pose,
}

/// What is known about how the route began.
enum ParkingStart {
    /// No tick yet.
    Unseen,
    /// Where the vehicle was at its first tick, and when.
    Waiting { since_tick: u64, position: DVec2 },
    /// The test was made.
    Known { is_boxed_in: bool },
}

/// An escape that goes on.
struct Escape {
    started_at: Pose,
    ticks_left: u32,
}

impl Recovery {
    /// At the start of a route.
    pub fn new(config: RecoveryConfig) -> Self {
        let snapshots = config.escape.map_or(0, |escape| {
            assert!(escape.snapshot_every_ticks > 0, "an escape that never looks");
            escape.window_ticks / escape.snapshot_every_ticks + 2
        });
        Self {
            config,
            stuck_ticks: 0,
            force_move_ticks: 0,
            parking_start: ParkingStart::Unseen,
            snapshots: VecDeque::with_capacity(snapshots as usize),
            escape: None,
            attempts: 0,
            cooldown_ticks: 0,
            pose: Pose::default(),
        }
    }

    /// Looks at where the vehicle is. Called once a tick while the model drives, before it runs;
    /// `tick` counts from the start of the route, from 0. Says what the model and the route shall
    /// know.
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

    /// `command`, or what a recovery makes of it. Called once a tick, after the controllers.
    pub fn overrule(&mut self, command: Command, speed_mps: f64) -> Command {
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

    /// Ticks that the vehicle has been standing.
    pub fn stuck_ticks(&self) -> u32 {
        self.stuck_ticks
    }

    /// Ticks that it will still be forced.
    pub fn force_move_ticks(&self) -> u32 {
        self.force_move_ticks
    }

    /// True while an escape goes on.
    pub fn is_escaping(&self) -> bool {
        self.escape.is_some()
    }

    /// Counts a standing vehicle and forces it. Being forced does not end the counting, so it goes
    /// on until the vehicle moves.
    fn force_move(&mut self, command: Command, speed_mps: f64) -> Command {
        let Some(config) = self.config.force_move else {
            return command;
        };
        if speed_mps < config.standing_below_mps {
            self.stuck_ticks += 1;
        } else if speed_mps > config.moving_above_mps {
            self.stuck_ticks = 0;
        }
        let is_boxed_in = matches!(self.parking_start, ParkingStart::Known { is_boxed_in: true });
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
            ParkingStart::Unseen => {
                self.parking_start = ParkingStart::Waiting { since_tick: tick, position: here };
            }
            ParkingStart::Waiting { since_tick, position }
                if tick >= since_tick + config.after_ticks =>
            {
                let is_boxed_in = here.distance(position) < config.within_m;
                self.parking_start = ParkingStart::Known { is_boxed_in };
            }
            ParkingStart::Waiting { .. } | ParkingStart::Known { .. } => {}
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

/// Whether all looks, the oldest of them long ago, are at one place.
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

    /// Drives ticks up to `last` at a stand, at the place that `place` says, and returns the ticks
    /// at which the command was not [`BRAKING`].
    fn overruled(
        recovery: &mut Recovery,
        last: u64,
        place: impl Fn(u64) -> Pose,
    ) -> Vec<(u64, Command)> {
        (FIRST_TICK..=last)
            .filter_map(|tick| {
                recovery.begin_tick(tick, &place(tick));
                let command = recovery.overrule(BRAKING, 0.0);
                (command != BRAKING).then_some((tick, command))
            })
            .collect()
    }

    fn only(config: RecoveryConfig) -> Recovery {
        Recovery::new(config)
    }

    #[test]
    fn a_vehicle_that_has_driven_is_forced_after_300_ticks_of_standing() {
        let mut recovery = Recovery::new(RecoveryConfig::default());
        let drives_off = |tick| Pose::new(if tick < 100 { 0.0 } else { 6.0 }, 0.0, 0.0);
        let forced = overruled(&mut recovery, 400, drives_off);
        assert_eq!(forced.first().map(|(tick, _)| *tick), Some(FIRST_TICK + 300));
        assert!(forced.iter().all(|(_, command)| command.throttle == 0.4 && command.brake == 0.0));
    }

    #[test]
    fn a_vehicle_that_starts_boxed_in_is_not_forced() {
        let mut recovery = Recovery::new(RecoveryConfig::default());
        let creeps = |tick| Pose::new(if tick < 100 { 0.0 } else { 5.9 }, 0.0, 0.0);
        assert_eq!(overruled(&mut recovery, 1000, creeps), []);
    }

    #[test]
    fn an_escape_takes_40_ticks_from_tick_1700_and_comes_back_after_its_cooldown() {
        let mut recovery = only(RecoveryConfig { force_move: None, ..Default::default() });
        let ticks: Vec<u64> = overruled(&mut recovery, 4199, |_| Pose::new(1.0, 2.0, 0.0))
            .into_iter()
            .map(|(tick, command)| {
                assert_eq!(command, EscapeConfig::default().command);
                tick
            })
            .collect();
        // Looks are old enough in the last half of every 200 ticks; it ended at 1740.
        let expected: Vec<u64> = (1700..1740).chain(4140..4180).collect();
        assert_eq!(ticks, expected);
    }

    #[test]
    fn an_escape_shows_targets_to_the_side_and_gives_up_route_points() {
        let mut recovery = Recovery::new(RecoveryConfig::default());
        for tick in FIRST_TICK..1700 {
            assert_eq!(recovery.begin_tick(tick, &Pose::default()), Detour::default());
            recovery.overrule(BRAKING, 0.0);
        }
        let targets_m = Some([DVec2::new(3.0, 6.5), DVec2::new(6.0, 6.5)]);
        let start = recovery.begin_tick(1700, &Pose::default());
        assert_eq!(start, Detour { targets_m, skip: Some(RouteSkip { points: 5, keep: 3 }) });
        recovery.overrule(BRAKING, 0.0);
        assert_eq!(recovery.stuck_ticks(), 0);
        for tick in 1701..1740 {
            let tick = recovery.begin_tick(tick, &Pose::default());
            assert_eq!(tick, Detour { targets_m, skip: None });
            recovery.overrule(BRAKING, 0.0);
        }
        assert_eq!(recovery.begin_tick(1740, &Pose::default()), Detour::default());
    }

    #[test]
    fn an_escape_ends_when_the_vehicle_has_turned_or_moved() {
        for away in [Pose::new(6.1, 0.0, 0.0), Pose::new(0.0, 0.0, 0.45)] {
            let mut recovery = Recovery::new(RecoveryConfig::default());
            let place = |tick| if tick < 1710 { Pose::default() } else { away };
            let last = overruled(&mut recovery, 1720, place).last().map(|(tick, _)| *tick);
            assert_eq!(last, Some(1709));
            assert!(!recovery.is_escaping());
        }
    }

    #[test]
    fn looks_at_different_places_start_nothing() {
        let mut recovery = Recovery::new(RecoveryConfig::default());
        let goes_once = |tick| Pose::new(if tick < 1600 { 0.0 } else { 5.1 }, 0.0, 0.0);
        assert_eq!(overruled(&mut recovery, 1799, goes_once), []);
    }
}
