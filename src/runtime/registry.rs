//! Registry of the model families that this program can run.

use super::Notes;
use super::error::{BlockError, FamilyNameError, OpenError};
use super::loaded_model::{Adapter, LoadedModel};
use super::verify::{Verification, VerifyError, VerifyOptions};
use crate::engine::NetworkFile;
use crate::model::{Family, FamilyError, ModelBlock, ModelOutline, OptionsError, Placement};
use crate::scene::SensorSuite;
use crate::timing::linkme::distributed_slice;
use std::marker::PhantomData;
use std::path::Path;

/// Every registered model family, in no particular order;
/// [`model_family!`](crate::model_family) registers one.
#[distributed_slice]
#[linkme(crate = crate::timing::linkme)]
pub static FAMILIES: [&'static dyn RuntimeFamily];

crate::model_family!(crate::model::automot::Automot);

/// Registers a [`Family`] in [`FAMILIES`].
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

/// A [`Family`] without its types, as used by the runtime.
pub trait RuntimeFamily: Sync {
    /// Returns the name of the family.
    fn name(&self) -> &'static str;

    /// Returns the Rust type of the family.
    fn type_name(&self) -> &'static str;

    /// Returns `block` with defaults for absent options. Fails if the block is of another
    /// family or an option is invalid.
    fn complete(&self, block: Option<&ModelBlock>) -> Result<ModelBlock, OptionsError>;

    /// Returns the sensors that a model with these options reads.
    fn sensors(&self, block: Option<&ModelBlock>) -> Result<SensorSuite, OptionsError>;

    /// Reads the contracts of a network or engine folder and returns how often a model with these
    /// options runs each network. Loads no network. Fails if a file cannot be read, or the networks
    /// are not of this family or do not match each other.
    fn outline(&self, folder: &Path, block: Option<&ModelBlock>)
    -> Result<ModelOutline, OpenError>;

    /// Checks that the runtime can read `file`, a companion file of a checkpoint named `name`.
    fn check_companion(&self, name: &str, file: &Path) -> Result<(), FamilyError>;

    /// Loads a network or engine folder.
    fn load(
        &self,
        folder: &Path,
        placement: Placement,
        block: Option<&ModelBlock>,
    ) -> Result<Box<dyn LoadedModel>, OpenError>;

    /// Compares two folders of this family; see [`verify`](super::verify()).
    fn verify(
        &self,
        folders: [&Path; 2],
        options: &VerifyOptions,
        notes: &mut Notes<'_>,
        done: &mut dyn FnMut(),
    ) -> Result<Verification, VerifyError>;
}

/// Entry of a [`Family`] in [`FAMILIES`].
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

    fn type_name(&self) -> &'static str {
        std::any::type_name::<F>()
    }

    fn complete(&self, block: Option<&ModelBlock>) -> Result<ModelBlock, OptionsError> {
        Ok(ModelBlock::of(F::NAME, &Self::options(block)?))
    }

    fn sensors(&self, block: Option<&ModelBlock>) -> Result<SensorSuite, OptionsError> {
        Ok(F::sensors(&Self::options(block)?))
    }

    fn check_companion(&self, name: &str, file: &Path) -> Result<(), FamilyError> {
        F::check_companion(name, file)
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

/// Returns the family of this name. Fails if no family has it, or more than one.
pub fn family(name: &str) -> Result<&'static dyn RuntimeFamily, FamilyNameError> {
    find(&FAMILIES, name)
}

fn find(
    families: &[&'static dyn RuntimeFamily],
    name: &str,
) -> Result<&'static dyn RuntimeFamily, FamilyNameError> {
    let mut named = families.iter().copied().filter(|family| family.name() == name);
    match (named.next(), named.next()) {
        (None, _) => {
            Err(FamilyNameError::Unknown { found: tandem_files::shortened(name), known: names() })
        }
        (Some(family), None) => Ok(family),
        (Some(first), Some(second)) => Err(FamilyNameError::Duplicate {
            name: first.name(),
            first: first.type_name(),
            second: second.type_name(),
        }),
    }
}

/// Returns the sorted names of all families.
pub fn families() -> Vec<&'static str> {
    let mut names: Vec<_> = FAMILIES.iter().map(|family| family.name()).collect();
    names.sort_unstable();
    names
}

/// Returns the model family of a network or engine folder. Fails if its `export.json` cannot be
/// read or names an unknown family.
pub fn family_of(folder: &Path) -> Result<&'static dyn RuntimeFamily, OpenError> {
    let summary = NetworkFile::summary(folder).map_err(|error| OpenError::Networks {
        folder: folder.to_owned(),
        source: FamilyError::new(error),
    })?;
    Ok(family(&summary.model)?)
}

/// Validates the `model:` block of a run file without a model. Fails if the family is
/// unknown or an option is invalid.
pub fn check(block: &ModelBlock) -> Result<(), BlockError> {
    family(&block.family)?.complete(Some(block))?;
    Ok(())
}

/// Runs the models of the folders `engine` and `reference` on the same inputs, one after the other,
/// and compares the outputs of their networks. Calls `done` after each prompt of each model.
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::automot::Automot;

    #[test]
    fn family_name_used_twice_is_refused_with_both_types() {
        const AUTOMOT: &dyn RuntimeFamily = &Registered::<Automot>::NEW;
        assert!(find(&[AUTOMOT], AUTOMOT.name()).is_ok());
        let error = find(&[AUTOMOT, AUTOMOT], AUTOMOT.name()).err().unwrap();
        let FamilyNameError::Duplicate { name, first, second } = &error else { panic!("{error}") };
        assert_eq!(*name, AUTOMOT.name());
        for family in [first, second] {
            assert!(family.ends_with("::Automot"), "{error}");
            assert!(error.to_string().contains(family), "{error}");
        }
    }
}
