//! The library's profiler on one engine: attached when the engine is loaded, stopped once, and its
//! profile attributed to the parts of the network.
//!
//! The profiler costs microseconds per node, which it includes in the node's time. Engines without a
//! profiler have no overhead.

#![expect(unsafe_code, reason = "ends the library's profile through its C API")]

use super::error::SessionError;
use super::options::with_optimized_model;
use super::parts::{AttributedNode, Parts, attribute, parts_of};
use super::raw::check;
use super::trace::{RESOLUTION_NS, Trace};
use crate::engine::{OperatorProfile, OperatorProfileError, OperatorTime};
use crate::sync::unpoisoned;
use ort::AsPointer;
use ort::memory::Allocator;
use ort::session::Session as OrtSession;
use ort::session::builder::SessionBuilder;
use prost::Message;
use std::ffi::{CStr, c_char};
use std::fs::{self, File};
use std::io::BufReader;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::ptr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{RwLock, RwLockReadGuard};
use tandem_export::onnx::ModelProto;

/// Number of engines that this process has profiled, which makes their file names unique.
static MEASURED: AtomicU64 = AtomicU64::new(0);

/// Paths of the files of one engine's profile.
pub(super) struct ProfileFiles {
    stem: PathBuf,
}

impl ProfileFiles {
    /// Chooses the files for one engine in `folder`.
    pub(super) fn new(folder: &Path, network: &str) -> Self {
        let number = MEASURED.fetch_add(1, Ordering::Relaxed);
        Self { stem: folder.join(format!("{network}.{number}")) }
    }

    /// Returns the prefix of the profile's path, to which the library appends the time of day.
    pub(super) fn prefix(&self) -> &Path {
        &self.stem
    }

    /// Returns the nodes of the optimized graph with their parts. `commit` loads the network, whose
    /// parts are `parts`, with the given session options.
    ///
    /// The graph comes from a separate session, because a session that writes its graph keeps weights
    /// that the measured session drops.
    pub(super) fn graph(
        &self,
        parts: &Parts,
        builder: SessionBuilder,
        commit: impl FnOnce(SessionBuilder) -> Result<OrtSession, SessionError>,
    ) -> Result<Vec<AttributedNode>, SessionError> {
        let graph = self.stem.with_added_extension("onnx");
        let weights = self.stem.with_added_extension("weights");
        let cannot = |path: &Path, source| SessionError::Write { path: path.to_owned(), source };
        // The library writes all weights as well; they are not needed.
        symlink("/dev/null", &weights).map_err(|error| cannot(&weights, error))?;
        let written = (|| {
            let name = weights.file_name().expect("the stem has a name").to_string_lossy();
            commit(with_optimized_model(builder, &graph, &name)?)?;
            fs::read(&graph).map_err(|error| cannot(&graph, error))
        })();
        for path in [&weights, &graph] {
            // The library itself removes a weight file that stayed empty.
            let _ = fs::remove_file(path);
        }
        let model =
            ModelProto::decode(written?.as_slice()).map_err(SessionError::OptimizedNotOnnx)?;
        Ok(attribute(&model.graph.unwrap_or_default().node, parts))
    }
}

/// Profile that the library is writing.
pub(super) struct Profiling {
    parts: Parts,
    graph: Vec<AttributedNode>,
    /// False after the profile was ended. Runs hold the read lock, which delays the end of the profile.
    open: RwLock<bool>,
}

impl Profiling {
    /// Describes the profile of an engine whose session was loaded with a profiler and runs `graph`.
    pub(super) fn new(parts: Parts, graph: Vec<AttributedNode>) -> Self {
        Self { parts, graph, open: RwLock::new(true) }
    }

    /// Returns a guard that delays the end of the profile until the run has completed.
    pub(super) fn during_run(&self) -> RwLockReadGuard<'_, bool> {
        unpoisoned(self.open.read())
    }

    /// Ends the profile and returns times without the first `warm_up` runs; `None` if already ended.
    pub(super) fn end(
        &self,
        network: &str,
        session: *mut ort::sys::OrtSession,
        warm_up: u64,
    ) -> Option<Result<OperatorProfile, OperatorProfileError>> {
        let path = {
            let mut open = unpoisoned(self.open.write());
            if !std::mem::take(&mut *open) {
                return None;
            }
            end_profile(network, session)
        };
        Some(path.and_then(|path| self.read(network, path, warm_up)))
    }

    fn read(
        &self,
        network: &str,
        path: PathBuf,
        warm_up: u64,
    ) -> Result<OperatorProfile, OperatorProfileError> {
        let network = network.to_owned();
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(source) => return Err(OperatorProfileError::Read { network, path, source }),
        };
        let trace = match Trace::read(BufReader::new(file), warm_up) {
            Ok(trace) => trace,
            Err(error) if error.is_io() => {
                return Err(OperatorProfileError::Read { network, path, source: error.into() });
            }
            Err(error) => {
                let reason = error.to_string();
                return Err(OperatorProfileError::Malformed { network, path, reason });
            }
        };
        let parts = parts_of(&trace.nodes, &self.graph);
        let operators = trace
            .nodes
            .into_iter()
            .zip(parts)
            .map(|(node, part)| OperatorTime {
                node: node.name,
                op_type: node.op_type,
                part,
                count: node.count,
                total_ns: node.total_ns,
            })
            .collect();
        Ok(OperatorProfile {
            network,
            runs: trace.runs,
            parts: self.parts.names().to_vec(),
            operators,
            run_total_ns: trace.run_total_ns,
            resolution_ns: RESOLUTION_NS,
            cut_short: trace.cut_short,
        })
    }
}

/// Ends the profile of a session that has no run in progress, and returns the profile's path.
fn end_profile(
    network: &str,
    session: *mut ort::sys::OrtSession,
) -> Result<PathBuf, OperatorProfileError> {
    let failed = |reason: String| OperatorProfileError::End { network: network.to_owned(), reason };
    let allocator = Allocator::default();
    let mut name: *mut c_char = ptr::null_mut();
    // SAFETY: the caller keeps `session` alive and excludes runs by the write lock of `Profiling::open`;
    // `allocator` outlives the call.
    let status =
        unsafe { (ort::api().SessionEndProfiling)(session, allocator.ptr().cast_mut(), &mut name) };
    check(status).map_err(|error| failed(error.to_string()))?;
    if name.is_null() {
        return Err(failed("it returned no file name".into()));
    }
    // SAFETY: `name` is not null, so it is a zero-terminated string that the library just allocated; it
    // is valid until it is freed below.
    let path = PathBuf::from(unsafe { CStr::from_ptr(name) }.to_string_lossy().into_owned());
    // SAFETY: `name` was allocated by `allocator` and is freed only here.
    let status = unsafe { (ort::api().AllocatorFree)(allocator.ptr().cast_mut(), name.cast()) };
    check(status).map_err(|error| failed(error.to_string()))?;
    Ok(path)
}
