//! Directories to run the product in, which one run of a task has for itself.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use rustix::fs::{FlockOperation, flock};

use crate::product::Product;
use crate::workspace::Workspace;

/// One task's directory, beside the build output rather than in the directory for temporary files, which is often no
/// disk at all.
pub(crate) struct Scratch {
    product: PathBuf,
    directory: PathBuf,
    _lock: File,
}

impl Scratch {
    /// Takes the directory for this run, and ends what an interrupted run left behind in it.
    pub(crate) fn take(workspace: &Workspace, task: &str) -> Result<Self> {
        let directory = workspace.target.join(task);
        let cannot = || format!("cannot use {}", directory.display());
        fs::create_dir_all(&directory).with_context(cannot)?;
        let lock = File::create(directory.join("lock")).with_context(cannot)?;
        flock(&lock, FlockOperation::NonBlockingLockExclusive)
            .with_context(|| format!("another {task} is running in {}", directory.display()))?;
        let scratch = Self { product: workspace.product(), directory, _lock: lock };
        scratch.clear()?;
        Ok(scratch)
    }

    /// Removes everything in it. For the bench only between runs, never between groups: thousands of deleted files
    /// make new ones up to thirty times dearer for minutes.
    pub(crate) fn clear(&self) -> Result<()> {
        let cannot = || format!("cannot clear {}", self.directory.display());
        for entry in fs::read_dir(&self.directory).with_context(cannot)? {
            let path = entry.with_context(cannot)?.path();
            if path.is_dir() {
                if self.product.exists() && path.join("sock").exists() {
                    drop(Product::attach(&self.product, &path, None));
                }
                fs::remove_dir_all(&path).with_context(cannot)?;
            }
        }
        Ok(())
    }

    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// [`path`](Self::path) of a directory that is there.
    pub(crate) fn fresh(&self, name: &str) -> Result<PathBuf> {
        let path = self.path(name);
        fs::create_dir_all(&path).with_context(|| format!("cannot create {}", path.display()))?;
        Ok(path)
    }

    /// The `nodejobs` command.
    pub(crate) fn product(&self) -> &Path {
        &self.product
    }
}
