//! Where the files of an export are written, and how they get to their place.

use super::{
    ACCURACY_FILE, ExportError, GOLDEN_FILE, SUMMARY_FILE, Summary, TOKENIZER_FILE, WEIGHTS_FILE,
    canonical, writing,
};
use crate::checkpoint::Tensors;
use crate::family::Family;
use crate::registry::Families;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use tandem_files::WholeFolder;

/// What the folder of an export is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Site {
    /// A folder of its own, which appears as a whole.
    Own,
    /// The checkpoint's folder, in which the files appear one by one.
    Checkpoint,
}

/// The files of an export before they are in their place.
pub(super) struct Staging<'a> {
    folder: WholeFolder,
    out_dir: &'a Path,
    site: Site,
}

impl<'a> Staging<'a> {
    /// Begins the folder that becomes `out_dir`.
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
                WholeFolder::create(out_dir)
            }
            Site::Checkpoint => {
                remove_earlier_leftovers(out_dir, &name);
                WholeFolder::create_in(out_dir, out_dir)
            }
        };
        Ok(Self { folder: folder.map_err(writing(out_dir))?, out_dir, site })
    }

    /// What the folder of the export is.
    pub(super) fn site(&self) -> Site {
        self.site
    }

    /// Where the files are for now.
    pub(super) fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Where a file will be; errors name this place.
    pub(super) fn place_of(&self, name: &str) -> PathBuf {
        self.out_dir.join(name)
    }

    /// Writes a whole file.
    pub(super) fn write(&self, name: &str, bytes: &[u8]) -> Result<(), ExportError> {
        self.folder.write(name, bytes).map_err(writing(&self.place_of(name)))
    }

    /// Creates an empty file.
    pub(super) fn create(&self, name: &str) -> Result<File, ExportError> {
        self.folder.create_file(name).map_err(writing(&self.place_of(name)))
    }

    /// Creates a link to a file of the checkpoint.
    pub(super) fn link(&self, target: &Path, name: &str) -> Result<(), ExportError> {
        tandem_files::link(target, &self.path().join(name)).map_err(writing(&self.place_of(name)))
    }

    /// Moves everything to its place.
    pub(super) fn publish(self, family: &dyn Family) -> Result<(), ExportError> {
        match self.site {
            Site::Own => self.folder.publish().map_err(writing(self.out_dir)),
            Site::Checkpoint => publish_into(self.path(), self.out_dir, family),
        }
    }
}

/// Moves the files into a folder that holds other things too, the summary last.
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
    // Networks that the export before had and this one has not would read its weights.
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

/// Removes the folders `.NAME.export-PROCESS` of exports by earlier versions that were killed.
fn remove_earlier_leftovers(beside: &Path, name: &str) {
    let Ok(entries) = fs::read_dir(beside) else { return };
    let prefix = format!(".{name}.export-");
    for entry in entries.flatten() {
        let found = entry.file_name();
        let process = found.to_str().and_then(|found| found.strip_prefix(&prefix)?.parse().ok());
        let is_folder = entry.file_type().is_ok_and(|kind| kind.is_dir());
        if is_folder && process.is_some_and(|process| !is_exporting(process)) {
            // One that cannot be removed is hidden and in nobody's way.
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

/// True if `process` runs this program, in a version that may still write the folder of its number.
fn is_exporting(process: u32) -> bool {
    let name = |process: &str| fs::read(format!("/proc/{process}/comm"));
    match (name("self"), name(&process.to_string())) {
        (Ok(own), Ok(other)) => own == other && process != std::process::id(),
        // Without `/proc` nothing is known of other processes.
        (own, _) => own.is_err(),
    }
}

/// An export, an empty folder or nothing may be replaced; anything else is somebody's.
fn refuse_foreign(out_dir: &Path, family: &dyn Family) -> Result<(), ExportError> {
    if !out_dir.exists() {
        return Ok(());
    }
    if !out_dir.is_dir() {
        return Err(ExportError::InTheWay { path: out_dir.into() });
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
        let ours = name == SUMMARY_FILE
            || name == WEIGHTS_FILE
            || name == TOKENIZER_FILE
            || [ACCURACY_FILE, GOLDEN_FILE]
                .iter()
                .any(|ours| Path::new(ours).file_stem() == Path::new(&name).file_stem())
            || family.companions().contains(&name.as_str())
            || is_network_file(&name, family)
            || is_link && name.ends_with(".safetensors")
            || cloned.contains(&name);
        if !ours {
            return Err(ExportError::InTheWay { path: entry.path() });
        }
    }
    Ok(())
}

/// True for the graph or contract of a network that an export may have.
fn is_network_file(name: &str, family: &dyn Family) -> bool {
    let stem = name.strip_suffix(".onnx").or_else(|| name.strip_suffix(".json"));
    stem.is_some_and(|name| family.is_network(name) || Families::known().is_network(name))
}
