//! NVTX ranges of stages, for NVIDIA's profilers.
//!
//! The library is loaded by [`enable`] and never unloaded. Until then the cost per stage is one
//! relaxed atomic load. Stages that begin on one thread and end on another become process ranges;
//! all others become nested ranges of their thread.
#![expect(unsafe_code, reason = "calls NVIDIA's NVTX library, which is loaded at run time")]

use super::Stage;
use libloading::{Library, Symbol};
use std::error::Error;
use std::ffi::{CString, OsStr, c_char, c_int};
use std::path::Path;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

/// File names of the library, newest first: NVTX 3 of CUDA 12.9 and later, then its predecessors.
/// All export the four functions that are called here.
const NAMES: [&str; 3] = ["libnvtx3interop.so.1", "libnvToolsExt.so.1", "libnvToolsExt.so"];

static IS_ON: AtomicBool = AtomicBool::new(false);
static NVTX: OnceLock<Nvtx> = OnceLock::new();

/// Error returned when NVTX ranges cannot be enabled.
#[derive(Debug, thiserror::Error)]
pub enum NvtxError {
    #[error(
        "the NVTX library was not found ({why}); install the Python package nvidia-nvtx-cu12 (pip \
            install nvidia-nvtx-cu12, no GPU needed) and add its folder nvidia/nvtx/lib to \
            LD_LIBRARY_PATH, or run without NVTX ranges"
    )]
    Missing {
        /// Error of the dynamic loader for each name.
        why: String,
    },
    #[error(
        "{library} is not an NVTX library: {why}; use the library of the package nvidia-nvtx-cu12"
    )]
    NotNvtx {
        library: String,
        /// Error of the dynamic loader for the missing function.
        why: String,
    },
}

/// Makes every stage an NVTX range from now on and returns the name of the loaded library. Further
/// calls have no effect and return the same name.
///
/// # Errors
/// If the library cannot be found.
pub fn enable() -> Result<String, NvtxError> {
    enable_one_of(&NAMES.map(OsStr::new))
}

/// Same as [`enable`], with the library in `file`.
///
/// # Errors
/// If `file` cannot be loaded or is not an NVTX library.
pub fn enable_from(file: &Path) -> Result<String, NvtxError> {
    enable_one_of(&[file.as_os_str()])
}

fn enable_one_of(names: &[&OsStr]) -> Result<String, NvtxError> {
    if let Some(nvtx) = NVTX.get() {
        return Ok(nvtx.name.clone());
    }
    let mut reasons = Vec::new();
    for &name in names {
        // SAFETY: loading runs the initializers of the library. `NAMES` are names of NVTX, whose
        // initializers only set up its own tables; any other `name` is chosen by the caller.
        match unsafe { Library::new(name) } {
            Ok(library) => {
                let loaded = Nvtx::new(name.to_string_lossy().into_owned(), library)?;
                let nvtx = NVTX.get_or_init(|| loaded);
                IS_ON.store(true, Ordering::Relaxed);
                return Ok(nvtx.name.clone());
            }
            Err(error) => reasons.push(reason(&error)),
        }
    }
    Err(NvtxError::Missing { why: reasons.join("; ") })
}

/// Returns the message of the dynamic loader; the text of `error` itself only names the call.
fn reason(error: &libloading::Error) -> String {
    error.source().map_or_else(|| error.to_string(), ToString::to_string)
}

/// NVTX range of a stage that has begun; dropping it ends the range.
#[derive(Debug)]
pub(super) enum Range {
    /// No range: NVTX was off when the stage began.
    None,
    /// Innermost range of the thread on which the stage began.
    Thread,
    /// Range of the process, with its id.
    Process(u64),
}

impl Range {
    /// Begins the range of `stage` on this thread.
    #[inline]
    pub(super) fn begin(stage: Stage) -> Self {
        if IS_ON.load(Ordering::Relaxed) {
            NVTX.get().map_or(Self::None, |n| n.begin(stage))
        } else {
            Self::None
        }
    }
}

impl Drop for Range {
    /// Ends the range, also if the stage was abandoned because of an error.
    #[inline]
    fn drop(&mut self) {
        if !matches!(self, Self::None)
            && let Some(nvtx) = NVTX.get()
        {
            nvtx.end(self);
        }
    }
}

/// Functions of the loaded library.
struct Nvtx {
    name: String,
    /// Names by stage index. They live as long as the process, because NVTX may keep the pointers.
    stages: Vec<CString>,
    push: unsafe extern "C" fn(*const c_char) -> c_int,
    pop: unsafe extern "C" fn() -> c_int,
    start: unsafe extern "C" fn(*const c_char) -> u64,
    end: unsafe extern "C" fn(u64),
    /// Keeps the code loaded that the function pointers point to.
    _library: Library,
}

impl Nvtx {
    fn new(name: String, library: Library) -> Result<Self, NvtxError> {
        let not_nvtx = |error: libloading::Error| NvtxError::NotNvtx {
            library: name.clone(),
            why: reason(&error),
        };
        // SAFETY: `push` has the signature that NVTX's header has declared since its first release.
        let push: Symbol<'_, unsafe extern "C" fn(*const c_char) -> c_int> =
            unsafe { library.get(c"nvtxRangePushA") }.map_err(not_nvtx)?;
        // SAFETY: `pop` has the declared signature, as above.
        let pop: Symbol<'_, unsafe extern "C" fn() -> c_int> =
            unsafe { library.get(c"nvtxRangePop") }.map_err(not_nvtx)?;
        // SAFETY: `start` has the declared signature; range ids are 64 bits wide.
        let start: Symbol<'_, unsafe extern "C" fn(*const c_char) -> u64> =
            unsafe { library.get(c"nvtxRangeStartA") }.map_err(not_nvtx)?;
        // SAFETY: `end` has the declared signature, as above.
        let end: Symbol<'_, unsafe extern "C" fn(u64)> =
            unsafe { library.get(c"nvtxRangeEnd") }.map_err(not_nvtx)?;
        let (push, pop, start, end) = (*push, *pop, *start, *end);
        let stages = Stage::all()
            .iter()
            .map(|stage| CString::new(stage.name()).expect("stage names contain no zero byte"))
            .collect();
        Ok(Self { stages, push, pop, start, end, _library: library, name })
    }

    fn begin(&self, stage: Stage) -> Range {
        let name = self.stages[stage.index()].as_ptr();
        if stage.crosses_threads() {
            // SAFETY: `name` is a C string that lives as long as the process, because `begin` is
            // only called on the instance in the static `NVTX`, which also keeps the library loaded.
            Range::Process(unsafe { (self.start)(name) })
        } else {
            // SAFETY: as above, `name` lives as long as the process and the library stays loaded.
            unsafe { (self.push)(name) };
            Range::Thread
        }
    }

    fn end(&self, range: &Range) {
        match *range {
            Range::None => {}
            Range::Thread => {
                // SAFETY: `pop` takes no arguments; on an empty stack it returns a negative number.
                unsafe { (self.pop)() };
            }
            Range::Process(id) => {
                // SAFETY: `id` was returned by `nvtxRangeStartA` of the same library.
                unsafe { (self.end)(id) };
            }
        }
    }
}
