//! The two experts on a device, run back to back without a pilot.

use super::device::{Arrangement, Loaded};
use super::drive::{Drive, Requests};
use super::series::Series;
use anyhow::Context;
use serde_json::{Value, json};
use std::path::Path;
use std::sync::Arc;
use tandem::device::Device;
use tandem::kv_cache::{Handover, KvSnapshot, SlotPool};
use tandem::model::automot::stages;
use tandem::model::automot::tokenizer::Tokenizer;
use tandem::model::automot::{
    AutomotAction, AutomotInputs, AutomotPerception, AutomotUnderstanding, PerceptionOptions,
    Positions,
};
use tandem::model::{
    ActionExpert, ModelError, OpenGate, Perception, PrefillRequest, UnderstandingExpert,
};
use tandem::scene::Detour;
use tandem::scene::random::SplitMix64;
use tandem::timing::{Stage, StageSpans, Stopwatch};
use tandem_export::folder::TOKENIZER_FILE;

/// KV cache slots: one published, one read by an earlier tick, one being written.
const SLOTS: usize = 3;

/// Prefills and ticks before the first sample: the libraries allocate and capture graphs in them.
const WARM_UP: usize = 6;

/// Both experts, with a published prefix.
pub(super) struct Experts {
    pub(super) fast: Fast,
    pub(super) slow: Slow,
    pub(super) handover: Handover,
    pub(super) device: Arc<dyn Device>,
}

/// The fast expert and its inputs.
pub(super) struct Fast {
    perception: AutomotPerception,
    action: AutomotAction,
    drive: Drive,
}

/// The slow expert, its inputs and its KV cache slots.
pub(super) struct Slow {
    understanding: AutomotUnderstanding,
    requests: Requests,
    pool: SlotPool,
    pub(super) frames_per_prompt: usize,
}

impl Experts {
    /// Creates both experts and warms them up. Fails if an expert cannot be set up, or fails.
    pub(super) fn new(
        loaded: &Loaded,
        engine: &Path,
        arrangement: Arrangement,
    ) -> anyhow::Result<Self> {
        let networks = &loaded.networks;
        let tokenizer = Tokenizer::read(&engine.join(TOKENIZER_FILE))?;
        let mut understanding = AutomotUnderstanding::new(networks, tokenizer)?;
        let drive = Drive::record()?;
        let frames_per_prompt = understanding.frames_per_prompt();
        let requests = drive.requests(frames_per_prompt)?;
        let options = PerceptionOptions::default();
        let mut perception =
            AutomotPerception::new(networks, drive.planner(), frames_per_prompt, options)?;
        let mut action = AutomotAction::new(networks, Positions::default())?;
        let pool = SlotPool::new(&networks.device, networks.prefix, SLOTS)?;
        if arrangement.graphs {
            let slots = (0..SLOTS).map(|_| pool.writer().expect("all slots are free"));
            for mut writer in slots.collect::<Vec<_>>() {
                understanding.prepare(writer.slot_mut())?;
                action.prepare(writer.slot(), perception.readings())?;
            }
        }
        let mut experts = Self {
            fast: Fast { perception, action, drive },
            slow: Slow { understanding, requests, pool, frames_per_prompt },
            handover: Handover::new(),
            device: Arc::clone(&networks.device),
        };
        experts.warm_up().context("warming up")?;
        Ok(experts)
    }

    fn warm_up(&mut self) -> anyhow::Result<()> {
        for _ in 0..WARM_UP {
            let request = self.slow.requests.next(self.slow.frames_per_prompt);
            let prefix = self.slow.prefill(&request, &mut PrefillSeries::default())?;
            self.handover.publish(prefix)?;
            // Ticks use every slot in turn.
            self.fast.tick(&self.prefix(), &mut TickSeries::default())?;
        }
        for _ in 0..WARM_UP {
            self.fast.tick(&self.prefix(), &mut TickSeries::default())?;
        }
        Ok(())
    }

    /// Returns the newest prefix.
    pub(super) fn prefix(&self) -> Arc<KvSnapshot> {
        self.handover.latest().expect("the first prefix was published in the warm-up")
    }
}

impl Fast {
    /// Runs one tick on `prefix`, without state filter and control.
    pub(super) fn tick(
        &mut self,
        prefix: &KvSnapshot,
        series: &mut TickSeries,
    ) -> Result<(), ModelError> {
        let mut spans = StageSpans::default();
        let (observation, pose) = self.drive.next();
        let tick = Stopwatch::start();
        self.perception.observe(observation, pose, &Detour::default(), &mut spans)?;
        let act = Stopwatch::start();
        let random = SplitMix64::new(0);
        self.action.act(prefix, self.perception.readings(), random, &mut spans)?;
        let act_ns = nanoseconds(&act);
        series.add(nanoseconds(&tick), act_ns, &spans);
        Ok(())
    }
}

impl Slow {
    /// Returns the inputs of the next prefill, with `new_frames` frames that are not cached.
    pub(super) fn request(&mut self, new_frames: usize) -> PrefillRequest<AutomotInputs> {
        self.requests.next(new_frames)
    }

    /// Runs one prefill until its prefix is sealed. Fails if the expert fails, or no slot is free.
    pub(super) fn prefill(
        &mut self,
        request: &PrefillRequest<AutomotInputs>,
        series: &mut PrefillSeries,
    ) -> anyhow::Result<KvSnapshot> {
        let writer = self.pool.writer().context("no slot is free")?;
        let mut spans = StageSpans::default();
        let prefill = Stopwatch::start();
        let prefix = self.understanding.prefill(request, writer, &OpenGate, &mut spans)?;
        series.add(nanoseconds(&prefill), &spans);
        Ok(prefix)
    }

    /// True if a KV cache slot is free.
    pub(super) fn has_free_slot(&self) -> bool {
        self.pool.free() > 0
    }
}

fn nanoseconds(watch: &Stopwatch) -> u64 {
    u64::try_from(watch.elapsed().as_nanos()).unwrap_or(u64::MAX)
}

fn took(spans: &StageSpans, stage: Stage) -> Option<u64> {
    u64::try_from(spans.took(stage)?.as_nanos()).ok()
}

/// Latencies of ticks, one series per stage.
#[derive(Default)]
pub(super) struct TickSeries {
    /// Perception inputs and action step.
    tick: Series,
    /// Action step, from the observed readings to the trajectory.
    act: Series,
    /// Device time from the first upload to the last download, by events.
    device: Series,
    upload: Series,
    bev: Series,
    action: Series,
    download: Series,
    /// Rest of the action step, without device, camera image and trajectory: submission and
    /// wake-up.
    host: Series,
}

impl TickSeries {
    pub(super) fn for_runs(n: usize) -> Self {
        let runs = || Series::for_runs(n);
        Self {
            tick: runs(),
            act: runs(),
            device: runs(),
            upload: runs(),
            bev: runs(),
            action: runs(),
            download: runs(),
            host: runs(),
        }
    }

    fn add(&mut self, tick_ns: u64, act_ns: u64, spans: &StageSpans) {
        self.tick.push(tick_ns);
        self.act.push(act_ns);
        let mut device_ns = 0;
        for (stage, series) in [
            (Stage::UPLOAD, &mut self.upload),
            (stages::BEV, &mut self.bev),
            (stages::ACTION, &mut self.action),
            (Stage::DOWNLOAD, &mut self.download),
        ] {
            if let Some(ns) = took(spans, stage) {
                series.push(ns);
                device_ns += ns;
            }
        }
        self.device.push(device_ns);
        let of_host = [stages::PICTURE, stages::TRAJECTORY].map(|stage| took(spans, stage));
        let other = device_ns + of_host.into_iter().flatten().sum::<u64>();
        self.host.push(act_ns.saturating_sub(other));
    }

    /// Returns the summaries of all series with samples, with the first `raw` samples of each.
    pub(super) fn to_json(&self, raw: usize) -> Value {
        summaries(
            [
                ("tick", &self.tick),
                ("act", &self.act),
                ("device", &self.device),
                ("upload", &self.upload),
                ("bev", &self.bev),
                ("action", &self.action),
                ("download", &self.download),
                ("host", &self.host),
            ],
            raw,
        )
    }
}

/// Latencies of prefills, one series per stage.
#[derive(Default)]
pub(super) struct PrefillSeries {
    /// From the request to the sealed prefix.
    prefill: Series,
    /// Device time of the vision tower for all new frames.
    vision: Series,
    /// From the upload of the prompt to the end of the last layer.
    understanding: Series,
}

impl PrefillSeries {
    pub(super) fn for_runs(n: usize) -> Self {
        let runs = || Series::for_runs(n);
        Self { prefill: runs(), vision: runs(), understanding: runs() }
    }

    fn add(&mut self, prefill_ns: u64, spans: &StageSpans) {
        self.prefill.push(prefill_ns);
        took(spans, stages::VISION).into_iter().for_each(|ns| self.vision.push(ns));
        took(spans, stages::UNDERSTANDING).into_iter().for_each(|ns| self.understanding.push(ns));
    }

    /// Returns the summaries of all series with samples, with the first `raw` samples of each.
    pub(super) fn to_json(&self, raw: usize) -> Value {
        summaries(
            [
                ("refresh", &self.prefill),
                ("vision", &self.vision),
                ("understanding", &self.understanding),
            ],
            raw,
        )
    }
}

fn summaries<const N: usize>(series: [(&str, &Series); N], raw: usize) -> Value {
    let with_samples = series.into_iter().filter(|(_, series)| !series.is_empty());
    let mut all = json!({});
    with_samples.for_each(|(name, series)| all[name] = series.summary(raw));
    all
}
