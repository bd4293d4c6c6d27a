//! The workspace as `cargo metadata` describes it.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

/// The stores that the product is built with, where it is measured and tried.
pub(crate) const STORES: [&str; 3] = ["sqlite", "redb", "sled"];
/// Those of a build without further ado, which is what CI tests.
pub(crate) const TESTED_STORES: [&str; 2] = ["sqlite", "redb"];
const ALL_STORES: &str = "sqlite,redb,sled";
/// How CI builds everything it tests.
pub(crate) const BUILD: &str = "build --workspace --all-targets";

/// Where the workspace is and what its members depend on.
pub(crate) struct Workspace {
    pub(crate) root: PathBuf,
    pub(crate) target: PathBuf,
    pub(crate) members: Vec<Member>,
}

/// One package of the workspace.
pub(crate) struct Member {
    pub(crate) name: String,
    pub(crate) manifest: PathBuf,
    /// What it is built with: normal and build dependencies, optional ones too. Tests may depend on anything.
    pub(crate) dependencies: Vec<String>,
}

impl Workspace {
    pub(crate) fn load() -> Result<Self> {
        let output = Command::new(cargo())
            .args(["metadata", "--format-version", "1", "--no-deps"])
            .stderr(Stdio::inherit())
            .output()
            .context("cannot start cargo metadata")?;
        ensure!(output.status.success(), "cargo metadata ended with {}", output.status);
        let metadata: Value = serde_json::from_slice(&output.stdout).context("cargo metadata is not JSON")?;
        Self::parse(&metadata).context("cargo metadata has an unknown shape")
    }

    /// A `cargo` command that runs at the root of the workspace, whatever directory it was asked from.
    pub(crate) fn cargo(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(cargo());
        command.args(arguments).current_dir(&self.root);
        command
    }

    /// Builds what is measured and tried: [`product`](Self::product), with the program that keeps its jobs, and every
    /// store.
    pub(crate) fn build_product(&self) -> Result<()> {
        let build = ["build", "--release", "-p", "nodejobs-cli", "--bins", "--features", ALL_STORES];
        let status = self.cargo(&build).status().context("cannot start cargo")?;
        ensure!(status.success(), "`cargo {}` ended with {status}", build.join(" "));
        Ok(())
    }

    /// Builds what CI tests, which it has, and gives the `nodejobs` command of that build: it has the default stores only.
    pub(crate) fn build_tested(&self) -> Result<PathBuf> {
        let build: Vec<_> = BUILD.split_whitespace().collect();
        let status = self.cargo(&build).status().context("cannot start cargo")?;
        ensure!(status.success(), "`cargo {BUILD}` ended with {status}");
        Ok(self.debug())
    }

    /// Builds the `nodejobs` command as CI tests it, with this store, and gives it.
    pub(crate) fn build_debug(&self, store: &str) -> Result<PathBuf> {
        if TESTED_STORES.contains(&store) {
            return self.build_tested();
        }
        let build = ["build", "-p", "nodejobs-cli", "--bins", "--features", ALL_STORES];
        let status = self.cargo(&build).status().context("cannot start cargo")?;
        ensure!(status.success(), "`cargo {}` ended with {status}", build.join(" "));
        Ok(self.debug())
    }

    /// The `nodejobs` command of a debug build, whether it has been built or not.
    pub(crate) fn debug(&self) -> PathBuf {
        self.target.join("debug/nodejobs")
    }

    /// The `nodejobs` command, whether it has been built or not.
    pub(crate) fn product(&self) -> PathBuf {
        self.target.join("release/nodejobs")
    }

    fn parse(metadata: &Value) -> Option<Self> {
        let member = |package: &Value| {
            let dependencies = package["dependencies"].as_array()?.iter();
            Some(Member {
                name: package["name"].as_str()?.to_owned(),
                manifest: package["manifest_path"].as_str()?.into(),
                dependencies: dependencies
                    .filter(|dependency| dependency["kind"] != "dev")
                    .map(|dependency| Some(dependency["name"].as_str()?.to_owned()))
                    .collect::<Option<_>>()?,
            })
        };
        Some(Self {
            root: metadata["workspace_root"].as_str()?.into(),
            target: metadata["target_directory"].as_str()?.into(),
            members: metadata["packages"].as_array()?.iter().map(member).collect::<Option<_>>()?,
        })
    }
}

impl Member {
    pub(crate) fn directory(&self) -> &Path {
        self.manifest.parent().unwrap_or(&self.manifest)
    }
}

/// The cargo that runs this task, so that a chosen toolchain stays chosen.
fn cargo() -> OsString {
    std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn development_dependencies_are_left_out() {
        let metadata = json!({
            "workspace_root": "/w", "target_directory": "/w/target",
            "packages": [{ "name": "a", "manifest_path": "/w/a/Cargo.toml", "dependencies": [
                { "name": "normal", "kind": null },
                { "name": "build", "kind": "build" },
                { "name": "dev", "kind": "dev" },
            ] }],
        });
        let workspace = Workspace::parse(&metadata).unwrap();
        assert_eq!(workspace.members[0].dependencies, ["normal", "build"]);
        assert_eq!(workspace.members[0].directory(), Path::new("/w/a"));
    }
}
