//! Booting: qemu, with everything in software, so that it works wherever it is installed.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result};
use rustix::process::Signal;

use crate::process::Running;

const QEMU: &str = "qemu-system-x86_64";

/// What is booted.
pub(super) struct Machine {
    pub(super) kernel: PathBuf,
    pub(super) archive: PathBuf,
    pub(super) memory_mb: u32,
}

impl Machine {
    fn command(&self) -> Command {
        let mut command = Command::new(QEMU);
        command.args([
            "-accel",
            "tcg,thread=multi",
            "-cpu",
            "max",
            "-smp",
            "2",
            "-nodefaults",
            "-no-user-config",
        ]);
        command.args(["-display", "none", "-monitor", "none", "-serial", "stdio", "-no-reboot"]);
        command.args(["-m", &self.memory_mb.to_string()]);
        command.arg("-kernel").arg(&self.kernel).arg("-initrd").arg(&self.archive);
        // Version 1 would take the controllers away, and a panic has to end the machine.
        command.args(["-append", "console=ttyS0 loglevel=1 panic=-1 cgroup_no_v1=all"]);
        command
    }

    /// Boots it and waits until it is off, at most so long. Gives what was on its console.
    pub(super) fn boot(&self, patience: Duration) -> Result<String> {
        let running = Running::start(&mut self.command())
            .with_context(|| format!("{QEMU} is not here; apt-get install qemu-system-x86"))?;
        let in_time = running.ends_within(patience)?;
        if !in_time {
            running.signal(Signal::KILL)?;
        }
        let ended = running.collect()?;
        let mut console = ended.stdout;
        if !in_time {
            console.push_str(&format!("\nthe machine was still on after {} s\n", patience.as_secs()));
        }
        console.push_str(&ended.stderr);
        Ok(console)
    }
}
