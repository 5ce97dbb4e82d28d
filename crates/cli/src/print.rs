//! Output to the terminal.

use super::rebuild;
use anyhow::Context;
use std::io::{self, Write};
use std::path::Path;
use std::sync::OnceLock;

/// First error of standard output, which decides the exit code.
static OUTPUT_ERROR: OnceLock<io::Error> = OnceLock::new();

/// Maximum length of a line on standard error, characters: text quoted from files may be long.
const MAX_NOTE_CHARS: usize = 1_500;

/// Maximum length of the message of an error or of one of its causes, characters.
const MAX_MESSAGE_CHARS: usize = 600;

/// Writes one line to standard output. [`output_error`] returns the first error of these writes.
pub(super) fn line(text: &str) {
    let mut output = io::stdout().lock();
    output_result(writeln!(output, "{text}").and_then(|()| output.flush()));
}

/// Stores the error of a write to standard output, unless the reader closed it (`tandem … | head`).
pub(super) fn output_result(result: io::Result<()>) {
    if let Err(error) = result
        && error.kind() != io::ErrorKind::BrokenPipe
    {
        // The first error is kept; later ones follow from it.
        let _ = OUTPUT_ERROR.set(error);
    }
}

/// Returns the first error of standard output, such as a full disk.
pub(super) fn output_error() -> Option<anyhow::Error> {
    OUTPUT_ERROR.get().map(|error| anyhow::anyhow!("cannot write to standard output: {error}"))
}

/// Writes text to standard error, with long lines shortened.
pub(super) fn note(text: &str) {
    let _ = writeln!(io::stderr().lock(), "{}", short_lines(text));
}

/// Shortens lines to [`MAX_NOTE_CHARS`].
pub(super) fn short_lines(text: &str) -> String {
    let lines: Vec<String> = text.split('\n').map(|line| cut(line, MAX_NOTE_CHARS)).collect();
    lines.join("\n")
}

/// Returns `text`, or its beginning and its end if it is too long: messages end with the remedy.
fn cut(text: &str, longest: usize) -> String {
    let count = text.chars().count();
    if count <= longest {
        return text.to_owned();
    }
    let (head, tail) = (longest * 2 / 3, longest / 3);
    let head: String = text.chars().take(head).collect();
    let tail: String = text.chars().skip(count - tail).collect();
    format!("{head} … {tail}")
}

/// Writes an error and its causes. A cause that is already part of the message is not repeated.
pub(super) fn error(error: &anyhow::Error) {
    let mut text = format!("error: {}", cut(&error.to_string(), MAX_MESSAGE_CHARS));
    for cause in error.chain().skip(1) {
        let cause = cut(&cause.to_string(), MAX_MESSAGE_CHARS);
        if !text.contains(&cause) {
            text.push_str("\n  because: ");
            text.push_str(&cause);
        }
    }
    if let Some(command) = rebuild::command_for(error) {
        text.push_str(&format!("\n  command: `{command}`"));
    }
    note(&text);
}

/// Writes a file that appears complete or not at all.
pub(super) fn write_file(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    tandem_files::write(path, bytes).with_context(|| format!("cannot write {}", path.display()))
}

/// Formats rows as a table with a header line. Columns that are mostly numbers are right-aligned.
pub(super) fn table(header: &[&str], rows: &[Vec<String>]) -> String {
    let width = |column: usize| {
        rows.iter()
            .map(|row| row[column].chars().count())
            .chain([header[column].chars().count()])
            .max()
            .unwrap_or(0)
    };
    let widths: Vec<usize> = (0..header.len()).map(width).collect();
    let numeric = |column: usize| {
        let is_number = |cell: &str| {
            cell.is_empty()
                || cell.starts_with(|c: char| c.is_ascii_digit() || c == '-' || c == '–')
        };
        let numbers = rows.iter().filter(|row| is_number(&row[column])).count();
        column > 0 && 2 * numbers > rows.len()
    };
    let right: Vec<bool> = (0..header.len()).map(numeric).collect();
    let line = |cells: &[&str]| {
        let mut text = String::new();
        for (column, cell) in cells.iter().enumerate() {
            let pad = " ".repeat(widths[column] - cell.chars().count());
            if column > 0 {
                text.push_str("  ");
            }
            if right[column] {
                text.push_str(&pad);
                text.push_str(cell);
            } else {
                text.push_str(cell);
                text.push_str(&pad);
            }
        }
        text.trim_end().to_owned()
    };
    let rule: Vec<String> = widths.iter().map(|&width| "─".repeat(width)).collect();
    let rule: Vec<&str> = rule.iter().map(String::as_str).collect();
    let mut lines = vec![line(header), line(&rule)];
    lines.extend(rows.iter().map(|row| line(&row.iter().map(String::as_str).collect::<Vec<_>>())));
    lines.join("\n")
}

/// Formats a number with three significant digits and all digits before the point: `0.858`, `2039`.
pub(super) fn three_digits(value: f64) -> String {
    if value == 0.0 || !value.is_finite() {
        return value.to_string();
    }
    format!("{value:.*}", decimals(value))
}

/// Returns the number of decimals for three significant digits.
fn decimals(value: f64) -> usize {
    // The exponent is that of the rounded number: 9.996 is printed as 10.0.
    let rounded = format!("{value:.2e}");
    let exponent = rounded.split_once('e').and_then(|(_, exponent)| exponent.parse::<i32>().ok());
    usize::try_from(2 - exponent.unwrap_or(0)).unwrap_or(0)
}

/// Formats nanoseconds in milliseconds, with three significant digits down to 0.1 µs.
pub(super) fn millis(nanos: u64) -> String {
    let ms = nanos as f64 / 1e6;
    format!("{ms:.*}", decimals(ms).min(4))
}

/// Formats bytes in MB (10⁶ bytes).
pub(super) fn megabytes(bytes: u64) -> String {
    format!("{:.1}", bytes as f64 / 1e6)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_align_right_and_text_left() {
        let rows = vec![vec!["tick".into(), "5".into()], vec!["bev".into(), "1234".into()]];
        let text = table(&["stage", "count"], &rows);
        assert_eq!(text, "stage  count\n─────  ─────\ntick       5\nbev     1234");
        let skipped = vec![vec!["response".into(), "skipped".into()]];
        let text = table(&["stage", "p99 ms"], &[rows, skipped].concat());
        assert!(text.ends_with("bev          1234\nresponse  skipped"), "{text}");
    }

    #[test]
    fn numbers_have_three_significant_digits() {
        let cases = [
            (0.0, "0"),
            (0.000_123_4, "0.000123"),
            (0.858, "0.858"),
            (9.994, "9.99"),
            (9.996, "10.0"),
            (99.96, "100"),
            (150.0, "150"),
            (2038.51, "2039"),
            (-12.34, "-12.3"),
        ];
        for (value, expected) in cases {
            assert_eq!(three_digits(value), expected);
        }
        assert_eq!([49_876_543, 700, 0].map(millis), ["49.9", "0.0007", "0.00"]);
    }

    #[test]
    fn long_messages_keep_their_beginning_and_their_end() {
        let text = format!("cannot find {:?}: name another", "ß".repeat(100_000));
        let short = cut(&text, 600);
        assert!(short.starts_with("cannot find \"ß") && short.ends_with("ß\": name another"));
        assert!(short.chars().count() < 610);
    }

    #[test]
    fn cause_in_the_message_is_not_repeated() {
        let cause = std::io::Error::other("disk full");
        let error = anyhow::Error::new(cause).context("cannot write x: disk full");
        assert_eq!(format!("{error:#}"), "cannot write x: disk full: disk full");
    }
}
