//! The action expert: BEV encoder and action network at every tick.

use super::lane::Lane;
use super::networks::{Networks, NetworksError, action as names, input, output};
use super::perception::AutomotReadings;
use super::stages;
use crate::device::{DeviceTensor, DeviceView, Graph, StagedTensor};
use crate::engine::{MAX_TENSORS, Session};
use crate::kv_cache::{KvSnapshot, Slot};
use crate::model::{ActionExpert, ModelError};
use crate::scene::Trajectory;
use crate::scene::random::SplitMix64;
use crate::timing::{Stage, StageSpans};
use arrayvec::ArrayVec;
use std::sync::Arc;
use std::time::Duration;
use tandem_export::automot::sizes::ActionSizes;
use tandem_export::contract::TensorSpec;

/// Time between two waypoints.
const WAYPOINT_SPACING: Duration = Duration::from_millis(500);

/// Which positions the action tokens get when a prefix is used again.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Positions {
    /// Right behind the prefix, every time: as trained.
    #[default]
    Trained,
    /// Counting on from the tokens of earlier uses, which the prefix does not hold: as the release
    /// does, off by 101 at each re-use.
    ReleaseDrift,
}

impl Positions {
    /// Position of the first own token of a run on a prefix that was `uses` times acted on before.
    pub fn first(self, next_position: i64, uses: i64, own_tokens: i64) -> i64 {
        match self {
            Self::Trained => next_position,
            Self::ReleaseDrift => next_position + uses * own_tokens,
        }
    }
}

/// Places in the fast lane: before the uploads, the BEV encoder, the action expert and the downloads,
/// and behind them.
const MARKS: usize = 5;

/// The fast expert of AutoMoT.
pub struct AutomotAction {
    networks: FastNetworks,
    lane: Lane<MARKS>,
    /// The work of a tick on the prefix in the slot of this number, captured.
    graphs: Vec<Option<Arc<dyn Graph>>>,
    positions: Positions,
    /// Own tokens of one run, by which drifting positions move on.
    own_tokens: i64,
    /// The prefix version last acted on, and how often it was used before.
    uses: (u64, i64),
}

/// BEV encoder and action expert with what they write, and what they read beside prefix and readings.
struct FastNetworks {
    bev: Box<dyn Session>,
    action: Box<dyn Session>,
    bev_tokens: DeviceTensor,
    position: StagedTensor,
    prefix_length: StagedTensor,
    route: StagedTensor,
    waypoints: StagedTensor,
    decision_ids: StagedTensor,
}

impl AutomotAction {
    /// Sets up sessions and every buffer that ticks will need, at the start of a route.
    ///
    /// # Errors
    /// If a contract lacks a size, or the device has no memory left.
    pub fn new(networks: &Networks, positions: Positions) -> Result<Self, NetworksError> {
        let bev_contract = networks.bev.contract();
        let contract = networks.action.contract();
        let rows = |name| output(contract, name).shape[0];
        let (path, waypoints) = (rows(names::ROUTE), rows(names::WAYPOINTS));
        let longest = Trajectory::default();
        if path > longest.path.capacity()
            || !(2..=longest.waypoints.capacity()).contains(&waypoints)
        {
            return Err(NetworksError::Trajectory { path, waypoints });
        }
        let device = &*networks.device;
        let staged = |spec: &TensorSpec| StagedTensor::zeros(device, spec.dtype, &spec.shape);
        let tokens = output(bev_contract, names::BEV_TOKENS);
        let own_tokens = ActionSizes::of(contract)?.own_tokens as i64;
        Ok(Self {
            networks: FastNetworks {
                bev: networks.bev.clone().session(),
                action: networks.action.clone().session(),
                bev_tokens: DeviceTensor::zeros(device, tokens.dtype, &tokens.shape)?,
                position: staged(input(contract, names::POSITION))?,
                prefix_length: staged(input(contract, names::PREFIX_LENGTH))?,
                route: staged(output(contract, names::ROUTE))?,
                waypoints: staged(output(contract, names::WAYPOINTS))?,
                decision_ids: staged(output(contract, names::DECISION_IDS))?,
            },
            lane: Lane::new(device, &networks.lanes.fast)?,
            graphs: Vec::new(),
            positions,
            own_tokens,
            uses: (0, 0),
        })
    }

    /// Position of the first own token.
    fn own_position(&mut self, prefix: &KvSnapshot) -> i64 {
        let meta = prefix.meta();
        self.uses = match self.uses {
            (version, uses) if version == meta.version => (version, uses + 1),
            _ => (meta.version, 0),
        };
        self.positions.first(meta.next_position, self.uses.1, self.own_tokens)
    }

    fn trajectory(&self) -> Trajectory {
        let mut trajectory = Trajectory { spacing: WAYPOINT_SPACING, ..Trajectory::default() };
        trajectory.path.extend(points(&self.networks.route));
        trajectory.waypoints.extend(points(&self.networks.waypoints));
        trajectory
    }
}

impl FastNetworks {
    /// Hands the device's part of a tick to the lane.
    fn enqueue(
        &mut self,
        lane: &Lane<MARKS>,
        slot: &Slot,
        readings: &AutomotReadings,
    ) -> Result<(), ModelError> {
        let AutomotReadings { image, histogram, state, .. } = readings;
        let stream = lane.stream();
        lane.mark(0)?;
        let read = [image, histogram, state, &self.position, &self.prefix_length];
        read.into_iter().try_for_each(|tensor| stream.upload(tensor.staged()))?;
        lane.mark(1)?;
        let seen = [image.view(), histogram.view()];
        self.bev.enqueue(stream, &seen, &[self.bev_tokens.view_mut()])?;
        lane.mark(2)?;
        let mut inputs: ArrayVec<DeviceView<'_>, MAX_TENSORS> = ArrayVec::new();
        inputs.extend([
            self.bev_tokens.view(),
            state.view(),
            self.position.view(),
            self.prefix_length.view(),
        ]);
        inputs.extend(slot.tensors().map(DeviceTensor::view));
        let outputs =
            [self.route.view_mut(), self.waypoints.view_mut(), self.decision_ids.view_mut()];
        self.action.enqueue(stream, &inputs, &outputs)?;
        lane.mark(3)?;
        let written = [&self.route, &self.waypoints, &self.decision_ids];
        written.into_iter().try_for_each(|tensor| stream.download(tensor.staged()))?;
        Ok(lane.mark(4)?)
    }
}

impl ActionExpert for AutomotAction {
    type Readings = AutomotReadings;

    fn prepare(&mut self, slot: &Slot, readings: &mut AutomotReadings) -> Result<(), ModelError> {
        let Self { networks, lane, graphs, .. } = self;
        let both = networks.bev.runs_before_capture().zip(networks.action.runs_before_capture());
        let Some((bev, action)) = both else { return Ok(()) };
        let runs = bev.max(action);
        let graph = lane.capture(runs, |lane| networks.enqueue(lane, slot, readings))?;
        if graphs.len() <= slot.index() {
            graphs.resize(slot.index() + 1, None);
        }
        graphs[slot.index()] = Some(graph);
        Ok(())
    }

    fn act(
        &mut self,
        prefix: &KvSnapshot,
        readings: &mut AutomotReadings,
        _: SplitMix64,
        spans: &mut StageSpans,
    ) -> Result<Option<Trajectory>, ModelError> {
        let begun = stages::PICTURE.begin();
        readings.stage_picture()?;
        spans.end(begun);

        let position = self.own_position(prefix);
        let Self { networks, lane, graphs, .. } = self;
        networks.position.as_mut_slice().copy_from_slice(&[position]);
        networks.prefix_length.as_mut_slice().copy_from_slice(&[prefix.meta().valid_length as i64]);
        let slot = prefix.slot();
        lane.stream().wait(slot.ready())?;
        match graphs.get(slot.index()).and_then(Option::as_ref) {
            Some(graph) => lane.stream().launch(graph)?,
            None => networks.enqueue(lane, slot, readings)?,
        }
        lane.reach(MARKS - 1)?;
        let is_apart = !readings.image.staged().is_unified();
        let copies = |stage| is_apart.then_some(stage);
        let stages = [
            copies(Stage::UPLOAD),
            Some(stages::BEV),
            Some(stages::ACTION),
            copies(Stage::DOWNLOAD),
        ];
        for (mark, stage) in stages.into_iter().enumerate() {
            if let Some(stage) = stage {
                lane.note(stage, mark, spans);
            }
        }
        Ok(Some(spans.measure(stages::TRAJECTORY, || self.trajectory())))
    }
}

/// The rows of a `[n, 2]` tensor.
fn points(tensor: &StagedTensor) -> impl Iterator<Item = [f32; 2]> + '_ {
    let values = tensor.as_slice::<f32>();
    (0..values.len() / 2).map(move |row| [values[2 * row], values[2 * row + 1]])
}
