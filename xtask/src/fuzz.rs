//! `cargo xtask fuzz`: runs the fuzz targets of `fuzz/` for a while each. What they find stays below the build output;
//! whoever wants to keep some of it copies it into `fuzz/corpus`, which the ordinary tests run over.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};

use crate::workspace::Workspace;

const SECONDS: u64 = 60;
/// One input that takes longer is a failure. Far more than any needs, also on a busy machine.
const INPUT_SECONDS: u64 = 30;
const TOOLCHAIN: &str = "nightly";

#[derive(clap::Args)]
pub(crate) struct Options {
    /// How long to run each target
    #[arg(long, value_name = "N", default_value_t = SECONDS)]
    seconds: u64,
    /// Only this one
    target: Option<String>,
}

impl Options {
    /// All targets, for this many seconds each.
    pub(crate) fn of(seconds: u64) -> Self {
        Self { seconds, target: None }
    }
}

pub(crate) fn run(workspace: &Workspace, options: &Options) -> Result<()> {
    let all = targets(&workspace.root)?;
    let chosen: Vec<_> =
        all.iter().filter(|name| options.target.as_ref().is_none_or(|only| only == *name)).collect();
    ensure!(
        !chosen.is_empty(),
        "there is no fuzz target '{}'\n    way out: take one of {}",
        options.target.as_deref().unwrap_or_default(),
        all.join(", ")
    );
    ensure!(
        has_toolchain(),
        "there is no {TOOLCHAIN} Rust, which fuzzing needs\n    way out: \
         rustup toolchain install {TOOLCHAIN} --profile minimal"
    );
    let program = cargo_fuzz(workspace)?;
    let scratch = workspace.target.join("fuzz");
    chosen.into_iter().try_for_each(|target| fuzz(workspace, &program, &scratch, target, options.seconds))
}

/// The names of the fuzz targets, in order.
fn targets(root: &Path) -> Result<Vec<String>> {
    let directory = root.join("fuzz/fuzz_targets");
    let cannot = || format!("cannot list {}", directory.display());
    let mut names = Vec::new();
    for entry in fs::read_dir(&directory).with_context(cannot)? {
        let path = entry.with_context(cannot)?.path();
        names.extend(path.file_stem().map(|name| name.to_string_lossy().into_owned()));
    }
    names.sort();
    Ok(names)
}

fn has_toolchain() -> bool {
    let mut command = Command::new("rustup");
    command.args(["run", TOOLCHAIN, "cargo", "--version"]).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

/// The program `cargo-fuzz`, installed below the build output if it is not there.
fn cargo_fuzz(workspace: &Workspace) -> Result<PathBuf> {
    let root = workspace.target.join("cargo-fuzz");
    let program = root.join("bin/cargo-fuzz");
    if !program.exists() {
        let mut install = workspace.cargo(&["install", "cargo-fuzz", "--locked", "--root"]);
        let status = install.arg(&root).status().context("cannot start cargo")?;
        ensure!(status.success(), "`cargo install cargo-fuzz` ended with {status}");
    }
    Ok(program)
}

fn fuzz(workspace: &Workspace, program: &Path, scratch: &Path, target: &str, seconds: u64) -> Result<()> {
    let [corpus, artifacts, temporary] =
        ["corpus", "artifacts", "tmp"].map(|name| scratch.join(name).join(target));
    // What an ended run left in its temporary directory is of no use to anybody.
    let _ = fs::remove_dir_all(&temporary);
    for directory in [&corpus, &artifacts, &temporary] {
        fs::create_dir_all(directory).with_context(|| format!("cannot create {}", directory.display()))?;
    }
    println!("fuzz: {target}, {seconds} s");
    let mut command = Command::new(program);
    command
        .current_dir(&workspace.root)
        // It would otherwise build with the cargo that runs this task.
        .env_remove("CARGO")
        .env("RUSTUP_TOOLCHAIN", TOOLCHAIN)
        .env("TMPDIR", &temporary)
        .args(["run", target, "--fuzz-dir", "fuzz", "--target-dir"])
        .arg(scratch.join("build"))
        // New inputs go into the first directory.
        .arg(&corpus)
        .arg(workspace.root.join("fuzz/corpus").join(target))
        .args(["--", "-verbosity=0", "-print_final_stats=1"])
        .args([format!("-max_total_time={seconds}"), format!("-timeout={INPUT_SECONDS}")])
        .arg(format!("-artifact_prefix={}/", artifacts.display()));
    let status = command.status().with_context(|| format!("cannot start {}", program.display()))?;
    ensure!(
        status.success(),
        "fuzz target {target} ended with {status}\n    way out: the input, if one was found, is in {}; mend what it shows, and copy \
         it into fuzz/corpus/{target}",
        artifacts.display()
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_target_is_built_and_has_a_corpus() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let manifest = fs::read_to_string(root.join("fuzz/Cargo.toml")).unwrap();
        let names = targets(&root).unwrap();
        assert_eq!(manifest.matches("[[bin]]").count(), names.len());
        for name in names {
            assert!(manifest.contains(&format!("path = \"fuzz_targets/{name}.rs\"")), "{name}");
            assert!(root.join("fuzz/corpus").join(&name).read_dir().unwrap().count() > 0, "{name}");
        }
    }
}
