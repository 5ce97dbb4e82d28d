//! Writing to the terminal.

use super::rebuild;
use anyhow::Context;
use std::io::{self, Write};
use std::path::Path;
use std::sync::OnceLock;

/// The first error of standard output, for the exit code.
static OUTPUT_ERROR: OnceLock<io::Error> = OnceLock::new();

/// Longest line on standard error, characters: quoted text of files may have any length.
const LONGEST_NOTE: usize = 1_500;

/// Longest message of an error or of one of its causes, characters.
const LONGEST_MESSAGE: usize = 600;

/// Writes one line to standard output. An error is returned by [`output_error`] when the verb ends.
pub(super) fn line(text: &str) {
    let mut output = io::stdout().lock();
    output_result(writeln!(output, "{text}").and_then(|()| output.flush()));
}

/// Keeps the error of a write to standard output. A reader that closed its pipe (`tandem … | head`)
/// has what it wants, which is not an error.
pub(super) fn output_result(result: io::Result<()>) {
    if let Err(error) = result
        && error.kind() != io::ErrorKind::BrokenPipe
    {
        // Later errors follow from the first.
        let _ = OUTPUT_ERROR.set(error);
    }
}

/// The first error of standard output, such as a full disk.
pub(super) fn output_error() -> Option<anyhow::Error> {
    OUTPUT_ERROR.get().map(|error| anyhow::anyhow!("cannot write to standard output: {error}"))
}

/// Writes text to standard error, with long lines shortened.
pub(super) fn note(text: &str) {
    let _ = writeln!(io::stderr().lock(), "{}", short_lines(text));
}

/// Shortens lines that are longer than any that people read.
pub(super) fn short_lines(text: &str) -> String {
    let lines: Vec<String> = text.split('\n').map(|line| cut(line, LONGEST_NOTE)).collect();
    lines.join("\n")
}

/// `text`, or its beginning and its end: what to do comes last in a message.
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

/// Writes an error with its causes, each once: a message that already ends in its cause's words is
/// not followed by them again.
pub(super) fn error(error: &anyhow::Error) {
    let mut text = format!("error: {}", cut(&error.to_string(), LONGEST_MESSAGE));
    for cause in error.chain().skip(1) {
        let cause = cut(&cause.to_string(), LONGEST_MESSAGE);
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

/// Writes a file that appears whole or not at all.
pub(super) fn whole_file(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    tandem_files::write(path, bytes).with_context(|| format!("cannot write {}", path.display()))
}

/// Rows as an aligned table with a header line; columns whose cells are numbers align right.
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
        column > 0 && rows.iter().all(|row| is_number(&row[column]))
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

/// Millions of bytes.
pub(super) fn megabytes(bytes: u64) -> String {
    format!("{:.1}", bytes as f64 / 1e6)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_align_right_and_words_left() {
        let rows = vec![vec!["tick".into(), "5".into()], vec!["bev".into(), "1234".into()]];
        let text = table(&["stage", "count"], &rows);
        assert_eq!(text, "stage  count\n─────  ─────\ntick       5\nbev     1234");
    }

    #[test]
    fn long_messages_keep_their_beginning_and_their_end() {
        let text = format!("there is no {:?}: give another", "ß".repeat(100_000));
        let short = cut(&text, 600);
        assert!(short.starts_with("there is no \"ß") && short.ends_with("ß\": give another"));
        assert!(short.chars().count() < 610);
    }

    #[test]
    fn a_cause_that_was_already_said_is_not_said_again() {
        let cause = std::io::Error::other("disk full");
        let error = anyhow::Error::new(cause).context("cannot write x: disk full");
        assert_eq!(format!("{error:#}"), "cannot write x: disk full: disk full");
    }
}
