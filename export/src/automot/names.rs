//! Names of AutoMoT's networks and of their inputs and outputs.
//!
//! The exporter writes these names, and the runtime checks and binds them.

/// Vision tower: one frame → image tokens and deepstack maps.
pub mod vision {
    /// Name of the network of the vision tower.
    pub const NETWORK: &str = "vision";
    /// Input: patches of the frame.
    pub const PATCHES: &str = "patches";
    /// Output: tokens of the frame after merging.
    pub const IMAGE_TOKENS: &str = "image_tokens";
    /// Output: maps that are added after the first text layers.
    pub const DEEPSTACK: &str = "deepstack";
    /// Names of the inputs in binding order.
    pub const INPUTS: [&str; 1] = [PATCHES];
    /// Names of the outputs in binding order.
    pub const OUTPUTS: [&str; 2] = [IMAGE_TOKENS, DEEPSTACK];
}

/// Understanding expert: prompt and image tokens → keys and values.
pub mod understanding {
    pub use super::vision::{DEEPSTACK, IMAGE_TOKENS};

    /// Name of the network. With layer groups: `understanding.0`, `understanding.1` …
    pub const NETWORK: &str = "understanding";
    /// Input: token ids of the prompt.
    pub const TOKEN_IDS: &str = "token_ids";
    /// Input: index of the image token at each position.
    pub const IMAGE_SLOT: &str = "image_slot";
    /// Input: positions in time, height and width.
    pub const POSITION_IDS: &str = "position_ids";
    /// Input: end of the range to which each token attends.
    pub const VISIBLE_UNTIL: &str = "visible_until";
    /// Inputs in binding order. The first layer group has all of them. A later group has the hidden
    /// states of the previous group and those of these inputs that it reads.
    pub const INPUTS: [&str; 6] =
        [TOKEN_IDS, IMAGE_SLOT, POSITION_IDS, VISIBLE_UNTIL, IMAGE_TOKENS, DEEPSTACK];
    /// Prefix of the name of the hidden states after a layer, which one group passes to the next.
    pub const HIDDEN: &str = "hidden.";

    /// Returns the name of the network of a layer group.
    pub fn group(index: usize) -> String {
        format!("{NETWORK}.{index}")
    }

    /// Returns the index of the layer group of a network; `None` for other networks.
    pub fn group_number(name: &str) -> Option<usize> {
        let number = name.strip_prefix(NETWORK)?.strip_prefix('.')?;
        // Only the canonical form: "00" would be another name of group 0.
        number.parse().ok().filter(|group: &usize| group.to_string() == number)
    }

    /// Returns the name of the hidden states after a layer.
    pub fn hidden(layer: usize) -> String {
        format!("{HIDDEN}{layer}")
    }
}

/// BEV encoder: image and LiDAR histogram → BEV tokens.
pub mod bev {
    /// Name of the network of the BEV encoder.
    pub const NETWORK: &str = "bev";
    /// Input: image of the front camera.
    pub const IMAGE: &str = "image";
    /// Input: histogram of LiDAR points.
    pub const LIDAR: &str = "lidar";
    /// Output: tokens of the BEV feature.
    pub const BEV_TOKENS: &str = "bev_tokens";
    /// Names of the inputs in binding order.
    pub const INPUTS: [&str; 2] = [IMAGE, LIDAR];
    /// Names of the outputs in binding order.
    pub const OUTPUTS: [&str; 1] = [BEV_TOKENS];
}

/// Action expert: BEV tokens, ego state and prefix KV cache → route, waypoints, decision.
pub mod action {
    pub use super::bev::BEV_TOKENS;

    /// Name of the network of the action expert.
    pub const NETWORK: &str = "action";
    /// Input: speed and target points.
    pub const STATE: &str = "state";
    /// Input: position of the first own token.
    pub const POSITION: &str = "position";
    /// Input: number of valid tokens of the prefix.
    pub const PREFIX_LENGTH: &str = "prefix_length";
    /// Output: points of the path.
    pub const ROUTE: &str = "route";
    /// Output: waypoints, half a second apart.
    pub const WAYPOINTS: &str = "waypoints";
    /// Output: tokens of the decision.
    pub const DECISION_IDS: &str = "decision_ids";
    /// Inputs before the keys and values, in binding order.
    pub const INPUTS: [&str; 4] = [BEV_TOKENS, STATE, POSITION, PREFIX_LENGTH];
    /// Names of the outputs in binding order.
    pub const OUTPUTS: [&str; 3] = [ROUTE, WAYPOINTS, DECISION_IDS];
}

/// Names of the networks in execution order. With more than one layer group, the groups of the
/// understanding expert replace `understanding`.
pub const NETWORKS: [&str; 4] =
    [vision::NETWORK, understanding::NETWORK, bev::NETWORK, action::NETWORK];

pub use crate::nn::PROBE;

/// Prefix of the name of a layer's keys.
const KEYS: &str = "keys.";

/// Prefix of the name of a layer's values.
const VALUES: &str = "values.";

/// Returns the names of a layer's keys and values in binding order.
pub fn prefix_tensors(layer: usize) -> [String; 2] {
    [format!("{KEYS}{layer}"), format!("{VALUES}{layer}")]
}

/// Part of the prefix KV cache that a tensor belongs to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PrefixPart {
    Keys,
    Values,
}

impl PrefixPart {
    /// Returns the part to which a tensor belongs by its name; `None` for other tensors.
    pub fn of(name: &str) -> Option<Self> {
        [(KEYS, Self::Keys), (VALUES, Self::Values)]
            .into_iter()
            .find_map(|(start, part)| name.starts_with(start).then_some(part))
    }
}

/// True if an export may have a network of this name.
pub fn is_network(name: &str) -> bool {
    NETWORKS.contains(&name) || understanding::group_number(name).is_some()
}

/// Sorts names of networks into execution order. Unknown names come last.
pub fn sort_networks(names: &mut [String]) {
    let position = |name: &str| {
        let stem = understanding::group_number(name).map_or(name, |_| understanding::NETWORK);
        NETWORKS.iter().position(|known| *known == stem).unwrap_or(NETWORKS.len())
    };
    names.sort_by_cached_key(|name| {
        (position(name), understanding::group_number(name), name.clone())
    });
}

#[cfg(test)]
mod tests {
    use super::understanding::group_number;
    use super::*;

    #[test]
    fn networks_are_sorted_into_execution_order() {
        let groups = (0..12).map(understanding::group);
        let expected: Vec<String> = ["vision".to_owned()]
            .into_iter()
            .chain(groups)
            .chain(["bev", "action", "something"].map(str::to_owned))
            .collect();
        let mut names = expected.clone();
        names.sort();
        assert_ne!(names, expected);
        sort_networks(&mut names);
        assert_eq!(names, expected);
    }

    #[test]
    fn group_number_accepts_only_the_canonical_name() {
        assert_eq!(group_number("understanding.10"), Some(10));
        for name in ["understanding", "understanding.", "understanding.01", "understanding.+1"] {
            assert_eq!(group_number(name), None, "{name}");
        }
        assert!(is_network("understanding") && !is_network("understanding.x"));
        assert!(!is_network("vision.0"));
    }
}
