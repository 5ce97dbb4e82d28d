//! The networks of AutoMoT, checked against each other and loaded.
//!
//! The understanding expert is one network or several, the groups that its layers are divided among;
//! everything here takes it as a list of one or more. Names of tensors come from
//! [`tandem_export::automot::names`].

use super::{sizes, stages};
use crate::device::{Device, DeviceError, HostDevice, Lanes};
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

/// Engines whose shapes fit each other.
#[derive(Clone)]
pub struct Networks {
    /// Vision tower.
    pub vision: Arc<dyn Engine>,
    /// Understanding expert: its layer groups in order, or one engine of all layers.
    pub understanding: Vec<Arc<dyn Engine>>,
    /// BEV encoder.
    pub bev: Arc<dyn Engine>,
    /// Action expert.
    pub action: Arc<dyn Engine>,
    /// Layout of a prefix.
    pub prefix: Layout,
    /// Where they run.
    pub device: Arc<dyn Device>,
    /// Its streams: of the BEV encoder and the action expert, and of the vision tower and the
    /// understanding expert.
    pub lanes: Lanes,
}

/// Contracts of the networks of a folder, which fit each other.
pub struct Contracts {
    /// Vision tower.
    pub vision: Contract,
    /// Understanding expert: its layer groups in order, or one network of all layers.
    pub understanding: Vec<Contract>,
    /// BEV encoder.
    pub bev: Contract,
    /// Action expert.
    pub action: Contract,
}

/// Which layers of the understanding expert a network has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LayerGroup {
    /// Number of the group, from 0.
    pub group: usize,
    /// Groups in all.
    pub groups: usize,
    /// Its first layer.
    pub first_layer: usize,
}

impl std::fmt::Display for LayerGroup {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { group, groups, first_layer } = self;
        write!(f, "group {group} of {groups}, from layer {first_layer} on")
    }
}

/// The networks of a folder cannot drive.
#[derive(Debug, thiserror::Error)]
pub enum NetworksError {
    /// A file cannot be read.
    #[error(transparent)]
    File(#[from] NetworkFileError),
    /// An engine folder cannot be used.
    #[error(transparent)]
    EngineFolder(#[from] EngineFolderError),
    /// A network cannot be loaded.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The device fails, or has no memory left.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// A network lacks a tensor, or has it at another place.
    #[error(
        "network {network:?} of {folder:?} is not AutoMoT's: its {what}s begin {found:?}, AutoMoT's are {expected:?}"
    )]
    Tensors {
        /// The network.
        network: String,
        /// The folder.
        folder: PathBuf,
        /// "input" or "output".
        what: &'static str,
        /// AutoMoT's.
        expected: Vec<String>,
        /// The contract's.
        found: Vec<String>,
    },
    /// Two networks do not fit each other.
    #[error(
        "the networks of this folder do not fit each other: {from} gives {given} as {tensor:?}, {to} \
         takes {taken}; they come from different exports, or from a checkpoint whose parts were not \
         trained together"
    )]
    Misfit {
        /// The producing network.
        from: String,
        /// The consuming network.
        to: String,
        /// The tensor.
        tensor: String,
        /// Type and shape produced.
        given: Box<str>,
        /// Type and shape consumed.
        taken: Box<str>,
    },
    /// The export has no understanding expert, or groups with a gap.
    #[error(
        "{folder:?} was exported with {found:?} as understanding expert; that is neither one network \
         \"understanding\" nor groups \"understanding.0\", \"understanding.1\" … without a gap: export \
         the checkpoint again"
    )]
    GroupNames {
        /// The folder.
        folder: PathBuf,
        /// Networks of the expert that the summary lists.
        found: Vec<String>,
    },
    /// There is a network file that the export did not write.
    #[error(
        "{path:?} is not of the export that it lies beside, whose networks are {expected:?}; remove \
         it, or export the checkpoint again"
    )]
    Extra {
        /// The file.
        path: PathBuf,
        /// Networks that the summary lists.
        expected: Vec<String>,
    },
    /// A layer group has other layers than its place asks for.
    #[error(
        "network {network:?} of {folder:?} is {found}, in its place belongs {expected}: it comes from \
         another export; export the checkpoint again"
    )]
    Group {
        /// The network.
        network: String,
        /// The folder.
        folder: PathBuf,
        /// What the contract says, in words.
        found: String,
        /// What it would have to be.
        expected: LayerGroup,
    },
    /// Two groups take the same tensor in different shapes.
    #[error(
        "network {network:?} takes {found} as {tensor:?}, the first group takes {expected}: \
         the two come from different exports; export the checkpoint again"
    )]
    Shared {
        /// The network.
        network: String,
        /// The tensor.
        tensor: String,
        /// Its type and shape here.
        found: String,
        /// Its type and shape in the first group.
        expected: String,
    },
    /// A network is not the one that the folder's summary lists.
    #[error(
        "network {network:?} of {folder:?} is not the one that was exported there (graph {found}, \
         exported was {expected}): it comes from another export; export the checkpoint again"
    )]
    OtherExport {
        /// The network.
        network: String,
        /// The folder.
        folder: PathBuf,
        /// SHA-256 of its graph.
        found: String,
        /// SHA-256 that the summary has.
        expected: String,
    },
    /// The BEV encoder sees more than the camera gives.
    #[error(
        "the BEV encoder takes a picture of {needed:?} pixels (height, width), the agent's camera gives {camera:?}"
    )]
    Camera {
        /// Height and width that the network takes.
        needed: [usize; 2],
        /// Height and width of the camera.
        camera: [usize; 2],
    },
    /// The action network answers more or fewer points than a trajectory has.
    #[error(
        "the action network answers {path} path points and {waypoints} waypoints; a trajectory has up to 32 and from 2 to 16"
    )]
    Trajectory {
        /// Path points.
        path: usize,
        /// Waypoints.
        waypoints: usize,
    },
    /// The folder is an export of another model family.
    #[error(
        "{folder:?} is an export of model family {found:?}, these networks are of {NAME:?}; give a folder \
         that was exported from a checkpoint of {NAME:?}"
    )]
    Family {
        /// The folder.
        folder: PathBuf,
        /// The family that its summary names, shortened.
        found: String,
    },
    /// A network is of another model family.
    #[error(
        "network {network:?} of {folder:?} is of model {found:?}, not of {NAME:?}; export the checkpoint again"
    )]
    Model {
        /// The network.
        network: String,
        /// The folder.
        folder: PathBuf,
        /// The model that its contract names, shortened.
        found: String,
    },
    /// The sizes of a contract contradict its tensors, each other, or those of another network.
    #[error(
        "the contract of network {network:?} contradicts itself or another network's: {what}; export \
         the checkpoint again"
    )]
    Contradiction {
        /// The network.
        network: String,
        /// What contradicts what.
        what: String,
    },
    /// A size is missing from a contract.
    #[error(transparent)]
    Sizes(#[from] SizesError),
}

impl NetworksError {
    /// Build that makes the folder's engines usable, if that is what they need.
    pub fn rebuild(&self) -> Option<&Rebuild> {
        match self {
            Self::EngineFolder(error) => error.rebuild(),
            Self::Load(error) => error.rebuild(),
            _ => None,
        }
    }
}

impl Networks {
    /// Loads the networks of an engine folder: `fast` runs the BEV encoder and the action expert,
    /// `slow` the vision tower and the understanding expert. Nothing is loaded before all contracts
    /// were checked.
    ///
    /// They run on the host; see [`on`](Self::on).
    ///
    /// # Errors
    /// If a file or network cannot be loaded, is not AutoMoT's, or the networks do not fit each other.
    pub fn load(
        folder: &Path,
        fast: &dyn Backend,
        slow: &dyn Backend,
    ) -> Result<Self, NetworksError> {
        let device: Arc<dyn Device> = Arc::new(HostDevice::new());
        let lanes = device.lanes(None)?;
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
            lanes,
        })
    }

    /// The same networks on another device, which their back ends must be able to run on.
    #[must_use]
    pub fn on(self, device: Arc<dyn Device>, lanes: Lanes) -> Self {
        Self { device, lanes, ..self }
    }

    /// Every engine: vision tower, understanding expert, BEV encoder, action expert.
    pub fn engines(&self) -> impl Iterator<Item = &Arc<dyn Engine>> {
        let Self { vision, understanding, bev, action, .. } = self;
        [vision].into_iter().chain(understanding).chain([bev, action])
    }
}

/// An input of a network whose contract was checked.
pub(super) fn input<'a>(contract: &'a Contract, name: &str) -> &'a TensorSpec {
    let spec = contract.inputs.iter().find(|spec| spec.name == name);
    spec.expect("contracts without an input of the family are refused")
}

/// An output of a network whose contract was checked.
pub(super) fn output<'a>(contract: &'a Contract, name: &str) -> &'a TensorSpec {
    let spec = contract.outputs.iter().find(|spec| spec.name == name);
    spec.expect("contracts without an output of the family are refused")
}

impl Contracts {
    /// The networks by the stages that time them; frames of a prompt are `frame_spacing_ticks` apart.
    ///
    /// # Errors
    /// The understanding expert's contract lacks a size.
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
                    runs: Runs::EachRefresh,
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

    /// Reads the contracts of a network folder or an engine folder.
    ///
    /// # Errors
    /// If a file cannot be read, a network is not AutoMoT's or from another export, a layer group is
    /// missing or one too many, or the networks do not fit each other.
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

    /// Every contract: vision tower, understanding expert, BEV encoder, action expert.
    pub fn iter(&self) -> impl Iterator<Item = &Contract> {
        let Self { vision, understanding, bev, action } = self;
        [vision].into_iter().chain(understanding).chain([bev, action])
    }

    /// Names and shapes of all tensors.
    fn check(&self, folder: &Path) -> Result<(), NetworksError> {
        let Self { vision, understanding, bev, action } = self;
        let names = |names: &[&str]| names.iter().map(|name| name.to_string()).collect::<Vec<_>>();
        let expect = |contract: &Contract, network: &str, inputs: &[String], outputs: &[String]| {
            begins(folder, network, "input", &contract.inputs, inputs)?;
            begins(folder, network, "output", &contract.outputs, outputs)
        };
        let layers = action.inputs.len().saturating_sub(action::INPUTS.len()) / 2;
        let layers = layers.max(1);
        let prefix_names: Vec<String> = (0..layers).flat_map(prefix_tensors).collect();
        expect(vision, vision::NETWORK, &names(&vision::INPUTS), &names(&vision::OUTPUTS))?;
        match understanding.as_slice() {
            [whole] => {
                let inputs = names(&understanding::INPUTS);
                expect(whole, understanding::NETWORK, &inputs, &prefix_names)?;
            }
            groups => check_groups(folder, groups)?,
        }
        expect(bev, bev::NETWORK, &names(&bev::INPUTS), &names(&bev::OUTPUTS))?;
        let action_inputs = [names(&action::INPUTS), prefix_names].concat();
        expect(action, action::NETWORK, &action_inputs, &names(&action::OUTPUTS))?;

        fits(bev, action, bev::BEV_TOKENS)?;
        let given = WholeUnderstanding::of(understanding).contract;
        let real = given.outputs.iter().filter(|spec| !spec.name.starts_with(PROBE));
        // What the action expert reads, and whatever else is given.
        let tensors = (0..layers).flat_map(prefix_tensors);
        tensors
            .chain(real.map(|spec| spec.name.clone()))
            .try_for_each(|tensor| fits(&given, action, &tensor))
    }

    /// Contracts of the vision, understanding, BEV and action network, layer groups as if they were
    /// one network.
    pub fn whole(self) -> [Contract; 4] {
        let whole = WholeUnderstanding::of(&self.understanding).contract;
        [self.vision, whole, self.bev, self.action]
    }
}

/// Layer groups, or a single network, seen as one network.
pub(super) struct WholeUnderstanding {
    /// Takes what a prompt consists of; gives keys and values of all layers, then probes.
    pub(super) contract: Contract,
    /// Which output of which group each of its outputs is.
    pub(super) places: Vec<[usize; 2]>,
}

impl WholeUnderstanding {
    /// One network of these, at least one.
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

/// Networks of the understanding expert that an export lists, in order.
fn group_names(folder: &Path, summary: &Summary) -> Result<Vec<String>, NetworksError> {
    let is_understanding = |name: &String| {
        name == understanding::NETWORK || understanding::group_number(name).is_some()
    };
    let mut found = summary.network_names();
    found.retain(is_understanding);
    let is_group =
        |(place, name): (usize, &String)| understanding::group_number(name) == Some(place);
    let is_whole = found == [understanding::NETWORK];
    if is_whole || (!found.is_empty() && found.iter().enumerate().all(is_group)) {
        return Ok(found);
    }
    Err(NetworksError::GroupNames { folder: folder.to_owned(), found })
}

/// Checks that an export is of this family.
fn check_family(folder: &Path, summary: &Summary) -> Result<(), NetworksError> {
    if summary.model == NAME {
        return Ok(());
    }
    let (folder, found) = (folder.to_owned(), shortened(&summary.model));
    Err(NetworksError::Family { folder, found })
}

/// Refuses contracts of networks that the summary does not list.
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

/// Checks the places and tensors of layer groups.
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
        begins(folder, &network, "output", &contract.outputs, &given)?;
        let Some(before) = before else {
            let inputs = understanding::INPUTS.map(str::to_owned);
            begins(folder, &network, "input", &contract.inputs, &inputs)?;
            continue;
        };
        begins(folder, &network, "input", &contract.inputs, std::slice::from_ref(&before))?;
        fits(&groups[index - 1], contract, &before)?;
        for spec in &contract.inputs[1..] {
            let expected = first.input(&spec.name).map(|place| describe(&first.inputs[place]));
            let found = describe(spec);
            if expected.as_ref() != Some(&found) {
                return Err(NetworksError::Shared {
                    network,
                    tensor: spec.name.clone(),
                    found,
                    expected: expected.unwrap_or_else(nothing),
                });
            }
        }
    }
    Ok(())
}

/// The layout of the prefix that the action expert reads: keys `[heads, capacity, key_dim]`.
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

fn begins(
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

fn fits(from: &Contract, to: &Contract, tensor: &str) -> Result<(), NetworksError> {
    let given = from.output(tensor).map(|index| describe(&from.outputs[index]));
    let taken = to.input(tensor).map(|index| describe(&to.inputs[index]));
    if given == taken {
        return Ok(());
    }
    Err(NetworksError::Misfit {
        from: from.network.clone(),
        to: to.network.clone(),
        tensor: tensor.to_owned(),
        given: given.unwrap_or_else(nothing).into(),
        taken: taken.unwrap_or_else(nothing).into(),
    })
}

fn nothing() -> String {
    "nothing of that name".to_owned()
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
