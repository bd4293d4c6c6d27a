//! What is in the machine: the programs under test where they were built, a few tools, all their libraries, and the script
//! that is its first process.

use std::collections::BTreeSet;
use std::fs;
use std::io::BufWriter;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use super::archive::Archive;
use crate::workspace::Workspace;

/// Begins the line by which the script says how it went.
pub(super) const VERDICT: &str = "VERDICT ";
const PATIENCE: Duration = Duration::from_secs(60);

/// What scripts of the scenarios use; taken from here, so that they do as they do here.
const TOOLS: [&str; 14] =
    ["sh", "cat", "dd", "env", "false", "head", "ls", "mkdir", "rm", "setsid", "sleep", "tail", "true", "wc"];

/// The programs under test.
pub(super) struct Programs {
    tests: PathBuf,
    product: Vec<PathBuf>,
}

impl Programs {
    /// Has the scenarios that are otherwise ignored run, those with this in their names.
    pub(super) fn tests_command(&self, name: &str) -> String {
        format!("{} --include-ignored --test-threads 1 '{name}'", self.tests.display())
    }
}

/// Builds them. They are where they always are, as the tests know them by their paths.
pub(super) fn programs(workspace: &Workspace) -> Result<Programs> {
    let build = ["test", "-p", "nodejobs-cli", "--test", "scenarios", "--no-run", "--message-format", "json"];
    let output = workspace.cargo(&build).stderr(std::process::Stdio::inherit()).output();
    let output = output.context("cannot start cargo")?;
    ensure!(output.status.success(), "`cargo {}` ended with {}", build.join(" "), output.status);
    let mut programs = Programs { tests: PathBuf::new(), product: Vec::new() };
    for line in String::from_utf8_lossy(&output.stdout).lines() {
        let Ok(message) = serde_json::from_str::<serde_json::Value>(line) else { continue };
        let Some(path) = message["executable"].as_str().map(PathBuf::from) else { continue };
        match message["target"]["name"].as_str() {
            Some("scenarios") => programs.tests = path,
            _ => programs.product.push(path),
        }
    }
    ensure!(!programs.tests.as_os_str().is_empty(), "cargo has built no scenarios");
    ensure!(programs.product.len() == 3, "cargo has built {:?} beside the scenarios", programs.product);
    Ok(programs)
}

/// A file system to boot into.
pub(super) struct Guest {
    /// Paths in the machine, with those they are copied from.
    files: Vec<(PathBuf, PathBuf)>,
    script: String,
}

impl Guest {
    pub(super) fn new(busybox: &Path, programs: &Programs) -> Result<Self> {
        let mut files = vec![(PathBuf::from("/bin/busybox"), busybox.to_owned())];
        let own = programs.product.iter().chain([&programs.tests]);
        files.extend(own.map(|path| (path.clone(), path.clone())));
        for tool in TOOLS {
            files.push((Path::new("/bin").join(tool), on_path(tool)?));
        }
        let mut needed = BTreeSet::new();
        for (_, source) in &files[1..] {
            needed.extend(libraries(source)?);
        }
        files.extend(needed.into_iter().map(|library| (library.clone(), library)));
        Ok(Self { files, script: String::new() })
    }

    /// Has this be done in it.
    pub(super) fn running(mut self, command: &str) -> Self {
        self.script = format!(
            "#!/bin/busybox sh\n\
             b=/bin/busybox\n\
             $b mount -t proc proc /proc\n\
             $b mount -t sysfs sysfs /sys\n\
             $b mount -t devtmpfs dev /dev\n\
             $b mkdir -p /dev/pts\n\
             $b mount -t devpts devpts /dev/pts\n\
             $b mount -t cgroup2 cgroup2 /sys/fs/cgroup\n\
             $b mount -t tmpfs tmpfs /tmp\n\
             $b chmod 1777 /tmp\n\
             $b ip link set lo up\n\
             echo 'root:x:0:0::/:/bin/sh\nuser:x:1000:1000::/tmp:/bin/sh' > /etc/passwd\n\
             echo 0123456789abcdef0123456789abcdef > /etc/machine-id\n\
             export PATH=/bin HOME=/tmp TMPDIR=/tmp RUST_BACKTRACE=0\n\
             {command}\n\
             echo \"{VERDICT}$?\"\n\
             $b poweroff -f\n"
        );
        self
    }

    pub(super) fn write(&self, path: &Path) -> Result<()> {
        let file = fs::File::create(path).with_context(|| format!("cannot create {}", path.display()))?;
        let mut archive = Archive::new(BufWriter::new(file));
        let mut directories = BTreeSet::new();
        for directory in ["/dev", "/etc", "/proc", "/sys", "/tmp"] {
            directories.insert(PathBuf::from(directory));
        }
        for (target, _) in &self.files {
            directories.extend(target.ancestors().skip(1).map(Path::to_owned));
        }
        // In the order of paths, so that each comes before what is in it.
        for directory in directories.iter().filter(|path| path.parent().is_some()) {
            archive.directory(&directory.to_string_lossy())?;
        }
        let stripped = path.with_extension("stripped");
        for (target, source) in &self.files {
            archive.program(&target.to_string_lossy(), &content(source, &stripped)?)?;
        }
        archive.link("/bin/cp", "busybox")?;
        archive.program("/init", self.script.as_bytes())?;
        archive.finish()?;
        let _ = fs::remove_file(&stripped);
        Ok(())
    }
}

/// A program without what only debuggers need, which is most of it.
fn content(program: &Path, stripped: &Path) -> Result<Vec<u8>> {
    let strip = Command::new("strip").arg("--strip-debug").arg("-o").arg(stripped).arg(program).output();
    let source = if strip.is_ok_and(|output| output.status.success()) { stripped } else { program };
    fs::read(source).with_context(|| format!("cannot read {}", program.display()))
}

fn on_path(tool: &str) -> Result<PathBuf> {
    let directories = ["/usr/bin", "/bin", "/usr/sbin", "/sbin"].map(PathBuf::from);
    let found = directories.iter().map(|directory| directory.join(tool)).find(|path| path.exists());
    found.with_context(|| format!("there is no {tool} here to put into the machine"))
}

/// The libraries that a program is linked with, its loader included.
pub(super) fn libraries(program: &Path) -> Result<Vec<PathBuf>> {
    let said = crate::process::finish(Command::new("ldd").arg(program), PATIENCE)?;
    if !said.status.success() {
        // Not a dynamic one.
        return Ok(Vec::new());
    }
    let words = said.stdout.lines().flat_map(str::split_whitespace);
    Ok(words.filter(|word| word.starts_with('/')).map(PathBuf::from).collect())
}

/// The end of what was on the console.
pub(super) fn shown(console: &str) -> String {
    let lines: Vec<_> = console.lines().map(str::trim_end).collect();
    lines[lines.len().saturating_sub(60)..].join("\n")
}
