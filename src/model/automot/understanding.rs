//! The understanding expert: frames and a prompt to a sealed prefix.
//!
//! Its layers are one network or several that run one after the other. A network that runs cannot be
//! interrupted, so a group of layers is the least that the action expert may have to wait for.

use super::image::{PatchLayout, Resizer, Size};
use super::lane::Lane;
use super::networks::{self, Networks, NetworksError};
use super::perception::AutomotInputs;
use super::prompt::{self, DrivingState};
use super::stages;
use super::tokenizer::{SpecialTokens, Tokenizer, TokenizerError};
use super::tokens::{ImageGrid, InstructionMask, PromptTokens, SequenceBuffers};
use super::whole::WholeCheck;
use crate::device::{
    Device, DeviceError, DeviceTensor, DeviceView, DeviceViewMut, Graph, StagedTensor, Stream,
};
use crate::engine::{Engine, MAX_TENSORS, RunError, Session};
use crate::kv_cache::{KvSnapshot, KvWriter, PrefixMeta, Slot};
use crate::model::{ModelError, RefreshRequest, Turns, UnderstandingExpert};
use crate::scene::{CameraFrame, FrameId};
use crate::timing::{Stage, StageSpans};
use arrayvec::ArrayVec;
use std::sync::Arc;
use tandem_export::automot::names::{PROBE, understanding as names};
use tandem_export::automot::sizes::VisionSizes;
use tandem_export::contract::{Contract, TensorSpec};

/// What the run file says of the slow expert.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct UnderstandingOptions {
    /// What the instruction's tokens see of each other.
    pub instruction_mask: InstructionMask,
    /// Ticks between two frames of a prompt. As many frames as the history reaches back are kept
    /// encoded, so that every frame is encoded once, whatever the refresh period.
    pub history_spacing_ticks: usize,
    /// Whether a prefix that is not finite is refused. Only a comparison, which wants to show where
    /// that begins, says no.
    pub must_be_finite: bool,
}

impl Default for UnderstandingOptions {
    /// As the release's agent drives.
    fn default() -> Self {
        Self {
            instruction_mask: InstructionMask::Causal,
            history_spacing_ticks: 5,
            must_be_finite: true,
        }
    }
}

/// The slow expert of AutoMoT.
pub struct AutomotUnderstanding {
    tokenizer: Tokenizer,
    special: SpecialTokens,
    prefix_ids: Vec<u32>,
    grid: ImageGrid,
    frames_per_prompt: usize,
    instruction_mask: InstructionMask,
    lane: Lane<MARKS>,
    vision: VisionTower,
    prompt: Prompt,
    layers: LayerGroups,
    /// `None` if a prefix need not be finite.
    whole: Option<WholeCheck>,
    instruction: String,
    instruction_ids: Vec<u32>,
}

/// Places in the slow lane: before and behind a piece of work.
const MARKS: usize = 2;

/// The understanding network's inputs, in the order of its contract.
struct Prompt {
    token_ids: StagedTensor,
    image_slot: StagedTensor,
    position_ids: StagedTensor,
    visible_until: StagedTensor,
    image_tokens: DeviceTensor,
    deepstack: DeviceTensor,
}

impl Prompt {
    fn views(&self) -> [DeviceView<'_>; networks::understanding::INPUTS.len()] {
        [
            self.token_ids.view(),
            self.image_slot.view(),
            self.position_ids.view(),
            self.visible_until.view(),
            self.image_tokens.view(),
            self.deepstack.view(),
        ]
    }

    /// Lets the device have what the host laid out.
    fn upload(&self, stream: &dyn Stream) -> Result<(), DeviceError> {
        [&self.token_ids, &self.image_slot, &self.position_ids, &self.visible_until]
            .into_iter()
            .try_for_each(|tensor| stream.upload(tensor.staged()))
    }
}

/// The expert cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// The networks are not AutoMoT's, or do not fit.
    #[error(transparent)]
    Networks(#[from] NetworksError),
    /// There is no usable tokenizer.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
}

impl AutomotUnderstanding {
    /// An expert that works as the release's.
    ///
    /// # Errors
    /// See [`with_options`](Self::with_options).
    pub fn new(networks: &Networks, tokenizer: Tokenizer) -> Result<Self, SetupError> {
        Self::with_options(networks, tokenizer, UnderstandingOptions::default())
    }

    /// Sets up sessions and every buffer that refreshes will need.
    ///
    /// # Errors
    /// If a contract lacks a size or the tokenizer cannot encode the fixed prefix.
    pub fn with_options(
        networks: &Networks,
        mut tokenizer: Tokenizer,
        options: UnderstandingOptions,
    ) -> Result<Self, SetupError> {
        let mut prefix_ids = Vec::new();
        tokenizer.encode_into(prompt::PREFIX, &mut prefix_ids)?;
        let inputs = &networks.understanding[0].contract().inputs;
        let device = &*networks.device;
        let staged =
            |index: usize| StagedTensor::zeros(device, inputs[index].dtype, &inputs[index].shape);
        let (size, layout) = frame_layout(networks)?;
        let [rows, columns] = layout.token_grid(size);
        let grid = ImageGrid { rows, columns };
        let frames_per_prompt = inputs[4].shape[0] / grid.tokens();
        let history = options.history_spacing_ticks * frames_per_prompt.saturating_sub(1) + 1;
        let vision = VisionTower::new(networks, size, layout, history)?;
        Ok(Self {
            special: tokenizer.special(),
            tokenizer,
            prefix_ids,
            grid,
            frames_per_prompt,
            instruction_mask: options.instruction_mask,
            lane: Lane::new(device, &networks.lanes.slow).map_err(NetworksError::from)?,
            vision,
            prompt: Prompt {
                token_ids: staged(0).map_err(NetworksError::from)?,
                image_slot: staged(1).map_err(NetworksError::from)?,
                position_ids: staged(2).map_err(NetworksError::from)?,
                visible_until: staged(3).map_err(NetworksError::from)?,
                image_tokens: zeros(device, &inputs[4]).map_err(NetworksError::from)?,
                deepstack: zeros(device, &inputs[5]).map_err(NetworksError::from)?,
            },
            layers: LayerGroups::new(device, &networks.understanding)?,
            whole: options
                .must_be_finite
                .then(|| WholeCheck::new(device, networks.prefix))
                .transpose()
                .map_err(NetworksError::from)?,
            instruction: String::with_capacity(prompt::INSTRUCTION_CAPACITY),
            instruction_ids: Vec::with_capacity(prompt::INSTRUCTION_CAPACITY),
        })
    }

    /// Frames that one prompt shows.
    pub fn frames_per_prompt(&self) -> usize {
        self.frames_per_prompt
    }

    /// Writes prompt and layout into the network's inputs.
    fn lay_out(
        &mut self,
        inputs: &AutomotInputs,
    ) -> Result<super::tokens::SequenceExtent, ModelError> {
        let state = DrivingState {
            speed_mps: inputs.speed_mps,
            target_m: inputs.target_points_m[0],
            next_target_m: inputs.target_points_m[1],
        };
        self.instruction.clear();
        prompt::write_instruction(&state, &mut self.instruction);
        self.instruction_ids.clear();
        self.tokenizer
            .encode_into(&self.instruction, &mut self.instruction_ids)
            .map_err(|error| ModelError::Tokenize(error.to_string()))?;
        let grids: ArrayVec<ImageGrid, 8> = inputs.frames.iter().map(|_| self.grid).collect();
        let prompt = PromptTokens {
            prefix: &self.prefix_ids,
            frames: &grids,
            instruction: &self.instruction_ids,
            special: self.special,
            instruction_mask: self.instruction_mask,
        };
        prompt
            .lay_out(SequenceBuffers {
                token_ids: &mut self.prompt.token_ids.as_mut_slice(),
                position_ids: &mut self.prompt.position_ids.as_mut_slice(),
                image_slot: &mut self.prompt.image_slot.as_mut_slice(),
                visible_until: &mut self.prompt.visible_until.as_mut_slice(),
            })
            .map_err(|error| ModelError::PromptTooLong {
                tokens: error.needed,
                capacity: error.capacity,
            })
    }
}

impl UnderstandingExpert for AutomotUnderstanding {
    type Inputs = AutomotInputs;

    fn prepare(&mut self, slot: &mut Slot) -> Result<(), ModelError> {
        self.vision.prepare(&self.lane)?;
        self.layers.prepare(&self.lane, &self.prompt, slot)
    }

    fn keep_warm(&mut self, turns: &dyn Turns) -> Result<(), ModelError> {
        self.vision.run_for_nothing(&self.lane, turns)
    }

    fn refresh(
        &mut self,
        request: &RefreshRequest<AutomotInputs>,
        mut writer: KvWriter,
        turns: &dyn Turns,
        spans: &mut StageSpans,
    ) -> Result<KvSnapshot, ModelError> {
        match self.fill(request, &mut writer, turns, spans) {
            Ok(meta) => Ok(writer.seal(meta)),
            Err(error) => {
                // The slot goes home when nothing that was handed over can write to it any more.
                let _ = self.lane.stream().synchronize();
                Err(error)
            }
        }
    }
}

impl AutomotUnderstanding {
    /// Computes a prefix into `writer`, to its end; gives what it was made from.
    fn fill(
        &mut self,
        request: &RefreshRequest<AutomotInputs>,
        writer: &mut KvWriter,
        turns: &dyn Turns,
        spans: &mut StageSpans,
    ) -> Result<PrefixMeta, ModelError> {
        let inputs = &request.inputs;
        if inputs.frames.len() != self.frames_per_prompt {
            return Err(ModelError::Size {
                what: "the number of frames in a refresh",
                expected: vec![self.frames_per_prompt],
                found: vec![inputs.frames.len()],
            });
        }
        let begun = stages::PROMPT.begin();
        let extent = self.lay_out(inputs)?;
        spans.end(begun);

        for (index, frame) in inputs.frames.iter().enumerate() {
            let features = self.vision.features(frame, &self.lane, turns, spans)?;
            let begun = stages::GATHER.begin();
            features.copy_to_place(index, &self.prompt, self.lane.stream())?;
            spans.end(begun);
        }

        let begun = stages::UNDERSTANDING.begin();
        self.prompt.upload(self.lane.stream())?;
        self.layers.run(&self.prompt, writer, &self.lane, turns, spans)?;
        spans.end(begun);

        let begun = Stage::SEAL.begin();
        self.lane.stream().record(writer.slot().ready())?;
        if let Some(whole) = &self.whole {
            whole.check(writer.slot(), extent.valid_tokens, self.lane.stream())?;
        }
        spans.end(begun);
        Ok(PrefixMeta {
            version: request.version,
            frames: inputs.frames.iter().map(|frame| frame.id.0).collect(),
            captured_at: request.captured_at,
            valid_length: extent.valid_tokens,
            next_position: extent.next_position,
        })
    }
}

/// The layers of the expert, in the networks that they are divided among.
struct LayerGroups {
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
    fn new(device: &dyn Device, engines: &[Arc<dyn Engine>]) -> Result<Self, NetworksError> {
        let is_hidden = |spec: &&TensorSpec| spec.name.starts_with(names::HIDDEN);
        let handed = engines[0].contract().outputs.iter().find(is_hidden);
        let groups = engines.iter().map(|engine| LayerGroup::new(Arc::clone(engine))).collect();
        let pair = |spec| Ok::<_, DeviceError>([zeros(device, spec)?, zeros(device, spec)?]);
        Ok(Self { groups, hidden: handed.map(pair).transpose()? })
    }

    /// Captures every group's run into `slot`.
    fn prepare(
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
    fn run(
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

/// Memory for a tensor.
fn zeros(device: &dyn Device, spec: &TensorSpec) -> Result<DeviceTensor, DeviceError> {
    DeviceTensor::zeros(device, spec.dtype, &spec.shape)
}

/// How large the vision tower's frames are, and how they are cut.
fn frame_layout(networks: &Networks) -> Result<(Size, PatchLayout), NetworksError> {
    let sizes = VisionSizes::of(networks.vision.contract())?;
    let frame = Size { width: sizes.frame_width, height: sizes.frame_height };
    let layout = PatchLayout {
        patch_size: sizes.patch_size,
        temporal_patch_size: sizes.temporal_patch_size,
        merge_size: sizes.spatial_merge_size,
    };
    Ok((frame, layout))
}

/// Vision tower with its preprocessing and the features of the newest frames, which stay on the
/// device.
struct VisionTower {
    session: Box<dyn Session>,
    size: Size,
    layout: PatchLayout,
    /// Made at the first frame of each camera size.
    resizer: Option<(Size, Resizer)>,
    resized: Vec<u8>,
    patches: StagedTensor,
    /// What the network writes, whichever frame it is.
    encoded: Features,
    /// Its run, captured.
    graph: Option<Arc<dyn Graph>>,
    cache: Vec<Cached>,
}

/// Vision features of one frame.
struct Features {
    /// `[tokens, hidden]`.
    image_tokens: DeviceTensor,
    /// `[maps, tokens, hidden]`.
    deepstack: DeviceTensor,
}

struct Cached {
    frame: Option<FrameId>,
    features: Features,
}

impl VisionTower {
    /// A tower for frames of `size` that keeps the features of `cached` of them.
    fn new(
        networks: &Networks,
        size: Size,
        layout: PatchLayout,
        cached: usize,
    ) -> Result<Self, NetworksError> {
        let Contract { inputs, outputs, .. } = networks.vision.contract();
        let device = &*networks.device;
        let features = || -> Result<Features, DeviceError> {
            let image_tokens = zeros(device, &outputs[0])?;
            Ok(Features { image_tokens, deepstack: zeros(device, &outputs[1])? })
        };
        let cache = (0..cached).map(|_| Ok(Cached { frame: None, features: features()? }));
        Ok(Self {
            session: networks.vision.clone().session(),
            size,
            layout,
            resizer: None,
            resized: vec![0; size.rgb_bytes()],
            patches: StagedTensor::zeros(device, inputs[0].dtype, &inputs[0].shape)?,
            encoded: features()?,
            graph: None,
            cache: cache.collect::<Result<_, DeviceError>>()?,
        })
    }

    /// Captures the network's run.
    fn prepare(&mut self, lane: &Lane<MARKS>) -> Result<(), ModelError> {
        if self.graph.is_none()
            && let Some(runs_before) = self.session.runs_before_capture()
        {
            self.graph = Some(lane.capture(runs_before, |lane| self.enqueue(lane.stream()))?);
        }
        Ok(())
    }

    /// Hands a run over the patches to `stream`.
    fn enqueue(&mut self, stream: &dyn Stream) -> Result<(), ModelError> {
        stream.upload(self.patches.staged())?;
        let Features { image_tokens, deepstack } = &mut self.encoded;
        let outputs = [image_tokens.view_mut(), deepstack.view_mut()];
        Ok(self.session.enqueue(stream, &[self.patches.view()], &outputs)?)
    }

    /// Hands a run over whatever patches there are to the lane and waits for it.
    fn run_for_nothing(&mut self, lane: &Lane<MARKS>, turns: &dyn Turns) -> Result<(), ModelError> {
        turns.wait();
        self.launch(lane.stream())?;
        lane.mark(1)?;
        lane.reach(1)
    }

    /// Hands a run over the patches to `stream`, captured or anew.
    fn launch(&mut self, stream: &dyn Stream) -> Result<(), ModelError> {
        match &self.graph {
            Some(graph) => Ok(stream.launch(graph)?),
            None => self.enqueue(stream),
        }
    }

    /// Features of `frame`, encoded now or found.
    fn features(
        &mut self,
        frame: &CameraFrame,
        lane: &Lane<MARKS>,
        turns: &dyn Turns,
        spans: &mut StageSpans,
    ) -> Result<&Features, ModelError> {
        if let Some(place) = self.cache.iter().position(|entry| entry.frame == Some(frame.id)) {
            return Ok(&self.cache[place].features);
        }
        self.write_patches(frame, spans);
        turns.wait();
        let stream = lane.stream();
        lane.mark(0)?;
        self.launch(stream)?;
        let entry = self
            .cache
            .iter_mut()
            .min_by_key(|entry| entry.frame)
            .expect("the cache holds at least one frame");
        entry.frame = None; // A run that fails leaves no entry that looks whole.
        let (from, into) = (&self.encoded, &entry.features);
        stream.copy(from.image_tokens.buffer(), into.image_tokens.buffer())?;
        stream.copy(from.deepstack.buffer(), into.deepstack.buffer())?;
        lane.mark(1)?;
        lane.reach(1)?;
        entry.frame = Some(frame.id);
        lane.note(stages::VISION, 0, spans);
        Ok(&entry.features)
    }

    fn write_patches(&mut self, frame: &CameraFrame, spans: &mut StageSpans) {
        let from = Size { width: frame.width as usize, height: frame.height as usize };
        let rgb = if from == self.size {
            &frame.rgb
        } else {
            if self.resizer.as_ref().is_none_or(|(size, _)| *size != from) {
                self.resizer = Some((from, Resizer::new(from, self.size)));
            }
            let (_, resizer) = self.resizer.as_mut().expect("made just above");
            spans.measure(stages::RESIZE, || resizer.resize(&frame.rgb, &mut self.resized));
            &self.resized
        };
        let begun = stages::PATCHIFY.begin();
        self.layout.write_patches(rgb, self.size, &mut self.patches.as_mut_slice());
        spans.end(begun);
    }
}

impl Features {
    /// Copies these features to where the `index`-th frame of a prompt has its tokens.
    fn copy_to_place(
        &self,
        index: usize,
        prompt: &Prompt,
        stream: &dyn Stream,
    ) -> Result<(), DeviceError> {
        let tokens = self.image_tokens.buffer();
        let all = prompt.image_tokens.buffer();
        stream.copy(tokens, &all.part(index * tokens.bytes(), tokens.bytes()))?;
        let maps = self.deepstack.shape()[0];
        let (from, all) = (self.deepstack.buffer(), prompt.deepstack.buffer());
        let (map, all_map) = (from.bytes() / maps.max(1), all.bytes() / maps.max(1));
        (0..maps).try_for_each(|place| {
            let into = all.part(place * all_map + index * map, map);
            stream.copy(&from.part(place * map, map), &into)
        })
    }
}
