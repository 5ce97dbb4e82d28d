//! The understanding expert, which computes a sealed prefix KV cache from frames and a prompt.
//!
//! Its layers are in one network or in several that run in sequence. A running network cannot be
//! preempted, so the action expert may have to wait for the run of one layer group.

use super::finite::FiniteCheck;
use super::layer_groups::LayerGroups;
use super::networks::{Networks, NetworksError, input};
use super::perception::AutomotInputs;
use super::prompt::{self, DrivingState};
use super::prompt_buffers::{MARKS, Prompt};
use super::stages;
use super::timed_stream::TimedStream;
use super::tokenizer::{SpecialTokens, Tokenizer, TokenizerError};
use super::tokens::{ImageGrid, InstructionMask, PromptTokens, SequenceBuffers};
use super::vision_tower::{VisionTower, frame_layout};
use crate::device::DeviceError;
use crate::kv_cache::{KvSnapshot, KvWriter, PrefixMeta, Slot};
use crate::model::{LaunchGate, ModelError, PrefillRequest, UnderstandingExpert};
use crate::timing::{Stage, StageSpans};
use arrayvec::ArrayVec;
use tandem_export::automot::names::understanding as names;

/// Options of the slow expert.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct UnderstandingOptions {
    /// Attention mask within the instruction.
    pub instruction_mask: InstructionMask,
    /// Ticks between two frames of a prompt. The features of all frames in the history are cached,
    /// so that every frame is encoded once, independent of the prefill period.
    pub history_spacing_ticks: usize,
    /// Refuses a prefix that is not finite. False only for a comparison, which
    /// reports where it diverges.
    pub must_be_finite: bool,
}

impl Default for UnderstandingOptions {
    /// Returns the options of the agent of the AutoMoT release.
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
    timed_stream: TimedStream<MARKS>,
    vision: VisionTower,
    prompt: Prompt,
    layers: LayerGroups,
    /// `None` if a prefix need not be finite.
    finite_check: Option<FiniteCheck>,
    instruction: String,
    instruction_ids: Vec<u32>,
}

/// Error returned when the expert cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    #[error(transparent)]
    Networks(#[from] NetworksError),
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
}

impl From<DeviceError> for SetupError {
    fn from(error: DeviceError) -> Self {
        Self::Networks(error.into())
    }
}

impl AutomotUnderstanding {
    /// Creates an expert with the default options.
    pub fn new(networks: &Networks, tokenizer: Tokenizer) -> Result<Self, SetupError> {
        Self::with_options(networks, tokenizer, UnderstandingOptions::default())
    }

    /// Creates the sessions and all buffers of a prefill. Fails if a contract lacks a size or the
    /// tokenizer cannot encode the fixed prefix.
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
            timed_stream: TimedStream::new(device, &networks.streams.slow)?,
            vision,
            prompt: Prompt::new(device, contract)?,
            layers: LayerGroups::new(device, &networks.understanding)?,
            finite_check: options
                .must_be_finite
                .then(|| FiniteCheck::new(device, networks.prefix))
                .transpose()?,
            instruction: String::with_capacity(prompt::INSTRUCTION_CAPACITY),
            instruction_ids: Vec::with_capacity(prompt::INSTRUCTION_CAPACITY),
        })
    }

    /// Returns the number of frames in a prompt.
    pub fn frames_per_prompt(&self) -> usize {
        self.frames_per_prompt
    }

    /// Writes the token sequence to the network's inputs.
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
        self.vision.prepare(&self.timed_stream)?;
        self.layers.prepare(&self.timed_stream, &self.prompt, slot)
    }

    fn keep_warm(&mut self, gate: &dyn LaunchGate) -> Result<(), ModelError> {
        self.vision.keep_warm(&self.timed_stream, gate)
    }

    fn prefill(
        &mut self,
        request: &PrefillRequest<AutomotInputs>,
        mut writer: KvWriter,
        gate: &dyn LaunchGate,
        spans: &mut StageSpans,
    ) -> Result<KvSnapshot, ModelError> {
        match self.fill(request, &mut writer, gate, spans) {
            Ok(meta) => Ok(writer.seal(meta)),
            Err(error) => {
                // The slot returns to the pool only after enqueued work that may write to it is
                // finished.
                let _ = self.timed_stream.stream().synchronize();
                Err(error)
            }
        }
    }
}

impl AutomotUnderstanding {
    /// Computes a prefix into `writer`, waits for it and returns its metadata.
    fn fill(
        &mut self,
        request: &PrefillRequest<AutomotInputs>,
        writer: &mut KvWriter,
        gate: &dyn LaunchGate,
        spans: &mut StageSpans,
    ) -> Result<PrefixMeta, ModelError> {
        let inputs = &request.inputs;
        if inputs.frames.len() != self.frames_per_prompt {
            return Err(ModelError::Size {
                what: "the number of frames in a prefill",
                expected: vec![self.frames_per_prompt],
                found: vec![inputs.frames.len()],
            });
        }
        let begun = stages::PROMPT.begin();
        let extent = self.lay_out(inputs)?;
        spans.end(begun);

        for (index, frame) in inputs.frames.iter().enumerate() {
            let features = self.vision.features(frame, &self.timed_stream, gate, spans)?;
            let begun = stages::GATHER.begin();
            features.copy_to_place(index, &self.prompt, self.timed_stream.stream())?;
            spans.end(begun);
        }

        let begun = stages::UNDERSTANDING.begin();
        self.prompt.upload(self.timed_stream.stream())?;
        self.layers.run(&self.prompt, writer, &self.timed_stream, gate, spans)?;
        spans.end(begun);

        let begun = Stage::SEAL.begin();
        self.timed_stream.stream().record(writer.slot().ready())?;
        if let Some(finite) = &self.finite_check {
            finite.check(writer.slot(), extent.valid_tokens, self.timed_stream.stream())?;
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
