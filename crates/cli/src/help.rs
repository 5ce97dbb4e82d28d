//! Help of `tandem`: verbs grouped by job. The help of each verb ends with examples.

use super::Cli;
use clap::{Command, CommandFactory, FromArgMatches};

/// Jobs with their verbs, in the order of `tandem --help`.
pub(super) const JOBS: [(&str, &[&str]); 4] = [
    ("Build engines", &["checkpoint", "export", "build"]),
    ("Drive and evaluate", &["demo", "eval", "sweep", "score", "merge", "report", "record"]),
    ("Profile and measure", &["profile", "compare", "roofline"]),
    ("Inspect and check", &["inspect", "verify", "doctor"]),
];

/// Parses the arguments of this process.
pub(super) fn parse() -> Result<Cli, clap::Error> {
    let mut matches = command().try_get_matches()?;
    Cli::from_arg_matches_mut(&mut matches).map_err(|error| error.format(&mut command()))
}

/// Returns the command line of `tandem`, with the verbs grouped by job in its help.
pub(super) fn command() -> Command {
    let command = Cli::command();
    let template = template(&command);
    command.help_template(template)
}

/// Help template with one line per verb: clap groups options by headings, but not subcommands.
fn template(command: &Command) -> String {
    let styles = command.get_styles();
    let (header, literal) = (styles.get_header(), styles.get_literal());
    let verbs = JOBS.iter().flat_map(|(_, verbs)| *verbs);
    let width = verbs.map(|verb| verb.len()).max().unwrap_or(0);
    let mut text = "{about-with-newline}\n{usage-heading} {usage}\n".to_owned();
    for (job, verbs) in JOBS {
        text += &format!("\n{header}{job}:{header:#}\n");
        for verb in verbs {
            let about = command.find_subcommand(verb).and_then(Command::get_about);
            let about = about.map(ToString::to_string).unwrap_or_default();
            text += &format!("  {literal}{verb:width$}{literal:#}  {about}\n");
        }
    }
    text += &format!("\n{header}Options:{header:#}\n{{options}}{{after-help}}\n");
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;
    use std::collections::BTreeSet;

    /// Maximum length of a line of the list of verbs, so that it fits a terminal.
    const MAX_VERB_COLUMNS: usize = 80;

    /// Maximum length of an example, which is indented by 2: `max_term_width` wraps longer lines.
    const MAX_EXAMPLE_COLUMNS: usize = 98;

    /// Calls `check` for every verb, hidden ones included, with its full name.
    fn for_each_verb(command: &Command, name: &str, check: &mut impl FnMut(&str, &Command)) {
        for verb in command.get_subcommands().filter(|verb| verb.get_name() != "help") {
            let name = format!("{name} {}", verb.get_name());
            check(&name, verb);
            for_each_verb(verb, &name, check);
        }
    }

    #[test]
    fn every_visible_verb_has_one_job() {
        let listed: Vec<&str> = JOBS.iter().flat_map(|(_, verbs)| *verbs).copied().collect();
        let command = Cli::command();
        let visible = command.get_subcommands().filter(|verb| !verb.is_hide_set());
        let visible: BTreeSet<&str> = visible.map(Command::get_name).collect();
        assert_eq!(listed.len(), visible.len(), "a verb is listed twice or missing: {listed:?}");
        assert_eq!(listed.into_iter().collect::<BTreeSet<_>>(), visible);
    }

    #[test]
    fn help_lists_verbs_by_job_on_lines_that_fit() {
        let help = command().render_help().to_string();
        for (job, verbs) in JOBS {
            let list = help.split_once(&format!("\n{job}:\n")).expect(job).1;
            for (verb, line) in verbs.iter().zip(list.lines()) {
                assert!(line.trim_start().starts_with(verb), "{verb}: {line:?}");
                assert!(line.chars().count() <= MAX_VERB_COLUMNS, "too long: {line:?}");
            }
        }
        assert!(help.contains("\nOptions:\n") && help.contains("--version"), "{help}");
    }

    #[test]
    fn every_verb_has_an_example_that_parses() {
        for_each_verb(&Cli::command(), "tandem", &mut |name, verb| {
            let text = verb.get_after_help().map(ToString::to_string).unwrap_or_default();
            let examples: Vec<&str> =
                text.lines().map(str::trim).filter(|line| line.starts_with("tandem ")).collect();
            assert!(text.starts_with("Example") && !examples.is_empty(), "{name} has no example");
            for example in examples {
                assert!(example.starts_with(name), "{name}: {example}");
                assert!(example.len() <= MAX_EXAMPLE_COLUMNS, "too long: {example}");
                if let Err(error) = Cli::try_parse_from(example.split_whitespace()) {
                    panic!("{example}\n{error}");
                }
            }
        });
    }
}
