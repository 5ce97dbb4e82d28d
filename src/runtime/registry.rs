//! The model families that this program can run.

use super::Notes;
use super::error::{BlockError, OpenError, UnknownFamily};
use super::loaded_model::{Adapter, LoadedModel};
use super::verify::{Verification, VerifyError, VerifyOptions};
use crate::engine::NetworkFile;
use crate::model::{Family, FamilyError, ModelBlock, ModelOutline, OptionsError, Placement};
use crate::scene::SensorSuite;
use crate::timing::linkme::distributed_slice;
use std::marker::PhantomData;
use std::path::Path;

/// Every model family of this program, in no particular order; [`model_family!`](crate::model_family)
/// adds one.
#[distributed_slice]
#[linkme(crate = crate::timing::linkme)]
pub static FAMILIES: [&'static dyn RuntimeFamily];

crate::model_family!(crate::model::automot::Automot);

/// Adds a [`Family`] to [`FAMILIES`].
#[macro_export]
macro_rules! model_family {
    ($family:ty) => {
        const _: () = {
            #[expect(
                unsafe_code,
                reason = "linkme places the elements of a slice in a link section"
            )]
            #[$crate::timing::linkme::distributed_slice($crate::runtime::FAMILIES)]
            #[linkme(crate = $crate::timing::linkme)]
            static FAMILY: &'static dyn $crate::runtime::RuntimeFamily =
                &$crate::runtime::Registered::<$family>::NEW;
        };
    };
}

/// A [`Family`] as the runtime uses it, whatever its types.
pub trait RuntimeFamily: Sync {
    /// Name of the family.
    fn name(&self) -> &'static str;

    /// Returns `block` with every option, those that it leaves out at their defaults.
    ///
    /// # Errors
    /// The block is of another family, or an option is not one of this family's.
    fn complete(&self, block: Option<&ModelBlock>) -> Result<ModelBlock, OptionsError>;

    /// The sensors that a model with these options reads.
    ///
    /// # Errors
    /// As [`complete`](Self::complete).
    fn sensors(&self, block: Option<&ModelBlock>) -> Result<SensorSuite, OptionsError>;

    /// Reads which networks a network or engine folder has, and how often a model with these options
    /// runs them. Loads none.
    ///
    /// # Errors
    /// A file cannot be read, the networks are not the family's or do not fit each other, or an option
    /// is not one of this family's.
    fn outline(&self, folder: &Path, block: Option<&ModelBlock>)
    -> Result<ModelOutline, OpenError>;

    /// Loads a network or engine folder.
    ///
    /// # Errors
    /// As [`outline`](Self::outline) and [`complete`](Self::complete); a network cannot be loaded.
    fn load(
        &self,
        folder: &Path,
        placement: Placement,
        block: Option<&ModelBlock>,
    ) -> Result<Box<dyn LoadedModel>, OpenError>;

    /// Compares two folders of this family; see [`verify`](super::verify()).
    ///
    /// # Errors
    /// See [`VerifyError`].
    fn verify(
        &self,
        folders: [&Path; 2],
        options: &VerifyOptions,
        notes: &mut Notes<'_>,
        done: &mut dyn FnMut(),
    ) -> Result<Verification, VerifyError>;
}

/// A [`Family`] in [`FAMILIES`].
pub struct Registered<F>(PhantomData<fn() -> F>);

impl<F> Registered<F> {
    /// The only value.
    pub const NEW: Self = Self(PhantomData);
}

impl<F: Family> Registered<F> {
    fn options(block: Option<&ModelBlock>) -> Result<F::Options, OptionsError> {
        let options = block.map_or_else(|| Ok(F::Options::default()), |b| b.options(F::NAME))?;
        F::check(&options)?;
        Ok(options)
    }
}

impl<F: Family> RuntimeFamily for Registered<F> {
    fn name(&self) -> &'static str {
        F::NAME
    }

    fn complete(&self, block: Option<&ModelBlock>) -> Result<ModelBlock, OptionsError> {
        Ok(ModelBlock::of(F::NAME, &Self::options(block)?))
    }

    fn sensors(&self, block: Option<&ModelBlock>) -> Result<SensorSuite, OptionsError> {
        Ok(F::sensors(&Self::options(block)?))
    }

    fn outline(
        &self,
        folder: &Path,
        block: Option<&ModelBlock>,
    ) -> Result<ModelOutline, OpenError> {
        F::outline(folder, &Self::options(block)?)
            .map_err(|source| OpenError::Networks { folder: folder.to_owned(), source })
    }

    fn load(
        &self,
        folder: &Path,
        placement: Placement,
        block: Option<&ModelBlock>,
    ) -> Result<Box<dyn LoadedModel>, OpenError> {
        let options = Self::options(block)?;
        let model = F::load(folder, placement, options)
            .map_err(|source| OpenError::Networks { folder: folder.to_owned(), source })?;
        Ok(Box::new(Adapter(model)))
    }

    fn verify(
        &self,
        folders: [&Path; 2],
        options: &VerifyOptions,
        notes: &mut Notes<'_>,
        done: &mut dyn FnMut(),
    ) -> Result<Verification, VerifyError> {
        super::verify::of_family::<F>(folders, options, notes, done)
    }
}

/// The family of this name.
///
/// # Errors
/// There is none.
pub fn family(name: &str) -> Result<&'static dyn RuntimeFamily, UnknownFamily> {
    let family = FAMILIES.iter().copied().find(|family| family.name() == name);
    family.ok_or_else(|| UnknownFamily { found: tandem_files::shortened(name), known: names() })
}

/// Names of all families, sorted.
pub fn families() -> Vec<&'static str> {
    let mut names: Vec<_> = FAMILIES.iter().map(|family| family.name()).collect();
    names.sort_unstable();
    names
}

/// The family of the model in a network or engine folder.
///
/// # Errors
/// The folder has no readable `export.json`, or one of a family that is not known.
pub fn family_of(folder: &Path) -> Result<&'static dyn RuntimeFamily, OpenError> {
    let summary = NetworkFile::summary(folder).map_err(|error| OpenError::Networks {
        folder: folder.to_owned(),
        source: FamilyError::new(error),
    })?;
    Ok(family(&summary.model)?)
}

/// Checks a run file's block without a model.
///
/// # Errors
/// The family is not known, or an option is not one of its own.
pub fn check(block: &ModelBlock) -> Result<(), BlockError> {
    family(&block.family)?.complete(Some(block))?;
    Ok(())
}

/// Drives the models of `engine` and `reference` alike, one after the other, and compares what their
/// networks answer. Calls `done` after each prompt of each side.
///
/// # Errors
/// See [`VerifyError`].
pub fn verify(
    engine: &Path,
    reference: &Path,
    options: &VerifyOptions,
    notes: &mut Notes<'_>,
    done: &mut dyn FnMut(),
) -> Result<Verification, VerifyError> {
    let family = |folder: &Path| {
        if !folder.is_dir() {
            return Err(VerifyError::NoFolder { folder: folder.to_owned() });
        }
        Ok(family_of(folder)?)
    };
    let (ours, theirs) = (family(engine)?, family(reference)?);
    if ours.name() != theirs.name() {
        let (engine, reference) = (ours.name(), theirs.name());
        return Err(VerifyError::Families { engine, reference });
    }
    ours.verify([engine, reference], options, notes, done)
}

fn names() -> String {
    families().join(", ")
}
