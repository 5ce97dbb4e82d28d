//! The four networks of AutoMoT, loaded and checked against each other.
//!
//! The only place that spells tensor names.

use crate::engine::{Backend, Engine, LoadError, NetworkFile, NetworkFileError};
use crate::kv_cache::Layout;
use std::path::Path;
use std::sync::Arc;
use tandem_export::contract::{Contract, TensorSpec};

/// One frame → image tokens and deepstack maps.
pub mod vision {
    /// Name of the network.
    pub const NETWORK: &str = "vision";
    /// Inputs, in order.
    pub const INPUTS: [&str; 1] = ["patches"];
    /// Outputs, in order.
    pub const OUTPUTS: [&str; 2] = ["image_tokens", "deepstack"];
}

/// Prompt and image tokens → keys and values.
pub mod understanding {
    /// Name of the network.
    pub const NETWORK: &str = "understanding";
    /// Inputs, in order.
    pub const INPUTS: [&str; 6] =
        ["token_ids", "image_slot", "position_ids", "visible_until", "image_tokens", "deepstack"];
}

/// Image and LiDAR histogram → BEV tokens.
pub mod bev {
    /// Name of the network.
    pub const NETWORK: &str = "bev";
    /// Inputs, in order.
    pub const INPUTS: [&str; 2] = ["image", "lidar"];
    /// Outputs, in order.
    pub const OUTPUTS: [&str; 1] = ["bev_tokens"];
}

/// BEV tokens, ego state and prefix → route, waypoints, decision.
pub mod action {
    /// Name of the network.
    pub const NETWORK: &str = "action";
    /// Inputs before the keys and values, in order.
    pub const INPUTS: [&str; 4] = ["bev_tokens", "state", "position", "prefix_length"];
    /// Outputs, in order.
    pub const OUTPUTS: [&str; 3] = ["route", "waypoints", "decision_ids"];
}

/// The four engines, whose shapes fit each other.
#[derive(Clone)]
pub struct Networks {
    /// Vision tower.
    pub vision: Arc<dyn Engine>,
    /// Understanding expert.
    pub understanding: Arc<dyn Engine>,
    /// BEV encoder.
    pub bev: Arc<dyn Engine>,
    /// Action expert.
    pub action: Arc<dyn Engine>,
    /// Layout of a prefix.
    pub prefix: Layout,
}

/// The networks of a folder cannot drive.
#[derive(Debug, thiserror::Error)]
pub enum NetworksError {
    /// A file cannot be read.
    #[error(transparent)]
    File(#[from] NetworkFileError),
    /// A network cannot be loaded.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// A network lacks a tensor, or has it at another place.
    #[error(
        "network {network:?} of {folder:?} is not AutoMoT's: its {what}s begin {found:?}, AutoMoT's are {expected:?}"
    )]
    Tensors {
        /// The network.
        network: &'static str,
        /// The folder.
        folder: std::path::PathBuf,
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
         takes {taken}; they come from a checkpoint whose parts were not trained together"
    )]
    Misfit {
        /// The producing network.
        from: &'static str,
        /// The consuming network.
        to: &'static str,
        /// The tensor.
        tensor: String,
        /// Type and shape produced.
        given: String,
        /// Type and shape consumed.
        taken: String,
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
    /// A size is missing from a contract.
    #[error(
        "the contract of network {network:?} does not say {key:?}; export the checkpoint again"
    )]
    Size {
        /// The network.
        network: &'static str,
        /// The missing size.
        key: &'static str,
    },
}

impl Networks {
    /// Loads the networks of an engine folder: `fast` runs the BEV encoder and the action expert,
    /// `slow` the vision tower and the understanding expert.
    ///
    /// # Errors
    /// If a file or network cannot be loaded, is not AutoMoT's, or the four do not fit each other.
    pub fn load(
        folder: &Path,
        fast: &dyn Backend,
        slow: &dyn Backend,
    ) -> Result<Self, NetworksError> {
        let load = |backend: &dyn Backend, name| -> Result<Arc<dyn Engine>, NetworksError> {
            Ok(backend.load(&NetworkFile::read(folder, name)?)?)
        };
        let vision = load(slow, vision::NETWORK)?;
        let understanding = load(slow, understanding::NETWORK)?;
        let bev = load(fast, bev::NETWORK)?;
        let action = load(fast, action::NETWORK)?;
        let expect = |engine: &Arc<dyn Engine>, network, inputs: &[String], outputs: &[String]| {
            let contract = engine.contract();
            begins(folder, network, "input", &contract.inputs, inputs)?;
            begins(folder, network, "output", &contract.outputs, outputs)
        };
        let names = |names: &[&str]| names.iter().map(|name| name.to_string()).collect::<Vec<_>>();
        let layers = action.contract().inputs.len().saturating_sub(action::INPUTS.len()) / 2;
        let prefix_names: Vec<String> = (0..layers).flat_map(prefix_tensors).collect();
        expect(&vision, vision::NETWORK, &names(&vision::INPUTS), &names(&vision::OUTPUTS))?;
        expect(
            &understanding,
            understanding::NETWORK,
            &names(&understanding::INPUTS),
            &prefix_names,
        )?;
        expect(&bev, bev::NETWORK, &names(&bev::INPUTS), &names(&bev::OUTPUTS))?;
        let action_inputs = [names(&action::INPUTS), prefix_names].concat();
        expect(&action, action::NETWORK, &action_inputs, &names(&action::OUTPUTS))?;

        fits(bev.contract(), bev::NETWORK, action.contract(), action::NETWORK, "bev_tokens")?;
        for layer in 0..layers {
            for tensor in prefix_tensors(layer) {
                fits(
                    understanding.contract(),
                    understanding::NETWORK,
                    action.contract(),
                    action::NETWORK,
                    &tensor,
                )?;
            }
        }
        let prefix = prefix_layout(action.contract(), layers);
        Ok(Self { vision, understanding, bev, action, prefix })
    }
}

/// Names of one layer's keys and values, in binding order.
pub fn prefix_tensors(layer: usize) -> [String; 2] {
    [format!("keys.{layer}"), format!("values.{layer}")]
}

/// The layout of the prefix that the action expert reads: keys `[heads, capacity, key_dim]`.
fn prefix_layout(action: &Contract, layers: usize) -> Layout {
    let keys = &action.inputs[action::INPUTS.len()];
    let values = &action.inputs[action::INPUTS.len() + 1];
    Layout {
        layers,
        heads: keys.shape[0],
        capacity: keys.shape[1],
        key_dim: keys.shape[2],
        value_dim: values.shape[2],
        dtype: keys.dtype,
    }
}

fn begins(
    folder: &Path,
    network: &'static str,
    what: &'static str,
    specs: &[TensorSpec],
    expected: &[String],
) -> Result<(), NetworksError> {
    let found: Vec<String> = specs.iter().map(|spec| spec.name.clone()).collect();
    if found.starts_with(expected) {
        return Ok(());
    }
    let (folder, expected) = (folder.to_owned(), expected.to_vec());
    Err(NetworksError::Tensors { network, folder, what, expected, found })
}

fn fits(
    from: &Contract,
    from_name: &'static str,
    to: &Contract,
    to_name: &'static str,
    tensor: &str,
) -> Result<(), NetworksError> {
    let given = from.output(tensor).map(|index| describe(&from.outputs[index]));
    let taken = to.input(tensor).map(|index| describe(&to.inputs[index]));
    if given == taken {
        return Ok(());
    }
    let nothing = || "nothing of that name".to_owned();
    Err(NetworksError::Misfit {
        from: from_name,
        to: to_name,
        tensor: tensor.to_owned(),
        given: given.unwrap_or_else(nothing),
        taken: taken.unwrap_or_else(nothing),
    })
}

fn describe(spec: &TensorSpec) -> String {
    format!("{} {:?}", spec.dtype, spec.shape)
}

/// A size from a contract.
///
/// # Errors
/// If the contract lacks it.
pub fn size(
    contract: &Contract,
    network: &'static str,
    key: &'static str,
) -> Result<f64, NetworksError> {
    contract.sizes.get(key).copied().ok_or(NetworksError::Size { network, key })
}
