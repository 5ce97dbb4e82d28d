//! The understanding expert's layers, in one network or several that run one after the other.

use super::lane::Lane;
use super::networks::{self, NetworksError};
use super::prompt_buffers::{MARKS, Prompt, zeros};
use super::stages;
use crate::device::{Device, DeviceError, DeviceTensor, DeviceView, DeviceViewMut, Graph, Stream};
use crate::engine::{Engine, MAX_TENSORS, RunError, Session};
use crate::kv_cache::{KvWriter, Slot};
use crate::model::{ModelError, Turns};
use crate::timing::StageSpans;
use arrayvec::ArrayVec;
use std::sync::Arc;
use tandem_export::automot::names::{PROBE, understanding as names};
use tandem_export::contract::{Contract, TensorSpec};

/// The layers of the expert, in the networks that they are divided among.
pub(super) struct LayerGroups {
    groups: Vec<LayerGroup>,
    /// Hidden states: what the group before gave, and what the next one will take. They change
    /// places from group to group; without a second group there are none.
    hidden: Option<[DeviceTensor; 2]>,
}

/// Some of the layers.
struct LayerGroup {
    session: Box<dyn Session>,
    /// Where its inputs come from, in the order of its contract.
    inputs: ArrayVec<GroupInput, { networks::understanding::INPUTS.len() }>,
    /// Keys and values that it writes.
    written: usize,
    /// Whether it hands hidden states to a next group.
    hands_over: bool,
    /// Its run into the slot of this number, captured.
    graphs: Vec<Option<Arc<dyn Graph>>>,
}

#[derive(Clone, Copy)]
enum GroupInput {
    /// The input of this number that a prompt is laid out in.
    Prompt(usize),
    /// Hidden states of the group before.
    Hidden,
}

impl LayerGroups {
    /// Sessions of engines that were checked against each other, and all memory between them.
    pub(super) fn new(
        device: &dyn Device,
        engines: &[Arc<dyn Engine>],
    ) -> Result<Self, NetworksError> {
        let is_hidden = |spec: &&TensorSpec| spec.name.starts_with(names::HIDDEN);
        let handed = engines[0].contract().outputs.iter().find(is_hidden);
        let groups = engines.iter().map(|engine| LayerGroup::new(Arc::clone(engine))).collect();
        let pair = |spec| Ok::<_, DeviceError>([zeros(device, spec)?, zeros(device, spec)?]);
        Ok(Self { groups, hidden: handed.map(pair).transpose()? })
    }

    /// Captures every group's run into `slot`.
    pub(super) fn prepare(
        &mut self,
        lane: &Lane<MARKS>,
        prompt: &Prompt,
        slot: &mut Slot,
    ) -> Result<(), ModelError> {
        let index = slot.index();
        self.for_each(slot, |group, before, outputs| {
            let Some(runs_before) = group.session.runs_before_capture() else { return Ok(()) };
            let graph = lane.capture(runs_before, |lane| {
                Ok(group.enqueue(&prompt.views(), before, outputs, lane.stream())?)
            })?;
            if group.graphs.len() <= index {
                group.graphs.resize(index + 1, None);
            }
            group.graphs[index] = Some(graph);
            Ok(())
        })
    }

    /// Writes keys and values of all layers, group by group. Does not allocate.
    pub(super) fn run(
        &mut self,
        prompt: &Prompt,
        writer: &mut KvWriter,
        lane: &Lane<MARKS>,
        turns: &dyn Turns,
        spans: &mut StageSpans,
    ) -> Result<(), ModelError> {
        let is_divided = self.groups.len() > 1;
        let index = writer.slot().index();
        self.for_each(writer.slot_mut(), |group, before, outputs| {
            turns.wait();
            lane.mark(0)?;
            match group.graphs.get(index).and_then(Option::as_ref) {
                Some(graph) => lane.stream().launch(graph)?,
                None => group.enqueue(&prompt.views(), before, outputs, lane.stream())?,
            }
            lane.mark(1)?;
            lane.reach(1)?;
            if is_divided {
                lane.note(stages::UNDERSTANDING_GROUP, 0, spans);
            }
            Ok(())
        })
    }

    /// Shows each group in turn the hidden states that it takes and what it writes: keys, values, and
    /// its own hidden states if another group follows.
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
            outputs.extend(after.filter(|_| group.hands_over).map(DeviceTensor::view_mut));
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
        let hands_over = outputs.iter().any(|spec| spec.name.starts_with(names::HIDDEN));
        let real = outputs.iter().filter(|spec| !spec.name.starts_with(PROBE)).count();
        Self {
            inputs: inputs.iter().map(source).collect(),
            written: real - usize::from(hands_over),
            hands_over,
            graphs: Vec::new(),
            session: engine.session(),
        }
    }

    /// Hands a run of these layers to `stream`: takes hidden states from `before` and writes `outputs`.
    fn enqueue(
        &mut self,
        prompt: &[DeviceView<'_>],
        before: Option<&DeviceTensor>,
        outputs: &[DeviceViewMut<'_>],
        stream: &dyn Stream,
    ) -> Result<(), RunError> {
        let inputs: ArrayVec<DeviceView<'_>, { networks::understanding::INPUTS.len() }> = self
            .inputs
            .iter()
            .map(|input| match input {
                GroupInput::Prompt(place) => prompt[*place],
                GroupInput::Hidden => {
                    before.expect("groups that take hidden states follow one").view()
                }
            })
            .collect();
        self.session.enqueue(stream, &inputs, outputs)
    }
}
