//! The action expert: BEV encoder and action network, run at every tick.

use super::networks::{Networks, NetworksError, action as names, input, output};
use super::perception::AutomotReadings;
use super::stages;
use super::timed_stream::TimedStream;
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

/// Positions of the action tokens when a prefix is used again.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Positions {
    /// Immediately after the prefix, as in training.
    #[default]
    Trained,
    /// After the tokens of earlier uses, which are not part of the prefix, as in the AutoMoT
    /// release: 101 higher at each reuse.
    ReleaseDrift,
}

impl Positions {
    /// Returns the position of the first action token for a prefix that
    /// was used `uses` times before.
    pub fn first(self, next_position: i64, uses: i64, own_tokens: i64) -> i64 {
        match self {
            Self::Trained => next_position,
            Self::ReleaseDrift => next_position + uses * own_tokens,
        }
    }
}

/// Marks on the fast stream: before the uploads, the BEV encoder, the action network and the
/// downloads, and after the downloads.
const MARKS: usize = 5;

/// The fast expert of AutoMoT.
pub struct AutomotAction {
    networks: FastNetworks,
    timed_stream: TimedStream<MARKS>,
    /// Captured action steps by slot index of the prefix.
    graphs: Vec<Option<Arc<dyn Graph>>>,
    positions: Positions,
    /// Number of action tokens, by which [`Positions::ReleaseDrift`] advances.
    own_tokens: i64,
    /// Version of the last used prefix, and the number of its earlier uses.
    uses: (u64, i64),
}

/// BEV encoder and action network with their outputs and their inputs
/// other than prefix and readings.
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
    /// Creates the sessions and all buffers of a tick at the start of a route. Fails if a contract
    /// lacks a size or the device is out of memory.
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
            timed_stream: TimedStream::new(device, &networks.streams.fast)?,
            graphs: Vec::new(),
            positions,
            own_tokens,
            uses: (0, 0),
        })
    }

    /// Returns the position of the first action token and counts a use of `prefix`.
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
    /// Enqueues the device work of an action step.
    fn enqueue(
        &mut self,
        timed_stream: &TimedStream<MARKS>,
        slot: &Slot,
        readings: &AutomotReadings,
    ) -> Result<(), ModelError> {
        let AutomotReadings { image, histogram, state, .. } = readings;
        let stream = timed_stream.stream();
        timed_stream.mark(0)?;
        let read = [image, histogram, state, &self.position, &self.prefix_length];
        read.into_iter().try_for_each(|tensor| stream.upload(tensor.staged()))?;
        timed_stream.mark(1)?;
        let bev_inputs = [image.view(), histogram.view()];
        self.bev.enqueue(stream, &bev_inputs, &[self.bev_tokens.view_mut()])?;
        timed_stream.mark(2)?;
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
        timed_stream.mark(3)?;
        let written = [&self.route, &self.waypoints, &self.decision_ids];
        written.into_iter().try_for_each(|tensor| stream.download(tensor.staged()))?;
        Ok(timed_stream.mark(4)?)
    }
}

impl ActionExpert for AutomotAction {
    type Readings = AutomotReadings;

    fn prepare(&mut self, slot: &Slot, readings: &mut AutomotReadings) -> Result<(), ModelError> {
        let Self { networks, timed_stream, graphs, .. } = self;
        let both = networks.bev.runs_before_capture().zip(networks.action.runs_before_capture());
        let Some((bev, action)) = both else { return Ok(()) };
        let runs = bev.max(action);
        let graph = timed_stream
            .capture(runs, |timed_stream| networks.enqueue(timed_stream, slot, readings))?;
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
        let Self { networks, timed_stream, graphs, .. } = self;
        networks.position.as_mut_slice().copy_from_slice(&[position]);
        networks.prefix_length.as_mut_slice().copy_from_slice(&[prefix.meta().valid_length as i64]);
        let slot = prefix.slot();
        timed_stream.stream().wait(slot.ready())?;
        match graphs.get(slot.index()).and_then(Option::as_ref) {
            Some(graph) => timed_stream.stream().launch(graph)?,
            None => networks.enqueue(timed_stream, slot, readings)?,
        }
        timed_stream.wait_for(MARKS - 1)?;
        let has_copies = !readings.image.staged().is_unified();
        let copies = |stage| has_copies.then_some(stage);
        let stages = [
            copies(Stage::UPLOAD),
            Some(stages::BEV),
            Some(stages::ACTION),
            copies(Stage::DOWNLOAD),
        ];
        for (mark, stage) in stages.into_iter().enumerate() {
            if let Some(stage) = stage {
                timed_stream.record_span(stage, mark, spans);
            }
        }
        Ok(Some(spans.measure(stages::TRAJECTORY, || self.trajectory())))
    }
}

/// Returns the rows of a `[n, 2]` tensor.
fn points(tensor: &StagedTensor) -> impl Iterator<Item = [f32; 2]> + '_ {
    let values = tensor.as_slice::<f32>();
    (0..values.len() / 2).map(move |row| [values[2 * row], values[2 * row + 1]])
}
