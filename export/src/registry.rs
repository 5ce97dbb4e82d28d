//! Registry of the model families that this program exports.
//!
//! A family of this crate is registered here with [`export_family!`](crate::export_family). Another
//! crate registers its families with the same macro.

use crate::automot;
use crate::checkpoint::CheckpointError;
use crate::family::{Candidate, Family, OpenCheckpoint};
use crate::spec::{FAMILY_KEY, SpecError, SpecFile};
use linkme::distributed_slice;
use std::path::Path;
use std::sync::OnceLock;
use tandem_files::{folder_of, shortened};

/// All families linked into this program, in no particular order. [`Families::known`] sorts them.
#[distributed_slice]
pub static REGISTERED: [&'static dyn Family];

/// Registers a family, which must be a static, in [`REGISTERED`](crate::registry::REGISTERED):
///
/// ```ignore
/// static PLANNER: Planner = Planner;
/// tandem_export::export_family!(PLANNER);
/// ```
#[macro_export]
macro_rules! export_family {
    ($family:expr) => {
        const _: () = {
            #[expect(
                unsafe_code,
                reason = "linkme places the elements of a slice in a link section"
            )]
            #[$crate::linkme::distributed_slice($crate::registry::REGISTERED)]
            #[linkme(crate = $crate::linkme)]
            static FAMILY: &'static dyn $crate::family::Family = &$family;
        };
    };
}

export_family!(automot::AUTOMOT);

/// A set of families to search.
#[derive(Clone, Copy)]
pub struct Families(pub &'static [&'static dyn Family]);

impl Families {
    /// Returns the families of this program, sorted by name.
    ///
    /// # Panics
    /// If two families have the same name.
    pub fn known() -> Self {
        static SORTED: OnceLock<Vec<&'static dyn Family>> = OnceLock::new();
        Self(SORTED.get_or_init(|| {
            let families = Families(&REGISTERED).sorted();
            for pair in families.windows(2) {
                let [name, next] = [pair[0].name(), pair[1].name()];
                assert_ne!(name, next, "two model families have this name");
            }
            families
        }))
    }

    /// Finds a family of the set by its name.
    pub fn named(&self, name: &str) -> Option<&'static dyn Family> {
        self.0.iter().copied().find(|family| family.name() == name)
    }

    /// Returns the quoted names of the families, sorted and comma-separated, for messages.
    pub fn names(&self) -> String {
        let names: Vec<String> =
            self.sorted().iter().map(|family| format!("{:?}", family.name())).collect();
        names.join(", ")
    }

    fn sorted(&self) -> Vec<&'static dyn Family> {
        let mut families = self.0.to_vec();
        families.sort_by_key(|family| family.name());
        families
    }

    /// Finds the family that recognizes the checkpoint in `folder`. Fails if no family recognizes
    /// it, or the folder cannot be read.
    pub fn of_folder(&self, folder: &Path) -> Result<&'static dyn Family, CheckpointError> {
        let candidate = Candidate::read(folder)?;
        self.recognizing(&candidate).ok_or_else(|| CheckpointError::UnknownFamily {
            dir: folder.into(),
            found: candidate.found(),
            known: self
                .sorted()
                .iter()
                .map(|f| format!("{} ({})", f.name(), f.recognized_by()))
                .collect(),
        })
    }

    /// Finds the family that recognizes a folder.
    pub(crate) fn recognizing(&self, candidate: &Candidate) -> Option<&'static dyn Family> {
        self.0.iter().copied().find(|family| family.recognizes(candidate))
    }

    /// Family of files that neither name a family nor are recognized by one:
    /// AutoMoT, if it is in the set.
    fn default_family(&self) -> Option<&'static dyn Family> {
        self.named(automot::NAME)
    }

    /// Like [`of_folder`](Self::of_folder), but returns AutoMoT for a folder that no family
    /// recognizes: its errors then name what is missing or wrong.
    ///
    /// Fails like [`of_folder`](Self::of_folder), if AutoMoT is not in the set.
    pub fn of_folder_or_default(
        &self,
        folder: &Path,
    ) -> Result<&'static dyn Family, CheckpointError> {
        self.of_folder(folder).or_else(|error| self.default_family().ok_or(error))
    }

    /// Opens the checkpoint in `folder` with the family that recognizes it. Fails like
    /// [`of_folder`](Self::of_folder) and [`Family::open`].
    pub fn open(&self, folder: &Path) -> Result<Box<dyn OpenCheckpoint>, CheckpointError> {
        self.of_folder(folder)?.open(folder)
    }

    /// True if an export of one of the families may have a network of this name.
    pub fn is_network(&self, name: &str) -> bool {
        self.0.iter().any(|family| family.is_network(name))
    }

    /// Finds the family of a specification. Fails if the file names an unknown family.
    pub fn of_spec(&self, file: &SpecFile) -> Result<&'static dyn Family, SpecError> {
        let unknown = |found: &str| SpecError::UnknownFamily {
            path: file.path().to_owned(),
            found: shortened(found),
            known: self.names(),
        };
        if let Some(name) = file.content().get(FAMILY_KEY) {
            let name = name.as_str().map_or_else(|| name.to_string(), str::to_owned);
            return self.named(&name).ok_or_else(|| unknown(&name));
        }
        let candidate = Candidate::of_config(folder_of(file.path()), file.content().clone());
        self.recognizing(&candidate)
            .or_else(|| self.default_family())
            .ok_or_else(|| unknown(automot::NAME))
    }
}
