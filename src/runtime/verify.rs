//! Two folders of one model, driven alike and compared.

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

/// How to verify.
pub struct VerifyOptions {
    /// Device and threads.
    pub run: Run,
    /// What is driven.
    pub inputs: RecordingInputs,
    /// How near is near enough, for the golden run.
    pub limits: Limits,
}

/// What came of it.
pub struct Verification {
    /// The folder that was verified.
    pub engine: Side,
    /// The folder that it was compared with.
    pub reference: Side,
    /// How far their answers are apart.
    pub comparison: Box<dyn Comparison>,
    /// The golden run that the engine folder keeps if it is within its limits: the text of a file.
    pub golden_run: Vec<u8>,
}

/// One of the two sides, for the record.
#[derive(Serialize)]
pub struct Side {
    /// Of the folder's `export.json`.
    pub export_sha256: String,
    /// Of the folder's `engine.json`, if its networks were built.
    pub engine_sha256: Option<String>,
    /// What its networks compute in.
    pub precision: Precision,
    /// Library and version that ran it.
    pub backend: String,
}

/// Two folders cannot be compared.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// There is no such folder.
    #[error("{} is not an engine folder; `tandem export` writes one", folder.display())]
    NoFolder {
        /// The path.
        folder: PathBuf,
    },
    /// The folders are of two model families.
    #[error("the engine is of model family {engine:?}, the reference of {reference:?}")]
    Families {
        /// The engine's.
        engine: &'static str,
        /// The reference's.
        reference: &'static str,
    },
    /// A folder's record cannot be read.
    #[error(transparent)]
    Record(#[from] NetworkFileError),
    /// The record of built engines cannot be read.
    #[error(transparent)]
    EngineFolder(#[from] EngineFolderError),
    /// A folder is of no known family.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The two are of different models.
    #[error(transparent)]
    Compare(FamilyError),
    /// The networks of a folder cannot be loaded.
    #[error(
        "loading engine folder {}{}", folder.display(),
        if *precision == Precision::Bf16 {
            "; the library does not compute in bf16 on a CPU, --precision bf16-emulated of \
             `tandem export` writes networks that round alike"
        } else { "" }
    )]
    Load {
        /// The folder.
        folder: PathBuf,
        /// What its networks compute in.
        precision: Precision,
        /// The reason.
        source: FamilyError,
    },
    /// The networks of a folder fail.
    #[error("driving engine folder {}", folder.display())]
    Drive {
        /// The folder.
        folder: PathBuf,
        /// The reason.
        source: FamilyError,
    },
}

impl VerifyError {
    /// Build that makes the engine folder usable, if that is what it needs.
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

/// Drives the models of two folders of family `F`; see [`verify`](super::verify()).
pub(super) fn of_family<F: Family>(
    [engine, reference]: [&Path; 2],
    options: &VerifyOptions,
    notes: &mut Notes<'_>,
    done: &mut dyn FnMut(),
) -> Result<Verification, VerifyError> {
    F::comparable(engine, reference).map_err(VerifyError::Compare)?;
    let mut driven = |folder| driven::<F>(folder, options, notes, done);
    // One after the other: only one of two large engines is in memory at a time.
    let theirs = driven(reference)?;
    let ours = driven(engine)?;
    let comparison =
        F::compare(&ours.recording, &theirs.recording).map_err(VerifyError::Compare)?;
    let VerifyOptions { inputs, limits, .. } = *options;
    let golden_run = F::golden_run(&theirs.recording, inputs, limits, ours.graphs_sha256);
    Ok(Verification { engine: ours.side, reference: theirs.side, comparison, golden_run })
}

/// What a folder's model answered.
struct Driven<R> {
    recording: R,
    side: Side,
    /// Hashes of its graphs, by network.
    graphs_sha256: BTreeMap<String, String>,
}

/// Loads a folder, drives it and lets it go.
fn driven<F: Family>(
    folder: &Path,
    options: &VerifyOptions,
    notes: &mut Notes<'_>,
    done: &mut dyn FnMut(),
) -> Result<Driven<F::Recording>, VerifyError> {
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
    Ok(Driven { recording, side, graphs_sha256: graphs.collect() })
}
