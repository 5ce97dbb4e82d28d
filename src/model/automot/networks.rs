//! Loads the networks of AutoMoT and checks that they match each other.
//!
//! The understanding expert is a list of one or more networks, the groups of its layers. Names of
//! tensors are defined in [`tandem_export::automot::names`].

use super::{sizes, stages};
use crate::device::{Device, DeviceError, ExpertStreams, HostDevice};
use crate::engine::{
    Backend, Engine, EngineFolderError, LoadError, NetworkFile, NetworkFileError, Rebuild,
    read_network,
};
use crate::kv_cache::Layout;
use crate::model::{ModelOutline, Runs, StageNetworks};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tandem_export::automot::NAME;
use tandem_export::automot::names::{PROBE, is_network};
pub use tandem_export::automot::names::{action, bev, prefix_tensors, understanding, vision};
use tandem_export::automot::sizes::{GroupSizes, UnderstandingSizes};
use tandem_export::contract::{Contract, SizesError, TensorSpec, by_name};
use tandem_export::folder::Summary;
use tandem_files::shortened;

/// Engines with matching shapes.
#[derive(Clone)]
pub struct Networks {
    pub vision: Arc<dyn Engine>,
    /// Layer groups in order, or one engine with all layers.
    pub understanding: Vec<Arc<dyn Engine>>,
    pub bev: Arc<dyn Engine>,
    pub action: Arc<dyn Engine>,
    pub prefix: Layout,
    pub device: Arc<dyn Device>,
    /// The fast stream runs the BEV encoder and the action expert, the slow stream the vision tower
    /// and the understanding expert.
    pub streams: ExpertStreams,
}

/// Matching contracts of the networks of a folder.
pub struct Contracts {
    pub vision: Contract,
    /// Layer groups in order, or one network with all layers.
    pub understanding: Vec<Contract>,
    pub bev: Contract,
    pub action: Contract,
}

/// Layers of the understanding expert in a network.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LayerGroup {
    pub group: usize,
    pub groups: usize,
    pub first_layer: usize,
}

impl std::fmt::Display for LayerGroup {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { group, groups, first_layer } = self;
        write!(f, "group {group} of {groups}, from layer {first_layer} on")
    }
}

/// Error returned for unusable networks of a folder.
#[derive(Debug, thiserror::Error)]
pub enum NetworksError {
    #[error(transparent)]
    File(#[from] NetworkFileError),
    #[error(transparent)]
    EngineFolder(#[from] EngineFolderError),
    #[error(transparent)]
    Load(#[from] LoadError),
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// Names or order of a network's tensors are not those of AutoMoT.
    #[error(
        "network {network:?} of {folder:?} is not a network of AutoMoT: its {what}s are {found:?}, expected {expected:?}"
    )]
    Tensors {
        network: String,
        folder: PathBuf,
        /// "input" or "output".
        what: &'static str,
        expected: Vec<String>,
        found: Vec<String>,
    },
    #[error(
        "the networks of this folder do not match: {from} outputs {given} as {tensor:?}, {to} expects \
         {taken}; they are from different exports, or from a checkpoint whose parts were not trained \
         together"
    )]
    Mismatch {
        /// Network with the output.
        from: String,
        /// Network with the input.
        to: String,
        tensor: String,
        /// Type and shape of the output.
        given: Box<str>,
        /// Type and shape of the input.
        taken: Box<str>,
    },
    #[error(
        "{folder:?} was exported with {found:?} as understanding expert; expected one network \
         \"understanding\" or groups \"understanding.0\", \"understanding.1\" … without a gap: export \
         the checkpoint again"
    )]
    GroupNames {
        folder: PathBuf,
        /// Networks of the expert in the summary.
        found: Vec<String>,
    },
    #[error(
        "{path:?} does not belong to the export in this folder, whose networks are {expected:?}; remove \
         it, or export the checkpoint again"
    )]
    Extra {
        path: PathBuf,
        /// Networks in the summary.
        expected: Vec<String>,
    },
    #[error(
        "network {network:?} of {folder:?} is {found}, expected {expected}: it is from another export; \
         export the checkpoint again"
    )]
    Group {
        network: String,
        folder: PathBuf,
        /// Layer group of the contract as text.
        found: String,
        expected: LayerGroup,
    },
    #[error(
        "network {network:?} expects {found} as {tensor:?}, the first group expects {expected}: \
         they are from different exports; export the checkpoint again"
    )]
    Shared {
        network: String,
        tensor: String,
        /// Type and shape in this group.
        found: String,
        /// Type and shape in the first group.
        expected: String,
    },
    #[error(
        "network {network:?} of {folder:?} is not the one that was exported there (graph {found}, \
         exported {expected}): it is from another export; export the checkpoint again"
    )]
    OtherExport {
        network: String,
        folder: PathBuf,
        /// SHA-256 of its graph.
        found: String,
        /// SHA-256 in the summary.
        expected: String,
    },
    #[error(
        "the BEV encoder needs an image of {needed:?} pixels (height, width), the agent's camera has {camera:?}"
    )]
    Camera {
        /// Height and width of the network's input.
        needed: [usize; 2],
        /// Height and width of the camera image.
        camera: [usize; 2],
    },
    #[error(
        "the action network outputs {path} path points and {waypoints} waypoints; a trajectory has at most 32 path points and 2 to 16 waypoints"
    )]
    Trajectory { path: usize, waypoints: usize },
    #[error(
        "{folder:?} is an export of model family {found:?}, expected {NAME:?}; give a folder that was \
         exported from a checkpoint of {NAME:?}"
    )]
    Family {
        folder: PathBuf,
        /// Family in the summary, shortened.
        found: String,
    },
    #[error(
        "network {network:?} of {folder:?} is of model {found:?}, not of {NAME:?}; export the checkpoint again"
    )]
    Model {
        network: String,
        folder: PathBuf,
        /// Model in the contract, shortened.
        found: String,
    },
    /// The sizes of a contract contradict its tensors, each other, or those of another network.
    #[error(
        "the contract of network {network:?} contradicts itself or another network's: {what}; export \
         the checkpoint again"
    )]
    Contradiction { network: String, what: String },
    #[error(transparent)]
    Sizes(#[from] SizesError),
}

impl NetworksError {
    /// Returns the build that would make the folder's engines usable, if a build is the remedy.
    pub fn rebuild(&self) -> Option<&Rebuild> {
        match self {
            Self::EngineFolder(error) => error.rebuild(),
            Self::Load(error) => error.rebuild(),
            _ => None,
        }
    }
}

impl Networks {
    /// Loads the networks of an engine folder for the host (see [`on`](Self::on)) after checking
    /// all contracts. `fast` runs the BEV encoder and the action expert, `slow` the vision tower
    /// and the understanding expert. Fails if a file or network cannot be loaded, or if the
    /// networks are not AutoMoT's or do not match each other.
    pub fn load(
        folder: &Path,
        fast: &dyn Backend,
        slow: &dyn Backend,
    ) -> Result<Self, NetworksError> {
        let device: Arc<dyn Device> = Arc::new(HostDevice::new());
        let streams = device.streams(None)?;
        let contracts = Contracts::read(folder)?;
        let load = |backend: &dyn Backend, contract: &Contract| {
            let file = read_network(folder, &contract.network)?;
            Ok::<_, NetworksError>(backend.load(&file)?)
        };
        let understanding = contracts.understanding.iter().map(|contract| load(slow, contract));
        Ok(Self {
            vision: load(slow, &contracts.vision)?,
            understanding: understanding.collect::<Result<_, _>>()?,
            bev: load(fast, &contracts.bev)?,
            action: load(fast, &contracts.action)?,
            prefix: prefix_layout(&contracts.action),
            device,
            streams,
        })
    }

    /// Moves the networks to another device, on which their back ends must be able to run.
    #[must_use]
    pub fn on(self, device: Arc<dyn Device>, streams: ExpertStreams) -> Self {
        Self { device, streams, ..self }
    }

    /// Returns every engine: vision tower, understanding expert, BEV encoder, action expert.
    pub fn engines(&self) -> impl Iterator<Item = &Arc<dyn Engine>> {
        let Self { vision, understanding, bev, action, .. } = self;
        [vision].into_iter().chain(understanding).chain([bev, action])
    }
}

/// Returns an input of a checked contract.
pub(super) fn input<'a>(contract: &'a Contract, name: &str) -> &'a TensorSpec {
    let spec = contract.inputs.iter().find(|spec| spec.name == name);
    spec.expect("contracts without an input of the family are refused")
}

/// Returns an output of a checked contract.
pub(super) fn output<'a>(contract: &'a Contract, name: &str) -> &'a TensorSpec {
    let spec = contract.outputs.iter().find(|spec| spec.name == name);
    spec.expect("contracts without an output of the family are refused")
}

impl Contracts {
    /// Returns the networks by stage, for frames of a prompt that are `frame_spacing_ticks` apart.
    /// Fails if the understanding expert's contract lacks a size.
    pub fn outline(&self, frame_spacing_ticks: u64) -> Result<ModelOutline, NetworksError> {
        let sizes = UnderstandingSizes::of(&self.understanding[0])?;
        let one = |stage, runs, contract: &Contract| StageNetworks {
            stage,
            runs,
            networks: vec![contract.clone()],
        };
        Ok(ModelOutline {
            stages: vec![
                one(stages::VISION, Runs::EachNewFrame, &self.vision),
                StageNetworks {
                    stage: stages::UNDERSTANDING,
                    runs: Runs::EachPrefill,
                    networks: self.understanding.clone(),
                },
                one(stages::BEV, Runs::EachTick, &self.bev),
                one(stages::ACTION, Runs::EachTick, &self.action),
            ],
            frames: sizes.frames,
            frame_spacing_ticks,
            prefix_capacity: sizes.prefix_capacity,
        })
    }

    /// Reads and checks the contracts of a network folder or an engine folder. Fails if a file
    /// cannot be read, a network is not AutoMoT's or is from another export, a layer group is
    /// missing or superfluous, or the networks do not match each other.
    pub fn read(folder: &Path) -> Result<Self, NetworksError> {
        let summary = NetworkFile::summary(folder)?;
        check_family(folder, &summary)?;
        refuse_extra(folder, &summary)?;
        let read = |name: &str| -> Result<Contract, NetworksError> {
            Ok(NetworkFile::exported(folder, name)?.contract)
        };
        let groups = group_names(folder, &summary)?;
        let contracts = Self {
            vision: read(vision::NETWORK)?,
            understanding: groups.iter().map(|name| read(name)).collect::<Result<_, _>>()?,
            bev: read(bev::NETWORK)?,
            action: read(action::NETWORK)?,
        };
        let names = [vision::NETWORK].into_iter().chain(groups.iter().map(String::as_str));
        let names = names.chain([bev::NETWORK, action::NETWORK]);
        for contract in contracts.iter() {
            if contract.model != NAME {
                return Err(NetworksError::Model {
                    network: contract.network.clone(),
                    folder: folder.to_owned(),
                    found: shortened(&contract.model),
                });
            }
            sizes::check_alone(contract)?;
        }
        contracts.check(folder)?;
        sizes::check(&contracts)?;
        for (name, contract) in names.zip(contracts.iter()) {
            let expected = summary.networks.get(name).map_or("", String::as_str);
            if contract.network != name || contract.graph_sha256 != expected {
                return Err(NetworksError::OtherExport {
                    network: name.to_owned(),
                    folder: folder.to_owned(),
                    found: contract.graph_sha256.clone(),
                    expected: expected.to_owned(),
                });
            }
        }
        Ok(contracts)
    }

    /// Returns every contract: vision tower, understanding expert, BEV encoder, action expert.
    pub fn iter(&self) -> impl Iterator<Item = &Contract> {
        let Self { vision, understanding, bev, action } = self;
        [vision].into_iter().chain(understanding).chain([bev, action])
    }

    /// Checks names and shapes of all tensors.
    fn check(&self, folder: &Path) -> Result<(), NetworksError> {
        let Self { vision, understanding, bev, action } = self;
        let names = |names: &[&str]| names.iter().map(|name| name.to_string()).collect::<Vec<_>>();
        let expect = |contract: &Contract, network: &str, inputs: &[String], outputs: &[String]| {
            check_names(folder, network, "input", &contract.inputs, inputs)?;
            check_names(folder, network, "output", &contract.outputs, outputs)
        };
        let layers = action.inputs.len().saturating_sub(action::INPUTS.len()) / 2;
        let layers = layers.max(1);
        let prefix_names: Vec<String> = (0..layers).flat_map(prefix_tensors).collect();
        expect(vision, vision::NETWORK, &names(&vision::INPUTS), &names(&vision::OUTPUTS))?;
        match understanding.as_slice() {
            [single] => {
                let inputs = names(&understanding::INPUTS);
                expect(single, understanding::NETWORK, &inputs, &prefix_names)?;
            }
            groups => check_groups(folder, groups)?,
        }
        expect(bev, bev::NETWORK, &names(&bev::INPUTS), &names(&bev::OUTPUTS))?;
        let action_inputs = [names(&action::INPUTS), prefix_names].concat();
        expect(action, action::NETWORK, &action_inputs, &names(&action::OUTPUTS))?;

        check_match(bev, action, bev::BEV_TOKENS)?;
        let given = MergedUnderstanding::of(understanding).contract;
        let real = given.outputs.iter().filter(|spec| !spec.name.starts_with(PROBE));
        // The inputs of the action expert, and every other output.
        let tensors = (0..layers).flat_map(prefix_tensors);
        tensors
            .chain(real.map(|spec| spec.name.clone()))
            .try_for_each(|tensor| check_match(&given, action, &tensor))
    }

    /// Returns the contracts of the vision, understanding, BEV and action networks, with layer
    /// groups merged into one contract.
    pub fn merged(self) -> [Contract; 4] {
        let understanding = MergedUnderstanding::of(&self.understanding).contract;
        [self.vision, understanding, self.bev, self.action]
    }
}

/// Layer groups merged into the contract of one network.
pub(super) struct MergedUnderstanding {
    /// Inputs of a prompt; keys and values of all layers, then probes as outputs.
    pub(super) contract: Contract,
    /// Group and output index of each output.
    pub(super) places: Vec<[usize; 2]>,
}

impl MergedUnderstanding {
    /// Merges one or more contracts.
    pub(super) fn of<'a>(groups: impl IntoIterator<Item = &'a Contract>) -> Self {
        let groups: Vec<&Contract> = groups.into_iter().collect();
        let mut contract = groups[0].clone();
        contract.network = understanding::NETWORK.to_owned();
        if let Ok(sizes) = UnderstandingSizes::of(&contract) {
            contract.sizes = by_name(&UnderstandingSizes { group: None, ..sizes });
        }
        let hashes: Vec<&str> = groups.iter().map(|group| group.graph_sha256.as_str()).collect();
        contract.graph_sha256 = hashes.join(" ");
        let all = groups.iter().enumerate().flat_map(|(group, contract)| {
            let outputs = contract.outputs.iter().enumerate();
            outputs.map(move |(output, spec)| ([group, output], spec))
        });
        let (probes, real): (Vec<_>, Vec<_>) =
            all.partition(|(_, spec)| spec.name.starts_with(PROBE));
        let real =
            real.into_iter().filter(|(_, spec)| !spec.name.starts_with(understanding::HIDDEN));
        let (places, outputs) =
            real.chain(probes).map(|(place, spec)| (place, spec.clone())).unzip();
        contract.outputs = outputs;
        Self { contract, places }
    }
}

/// Returns the understanding expert's networks in an export, in order.
fn group_names(folder: &Path, summary: &Summary) -> Result<Vec<String>, NetworksError> {
    let is_understanding = |name: &String| {
        name == understanding::NETWORK || understanding::group_number(name).is_some()
    };
    let mut found = summary.network_names();
    found.retain(is_understanding);
    let is_group =
        |(place, name): (usize, &String)| understanding::group_number(name) == Some(place);
    let is_single = found == [understanding::NETWORK];
    if is_single || (!found.is_empty() && found.iter().enumerate().all(is_group)) {
        return Ok(found);
    }
    Err(NetworksError::GroupNames { folder: folder.to_owned(), found })
}

/// Checks that an export is of AutoMoT.
fn check_family(folder: &Path, summary: &Summary) -> Result<(), NetworksError> {
    if summary.model == NAME {
        return Ok(());
    }
    let (folder, found) = (folder.to_owned(), shortened(&summary.model));
    Err(NetworksError::Family { folder, found })
}

/// Refuses contract files of networks that are not in the summary.
fn refuse_extra(folder: &Path, summary: &Summary) -> Result<(), NetworksError> {
    let unreadable = |source| NetworkFileError::Read { path: folder.to_owned(), source };
    let mut extra = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(unreadable)? {
        let path = entry.map_err(unreadable)?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let name = name.strip_suffix(".json").unwrap_or_default();
        if is_network(name) && !summary.networks.contains_key(name) {
            extra.push(path);
        }
    }
    extra.sort();
    match extra.into_iter().next() {
        None => Ok(()),
        Some(path) => Err(NetworksError::Extra { path, expected: summary.network_names() }),
    }
}

/// Checks the order and tensors of layer groups.
fn check_groups(folder: &Path, groups: &[Contract]) -> Result<(), NetworksError> {
    let first = &groups[0];
    let mut layers = 0..0;
    for (index, contract) in groups.iter().enumerate() {
        let network = understanding::group(index);
        let expected = LayerGroup { group: index, groups: groups.len(), first_layer: layers.end };
        let sizes = UnderstandingSizes::of(contract)?.group;
        let found = sizes.map(|GroupSizes { groups, group, first_layer, .. }| LayerGroup {
            group,
            groups,
            first_layer,
        });
        let Some(GroupSizes { group_layers: count, .. }) =
            sizes.filter(|_| found == Some(expected))
        else {
            let found = found.map_or("no layer group".to_owned(), |found| found.to_string());
            let folder = folder.to_owned();
            return Err(NetworksError::Group { network, folder, found, expected });
        };
        let before = layers.end.checked_sub(1).map(understanding::hidden);
        layers = layers.end..layers.end + count;
        let is_last = index + 1 == groups.len();
        let after = (!is_last).then(|| understanding::hidden(layers.end.saturating_sub(1)));
        let given: Vec<String> = layers.clone().flat_map(prefix_tensors).chain(after).collect();
        check_names(folder, &network, "output", &contract.outputs, &given)?;
        let Some(before) = before else {
            let inputs = understanding::INPUTS.map(str::to_owned);
            check_names(folder, &network, "input", &contract.inputs, &inputs)?;
            continue;
        };
        check_names(folder, &network, "input", &contract.inputs, std::slice::from_ref(&before))?;
        check_match(&groups[index - 1], contract, &before)?;
        for spec in &contract.inputs[1..] {
            let expected = first.input(&spec.name).map(|place| describe(&first.inputs[place]));
            let found = describe(spec);
            if expected.as_ref() != Some(&found) {
                return Err(NetworksError::Shared {
                    network,
                    tensor: spec.name.clone(),
                    found,
                    expected: expected.unwrap_or_else(no_tensor),
                });
            }
        }
    }
    Ok(())
}

/// Returns the layout of the prefix that the action expert reads: keys
/// `[heads, capacity, key_dim]`.
fn prefix_layout(action: &Contract) -> Layout {
    let first = action::INPUTS.len();
    let [keys, values] = [&action.inputs[first], &action.inputs[first + 1]];
    Layout {
        layers: (action.inputs.len() - first) / 2,
        heads: keys.shape[0],
        capacity: keys.shape[1],
        key_dim: keys.shape[2],
        value_dim: values.shape[2],
        dtype: keys.dtype,
    }
}

fn check_names(
    folder: &Path,
    network: &str,
    what: &'static str,
    specs: &[TensorSpec],
    expected: &[String],
) -> Result<(), NetworksError> {
    let found: Vec<String> = specs.iter().map(|spec| spec.name.clone()).collect();
    if found.starts_with(expected) {
        return Ok(());
    }
    let (network, folder, expected) = (network.to_owned(), folder.to_owned(), expected.to_vec());
    Err(NetworksError::Tensors { network, folder, what, expected, found })
}

fn check_match(from: &Contract, to: &Contract, tensor: &str) -> Result<(), NetworksError> {
    let given = from.output(tensor).map(|index| describe(&from.outputs[index]));
    let taken = to.input(tensor).map(|index| describe(&to.inputs[index]));
    if given == taken {
        return Ok(());
    }
    Err(NetworksError::Mismatch {
        from: from.network.clone(),
        to: to.network.clone(),
        tensor: tensor.to_owned(),
        given: given.unwrap_or_else(no_tensor).into(),
        taken: taken.unwrap_or_else(no_tensor).into(),
    })
}

fn no_tensor() -> String {
    "no tensor of this name".to_owned()
}

fn describe(spec: &TensorSpec) -> String {
    format!("{} {:?}", spec.dtype, spec.shape)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tandem_export::summary::SUMMARY_FORMAT;

    fn summary(model: &str) -> Summary {
        let text = serde_json::json!({
            "format": SUMMARY_FORMAT, "exporter_version": "0", "model": model, "checkpoint": "",
            "headers_sha256": "", "options": { "precision": "f32" }, "networks": {},
            "warnings": [], "weight_files": [], "weights": [], "sources": [], "converted_bytes": 0,
        });
        Summary::parse_of_any_family(text.to_string().as_bytes()).unwrap()
    }

    #[test]
    fn export_of_another_family_is_refused_with_both_names() {
        let error = check_family(Path::new("folder"), &summary("scripted")).unwrap_err();
        assert!(matches!(&error, NetworksError::Family { found, .. } if found == "scripted"));
        let text = error.to_string();
        assert!(text.contains("\"scripted\"") && text.contains("\"automot\""), "{text}");
        check_family(Path::new("folder"), &summary(NAME)).unwrap();
    }
}
