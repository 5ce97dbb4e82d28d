//! Temporary folder of an export, and its publication.

use super::{
    ACCURACY_FILE, ExportError, GOLDEN_FILE, SUMMARY_FILE, Summary, TOKENIZER_FILE, WEIGHTS_FILE,
    canonical, writing,
};
use crate::checkpoint::Tensors;
use crate::family::Family;
use crate::registry::Families;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use tandem_files::AtomicFolder;

/// Kind of output folder, which decides how files are published.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Site {
    /// A separate folder, which is replaced atomically.
    Own,
    /// The checkpoint's folder, in which files are replaced one by one.
    Checkpoint,
}

/// The files of an export before publication.
pub(super) struct Staging<'a> {
    folder: AtomicFolder,
    out_dir: &'a Path,
    site: Site,
}

impl<'a> Staging<'a> {
    /// Creates the temporary folder for `out_dir`.
    pub(super) fn begin(
        out_dir: &'a Path,
        checkpoint: &Tensors,
        family: &dyn Family,
    ) -> Result<Self, ExportError> {
        let checkpoint_dir = canonical(checkpoint.dir())?;
        let is_checkpoint = out_dir.exists() && canonical(out_dir)? == checkpoint_dir;
        let site = if is_checkpoint { Site::Checkpoint } else { Site::Own };
        if site == Site::Own {
            refuse_foreign(out_dir, family)?;
        }
        let name =
            out_dir.file_name().ok_or_else(|| ExportError::NoName { path: out_dir.into() })?;
        let name = name.to_string_lossy();
        let folder = match site {
            Site::Own => {
                remove_earlier_leftovers(tandem_files::folder_of(out_dir), &name);
                AtomicFolder::create(out_dir)
            }
            Site::Checkpoint => {
                remove_earlier_leftovers(out_dir, &name);
                AtomicFolder::create_in(out_dir, out_dir)
            }
        };
        Ok(Self { folder: folder.map_err(writing(out_dir))?, out_dir, site })
    }

    /// Kind of the output folder.
    pub(super) fn site(&self) -> Site {
        self.site
    }

    /// Path of the temporary folder.
    pub(super) fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Final path of a file, which is used in errors.
    pub(super) fn place_of(&self, name: &str) -> PathBuf {
        self.out_dir.join(name)
    }

    /// Writes a file to the temporary folder.
    pub(super) fn write(&self, name: &str, bytes: &[u8]) -> Result<(), ExportError> {
        self.folder.write(name, bytes).map_err(writing(&self.place_of(name)))
    }

    /// Creates an empty file in the temporary folder.
    pub(super) fn create(&self, name: &str) -> Result<File, ExportError> {
        self.folder.create_file(name).map_err(writing(&self.place_of(name)))
    }

    /// Creates a link to a file of the checkpoint.
    pub(super) fn link(&self, target: &Path, name: &str) -> Result<(), ExportError> {
        tandem_files::link(target, &self.path().join(name)).map_err(writing(&self.place_of(name)))
    }

    /// Moves all files to the output folder.
    pub(super) fn publish(self, family: &dyn Family) -> Result<(), ExportError> {
        match self.site {
            Site::Own => self.folder.publish().map_err(writing(self.out_dir)),
            Site::Checkpoint => publish_into(self.path(), self.out_dir, family),
        }
    }
}

/// Moves the files into a folder that also contains other files; the summary is moved last.
fn publish_into(staging: &Path, out_dir: &Path, family: &dyn Family) -> Result<(), ExportError> {
    let summary = out_dir.join(SUMMARY_FILE);
    for earlier in [summary, out_dir.join(ACCURACY_FILE), out_dir.join(GOLDEN_FILE)] {
        if earlier.exists() {
            fs::remove_file(&earlier).map_err(writing(&earlier))?;
            tandem_files::sync_folder(out_dir).map_err(writing(out_dir))?;
        }
    }
    let list = |folder: &Path| -> Result<Vec<_>, ExportError> {
        let entries = fs::read_dir(folder).map_err(writing(folder))?;
        entries.map(|entry| Ok(entry.map_err(writing(folder))?.file_name())).collect()
    };
    let mut names = list(staging)?;
    // Networks of the previous export that this one does not have would read the new weights.
    for name in list(out_dir)? {
        if is_network_file(&name.to_string_lossy(), family) && !names.contains(&name) {
            let path = out_dir.join(name);
            fs::remove_file(&path).map_err(writing(&path))?;
        }
    }
    names.sort_by_key(|name| name == SUMMARY_FILE);
    for name in names {
        let to = out_dir.join(&name);
        fs::rename(staging.join(&name), &to).map_err(writing(&to))?;
    }
    tandem_files::sync_folder(out_dir).map_err(writing(out_dir))
}

/// Removes the folders `.NAME.export-PROCESS` that killed exports of earlier versions left in `parent`.
fn remove_earlier_leftovers(parent: &Path, name: &str) {
    let Ok(entries) = fs::read_dir(parent) else { return };
    let prefix = format!(".{name}.export-");
    for entry in entries.flatten() {
        let found = entry.file_name();
        let process = found.to_str().and_then(|found| found.strip_prefix(&prefix)?.parse().ok());
        let is_folder = entry.file_type().is_ok_and(|kind| kind.is_dir());
        if is_folder && process.is_some_and(|process| !is_exporting(process)) {
            // Errors are ignored: a remaining folder is hidden and harmless.
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

/// True if `process` runs this program and may still write its temporary folder.
fn is_exporting(process: u32) -> bool {
    let name = |process: &str| fs::read(format!("/proc/{process}/comm"));
    match (name("self"), name(&process.to_string())) {
        (Ok(own), Ok(other)) => own == other && process != std::process::id(),
        // Without `/proc`, assume that the process is exporting.
        (own, _) => own.is_err(),
    }
}

/// Refuses an output folder that is neither empty nor an export.
fn refuse_foreign(out_dir: &Path, family: &dyn Family) -> Result<(), ExportError> {
    if !out_dir.exists() {
        return Ok(());
    }
    if !out_dir.is_dir() {
        return Err(ExportError::ForeignFile { path: out_dir.into() });
    }
    let reading = |source| ExportError::Read { path: out_dir.into(), source };
    let earlier = fs::read(out_dir.join(SUMMARY_FILE)).ok();
    let earlier = earlier.and_then(|text| Summary::parse_of_any_family(&text).ok());
    let files = earlier.into_iter().flat_map(|summary| summary.weights);
    let cloned: Vec<String> =
        files.filter(|file| file.origin.is_none()).map(|file| file.name).collect();
    for entry in fs::read_dir(out_dir).map_err(reading)? {
        let entry = entry.map_err(reading)?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let is_link = entry.file_type().map_err(reading)?.is_symlink();
        let is_ours = name == SUMMARY_FILE
            || name == WEIGHTS_FILE
            || name == TOKENIZER_FILE
            || [ACCURACY_FILE, GOLDEN_FILE]
                .iter()
                .any(|file| Path::new(file).file_stem() == Path::new(&name).file_stem())
            || family.companions().contains(&name.as_str())
            || is_network_file(&name, family)
            || is_link && name.ends_with(".safetensors")
            || cloned.contains(&name);
        if !is_ours {
            return Err(ExportError::ForeignFile { path: entry.path() });
        }
    }
    Ok(())
}

/// True for the name of a graph or contract file.
fn is_network_file(name: &str, family: &dyn Family) -> bool {
    let stem = name.strip_suffix(".onnx").or_else(|| name.strip_suffix(".json"));
    stem.is_some_and(|name| family.is_network(name) || Families::known().is_network(name))
}
