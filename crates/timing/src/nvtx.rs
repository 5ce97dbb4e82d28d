//! Stages as NVTX ranges, for NVIDIA's profilers.
//!
//! The library is loaded when someone asks for it and never unloaded. Until then a stage costs one
//! relaxed load more. Stages that begin on one thread and end on another become process ranges, all
//! others ranges of their thread, which nest.
#![expect(unsafe_code, reason = "calls a library of NVIDIA's that is loaded at run time")]

use super::Stage;
use libloading::{Library, Symbol};
use std::error::Error;
use std::ffi::{CString, OsStr, c_char, c_int};
use std::path::Path;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

/// File names of the library, newest first: NVTX 3 of CUDA 12.9 and later, and what came before it.
/// Both export the four functions that are called here.
const NAMES: [&str; 3] = ["libnvtx3interop.so.1", "libnvToolsExt.so.1", "libnvToolsExt.so"];

static IS_ON: AtomicBool = AtomicBool::new(false);
static NVTX: OnceLock<Nvtx> = OnceLock::new();

/// There are no NVTX ranges.
#[derive(Debug, thiserror::Error)]
pub enum NvtxError {
    /// None of the library's names was found.
    #[error(
        "the NVTX library was not found ({why}); install the Python package nvidia-nvtx-cu12 (pip \
         install nvidia-nvtx-cu12, no GPU needed) and put its folder nvidia/nvtx/lib into \
         LD_LIBRARY_PATH, or go on without NVTX ranges"
    )]
    Missing {
        /// What the loader said of each name.
        why: String,
    },
    /// A library was loaded that is not NVTX.
    #[error(
        "{library} is not an NVTX library: {why}; name the one of the package nvidia-nvtx-cu12"
    )]
    NotNvtx {
        /// The file, as it was named.
        library: String,
        /// The function that is missing.
        why: String,
    },
}

/// From now on every stage is an NVTX range; returns the library that was loaded. A second call
/// changes nothing and returns the same.
///
/// # Errors
/// If the loader finds no such library.
pub fn enable() -> Result<String, NvtxError> {
    enable_one_of(&NAMES.map(OsStr::new))
}

/// As [`enable`], with the library in `file`.
///
/// # Errors
/// If it cannot be loaded or is no NVTX library.
pub fn enable_from(file: &Path) -> Result<String, NvtxError> {
    enable_one_of(&[file.as_os_str()])
}

fn enable_one_of(names: &[&OsStr]) -> Result<String, NvtxError> {
    if let Some(nvtx) = NVTX.get() {
        return Ok(nvtx.name.clone());
    }
    let mut reasons = Vec::new();
    for &name in names {
        // SAFETY: loading runs the library's initializers. These names belong to NVTX, whose
        // initializers only set up its own tables; a file is named by the one who runs the process.
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

/// What the loader said; the error's own text only names the call.
fn reason(error: &libloading::Error) -> String {
    error.source().map_or_else(|| error.to_string(), ToString::to_string)
}

/// What a begun stage has to give back to NVTX.
#[derive(Debug)]
pub(super) enum Range {
    /// Nothing: it began while NVTX was off.
    None,
    /// The innermost range of the thread on which it began.
    Thread,
    /// A range of the process.
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
    /// Ends it, also where a stage was given up by an error.
    #[inline]
    fn drop(&mut self) {
        if !matches!(self, Self::None)
            && let Some(nvtx) = NVTX.get()
        {
            nvtx.end(self);
        }
    }
}

/// The loaded library.
struct Nvtx {
    name: String,
    /// By stage; live as long as the process, as NVTX may keep the pointers.
    stages: Vec<CString>,
    push: unsafe extern "C" fn(*const c_char) -> c_int,
    pop: unsafe extern "C" fn() -> c_int,
    start: unsafe extern "C" fn(*const c_char) -> u64,
    end: unsafe extern "C" fn(u64),
    /// Holds the code that the pointers above point to.
    _library: Library,
}

impl Nvtx {
    fn new(name: String, library: Library) -> Result<Self, NvtxError> {
        let not_nvtx = |error: libloading::Error| NvtxError::NotNvtx {
            library: name.clone(),
            why: reason(&error),
        };
        // SAFETY: this is the function's type in NVTX's header since its first release.
        let push: Symbol<'_, unsafe extern "C" fn(*const c_char) -> c_int> =
            unsafe { library.get(c"nvtxRangePushA") }.map_err(not_nvtx)?;
        // SAFETY: as above.
        let pop: Symbol<'_, unsafe extern "C" fn() -> c_int> =
            unsafe { library.get(c"nvtxRangePop") }.map_err(not_nvtx)?;
        // SAFETY: as above; a range's number is 64 bits wide.
        let start: Symbol<'_, unsafe extern "C" fn(*const c_char) -> u64> =
            unsafe { library.get(c"nvtxRangeStartA") }.map_err(not_nvtx)?;
        // SAFETY: as above.
        let end: Symbol<'_, unsafe extern "C" fn(u64)> =
            unsafe { library.get(c"nvtxRangeEnd") }.map_err(not_nvtx)?;
        let (push, pop, start, end) = (*push, *pop, *start, *end);
        let stages = Stage::all()
            .iter()
            .map(|stage| CString::new(stage.name()).expect("no stage's name holds a zero byte"))
            .collect();
        Ok(Self { stages, push, pop, start, end, _library: library, name })
    }

    fn begin(&self, stage: Stage) -> Range {
        let name = self.stages[stage.index()].as_ptr();
        if stage.crosses_threads() {
            // SAFETY: `name` is a C string that lives as long as the process: only the instance in
            // the static `NVTX` is reached from here, and it holds the library loaded.
            Range::Process(unsafe { (self.start)(name) })
        } else {
            // SAFETY: as above.
            unsafe { (self.push)(name) };
            Range::Thread
        }
    }

    fn end(&self, range: &Range) {
        match *range {
            Range::None => {}
            Range::Thread => {
                // SAFETY: takes nothing; popping an empty stack is answered by a negative number.
                unsafe { (self.pop)() };
            }
            Range::Process(id) => {
                // SAFETY: `id` came from the same library's `nvtxRangeStartA`.
                unsafe { (self.end)(id) };
            }
        }
    }
}
