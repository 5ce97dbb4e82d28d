//! Names of stored tensors: comparison with an index, and shared prefixes.

use super::CheckpointError;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use tandem_files::shortened;

/// Naming scheme of a model family's tensors.
pub struct Naming {
    /// First parts of the names of all tensors of the model.
    pub modules: &'static [&'static str],
    /// Converts the stored name of a tensor to its name in the model.
    pub of_model: fn(&str) -> String,
}

/// Checks that every tensor is in the file that the index names, and that the index lists all tensors.
/// The values of `index` and `found` are positions in `files`.
pub(super) fn check_index(
    path: &Path,
    index: &BTreeMap<String, usize>,
    found: &BTreeMap<String, usize>,
    files: &[PathBuf],
) -> Result<(), CheckpointError> {
    let name_of = |file: usize| {
        files[file].file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned())
    };
    for (tensor, &expected) in index {
        let found = found.get(tensor).copied();
        if found != Some(expected) {
            return Err(CheckpointError::Misplaced {
                index: path.into(),
                tensor: if found.is_some() { tensor.clone() } else { shortened(tensor) },
                expected: name_of(expected),
                found: found.map(name_of),
            });
        }
    }
    if let Some((tensor, &file)) = found.iter().find(|(tensor, _)| !index.contains_key(*tensor)) {
        return Err(CheckpointError::NotIndexed {
            index: path.into(),
            path: files[file].clone(),
            tensor: tensor.clone(),
        });
    }
    Ok(())
}

impl Naming {
    /// Returns the prefix, including its dot, that wrappers such as `torch.compile` or `DataParallel`
    /// add to every name; empty without such a prefix, or if no module of the model follows it.
    pub(super) fn shared_prefix<'a>(&self, names: impl Iterator<Item = &'a str> + Clone) -> String {
        let mut prefix = String::new();
        loop {
            let mut rests = names.clone().map(|name| &name[prefix.len()..]);
            let Some((first, _)) = rests.next().and_then(|rest| rest.split_once('.')) else {
                return String::new();
            };
            if self.modules.contains(&first) {
                return prefix;
            }
            let is_shared =
                |rest: &str| rest.strip_prefix(first).is_some_and(|rest| rest.starts_with('.'));
            if !rests.all(is_shared) {
                return if names.clone().any(|name| self.is_module(&name[prefix.len()..])) {
                    prefix
                } else {
                    String::new()
                };
            }
            prefix = format!("{prefix}{first}.");
        }
    }

    fn is_module(&self, name: &str) -> bool {
        name.split_once('.').is_some_and(|(first, _)| self.modules.contains(&first))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAMING: Naming =
        Naming { modules: &["language_model", "vision_model"], of_model: str::to_owned };

    #[track_caller]
    fn check(names: &[&str], prefix: &str) {
        assert_eq!(NAMING.shared_prefix(names.iter().copied()), prefix, "{names:?}");
    }

    #[test]
    fn shared_prefix_ends_before_the_first_module() {
        check(&["language_model.a", "vision_model.b"], "");
        check(&["module.language_model.a", "module.vision_model.b"], "module.");
        check(&["module._orig_mod.language_model.a", "module._orig_mod.x"], "module._orig_mod.");
        check(&["language_model.a"], "");
    }

    #[test]
    fn prefix_of_some_names_or_of_another_model_is_kept() {
        check(&["language_model.a", "module.vision_model.b"], "");
        check(&["model.layers.0.a", "model.norm.weight"], "");
        check(&["model", "model.a"], "");
        check(&[], "");
    }
}
