//! File names made from arbitrary text.

use sha2::{Digest, Sha256};

/// Maximum length of a component, bytes; leaves room for suffixes and temporary names within the
/// limit of file systems (255 bytes).
const LONGEST: usize = 180;

/// Number of hexadecimal digits that distinguish components with the same truncated beginning.
const DIGITS: usize = 8;

/// Converts `text` to a single path component that cannot leave its folder and is not hidden.
/// Separators, control characters and a leading `.` become `_`; other characters are kept. Text
/// that is too long is truncated and ends with a part of its SHA-256.
pub fn path_component(text: &str) -> String {
    let is_unsafe =
        |at: usize, c: char| matches!(c, '/' | '\\') || c.is_control() || (at == 0 && c == '.');
    let replaced = |(at, c)| if is_unsafe(at, c) { '_' } else { c };
    let mut component: String = text.char_indices().map(replaced).collect();
    if component.is_empty() {
        return "_".to_owned();
    }
    if component.len() > LONGEST {
        component.truncate(component.floor_char_boundary(LONGEST - DIGITS - 1));
        component.push('-');
        let digest = Sha256::digest(text);
        component.extend(digest.iter().take(DIGITS / 2).map(|byte| format!("{byte:02x}")));
    }
    component
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn official_names_are_unchanged() {
        let name = "RouteScenario_1711_rep0_Town12_ParkingCutIn_1_15_11_21_10_00_00";
        assert_eq!(path_component(name), name);
    }

    #[test]
    fn separators_and_leading_dots_are_replaced() {
        for (text, expected) in [
            ("../../etc/passwd", "_._.._etc_passwd"),
            ("..", "_."),
            (".", "_"),
            ("", "_"),
            (".hidden", "_hidden"),
            ("a\\b:c\0d\n", "a_b:c_d_"),
            ("Straße 7", "Straße 7"),
        ] {
            assert_eq!(path_component(text), expected, "{text:?}");
        }
    }

    #[test]
    fn truncated_names_stay_different() {
        let [first, second] = ["x", "y"].map(|end| path_component(&("ä".repeat(9_000) + end)));
        assert!(first.len() <= LONGEST && second.len() <= LONGEST);
        assert_ne!(first, second);
    }
}
