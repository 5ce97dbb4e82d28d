//! `tandem manual`: shell completions and man pages, for packages.

use super::{Outcome, help, print};
use anyhow::Context;
use clap::Command;
use clap_complete::Shell;
use clap_mangen::Man;
use std::io;
use std::path::PathBuf;

#[derive(clap::Args)]
#[command(
    group(clap::ArgGroup::new("output").required(true).args(["completions", "man"])),
    after_help = "Examples:\n  tandem manual --completions bash\n  tandem manual --man man/man1"
)]
pub(super) struct Arguments {
    /// Print the completion script of a shell
    #[arg(long, value_name = "SHELL")]
    completions: Option<Shell>,
    /// Folder to write the man page of every verb to
    #[arg(long, value_name = "DIR")]
    man: Option<PathBuf>,
}

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<Outcome> {
    if let Some(shell) = arguments.completions {
        print::line(completions(shell).trim_end());
    }
    if let Some(folder) = &arguments.man {
        std::fs::create_dir_all(folder)
            .with_context(|| format!("cannot create {}", folder.display()))?;
        for (name, page) in pages().context("cannot format a man page")? {
            print::write_file(&folder.join(name), &page)?;
        }
        print::line(&format!("man pages written to {}", folder.display()));
    }
    Ok(Outcome::Done)
}

fn completions(shell: Shell) -> String {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut help::command(), "tandem", &mut script);
    String::from_utf8_lossy(&script).into_owned()
}

/// Returns the man pages of `tandem` and of every visible verb, each with its file name.
fn pages() -> io::Result<Vec<(String, Vec<u8>)>> {
    fn add(command: &Command, pages: &mut Vec<(String, Vec<u8>)>) -> io::Result<()> {
        let man = Man::new(command.clone());
        let mut page = Vec::new();
        man.render(&mut page)?;
        pages.push((man.get_filename(), page));
        let visible = command.get_subcommands().filter(|verb| !verb.is_hide_set());
        visible.into_iter().try_for_each(|verb| add(verb, pages))
    }
    // Without it there would be pages of `help` as well.
    let mut command = help::command().disable_help_subcommand(true);
    command.build();
    let mut pages = Vec::new();
    add(&command, &mut pages)?;
    Ok(pages)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::ValueEnum;

    #[test]
    fn completions_of_every_shell_name_every_verb() {
        for shell in Shell::value_variants() {
            let script = completions(*shell);
            for verb in help::JOBS.iter().flat_map(|(_, verbs)| *verbs) {
                assert!(script.contains(verb), "{shell}: {verb} is missing");
            }
        }
    }

    #[test]
    fn man_page_of_every_verb_is_written_with_its_example() {
        let folder = tempfile::tempdir().unwrap();
        let man = folder.path().join("man1");
        let arguments = Arguments { completions: None, man: Some(man.clone()) };
        assert_eq!(run(&arguments).unwrap(), Outcome::Done);
        let read = |verb: &str| {
            let file = man.join(format!("tandem{verb}.1"));
            std::fs::read_to_string(&file).unwrap_or_else(|error| panic!("{file:?}: {error}"))
        };
        assert!(read("").contains(".TH"));
        for verb in help::JOBS.iter().flat_map(|(_, verbs)| *verbs) {
            let page = read(&format!("-{verb}"));
            assert!(page.contains(&format!("tandem {verb}")), "no example: {page}");
        }
        for verb in ["-checkpoint-synth", "-checkpoint-inspect"] {
            assert!(read(verb).contains("tandem checkpoint"), "{verb}");
        }
        assert!(!man.join("tandem-manual.1").exists() && !man.join("tandem-help.1").exists());
    }
}
