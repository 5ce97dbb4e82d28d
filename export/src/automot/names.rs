//! Names of AutoMoT's networks and of their inputs and outputs.
//!
//! The exporter writes them and the runtime checks and binds them; both take them from here.

/// One frame → image tokens and deepstack maps.
pub mod vision {
    /// Name of the network.
    pub const NETWORK: &str = "vision";
    /// Patches of the frame.
    pub const PATCHES: &str = "patches";
    /// Tokens of the frame after merging.
    pub const IMAGE_TOKENS: &str = "image_tokens";
    /// Maps that are added after the first text layers.
    pub const DEEPSTACK: &str = "deepstack";
    /// Inputs, in order.
    pub const INPUTS: [&str; 1] = [PATCHES];
    /// Outputs, in order.
    pub const OUTPUTS: [&str; 2] = [IMAGE_TOKENS, DEEPSTACK];
}

/// Prompt and image tokens → keys and values.
pub mod understanding {
    pub use super::vision::{DEEPSTACK, IMAGE_TOKENS};

    /// Name of the network. With layer groups: `understanding.0`, `understanding.1` …
    pub const NETWORK: &str = "understanding";
    /// Token ids of the prompt.
    pub const TOKEN_IDS: &str = "token_ids";
    /// Index of the image token at each position.
    pub const IMAGE_SLOT: &str = "image_slot";
    /// Positions in time, height and width.
    pub const POSITION_IDS: &str = "position_ids";
    /// End of what each token attends to.
    pub const VISIBLE_UNTIL: &str = "visible_until";
    /// Inputs, in order. The first layer group has all of them; a later group has the hidden states
    /// of the group before it, and those of these that it reads.
    pub const INPUTS: [&str; 6] =
        [TOKEN_IDS, IMAGE_SLOT, POSITION_IDS, VISIBLE_UNTIL, IMAGE_TOKENS, DEEPSTACK];
    /// Start of the name of the hidden states after a layer, which one group passes to the next.
    pub const HIDDEN: &str = "hidden.";

    /// Name of the network of one layer group.
    pub fn group(index: usize) -> String {
        format!("{NETWORK}.{index}")
    }

    /// Index of the layer group that a network of this name computes; `None` for other networks.
    pub fn group_number(name: &str) -> Option<usize> {
        let number = name.strip_prefix(NETWORK)?.strip_prefix('.')?;
        // Only the canonical form: "00" would be a second name of group 0.
        number.parse().ok().filter(|group: &usize| group.to_string() == number)
    }

    /// Name of the hidden states after a layer.
    pub fn hidden(layer: usize) -> String {
        format!("{HIDDEN}{layer}")
    }
}

/// Image and LiDAR histogram → BEV tokens.
pub mod bev {
    /// Name of the network.
    pub const NETWORK: &str = "bev";
    /// Camera picture.
    pub const IMAGE: &str = "image";
    /// LiDAR histogram.
    pub const LIDAR: &str = "lidar";
    /// Tokens of the BEV feature.
    pub const BEV_TOKENS: &str = "bev_tokens";
    /// Inputs, in order.
    pub const INPUTS: [&str; 2] = [IMAGE, LIDAR];
    /// Outputs, in order.
    pub const OUTPUTS: [&str; 1] = [BEV_TOKENS];
}

/// BEV tokens, ego state and prefix KV cache → route, waypoints, decision.
pub mod action {
    pub use super::bev::BEV_TOKENS;

    /// Name of the network.
    pub const NETWORK: &str = "action";
    /// Speed and target points.
    pub const STATE: &str = "state";
    /// Position of the first own token.
    pub const POSITION: &str = "position";
    /// Number of valid tokens of the prefix.
    pub const PREFIX_LENGTH: &str = "prefix_length";
    /// Path points.
    pub const ROUTE: &str = "route";
    /// Waypoints.
    pub const WAYPOINTS: &str = "waypoints";
    /// Tokens of the decision.
    pub const DECISION_IDS: &str = "decision_ids";
    /// Inputs before the keys and values, in order.
    pub const INPUTS: [&str; 4] = [BEV_TOKENS, STATE, POSITION, PREFIX_LENGTH];
    /// Outputs, in order.
    pub const OUTPUTS: [&str; 3] = [ROUTE, WAYPOINTS, DECISION_IDS];
}

/// Names of the networks, in the order in which they run. With more than one layer group, the groups
/// of the understanding expert replace `understanding`.
pub const NETWORKS: [&str; 4] =
    [vision::NETWORK, understanding::NETWORK, bev::NETWORK, action::NETWORK];

pub use crate::nn::PROBE;

/// Start of the name of a layer's keys.
const KEYS: &str = "keys.";

/// Start of the name of a layer's values.
const VALUES: &str = "values.";

/// Names of one layer's keys and values, in binding order.
pub fn prefix_tensors(layer: usize) -> [String; 2] {
    [format!("{KEYS}{layer}"), format!("{VALUES}{layer}")]
}

/// Part of the prefix KV cache that a tensor belongs to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PrefixPart {
    /// Keys of a layer.
    Keys,
    /// Values of a layer.
    Values,
}

impl PrefixPart {
    /// Part that a tensor of this name belongs to; `None` for other tensors.
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

/// Sorts names of networks into the order in which they run; unknown names come last.
pub fn sort_networks(names: &mut [String]) {
    let place = |name: &str| {
        let stem = understanding::group_number(name).map_or(name, |_| understanding::NETWORK);
        NETWORKS.iter().position(|known| *known == stem).unwrap_or(NETWORKS.len())
    };
    names.sort_by_cached_key(|name| (place(name), understanding::group_number(name), name.clone()));
}

#[cfg(test)]
mod tests {
    use super::understanding::group_number;
    use super::*;

    #[test]
    fn names_sort_into_the_order_of_running() {
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
    fn a_group_has_one_name() {
        assert_eq!(group_number("understanding.10"), Some(10));
        for name in ["understanding", "understanding.", "understanding.01", "understanding.+1"] {
            assert_eq!(group_number(name), None, "{name}");
        }
        assert!(is_network("understanding") && !is_network("understanding.x"));
        assert!(!is_network("vision.0"));
    }
}
