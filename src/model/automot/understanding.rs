//! The understanding expert: frames and a prompt to a sealed prefix.
//!
//! Its layers are one network or several that run one after the other. A network that runs cannot be
//! interrupted, so a group of layers is the least that the action expert may have to wait for.

use super::lane::Lane;
use super::layer_groups::LayerGroups;
use super::networks::{Networks, NetworksError, input};
use super::perception::AutomotInputs;
use super::prompt::{self, DrivingState};
use super::prompt_buffers::{MARKS, Prompt};
use super::stages;
use super::tokenizer::{SpecialTokens, Tokenizer, TokenizerError};
use super::tokens::{ImageGrid, InstructionMask, PromptTokens, SequenceBuffers};
use super::vision_tower::{VisionTower, frame_layout};
use super::whole::WholeCheck;
use crate::device::DeviceError;
use crate::kv_cache::{KvSnapshot, KvWriter, PrefixMeta, Slot};
use crate::model::{ModelError, RefreshRequest, Turns, UnderstandingExpert};
use crate::timing::{Stage, StageSpans};
use arrayvec::ArrayVec;
use tandem_export::automot::names::understanding as names;

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

impl From<DeviceError> for SetupError {
    fn from(error: DeviceError) -> Self {
        Self::Networks(error.into())
    }
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
        let contract = networks.understanding[0].contract();
        let device = &*networks.device;
        let (size, layout) = frame_layout(networks)?;
        let [rows, columns] = layout.token_grid(size);
        let grid = ImageGrid { rows, columns };
        let frames_per_prompt = input(contract, names::IMAGE_TOKENS).shape[0] / grid.tokens();
        let history = options.history_spacing_ticks * frames_per_prompt.saturating_sub(1) + 1;
        let vision = VisionTower::new(networks, size, layout, history)?;
        Ok(Self {
            special: tokenizer.special(),
            tokenizer,
            prefix_ids,
            grid,
            frames_per_prompt,
            instruction_mask: options.instruction_mask,
            lane: Lane::new(device, &networks.lanes.slow)?,
            vision,
            prompt: Prompt::new(device, contract)?,
            layers: LayerGroups::new(device, &networks.understanding)?,
            whole: options
                .must_be_finite
                .then(|| WholeCheck::new(device, networks.prefix))
                .transpose()?,
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
