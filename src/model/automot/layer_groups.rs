//! Layers of the understanding expert, in one network or in several that run in sequence.

use super::networks::{self, NetworksError};
use super::prompt_buffers::{MARKS, Prompt, zeros};
use super::stages;
use super::timed_stream::TimedStream;
use crate::device::{Device, DeviceError, DeviceTensor, DeviceView, DeviceViewMut, Graph, Stream};
use crate::engine::{Engine, MAX_TENSORS, Session, SessionRunError};
use crate::kv_cache::{KvWriter, Slot};
use crate::model::{LaunchGate, ModelError};
use crate::timing::StageSpans;
use arrayvec::ArrayVec;
use std::sync::Arc;
use tandem_export::automot::names::{PROBE, understanding as names};
use tandem_export::contract::{Contract, TensorSpec};

/// The layers of the expert, divided among one or several networks.
pub(super) struct LayerGroups {
    groups: Vec<LayerGroup>,
    /// Hidden states: output of the previous group and input of the next one, swapped after each
    /// group. `None` with one group.
    hidden: Option<[DeviceTensor; 2]>,
}

/// Consecutive layers in one network.
struct LayerGroup {
    session: Box<dyn Session>,
    /// Sources of its inputs in the order of the contract.
    inputs: ArrayVec<GroupInput, { networks::understanding::INPUTS.len() }>,
    /// Number of keys and values that it writes.
    written: usize,
    /// True if another group reads its hidden states.
    is_followed: bool,
    /// Captured runs by slot index.
    graphs: Vec<Option<Arc<dyn Graph>>>,
}

#[derive(Clone, Copy)]
enum GroupInput {
    /// Index of an input of the prompt.
    Prompt(usize),
    /// Hidden states of the previous group.
    Hidden,
}

impl LayerGroups {
    /// Creates sessions of engines with matching contracts, and the memory between them.
    pub(super) fn new(
        device: &dyn Device,
        engines: &[Arc<dyn Engine>],
    ) -> Result<Self, NetworksError> {
        let is_hidden = |spec: &&TensorSpec| spec.name.starts_with(names::HIDDEN);
        let hidden = engines[0].contract().outputs.iter().find(is_hidden);
        let groups = engines.iter().map(|engine| LayerGroup::new(Arc::clone(engine))).collect();
        let pair = |spec| Ok::<_, DeviceError>([zeros(device, spec)?, zeros(device, spec)?]);
        Ok(Self { groups, hidden: hidden.map(pair).transpose()? })
    }

    /// Captures the run of every group into `slot`.
    pub(super) fn prepare(
        &mut self,
        timed_stream: &TimedStream<MARKS>,
        prompt: &Prompt,
        slot: &mut Slot,
    ) -> Result<(), ModelError> {
        let index = slot.index();
        self.for_each(slot, |group, before, outputs| {
            let Some(runs_before) = group.session.runs_before_capture() else { return Ok(()) };
            let graph = timed_stream.capture(runs_before, |timed_stream| {
                Ok(group.enqueue(&prompt.views(), before, outputs, timed_stream.stream())?)
            })?;
            if group.graphs.len() <= index {
                group.graphs.resize(index + 1, None);
            }
            group.graphs[index] = Some(graph);
            Ok(())
        })
    }

    /// Runs all groups, which write the keys and values of all layers. Does not allocate.
    pub(super) fn run(
        &mut self,
        prompt: &Prompt,
        writer: &mut KvWriter,
        timed_stream: &TimedStream<MARKS>,
        gate: &dyn LaunchGate,
        spans: &mut StageSpans,
    ) -> Result<(), ModelError> {
        let is_divided = self.groups.len() > 1;
        let index = writer.slot().index();
        self.for_each(writer.slot_mut(), |group, before, outputs| {
            gate.wait();
            timed_stream.mark(0)?;
            match group.graphs.get(index).and_then(Option::as_ref) {
                Some(graph) => timed_stream.stream().launch(graph)?,
                None => group.enqueue(&prompt.views(), before, outputs, timed_stream.stream())?,
            }
            timed_stream.mark(1)?;
            timed_stream.wait_for(1)?;
            if is_divided {
                timed_stream.record_span(stages::UNDERSTANDING_GROUP, 0, spans);
            }
            Ok(())
        })
    }

    /// Calls `work` for each group with its input hidden states and its outputs: keys, values and,
    /// if another group follows, hidden states.
    fn for_each(
        &mut self,
        slot: &mut Slot,
        mut work: impl FnMut(
            &mut LayerGroup,
            Option<&DeviceTensor>,
            &[DeviceViewMut<'_>],
        ) -> Result<(), ModelError>,
    ) -> Result<(), ModelError> {
        let Self { groups, hidden } = self;
        let mut hidden = hidden.as_mut().map(|[before, after]| (before, after));
        let mut prefix = slot.tensors_mut();
        for group in groups {
            let (before, after) = match &mut hidden {
                Some((before, after)) => (Some(&**before), Some(&mut **after)),
                None => (None, None),
            };
            let mut outputs: ArrayVec<DeviceViewMut<'_>, MAX_TENSORS> =
                prefix.by_ref().take(group.written).map(DeviceTensor::view_mut).collect();
            outputs.extend(after.filter(|_| group.is_followed).map(DeviceTensor::view_mut));
            work(group, before, &outputs)?;
            drop(outputs);
            hidden = hidden.map(|(before, after)| (after, before));
        }
        Ok(())
    }
}

impl LayerGroup {
    fn new(engine: Arc<dyn Engine>) -> Self {
        let Contract { inputs, outputs, .. } = engine.contract();
        let source = |spec: &TensorSpec| {
            let names = &networks::understanding::INPUTS;
            let place = names.iter().position(|name| *name == spec.name);
            place.map_or(GroupInput::Hidden, GroupInput::Prompt)
        };
        let is_followed = outputs.iter().any(|spec| spec.name.starts_with(names::HIDDEN));
        let real = outputs.iter().filter(|spec| !spec.name.starts_with(PROBE)).count();
        Self {
            inputs: inputs.iter().map(source).collect(),
            written: real - usize::from(is_followed),
            is_followed,
            graphs: Vec::new(),
            session: engine.session(),
        }
    }

    /// Enqueues a run of these layers, which reads hidden states from
    /// `before` and writes `outputs`.
    fn enqueue(
        &mut self,
        prompt: &[DeviceView<'_>],
        before: Option<&DeviceTensor>,
        outputs: &[DeviceViewMut<'_>],
        stream: &dyn Stream,
    ) -> Result<(), SessionRunError> {
        let inputs: ArrayVec<DeviceView<'_>, { networks::understanding::INPUTS.len() }> = self
            .inputs
            .iter()
            .map(|input| match input {
                GroupInput::Prompt(place) => prompt[*place],
                GroupInput::Hidden => {
                    before.expect("a group with hidden inputs follows another").view()
                }
            })
            .collect();
        self.session.enqueue(stream, &inputs, outputs)
    }
}
