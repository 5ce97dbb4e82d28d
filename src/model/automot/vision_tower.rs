//! The vision tower: frames to image tokens, each frame once.

use super::image::{PatchLayout, Resizer, Size};
use super::lane::Lane;
use super::networks::{self, Networks, NetworksError, input, output};
use super::prompt_buffers::{MARKS, Prompt, zeros};
use super::stages;
use crate::device::{DeviceError, DeviceTensor, Graph, StagedTensor, Stream};
use crate::engine::Session;
use crate::model::{ModelError, Turns};
use crate::scene::{CameraFrame, FrameId};
use crate::timing::StageSpans;
use std::sync::Arc;
use tandem_export::automot::sizes::VisionSizes;

/// How large the vision tower's frames are, and how they are cut.
pub(super) fn frame_layout(networks: &Networks) -> Result<(Size, PatchLayout), NetworksError> {
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
pub(super) struct VisionTower {
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
pub(super) struct Features {
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
    pub(super) fn new(
        networks: &Networks,
        size: Size,
        layout: PatchLayout,
        cached: usize,
    ) -> Result<Self, NetworksError> {
        let contract = networks.vision.contract();
        let device = &*networks.device;
        let patches = input(contract, networks::vision::PATCHES);
        let features = || -> Result<Features, DeviceError> {
            Ok(Features {
                image_tokens: zeros(device, output(contract, networks::vision::IMAGE_TOKENS))?,
                deepstack: zeros(device, output(contract, networks::vision::DEEPSTACK))?,
            })
        };
        let cache = (0..cached).map(|_| Ok(Cached { frame: None, features: features()? }));
        Ok(Self {
            session: networks.vision.clone().session(),
            size,
            layout,
            resizer: None,
            resized: vec![0; size.rgb_bytes()],
            patches: StagedTensor::zeros(device, patches.dtype, &patches.shape)?,
            encoded: features()?,
            graph: None,
            cache: cache.collect::<Result<_, DeviceError>>()?,
        })
    }

    /// Captures the network's run.
    pub(super) fn prepare(&mut self, lane: &Lane<MARKS>) -> Result<(), ModelError> {
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
    pub(super) fn run_for_nothing(
        &mut self,
        lane: &Lane<MARKS>,
        turns: &dyn Turns,
    ) -> Result<(), ModelError> {
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
    pub(super) fn features(
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
    pub(super) fn copy_to_place(
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
