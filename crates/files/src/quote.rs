//! Truncated texts for messages.

use std::fmt::Display;

/// Maximum number of characters of a text in a message.
const SHOWN: usize = 60;

/// Returns the beginning of a text for a message, with `…` where it was truncated.
pub fn shortened(text: impl Display) -> String {
    let text = text.to_string();
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

/// Maximum number of characters of an error message, at its beginning and at its end.
const SHOWN_OF_ERROR: [usize; 2] = [400, 100];

/// Returns the text of an error with the middle of long texts replaced by `…`. Parsers quote the
/// input and end with its position.
pub fn shortened_error(error: impl Display) -> String {
    let text = error.to_string();
    let [first, last] = SHOWN_OF_ERROR;
    let end = text.char_indices().nth(first).map(|(at, _)| at);
    let start = text.char_indices().rev().nth(last - 1).map(|(at, _)| at);
    match (end, start) {
        (Some(end), Some(start)) if end < start => format!("{}…{}", &text[..end], &text[start..]),
        _ => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_text_is_truncated_between_characters() {
        assert_eq!(shortened("ß".repeat(SHOWN)), "ß".repeat(SHOWN));
        assert_eq!(shortened("ß".repeat(100_000)), "ß".repeat(SHOWN) + "…");
    }

    #[test]
    fn long_errors_keep_their_beginning_and_end() {
        let short = "ß".repeat(500);
        assert_eq!(shortened_error(&short), short);
        let long = format!("unknown key {} at line 3", "ß".repeat(100_000));
        let shown = shortened_error(&long);
        assert!(shown.starts_with("unknown key ß") && shown.ends_with("ß at line 3"), "{shown}");
        assert_eq!(shown.chars().count(), 501);
        assert_eq!(shortened_error(""), "");
    }
}
