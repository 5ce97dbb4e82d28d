//! JSON in Python's dialect, with the numbers `NaN`, `Infinity` and `-Infinity`.

use serde_json::Value;

/// Tokens of numbers that are not finite, longest first.
const NOT_FINITE: [&str; 3] = ["-Infinity", "Infinity", "NaN"];

/// Parses JSON. Numbers that are not finite become null; a byte order mark is skipped.
pub(super) fn parse(text: &str) -> Result<Value, serde_json::Error> {
    let text = text.trim_start_matches('\u{feff}');
    serde_json::from_str(text).or_else(|error| match without_not_finite(text) {
        Some(text) => serde_json::from_str(&text),
        None => Err(error),
    })
}

/// Replaces every number that is not finite by null; returns `None` if all are finite.
fn without_not_finite(text: &str) -> Option<String> {
    let mut out = String::with_capacity(text.len());
    let (mut is_in_string, mut is_found) = (false, false);
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let token = NOT_FINITE.iter().find(|token| !is_in_string && rest.starts_with(**token));
        if let Some(token) = token {
            out += "null";
            rest = &rest[token.len()..];
            is_found = true;
            continue;
        }
        // An escape is two characters of a string, the second of which may be a quote.
        let is_escape = is_in_string && c == '\\';
        let taken =
            if is_escape { rest.chars().take(2).map(char::len_utf8).sum() } else { c.len_utf8() };
        is_in_string ^= c == '"';
        out += &rest[..taken];
        rest = &rest[taken..];
    }
    is_found.then_some(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn non_finite_numbers_become_null() {
        let text = r#"{"NaN": [NaN, -Infinity, Infinity, 1.5], "a\"NaN": "Infinity \\"}"#;
        let expected = json!({ "NaN": [null, null, null, 1.5], "a\"NaN": "Infinity \\" });
        assert_eq!(parse(text).unwrap(), expected);
        assert_eq!(parse("\u{feff}[1]").unwrap(), json!([1]));
    }

    #[test]
    fn other_text_is_rejected() {
        for text in ["", "{", "nan", "NaNs", "[1, -NaN]", "\"NaN", "[1] NaN"] {
            assert!(parse(text).is_err(), "{text:?}");
        }
    }
}
