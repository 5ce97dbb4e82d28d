//! Placement of the weights that need no conversion.

use super::staging::{Site, Staging};
use super::{ExportError, file_name, writing};
use crate::checkpoint::Tensors;
use crate::graph::{Network, Source};
use crate::options::WeightStorage;
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::path::Path;

/// Maximum total size of weights that [`WeightStorage::Auto`] copies, bytes.
const MAX_COPIED_AUTOMATICALLY: u64 = 1 << 30;

/// Location of the weights that need no conversion.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Placement {
    /// In the checkpoint's folder, which also gets the graphs.
    InPlace,
    /// In the file of converted weights.
    Copied,
    /// In clones of the checkpoint's files, which share their blocks on disk.
    Cloned,
    /// In the checkpoint's files, to which the folder has links.
    Linked,
}

impl Placement {
    /// Chooses the placement. Clones are created in `staging`.
    pub(super) fn choose(
        storage: WeightStorage,
        networks: &[Network],
        checkpoint: &Tensors,
        staging: &Staging<'_>,
    ) -> Result<Self, ExportError> {
        if staging.site() == Site::Checkpoint {
            return Ok(Self::InPlace);
        }
        if storage == WeightStorage::Link {
            return Ok(Self::Linked);
        }
        let mut stored = BTreeSet::new();
        for initializer in networks.iter().flat_map(|network| &network.initializers) {
            if let Source::Stored(place) = &initializer.source {
                stored.insert(*place);
            }
        }
        if stored.iter().map(|place| place.length).sum::<u64>() <= MAX_COPIED_AUTOMATICALLY {
            return Ok(Self::Copied);
        }
        let mut cloned = Vec::new();
        for file in referenced_files(networks) {
            let path = &checkpoint.files()[file];
            let clone = staging.path().join(file_name(path));
            cloned.push(clone.clone());
            if !clone_file(path, &clone).map_err(writing(&clone))? {
                for path in cloned.iter().filter(|path| path.exists()) {
                    fs::remove_file(path).map_err(writing(path))?;
                }
                return Ok(match storage {
                    WeightStorage::Copy => Self::Copied,
                    WeightStorage::Auto | WeightStorage::Link => Self::Linked,
                });
            }
        }
        Ok(Self::Cloned)
    }
}

/// Creates a copy-on-write clone of a file. Returns false if the file system does not support it.
#[cfg(target_os = "linux")]
fn clone_file(from: &Path, to: &Path) -> io::Result<bool> {
    let (from, to) = (File::open(from)?, File::create_new(to)?);
    // The error is ignored: the weights can be copied or linked instead.
    Ok(rustix::fs::ioctl_ficlone(&to, &from).is_ok() && to.sync_all().is_ok())
}

#[cfg(not(target_os = "linux"))]
fn clone_file(_: &Path, _: &Path) -> io::Result<bool> {
    Ok(false)
}

/// Indices of the checkpoint files that graphs reference.
pub(super) fn referenced_files(networks: &[Network]) -> BTreeSet<usize> {
    networks
        .iter()
        .flat_map(|network| &network.initializers)
        .filter_map(|initializer| match &initializer.source {
            Source::Stored(stored) => Some(stored.file),
            Source::Converted(..)
            | Source::Rounded(..)
            | Source::Scaled(_)
            | Source::Folded(_)
            | Source::Inline(_) => None,
        })
        .collect()
}
