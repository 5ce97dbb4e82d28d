//! Writing to the terminal.

use crate::evaluation::record::write_whole;
use anyhow::Context;
use std::io::Write;
use std::path::Path;

/// Writes one line to standard output. A closed pipe (`tandem … | head`) is not our problem.
pub(super) fn line(text: &str) {
    let _ = writeln!(std::io::stdout().lock(), "{text}");
}

/// Writes one line to standard error.
pub(super) fn note(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}

/// Writes an error with its causes, each once: a message that already ends in its cause's words is
/// not followed by them again.
pub(super) fn error(error: &anyhow::Error) {
    let mut text = format!("error: {error}");
    for cause in error.chain().skip(1) {
        let cause = cause.to_string();
        if !text.contains(&cause) {
            text.push_str("\n  because: ");
            text.push_str(&cause);
        }
    }
    note(&text);
}

/// Writes a file that appears whole or not at all.
pub(super) fn whole_file(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    write_whole(path, bytes).with_context(|| format!("cannot write {}", path.display()))
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
    fn a_cause_that_was_already_said_is_not_said_again() {
        let cause = std::io::Error::other("disk full");
        let error = anyhow::Error::new(cause).context("cannot write x: disk full");
        assert_eq!(format!("{error:#}"), "cannot write x: disk full: disk full");
    }
}
