//! `nodejobs man`: the manual pages, for packagers.

use std::path::{Path, PathBuf};

use clap::{Args, Command};
use clap_mangen::Man as Page;

use crate::exit::{FAILED, Failure};
use crate::output;

#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Man {
    /// Write the pages of all commands into this directory, which is made if it is not there
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

const EXAMPLES: &str = "\
Examples:
  nodejobs man | man -l -
  nodejobs man --dir \"$DESTDIR/usr/share/man/man1\"";

impl Man {
    /// For this command line.
    pub(crate) fn execute(self, command: Command) -> Result<u8, Failure> {
        let command = without_help(command);
        match self.dir {
            None => {
                let mut page = Vec::new();
                // Memory takes all there is to write.
                let _ = Page::new(command).render(&mut page);
                output::print(&String::from_utf8_lossy(&page))?;
            }
            Some(directory) => write_all(command, &directory).map_err(|error| {
                Failure::caused(
                    FAILED,
                    format!("cannot write the pages to '{}'", directory.display()),
                    &error,
                )
            })?,
        }
        Ok(0)
    }
}

fn write_all(command: Command, directory: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(directory)?;
    clap_mangen::generate_to(command, directory)
}

/// The page of `help` would say what the others say.
fn without_help(command: Command) -> Command {
    command.disable_help_subcommand(true).mut_subcommands(|below| below.disable_help_subcommand(true))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;
    use crate::cli::Cli;

    #[test]
    fn every_command_has_a_page_that_says_what_its_help_says() {
        let directory = tempfile::tempdir().expect("a directory");
        let place = directory.path().join("share/man1");
        write_all(without_help(Cli::command()), &place).expect("written");
        let page = |name: &str| std::fs::read_to_string(place.join(name)).expect(name);
        let all = page("nodejobs.1");
        assert!(all.starts_with(".ie") && all.contains(".TH nodejobs 1"), "{all}");
        for below in Cli::command().get_subcommands().filter(|below| !below.is_hide_set()) {
            let name = below.get_name();
            let own = page(&format!("nodejobs-{name}.1"));
            let about = below.get_about().expect("a sentence").to_string();
            // A roff page escapes dashes; the sentences have none before their first comma.
            let about = about.split(['-', ',']).next().expect("a beginning").trim();
            assert!(own.contains(about) && all.contains(about), "{name}: {own}");
        }
        let names = std::fs::read_dir(&place).expect("pages").flatten().map(|entry| entry.file_name());
        let names: Vec<String> = names.filter_map(|name| name.into_string().ok()).collect();
        assert!(names.contains(&"nodejobs-daemon-start.1".to_owned()), "{names:?}");
        let hidden = ["nodejobs-man.1", "nodejobs-daemon-serve.1", "nodejobs-help.1"];
        assert!(!names.iter().any(|name| hidden.contains(&name.as_str())), "{names:?}");
    }
}
