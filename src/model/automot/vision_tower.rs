//! The vision tower, which encodes each frame once into image tokens.

use super::image::{PatchLayout, Resizer, Size};
use super::networks::{self, Networks, NetworksError, input, output};
use super::prompt_buffers::{MARKS, Prompt, zeros};
use super::stages;
use super::timed_stream::TimedStream;
use crate::device::{DeviceError, DeviceTensor, Graph, StagedTensor, Stream};
use crate::engine::Session;
use crate::model::{LaunchGate, ModelError};
use crate::scene::{CameraFrame, FrameId};
use crate::timing::StageSpans;
use std::sync::Arc;
use tandem_export::automot::sizes::VisionSizes;

/// Returns the size of the vision tower's frames and their patch layout.
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

/// Vision tower with its preprocessing and a cache of the features of the
/// newest frames on the device.
pub(super) struct VisionTower {
    session: Box<dyn Session>,
    size: Size,
    layout: PatchLayout,
    /// Created at the first frame of each camera size.
    resizer: Option<(Size, Resizer)>,
    resized: Vec<u8>,
    patches: StagedTensor,
    /// Outputs of the network for the current frame.
    encoded: Features,
    /// Captured run of the network.
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
    /// Creates a tower for frames of `size` that caches the features of `cached` frames.
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

    /// Captures a run of the network.
    pub(super) fn prepare(&mut self, timed_stream: &TimedStream<MARKS>) -> Result<(), ModelError> {
        if self.graph.is_none()
            && let Some(runs_before) = self.session.runs_before_capture()
        {
            self.graph = Some(
                timed_stream
                    .capture(runs_before, |timed_stream| self.enqueue(timed_stream.stream()))?,
            );
        }
        Ok(())
    }

    /// Enqueues a run on the patches.
    fn enqueue(&mut self, stream: &dyn Stream) -> Result<(), ModelError> {
        stream.upload(self.patches.staged())?;
        let Features { image_tokens, deepstack } = &mut self.encoded;
        let outputs = [image_tokens.view_mut(), deepstack.view_mut()];
        Ok(self.session.enqueue(stream, &[self.patches.view()], &outputs)?)
    }

    /// Runs the network on the last patches and waits for it, without using its outputs.
    pub(super) fn keep_warm(
        &mut self,
        timed_stream: &TimedStream<MARKS>,
        gate: &dyn LaunchGate,
    ) -> Result<(), ModelError> {
        gate.wait();
        self.launch(timed_stream.stream())?;
        timed_stream.mark(1)?;
        timed_stream.wait_for(1)
    }

    /// Enqueues a run on the patches, as a graph if it was captured.
    fn launch(&mut self, stream: &dyn Stream) -> Result<(), ModelError> {
        match &self.graph {
            Some(graph) => Ok(stream.launch(graph)?),
            None => self.enqueue(stream),
        }
    }

    /// Returns the features of `frame` from the cache, or encodes it.
    pub(super) fn features(
        &mut self,
        frame: &CameraFrame,
        timed_stream: &TimedStream<MARKS>,
        gate: &dyn LaunchGate,
        spans: &mut StageSpans,
    ) -> Result<&Features, ModelError> {
        if let Some(place) = self.cache.iter().position(|entry| entry.frame == Some(frame.id)) {
            return Ok(&self.cache[place].features);
        }
        self.write_patches(frame, spans);
        gate.wait();
        let stream = timed_stream.stream();
        timed_stream.mark(0)?;
        self.launch(stream)?;
        let entry = self
            .cache
            .iter_mut()
            .min_by_key(|entry| entry.frame)
            .expect("the cache holds at least one frame");
        entry.frame = None; // Invalid until the run has succeeded.
        let (from, into) = (&self.encoded, &entry.features);
        stream.copy(from.image_tokens.buffer(), into.image_tokens.buffer())?;
        stream.copy(from.deepstack.buffer(), into.deepstack.buffer())?;
        timed_stream.mark(1)?;
        timed_stream.wait_for(1)?;
        entry.frame = Some(frame.id);
        timed_stream.record_span(stages::VISION, 0, spans);
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
            let (_, resizer) = self.resizer.as_mut().expect("created above");
            spans.measure(stages::RESIZE, || resizer.resize(&frame.rgb, &mut self.resized));
            &self.resized
        };
        let begun = stages::PATCHIFY.begin();
        self.layout.write_patches(rgb, self.size, &mut self.patches.as_mut_slice());
        spans.end(begun);
    }
}

impl Features {
    /// Copies these features to the tokens of the `index`-th frame of a prompt.
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
