//! Compares two folders of one model on the same inputs.

use super::placement::place;
use super::{Notes, OpenError};
use crate::engine::{EngineFolder, EngineFolderError, NetworkFile, NetworkFileError, Rebuild};
use crate::model::verification::{Comparison, Limits, RecordingInputs};
use crate::model::{Family, FamilyError};
use crate::pilot::Run;
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use tandem_export::options::Precision;

/// Options of a verification.
pub struct VerifyOptions {
    /// Device and threads.
    pub run: Run,
    pub inputs: RecordingInputs,
    pub limits: Limits,
}

/// Result of a verification.
pub struct Verification {
    pub engine: Side,
    pub reference: Side,
    pub comparison: Box<dyn Comparison>,
    /// Contents of the golden run file, to be kept in the engine folder if the
    /// comparison is within the limits.
    pub golden_run: Vec<u8>,
}

/// Identity of one of the two folders.
#[derive(Serialize)]
pub struct Side {
    /// SHA-256 of the folder's `export.json`.
    pub export_sha256: String,
    /// SHA-256 of the folder's `engine.json`; `None` if its networks were not built.
    pub engine_sha256: Option<String>,
    pub precision: Precision,
    /// Library and version that ran the networks.
    pub backend: String,
}

/// Error returned when two folders cannot be compared.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    #[error("{} is not an engine folder; `tandem export` writes one", folder.display())]
    NoFolder { folder: PathBuf },
    #[error("the engine is of model family {engine:?}, the reference of {reference:?}")]
    Families { engine: &'static str, reference: &'static str },
    #[error(transparent)]
    Record(#[from] NetworkFileError),
    #[error(transparent)]
    EngineFolder(#[from] EngineFolderError),
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error(transparent)]
    Compare(FamilyError),
    #[error(
        "loading engine folder {}{}", folder.display(),
        if *precision == Precision::Bf16 {
            "; ONNX Runtime does not support bf16 on a CPU; `tandem export --precision bf16-emulated` \
             writes networks with the same rounding"
        } else { "" }
    )]
    Load { folder: PathBuf, precision: Precision, source: FamilyError },
    #[error("running the networks of engine folder {}", folder.display())]
    Drive { folder: PathBuf, source: FamilyError },
}

impl VerifyError {
    /// Returns the build that would make the engine folder usable, if a build is the remedy.
    pub fn rebuild(&self) -> Option<&Rebuild> {
        match self {
            Self::EngineFolder(error) => error.rebuild(),
            Self::Open(error) => error.rebuild(),
            Self::Compare(source) | Self::Load { source, .. } | Self::Drive { source, .. } => {
                source.rebuild()
            }
            Self::NoFolder { .. } | Self::Families { .. } | Self::Record(_) => None,
        }
    }
}

/// Compares two folders of family `F`; see [`verify`](super::verify()).
pub(super) fn of_family<F: Family>(
    [engine, reference]: [&Path; 2],
    options: &VerifyOptions,
    notes: &mut Notes<'_>,
    done: &mut dyn FnMut(),
) -> Result<Verification, VerifyError> {
    F::comparable(engine, reference).map_err(VerifyError::Compare)?;
    let mut run = |folder| run_model::<F>(folder, options, notes, done);
    // One after the other, so that only one of two large engines is in memory at a time.
    let theirs = run(reference)?;
    let ours = run(engine)?;
    let comparison =
        F::compare(&ours.recording, &theirs.recording).map_err(VerifyError::Compare)?;
    let VerifyOptions { inputs, limits, .. } = *options;
    let golden_run = F::golden_run(&theirs.recording, inputs, limits, ours.graphs_sha256);
    Ok(Verification { engine: ours.side, reference: theirs.side, comparison, golden_run })
}

/// Outputs of a folder's model.
struct ModelRun<R> {
    recording: R,
    side: Side,
    /// Hashes of its graphs by network.
    graphs_sha256: BTreeMap<String, String>,
}

/// Loads a folder, runs its networks and unloads it.
fn run_model<F: Family>(
    folder: &Path,
    options: &VerifyOptions,
    notes: &mut Notes<'_>,
    done: &mut dyn FnMut(),
) -> Result<ModelRun<F::Recording>, VerifyError> {
    let (summary, export_sha256) = NetworkFile::summary_with_sha256(folder)?;
    let engine_sha256 = EngineFolder::read(folder)?.map(|engines| engines.sha256);
    let precision = summary.options.precision;
    let placement = place(folder, &options.run, None, notes)?;
    let backend = placement.fast.name();
    let load = |source| VerifyError::Load { folder: folder.to_owned(), precision, source };
    let model = F::load(folder, placement, F::Options::default()).map_err(load)?;
    let recording = model
        .record(options.inputs, done)
        .map_err(|source| VerifyError::Drive { folder: folder.to_owned(), source })?;
    let graphs = model.engines().into_iter().map(|engine| {
        let contract = engine.contract();
        (contract.network.clone(), contract.graph_sha256.clone())
    });
    let side = Side { export_sha256, engine_sha256, precision, backend };
    Ok(ModelRun { recording, side, graphs_sha256: graphs.collect() })
}
