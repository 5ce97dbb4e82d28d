//! Run files of earlier versions, which have AutoMoT's options as top-level keys.

use serde_json::{Map, Value};

/// Family of these options.
const FAMILY: &str = "automot";

const KEYS: [&str; 5] =
    ["heuristics", "history_spacing_ticks", "instruction_mask", "positions", "jpeg_quality"];

/// Moves these options of `file` into a `model` block, unless it has one. Returns their keys.
pub(super) fn move_into_block(file: &mut Map<String, Value>) -> Vec<&'static str> {
    if file.contains_key("model") {
        return Vec::new();
    }
    let keys: Vec<_> = KEYS.into_iter().filter(|key| file.contains_key(*key)).collect();
    if !keys.is_empty() {
        let mut block = Map::from_iter([("family".to_owned(), FAMILY.into())]);
        block.extend(keys.iter().filter_map(|key| file.remove_entry(*key)));
        file.insert("model".to_owned(), block.into());
    }
    keys
}
