//! Device operations of ticks and prefills without networks: uploads, copies into KV slots, events
//! between two streams, captured graphs, downloads. Copies replace network runs, so every value
//! that a tick reads identifies the prefill that wrote it.

#![expect(clippy::unwrap_used, reason = "a test that cannot continue fails here")]

use arrayvec::ArrayVec;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tandem::device::{
    Buffer, Device, DeviceError, DeviceTensor, Emulation, Event, Graph, HostDevice, StagedTensor,
    Stream,
};
use tandem::kv_cache::{Handover, KvSnapshot, Layout, PrefixMeta, Slot, SlotPool};
use tandem::tensor::DType;
use tandem::timing::Timestamp;

const LAYOUT: Layout =
    Layout { layers: 2, heads: 1, capacity: 16, key_dim: 8, value_dim: 8, dtype: DType::I64 };

/// Elements of one tensor of a slot.
const ELEMENTS: usize = 16 * 8;

const SLOTS: usize = 3;

/// Bytes of one element.
const ELEMENT: usize = 8;

/// How a drive uses the device.
#[derive(Clone, Copy, Debug)]
struct Options {
    /// Share of the multiprocessors that is reserved for the fast stream.
    fast_share: Option<f64>,
    /// Ticks launch captured graphs.
    has_graphs: bool,
    /// The host reads each prefix before it is sealed. If false, only events order the two streams.
    is_checked: bool,
}

/// Every combination, on every device of this machine.
fn everywhere(drive: impl Fn(&Arc<dyn Device>, Options)) {
    let host: [Arc<dyn Device>; 2] =
        [Arc::new(HostDevice::new()), Arc::new(HostDevice::emulating(Emulation::default()))];
    for device in host.into_iter().chain(gpu()) {
        for number in 0..8 {
            let fast_share = (number & 1 != 0).then_some(0.25);
            let (has_graphs, is_checked) = (number & 2 != 0, number & 4 != 0);
            drive(&device, Options { fast_share, has_graphs, is_checked });
        }
    }
}

#[cfg(feature = "cuda")]
fn gpu() -> Option<Arc<dyn Device>> {
    match tandem::device::cuda::CudaDevice::open(0) {
        Ok(device) => Some(Arc::new(device)),
        Err(DeviceError::NoDriver { .. } | DeviceError::NoDevice { .. }) => None,
        Err(error) => panic!("{error}"),
    }
}

#[cfg(not(feature = "cuda"))]
fn gpu() -> Option<Arc<dyn Device>> {
    None::<DeviceError>.map(|error| panic!("{error}"))
}

/// Operations of a prefill.
struct Prefill {
    stream: Arc<dyn Stream>,
    image: StagedTensor,
    /// Recorded after the upload of `image`.
    uploaded: Arc<dyn Event>,
    hidden: Buffer,
    checked: StagedTensor,
    is_checked: bool,
}

impl Prefill {
    fn new(device: &dyn Device, stream: &Arc<dyn Stream>, is_checked: bool) -> Self {
        let staged = || StagedTensor::zeros(device, DType::I64, &[ELEMENTS]).unwrap();
        let hidden = device.allocate(ELEMENTS * ELEMENT).unwrap();
        let (stream, uploaded) = (Arc::clone(stream), device.event().unwrap());
        Self { stream, image: staged(), uploaded, hidden, checked: staged(), is_checked }
    }

    /// Writes `version` to every element of a free slot.
    fn run(&mut self, pool: &SlotPool, version: u64) -> KvSnapshot {
        let writer = pool.writer().unwrap();
        if version > 1 {
            self.uploaded.synchronize().unwrap();
        }
        self.image.as_mut_slice::<i64>().fill(version as i64);
        self.stream.upload(self.image.staged()).unwrap();
        self.stream.record(&self.uploaded).unwrap();
        self.stream.copy(self.image.staged().buffer(), &self.hidden).unwrap();
        for tensor in writer.slot().tensors() {
            self.stream.copy(&self.hidden, tensor.buffer()).unwrap();
        }
        self.stream.record(writer.slot().ready()).unwrap();
        if self.is_checked {
            let last = writer.slot().values(LAYOUT.layers - 1);
            self.stream.copy(last.buffer(), self.checked.staged().buffer()).unwrap();
            self.stream.download(self.checked.staged()).unwrap();
            self.stream.synchronize().unwrap();
            let found = self.checked.as_slice::<i64>();
            assert!(found.iter().all(|&value| value == version as i64));
        }
        writer.seal(PrefixMeta {
            version,
            frames: ArrayVec::from_iter([version]),
            captured_at: Timestamp::after(std::time::Duration::from_millis(version)),
            valid_length: LAYOUT.capacity,
            next_position: 0,
        })
    }
}

/// Operations of an action step.
struct Tick {
    stream: Arc<dyn Stream>,
    reading: StagedTensor,
    output: StagedTensor,
    marks: [Arc<dyn Event>; 3],
    graphs: Vec<Arc<dyn Graph>>,
    ticks: i64,
}

impl Tick {
    fn new(device: &dyn Device, stream: &Arc<dyn Stream>) -> Self {
        let staged = |elements| StagedTensor::zeros(device, DType::I64, &[elements]).unwrap();
        let stream = Arc::clone(stream);
        let marks = [(); 3].map(|()| device.event().unwrap());
        let output = staged(1 + 2 * LAYOUT.layers);
        Self { stream, reading: staged(1), output, marks, graphs: Vec::new(), ticks: 0 }
    }

    /// Captures a graph for each slot.
    fn prepare(&mut self, pool: &SlotPool) {
        let writers: Vec<_> = (0..SLOTS).map(|_| pool.writer().unwrap()).collect();
        let mut slots: Vec<&Slot> = writers.iter().map(|writer| writer.slot()).collect();
        slots.sort_by_key(|slot| slot.index());
        for slot in slots {
            self.stream.begin_capture().unwrap();
            self.enqueue(slot);
            let graph = self.stream.end_capture().unwrap();
            self.graphs.push(graph);
        }
    }

    fn enqueue(&self, slot: &Slot) {
        let stream = &*self.stream;
        let (reading, output) = (self.reading.staged(), self.output.staged());
        stream.record(&self.marks[0]).unwrap();
        stream.upload(reading).unwrap();
        stream.record(&self.marks[1]).unwrap();
        stream.copy(reading.buffer(), &output.buffer().part(0, ELEMENT)).unwrap();
        for (index, tensor) in slot.tensors().map(DeviceTensor::buffer).enumerate() {
            // Another element of each tensor, so that a partly overwritten prefix is detected.
            let from = tensor.part((tensor.bytes() / ELEMENT - 1 - index) * ELEMENT, ELEMENT);
            stream.copy(&from, &output.buffer().part((1 + index) * ELEMENT, ELEMENT)).unwrap();
        }
        stream.download(output).unwrap();
        stream.record(&self.marks[2]).unwrap();
    }

    /// Reads a prefix and checks that every value has its version.
    fn run(&mut self, prefix: &KvSnapshot) {
        self.ticks += 1;
        self.reading.as_mut_slice::<i64>().fill(self.ticks);
        let slot = prefix.slot();
        self.stream.wait(slot.ready()).unwrap();
        match self.graphs.get(slot.index()) {
            Some(graph) => self.stream.launch(graph).unwrap(),
            None => self.enqueue(slot),
        }
        self.marks[2].synchronize().unwrap();
        let mut expected = vec![prefix.meta().version as i64; 1 + 2 * LAYOUT.layers];
        expected[0] = self.ticks;
        assert_eq!(self.output.as_slice::<i64>().to_vec(), expected);
        let times: Vec<u64> = self.marks.iter().map(|mark| mark.completed_ns().unwrap()).collect();
        assert!(times.is_sorted(), "{times:?}");
    }
}

fn both(device: &Arc<dyn Device>, options: Options) -> (SlotPool, Prefill, Tick) {
    let streams = device.streams(options.fast_share).unwrap();
    let pool = SlotPool::new(device, LAYOUT, SLOTS).unwrap();
    let prefill = Prefill::new(&**device, &streams.slow, options.is_checked);
    let mut tick = Tick::new(&**device, &streams.fast);
    if options.has_graphs {
        tick.prepare(&pool);
    }
    (pool, prefill, tick)
}

/// Sets its flag when dropped, also by a panic.
struct SetOnDrop<'a>(&'a AtomicBool);

impl Drop for SetOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

#[test]
fn tick_reads_prefix_whose_prefill_is_only_enqueued() {
    everywhere(|device, options| {
        let (pool, mut prefill, mut tick) = both(device, options);
        for version in 1..=8 {
            let prefix = prefill.run(&pool, version);
            for _ in 0..3 {
                tick.run(&prefix);
            }
        }
    });
}

#[test]
fn concurrent_ticks_read_complete_prefixes() {
    everywhere(|device, options| {
        let (pool, mut prefill, mut tick) = both(device, options);
        let (handover, is_over) = (Handover::new(), AtomicBool::new(false));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let _over = SetOnDrop(&is_over);
                for version in 1..=20 {
                    handover.publish(prefill.run(&pool, version)).unwrap();
                }
            });
            tandem_testkit::poll::until("the last prefix", || {
                let was_over = is_over.load(Ordering::Acquire);
                if let Some(prefix) = handover.latest() {
                    tick.run(&prefix);
                }
                was_over.then_some(())
            });
        });
        assert_eq!(handover.latest().unwrap().meta().version, 20);
    });
}
