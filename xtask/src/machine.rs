//! `cargo xtask machine`: the scenarios that take a machine of their own, in a virtual one with a real kernel.
//!
//! Cgroups with all their controllers are not to be had everywhere, and nobody wants them tried out on their own machine.
//! So the kernel of Debian is booted by qemu, in software, with a file system in memory that holds the built programs,
//! their libraries and a script. What is needed of Debian is fetched with apt-get into `target/machine`; nothing is installed.

mod archive;
mod boot;
mod guest;
mod parts;

use std::time::Duration;

use anyhow::{Result, bail, ensure};
use clap::Args;

use crate::workspace::Workspace;
use boot::Machine;
use guest::Guest;
use parts::Parts;

/// How long all of it may take in the guest. On two idle processors it takes three minutes.
const PATIENCE: Duration = Duration::from_secs(1_800);

/// The module of the scenarios that are run.
const SCENARIOS: &str = "machine::";

#[derive(Args, Default)]
pub(crate) struct Options {
    /// Only tests whose names contain this
    #[arg(value_name = "NAME")]
    name: Option<String>,
}

/// Builds, boots and judges.
pub(crate) fn run(workspace: &Workspace, options: &Options) -> Result<()> {
    let parts = Parts::fetch(&workspace.target.join("machine"))?;
    let programs = guest::programs(workspace)?;
    let name = options.name.as_deref().unwrap_or(SCENARIOS);
    let guest = Guest::new(&parts.busybox, &programs)?.running(&programs.tests_command(name));
    let archive = parts.directory.join("guest.cpio");
    guest.write(&archive)?;
    let machine = Machine { kernel: parts.kernel, archive, memory_mb: 1024 };
    let console = machine.boot(PATIENCE)?;
    match verdict(&console) {
        Some(0) => {
            ensure!(
                console.contains("test result: ok.") && !console.contains(" 0 passed;"),
                "no test of the machine was run:\n{console}"
            );
            println!("{}", summary(&console));
            Ok(())
        }
        Some(code) => bail!("{}\nthe tests in the machine ended with {code}", guest::shown(&console)),
        None => bail!("{}\nthe machine has given no verdict", guest::shown(&console)),
    }
}

/// The code that the guest's script says at its end.
fn verdict(console: &str) -> Option<i32> {
    let mut said = console.lines().filter_map(|line| line.trim_end().strip_prefix(guest::VERDICT));
    said.next_back()?.trim().parse().ok()
}

fn summary(console: &str) -> String {
    let lines = console.lines().map(str::trim_end);
    let tests = lines.filter(|line| line.starts_with("test ") || line.starts_with("machine: "));
    tests.map(|line| format!("    {line}")).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_that_says_nothing_has_not_passed() {
        assert_eq!(verdict("test x ... ok\r\nVERDICT 0\r\n[ 1.0] reboot\r\n"), Some(0));
        assert_eq!(verdict("VERDICT 101\r\n"), Some(101));
        for said in ["", "Kernel panic", "the VERDICT 0", "VERDICT", "VERDICT x"] {
            assert_eq!(verdict(said), None, "{said}");
        }
    }
}
