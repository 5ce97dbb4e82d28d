//! Inputs of the experts: a recorded drive, replayed cyclically.

use anyhow::Context;
use arrayvec::ArrayVec;
use std::sync::Arc;
use tandem::model::PrefillRequest;
use tandem::model::automot::AutomotInputs;
use tandem::model::automot::planner::{PlanPoint, RoutePlanner, RoutePlannerConfig};
use tandem::model::automot::sensors;
use tandem::scene::random::SplitMix64;
use tandem::scene::{
    CameraFrame, CameraId, Command, FrameId, Observation, Pose, SensorSuite, World,
};
use tandem::timing::Timestamp;
use tandem_world::EmbeddedWorld;

/// Number of recorded ticks: enough for readings that change, few enough to render at start.
const RECORDED: usize = 12;

/// Number of frame buffers: for a prompt and the previous one, which may still be in use.
const BUFFERS: usize = 16;

/// Observations of a drive with the ego pose of each.
pub(super) struct Drive {
    readings: Vec<(Observation, Pose)>,
    plan: Vec<PlanPoint>,
    next: usize,
}

impl Drive {
    /// Records a drive in the embedded world.
    pub(super) fn record() -> anyhow::Result<Self> {
        let suite = SensorSuite { truth: true, ..sensors() };
        let mut world = EmbeddedWorld::new(&crate::world::winding_road(), suite, 1)?;
        let readings = (0..RECORDED)
            .map(|_| {
                let observation = world.observe();
                let truth = observation.truth.as_ref().context("the world gave no true state")?;
                let pose = truth.ego.pose;
                world.step(&Command { steer: 0.0, throttle: 0.5, brake: 0.0 });
                Ok((observation, pose))
            })
            .collect::<anyhow::Result<_>>()?;
        let plan = world.plan().points.iter().map(PlanPoint::from).collect();
        Ok(Self { readings, plan, next: 0 })
    }

    /// Creates a planner for the route.
    pub(super) fn planner(&self) -> RoutePlanner {
        RoutePlanner::new(self.plan.iter().copied(), RoutePlannerConfig::default())
    }

    /// Returns the observation of the next tick.
    pub(super) fn next(&mut self) -> &(Observation, Pose) {
        let reading = &self.readings[self.next];
        self.next = (self.next + 1) % self.readings.len();
        reading
    }

    /// Creates requests with the frames of this drive. Fails if a tick has no camera frame.
    pub(super) fn requests(&self, frames_per_prompt: usize) -> anyhow::Result<Requests> {
        let frames = self
            .readings
            .iter()
            .map(|(observation, _)| observation.camera(CameraId::FRONT).map(|frame| &**frame));
        let frames: Vec<&CameraFrame> =
            frames.collect::<Option<_>>().context("a recorded tick has no camera frame")?;
        let buffers = frames.iter().cycle().take(BUFFERS);
        let buffers = buffers.map(|frame| Arc::new(with_id(frame, FrameId(0)))).collect();
        Ok(Requests {
            buffers,
            next_buffer: 0,
            newest: 0,
            version: 0,
            frames_per_prompt,
            shown: ArrayVec::new(),
        })
    }
}

fn with_id(frame: &CameraFrame, id: FrameId) -> CameraFrame {
    CameraFrame {
        id,
        captured_at: frame.captured_at,
        width: frame.width,
        height: frame.height,
        rgb: frame.rgb.clone(),
    }
}

/// Source of prefill requests with new and cached frames. Creating a request copies no image.
pub(super) struct Requests {
    /// Each frame gets a new id when it is reused.
    buffers: Vec<Arc<CameraFrame>>,
    next_buffer: usize,
    /// Id of the newest frame of the last request.
    newest: u64,
    version: u64,
    frames_per_prompt: usize,
    /// Frames of the previous request, oldest first.
    shown: ArrayVec<Arc<CameraFrame>, 8>,
}

impl Requests {
    /// Returns a request whose last `new_frames` frames are new, after frames of the previous
    /// request.
    pub(super) fn next(&mut self, new_frames: usize) -> PrefillRequest<AutomotInputs> {
        self.version += 1;
        let kept = self.frames_per_prompt.saturating_sub(new_frames).min(self.shown.len());
        self.shown.drain(..self.shown.len() - kept);
        while self.shown.len() < self.frames_per_prompt {
            self.newest += 1;
            let buffer = &mut self.buffers[self.next_buffer];
            self.next_buffer = (self.next_buffer + 1) % BUFFERS;
            // The image is copied only if the frame is still in use.
            match Arc::get_mut(buffer) {
                Some(frame) => frame.id = FrameId(self.newest),
                None => *buffer = Arc::new(with_id(buffer, FrameId(self.newest))),
            }
            self.shown.push(Arc::clone(buffer));
        }
        PrefillRequest {
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
    fn request_has_the_given_number_of_new_frames_without_copies() {
        let drive = Drive::record().unwrap();
        let mut requests = drive.requests(4).unwrap();
        let mut ids = |new| -> Vec<u64> {
            requests.next(new).inputs.frames.iter().map(|frame| frame.id.0).collect()
        };
        assert_eq!(ids(4), [1, 2, 3, 4]);
        assert_eq!(ids(1), [2, 3, 4, 5]);
        assert_eq!(ids(4), [6, 7, 8, 9]);
        (0..BUFFERS).for_each(|_| drop(ids(1)));
        let before: Vec<_> = requests.buffers.iter().map(Arc::as_ptr).collect();
        (0..BUFFERS).for_each(|_| drop(requests.next(4)));
        let after: Vec<_> = requests.buffers.iter().map(Arc::as_ptr).collect();
        assert_eq!(before, after);
    }
}
