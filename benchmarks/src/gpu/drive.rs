//! What the experts are shown: a recorded drive, over and over.

use anyhow::Context;
use arrayvec::ArrayVec;
use std::sync::Arc;
use tandem::model::RefreshRequest;
use tandem::model::automot::AutomotInputs;
use tandem::model::automot::planner::{PlanPoint, RoutePlanner, RoutePlannerConfig};
use tandem::model::automot::sensors;
use tandem::scene::random::SplitMix64;
use tandem::scene::{
    CameraFrame, CameraId, Command, FrameId, Observation, Pose, SensorSuite, World,
};
use tandem::timing::Timestamp;
use tandem_world::EmbeddedWorld;

/// Ticks recorded: enough that readings change from tick to tick, few enough to render at start.
const RECORDED: usize = 12;

/// Places for frames: those of a prompt, and those of the prompt before, which may still be held.
const PLACES: usize = 16;

/// Readings of some ticks, with the pose that each was taken at.
pub(super) struct Drive {
    readings: Vec<(Observation, Pose)>,
    plan: Vec<PlanPoint>,
    next: usize,
}

impl Drive {
    /// Records a drive in the embedded world.
    ///
    /// # Errors
    /// If the world fails.
    pub(super) fn record() -> anyhow::Result<Self> {
        let suite = SensorSuite { truth: true, ..sensors() };
        let mut world = EmbeddedWorld::new(&crate::world::winding_road(), suite, 1)?;
        let readings = (0..RECORDED)
            .map(|_| {
                let observation = world.observe();
                let truth = observation.truth.as_ref().context("the world told no truth")?;
                let pose = truth.ego.pose;
                world.step(&Command { steer: 0.0, throttle: 0.5, brake: 0.0 });
                Ok((observation, pose))
            })
            .collect::<anyhow::Result<_>>()?;
        let plan = world.plan().points.iter().map(PlanPoint::from).collect();
        Ok(Self { readings, plan, next: 0 })
    }

    /// A planner for its route.
    pub(super) fn planner(&self) -> RoutePlanner {
        RoutePlanner::new(self.plan.iter().copied(), RoutePlannerConfig::default())
    }

    /// Readings of the next tick.
    pub(super) fn next(&mut self) -> &(Observation, Pose) {
        let reading = &self.readings[self.next];
        self.next = (self.next + 1) % self.readings.len();
        reading
    }

    /// Requests whose frames are this drive's.
    ///
    /// # Errors
    /// If the drive has no pictures.
    pub(super) fn requests(&self, frames_per_prompt: usize) -> anyhow::Result<Requests> {
        let pictures = self
            .readings
            .iter()
            .map(|(observation, _)| observation.camera(CameraId::FRONT).map(|picture| &**picture));
        let pictures: Vec<&CameraFrame> =
            pictures.collect::<Option<_>>().context("a tick was recorded without a picture")?;
        let places = pictures.iter().cycle().take(PLACES);
        let places = places.map(|picture| Arc::new(renamed(picture, FrameId(0)))).collect();
        Ok(Requests {
            places,
            next_place: 0,
            newest: 0,
            version: 0,
            frames_per_prompt,
            shown: ArrayVec::new(),
        })
    }
}

fn renamed(picture: &CameraFrame, id: FrameId) -> CameraFrame {
    CameraFrame {
        id,
        captured_at: picture.captured_at,
        width: picture.width,
        height: picture.height,
        rgb: picture.rgb.clone(),
    }
}

/// Refresh requests, of whose frames the expert has seen some before. Making one copies no picture.
pub(super) struct Requests {
    /// Pictures, each given a new number when it is shown again.
    places: Vec<Arc<CameraFrame>>,
    next_place: usize,
    /// Number of the newest frame.
    newest: u64,
    version: u64,
    frames_per_prompt: usize,
    /// Frames of the request before, oldest first.
    shown: ArrayVec<Arc<CameraFrame>, 8>,
}

impl Requests {
    /// A request with `new_frames` frames that were never shown, behind the newest of the request
    /// before.
    pub(super) fn next(&mut self, new_frames: usize) -> RefreshRequest<AutomotInputs> {
        self.version += 1;
        let kept = self.frames_per_prompt.saturating_sub(new_frames).min(self.shown.len());
        self.shown.drain(..self.shown.len() - kept);
        while self.shown.len() < self.frames_per_prompt {
            self.newest += 1;
            let place = &mut self.places[self.next_place];
            self.next_place = (self.next_place + 1) % PLACES;
            // The picture itself is copied only if someone still holds the frame.
            match Arc::get_mut(place) {
                Some(frame) => frame.id = FrameId(self.newest),
                None => *place = Arc::new(renamed(place, FrameId(self.newest))),
            }
            self.shown.push(Arc::clone(place));
        }
        RefreshRequest {
            version: self.version,
            captured_at: Timestamp::ZERO,
            random: SplitMix64::new(0),
            inputs: AutomotInputs {
                frames: self.shown.clone(),
                target_points_m: [[20.0, 0.5], [40.0, 1.5]],
                speed_mps: 5.0,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_has_as_many_new_frames_as_asked_and_copies_none() {
        let drive = Drive::record().unwrap();
        let mut requests = drive.requests(4).unwrap();
        let mut ids = |new| -> Vec<u64> {
            requests.next(new).inputs.frames.iter().map(|frame| frame.id.0).collect()
        };
        assert_eq!(ids(4), [1, 2, 3, 4]);
        assert_eq!(ids(1), [2, 3, 4, 5]);
        assert_eq!(ids(4), [6, 7, 8, 9]);
        (0..PLACES).for_each(|_| drop(ids(1)));
        let before: Vec<_> = requests.places.iter().map(Arc::as_ptr).collect();
        (0..PLACES).for_each(|_| drop(requests.next(4)));
        let after: Vec<_> = requests.places.iter().map(Arc::as_ptr).collect();
        assert_eq!(before, after);
    }
}
