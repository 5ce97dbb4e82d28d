//! The understanding expert: frames and a prompt to a sealed prefix.
//!
//! Its layers are one network or several that run one after the other. A network that runs cannot be
//! interrupted, so a group of layers is the least that the action expert may have to wait for.

use super::image::{PatchLayout, Resizer, Size};
use super::networks::{self, HIDDEN, Networks, NetworksError, PROBE, size, vision};
use super::prompt::{self, DrivingState};
use super::tokenizer::{SpecialTokens, Tokenizer, TokenizerError};
use super::tokens::{ImageGrid, InstructionMask, PromptTokens, SequenceBuffers};
use crate::engine::{Engine, RunError, Session};
use crate::kv_cache::{KvSnapshot, KvWriter, PrefixMeta};
use crate::model::{ModelError, RefreshRequest, UnderstandingExpert};
use crate::scene::{CameraFrame, FrameId};
use crate::tensor::{HostTensor, TensorView, TensorViewMut};
use crate::timing::{Stage, StageSpans};
use arrayvec::ArrayVec;
use std::sync::Arc;
use tandem_export::contract::{Contract, TensorSpec};

/// Tensors of one run at most: 36 layers of keys and values and a few more.
const MAX_TENSORS: usize = 256;

/// What the run file says of the slow expert.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct UnderstandingOptions {
    /// What the instruction's tokens see of each other.
    pub instruction_mask: InstructionMask,
    /// Ticks between two frames of a prompt. As many frames as the history reaches back are kept
    /// encoded, so that every frame is encoded once, whatever the refresh period.
    pub history_spacing_ticks: usize,
}

impl Default for UnderstandingOptions {
    /// As the release's agent drives.
    fn default() -> Self {
        Self { instruction_mask: InstructionMask::Causal, history_spacing_ticks: 5 }
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
    vision: VisionTower,
    layers: LayerGroups,
    instruction: String,
    instruction_ids: Vec<u32>,
    token_ids: HostTensor,
    image_slot: HostTensor,
    position_ids: HostTensor,
    visible_until: HostTensor,
    image_tokens: HostTensor,
    deepstack: HostTensor,
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
        let zeros = |index: usize| zeros(&inputs[index]);
        let (size, layout) = frame_layout(networks)?;
        let [rows, columns] = layout.token_grid(size);
        let grid = ImageGrid { rows, columns };
        let frames_per_prompt = inputs[4].shape[0] / grid.tokens();
        let history = options.history_spacing_ticks * frames_per_prompt.saturating_sub(1) + 1;
        let vision = VisionTower::new(networks, size, layout, history);
        Ok(Self {
            special: tokenizer.special(),
            tokenizer,
            prefix_ids,
            grid,
            frames_per_prompt,
            instruction_mask: options.instruction_mask,
            vision,
            layers: LayerGroups::new(&networks.understanding),
            instruction: String::with_capacity(prompt::INSTRUCTION_CAPACITY),
            instruction_ids: Vec::with_capacity(prompt::INSTRUCTION_CAPACITY),
            token_ids: zeros(0),
            image_slot: zeros(1),
            position_ids: zeros(2),
            visible_until: zeros(3),
            image_tokens: zeros(4),
            deepstack: zeros(5),
        })
    }

    /// Frames that one prompt shows.
    pub fn frames_per_prompt(&self) -> usize {
        self.frames_per_prompt
    }

    /// Writes prompt and layout into the network's inputs.
    fn lay_out(
        &mut self,
        request: &RefreshRequest,
    ) -> Result<super::tokens::SequenceExtent, ModelError> {
        let state = DrivingState {
            speed_mps: request.speed_mps,
            target_m: request.target_points_m[0],
            next_target_m: request.target_points_m[1],
        };
        self.instruction.clear();
        prompt::write_instruction(&state, &mut self.instruction);
        self.instruction_ids.clear();
        self.tokenizer
            .encode_into(&self.instruction, &mut self.instruction_ids)
            .map_err(|error| ModelError::Tokenize(error.to_string()))?;
        let grids: ArrayVec<ImageGrid, 8> = request.frames.iter().map(|_| self.grid).collect();
        let prompt = PromptTokens {
            prefix: &self.prefix_ids,
            frames: &grids,
            instruction: &self.instruction_ids,
            special: self.special,
            instruction_mask: self.instruction_mask,
        };
        prompt
            .lay_out(SequenceBuffers {
                token_ids: self.token_ids.as_mut_slice(),
                position_ids: self.position_ids.as_mut_slice(),
                image_slot: self.image_slot.as_mut_slice(),
                visible_until: self.visible_until.as_mut_slice(),
            })
            .map_err(|error| ModelError::PromptTooLong {
                tokens: error.needed,
                capacity: error.capacity,
            })
    }
}

impl UnderstandingExpert for AutomotUnderstanding {
    fn refresh(
        &mut self,
        request: &RefreshRequest,
        mut writer: KvWriter,
        spans: &mut StageSpans,
    ) -> Result<KvSnapshot, ModelError> {
        if request.frames.len() != self.frames_per_prompt {
            return Err(ModelError::Size {
                what: "the number of frames in a refresh",
                expected: vec![self.frames_per_prompt],
                found: vec![request.frames.len()],
            });
        }
        let begun = Stage::Prompt.begin();
        let extent = self.lay_out(request)?;
        spans.end(begun);

        for (index, frame) in request.frames.iter().enumerate() {
            let features = self.vision.features(frame, spans)?;
            let begun = Stage::Gather.begin();
            features.copy_to_place(index, &mut self.image_tokens, &mut self.deepstack);
            spans.end(begun);
        }

        let begun = Stage::Understanding.begin();
        let prompt = [
            self.token_ids.view(),
            self.image_slot.view(),
            self.position_ids.view(),
            self.visible_until.view(),
            self.image_tokens.view(),
            self.deepstack.view(),
        ];
        self.layers.run(&prompt, &mut writer, spans)?;
        spans.end(begun);

        let begun = Stage::Seal.begin();
        let snapshot = writer.seal(PrefixMeta {
            version: request.version,
            frames: request.frames.iter().map(|frame| frame.id.0).collect(),
            captured_at: request.captured_at,
            valid_length: extent.valid_tokens,
            next_position: extent.next_position,
        });
        spans.end(begun);
        Ok(snapshot)
    }
}

/// The layers of the expert, in the networks that they are divided among.
struct LayerGroups {
    groups: Vec<LayerGroup>,
    /// Hidden states: what the group before gave, and what the next one will take. They change
    /// places from group to group; without a second group there are none.
    hidden: Option<[HostTensor; 2]>,
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
    fn new(engines: &[Arc<dyn Engine>]) -> Self {
        let is_hidden = |spec: &&TensorSpec| spec.name.starts_with(HIDDEN);
        let handed = engines[0].contract().outputs.iter().find(is_hidden);
        let groups = engines.iter().map(|engine| LayerGroup::new(Arc::clone(engine))).collect();
        Self { groups, hidden: handed.map(|spec| [zeros(spec), zeros(spec)]) }
    }

    /// Writes keys and values of all layers, group by group. Does not allocate.
    fn run(
        &mut self,
        prompt: &[TensorView<'_>],
        writer: &mut KvWriter,
        spans: &mut StageSpans,
    ) -> Result<(), RunError> {
        let Self { groups, hidden } = self;
        let mut hidden = hidden.as_mut().map(|[before, after]| (before, after));
        let mut prefix = writer.slot_mut().tensors_mut();
        let is_divided = groups.len() > 1;
        for group in groups {
            let begun = is_divided.then(|| Stage::UnderstandingGroup.begin());
            let (before, after) = match &mut hidden {
                Some((before, after)) => (Some(&**before), Some(&mut **after)),
                None => (None, None),
            };
            group.run(prompt, before, after, &mut prefix)?;
            hidden = hidden.map(|(before, after)| (after, before));
            if let Some(begun) = begun {
                spans.end(begun);
            }
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
        let hands_over = outputs.iter().any(|spec| spec.name.starts_with(HIDDEN));
        let real = outputs.iter().filter(|spec| !spec.name.starts_with(PROBE)).count();
        Self {
            inputs: inputs.iter().map(source).collect(),
            written: real - usize::from(hands_over),
            hands_over,
            session: engine.session(),
        }
    }

    /// Runs these layers: takes hidden states from `before`, leaves its own in `after`, and writes
    /// the next keys and values of `prefix`.
    fn run<'a>(
        &mut self,
        prompt: &[TensorView<'_>],
        before: Option<&HostTensor>,
        after: Option<&mut HostTensor>,
        prefix: &mut impl Iterator<Item = &'a mut HostTensor>,
    ) -> Result<(), RunError> {
        let inputs: ArrayVec<TensorView<'_>, { networks::understanding::INPUTS.len() }> = self
            .inputs
            .iter()
            .map(|input| match input {
                GroupInput::Prompt(place) => prompt[*place],
                GroupInput::Hidden => {
                    before.expect("groups that take hidden states follow one").view()
                }
            })
            .collect();
        let mut outputs: ArrayVec<TensorViewMut<'_>, MAX_TENSORS> = ArrayVec::new();
        outputs.extend(prefix.take(self.written).map(|tensor| tensor.view_mut()));
        outputs.extend(after.filter(|_| self.hands_over).map(HostTensor::view_mut));
        self.session.run(&inputs, &mut outputs)
    }
}

/// Memory for a tensor.
fn zeros(spec: &TensorSpec) -> HostTensor {
    HostTensor::zeros(spec.dtype, &spec.shape)
}

/// How large the vision tower's frames are, and how they are cut.
fn frame_layout(networks: &Networks) -> Result<(Size, PatchLayout), NetworksError> {
    let contract = networks.vision.contract();
    let whole = |key| Ok::<_, NetworksError>(size(contract, vision::NETWORK, key)? as usize);
    let frame = Size { width: whole("frame_width")?, height: whole("frame_height")? };
    let layout = PatchLayout {
        patch_size: whole("patch_size")?,
        temporal_patch_size: whole("temporal_patch_size")?,
        merge_size: whole("spatial_merge_size")?,
    };
    Ok((frame, layout))
}

/// Vision tower with its preprocessing and the features of the newest frames.
struct VisionTower {
    session: Box<dyn Session>,
    size: Size,
    layout: PatchLayout,
    /// Made at the first frame of each camera size.
    resizer: Option<(Size, Resizer)>,
    resized: Vec<u8>,
    patches: HostTensor,
    cache: Vec<Features>,
}

/// Vision features of one frame.
struct Features {
    frame: Option<FrameId>,
    /// `[tokens, hidden]`.
    image_tokens: HostTensor,
    /// `[maps, tokens, hidden]`.
    deepstack: HostTensor,
}

impl VisionTower {
    /// A tower for frames of `size` that keeps the features of `cached` of them.
    fn new(networks: &Networks, size: Size, layout: PatchLayout, cached: usize) -> Self {
        let contract = networks.vision.contract();
        let cache = (0..cached)
            .map(|_| Features {
                frame: None,
                image_tokens: zeros(&contract.outputs[0]),
                deepstack: zeros(&contract.outputs[1]),
            })
            .collect();
        Self {
            session: networks.vision.clone().session(),
            size,
            layout,
            resizer: None,
            resized: vec![0; size.rgb_bytes()],
            patches: zeros(&contract.inputs[0]),
            cache,
        }
    }

    /// Features of `frame`, encoded now or found.
    fn features(
        &mut self,
        frame: &CameraFrame,
        spans: &mut StageSpans,
    ) -> Result<&Features, ModelError> {
        if let Some(place) = self.cache.iter().position(|entry| entry.frame == Some(frame.id)) {
            return Ok(&self.cache[place]);
        }
        self.write_patches(frame, spans);

        let begun = Stage::Vision.begin();
        let entry = self
            .cache
            .iter_mut()
            .min_by_key(|entry| entry.frame)
            .expect("the cache holds at least one frame");
        entry.frame = None; // A run that fails leaves no entry that looks whole.
        let mut outputs = [entry.image_tokens.view_mut(), entry.deepstack.view_mut()];
        self.session.run(&[self.patches.view()], &mut outputs)?;
        entry.frame = Some(frame.id);
        spans.end(begun);
        Ok(entry)
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
            spans.measure(Stage::Resize, || resizer.resize(&frame.rgb, &mut self.resized));
            &self.resized
        };
        let begun = Stage::Patchify.begin();
        self.layout.write_patches(rgb, self.size, self.patches.as_mut_slice());
        spans.end(begun);
    }
}

impl Features {
    /// Copies these features to where the `index`-th frame of a prompt has its tokens.
    fn copy_to_place(
        &self,
        index: usize,
        image_tokens: &mut HostTensor,
        deepstack: &mut HostTensor,
    ) {
        let tokens = self.image_tokens.bytes();
        let from = index * tokens.len();
        image_tokens.bytes_mut()[from..from + tokens.len()].copy_from_slice(tokens);
        let maps = self.deepstack.shape()[0];
        let all = deepstack.bytes_mut();
        let (map, all_map) = (self.deepstack.bytes().len() / maps.max(1), all.len() / maps.max(1));
        for (source, target) in
            self.deepstack.bytes().chunks_exact(map).zip(all.chunks_exact_mut(all_map))
        {
            target[index * map..(index + 1) * map].copy_from_slice(source);
        }
    }
}
