//! The library's profiler on one engine: attached when it is loaded, ended once, read and attributed
//! to the parts of its network.
//!
//! The profiler costs microseconds per node, which it counts as the node's. An engine that is not
//! measured pays nothing.

#![expect(unsafe_code, reason = "ends the library's profile by its C interface")]

use super::error::SessionError;
use super::options::with_optimized_model;
use super::parts::{Parts, Placed, parts_of, place};
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

/// Engines measured by this process, so that their files differ.
static MEASURED: AtomicU64 = AtomicU64::new(0);

/// Where the library writes what it measures of one engine.
pub(super) struct ProfileFiles {
    stem: PathBuf,
}

impl ProfileFiles {
    /// Files for one engine in `folder`.
    pub(super) fn new(folder: &Path, network: &str) -> Self {
        let number = MEASURED.fetch_add(1, Ordering::Relaxed);
        Self { stem: folder.join(format!("{network}.{number}")) }
    }

    /// What the library puts its time of day behind to name the profile.
    pub(super) fn prefix(&self) -> &Path {
        &self.stem
    }

    /// The graph as the library runs it, with the part of each node. `commit` loads the network,
    /// whose parts are `parts`, with the session options that it is given.
    ///
    /// The graph is taken from a session of its own: one that writes its graph keeps weights that
    /// the measured one drops.
    pub(super) fn graph(
        &self,
        parts: &Parts,
        builder: SessionBuilder,
        commit: impl FnOnce(SessionBuilder) -> Result<OrtSession, SessionError>,
    ) -> Result<Vec<Placed>, SessionError> {
        let graph = self.stem.with_added_extension("onnx");
        let weights = self.stem.with_added_extension("weights");
        let cannot = |path: &Path, source| SessionError::Write { path: path.to_owned(), source };
        // The library would write every weight beside the graph, and nobody reads them.
        symlink("/dev/null", &weights).map_err(|error| cannot(&weights, error))?;
        let written = (|| {
            let name = weights.file_name().expect("made of a name").to_string_lossy();
            commit(with_optimized_model(builder, &graph, &name)?)?;
            fs::read(&graph).map_err(|error| cannot(&graph, error))
        })();
        for path in [&weights, &graph] {
            // The library removes a weight file that stayed empty itself.
            let _ = fs::remove_file(path);
        }
        let model =
            ModelProto::decode(written?.as_slice()).map_err(SessionError::OptimizedNotOnnx)?;
        Ok(place(&model.graph.unwrap_or_default().node, parts))
    }
}

/// A profile that the library is writing.
pub(super) struct Profiling {
    parts: Parts,
    graph: Vec<Placed>,
    /// Held by runs for reading: the library does not end a profile under a run. False once ended.
    open: RwLock<bool>,
}

impl Profiling {
    /// Of an engine whose session was loaded with a profile and runs `graph`.
    pub(super) fn new(parts: Parts, graph: Vec<Placed>) -> Self {
        Self { parts, graph, open: RwLock::new(true) }
    }

    /// Keeps the profile from ending during a run.
    pub(super) fn during_run(&self) -> RwLockReadGuard<'_, bool> {
        unpoisoned(self.open.read())
    }

    /// Ends the profile and says what it holds beyond `warm_up` runs; `None` if it has ended.
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

/// Ends the profile of a session that nobody runs; the file that it is in.
fn end_profile(
    network: &str,
    session: *mut ort::sys::OrtSession,
) -> Result<PathBuf, OperatorProfileError> {
    let failed = |reason: String| OperatorProfileError::End { network: network.to_owned(), reason };
    let allocator = Allocator::default();
    let mut name: *mut c_char = ptr::null_mut();
    // SAFETY: the caller keeps the session alive and lets nobody run it (`Profiling::open`); the
    // allocator outlives the call.
    let status =
        unsafe { (ort::api().SessionEndProfiling)(session, allocator.ptr().cast_mut(), &mut name) };
    check(status).map_err(|error| failed(error.to_string()))?;
    if name.is_null() {
        return Err(failed("it names no file".into()));
    }
    // SAFETY: not null, so a string that the library just made, ended by a zero byte and ours until
    // it is freed below.
    let path = PathBuf::from(unsafe { CStr::from_ptr(name) }.to_string_lossy().into_owned());
    // SAFETY: made by this very allocator, and freed once.
    let status = unsafe { (ort::api().AllocatorFree)(allocator.ptr().cast_mut(), name.cast()) };
    check(status).map_err(|error| failed(error.to_string()))?;
    Ok(path)
}
