//! `nodejobs completions`: what a shell needs to complete our command lines.

use clap::{Args, Command};
use clap_complete::Shell;

use crate::exit::Failure;
use crate::output;

#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Completions {
    /// Your shell
    #[arg(value_name = "SHELL", value_enum)]
    shell: Shell,
}

const EXAMPLES: &str = "\
Examples:
  source <(nodejobs completions bash)           for this shell
  nodejobs completions bash > ~/.local/share/bash-completion/completions/nodejobs
  nodejobs completions zsh > ~/.zfunc/_nodejobs   with ~/.zfunc in $fpath
  nodejobs completions fish > ~/.config/fish/completions/nodejobs.fish";

impl Completions {
    /// For this command line.
    pub(crate) fn execute(self, command: Command) -> Result<u8, Failure> {
        output::print(&script(self.shell, command))?;
        Ok(0)
    }
}

fn script(shell: Shell, mut command: Command) -> String {
    let mut script = Vec::new();
    // Only now its commands have their options.
    command.build();
    clap_complete::generate(shell, &mut visible(&command), "nodejobs", &mut script);
    String::from_utf8_lossy(&script).into_owned()
}

/// The command with what a script is made of, but without hidden commands, which would be offered like all others, and
/// without what the parser adds by itself.
fn visible(command: &Command) -> Command {
    let below = command.get_subcommands().filter(|below| !below.is_hide_set() && below.get_name() != "help");
    let own =
        command.get_arguments().filter(|argument| !["help", "version"].contains(&argument.get_id().as_str()));
    let mut shown =
        Command::new(command.get_name().to_owned()).args(own.cloned()).subcommands(below.map(visible));
    if let Some(about) = command.get_about() {
        shown = shown.about(about.clone());
    }
    if let Some(version) = command.get_version() {
        shown = shown.version(version.to_owned());
    }
    shown
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory as _, ValueEnum as _};

    use super::*;
    use crate::cli::Cli;

    #[test]
    fn every_shell_learns_every_command_and_option() {
        let mut command = Cli::command();
        command.build();
        for shell in Shell::value_variants() {
            let script = script(*shell, Cli::command());
            assert!(script.contains("if-unmet") && script.contains("detach-keys"), "{shell}");
            for below in command.get_subcommands().filter(|below| !below.is_hide_set()) {
                assert!(script.contains(below.get_name()), "{shell}: {}", below.get_name());
                for option in below.get_opts().filter_map(|option| option.get_long()) {
                    assert!(script.contains(option), "{shell}: {} --{option}", below.get_name());
                }
            }
            assert!(!script.contains("serve"), "{shell}: hidden commands are nobody's business");
        }
    }
}
