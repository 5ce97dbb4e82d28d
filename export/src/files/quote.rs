//! Text of files in messages.

use std::fmt::Display;

/// Characters shown of a text.
const SHOWN: usize = 60;

/// Returns the beginning of a text for a message, with `…` where it was cut.
pub fn shortened(text: impl Display) -> String {
    let text = text.to_string();
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_text_is_cut_between_characters() {
        assert_eq!(shortened("ß".repeat(SHOWN)), "ß".repeat(SHOWN));
        assert_eq!(shortened("ß".repeat(100_000)), "ß".repeat(SHOWN) + "…");
    }
}
