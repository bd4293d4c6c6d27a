//! What is needed of a distribution: a kernel and a busybox, unpacked from packages into a directory of ours.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::process::succeed;

/// A package, which may be large, over a network that may be slow.
const PATIENCE: Duration = Duration::from_secs(300);
/// Names another kernel.
const KERNEL_VARIABLE: &str = "NODEJOBS_KERNEL";
const KERNEL_PACKAGE: &str = "linux-image-cloud-amd64";
const BUSYBOX_PACKAGE: &str = "busybox-static";

/// Where they are.
pub(super) struct Parts {
    pub(super) directory: PathBuf,
    pub(super) kernel: PathBuf,
    pub(super) busybox: PathBuf,
}

impl Parts {
    /// Fetches what is not there yet.
    pub(super) fn fetch(directory: &Path) -> Result<Self> {
        fs::create_dir_all(directory).with_context(|| format!("cannot create {}", directory.display()))?;
        let kernel = match std::env::var_os(KERNEL_VARIABLE) {
            Some(kernel) => kernel.into(),
            None => kernel(directory)?,
        };
        let unpacked = directory.join("busybox");
        let installed = ["/bin/busybox".into(), "/usr/bin/busybox".into(), unpacked.join("bin/busybox")];
        let busybox = |paths: &[PathBuf]| paths.iter().find(|path| is_static(path)).cloned();
        let busybox = match busybox(&installed) {
            Some(busybox) => busybox,
            None => {
                unpack(BUSYBOX_PACKAGE, &unpacked)?;
                busybox(&[unpacked.join("bin/busybox"), unpacked.join("usr/bin/busybox")])
                    .context("the package busybox-static holds no busybox")?
            }
        };
        Ok(Self { directory: directory.to_owned(), kernel, busybox })
    }
}

/// Whether it is a program that needs no library.
fn is_static(path: &Path) -> bool {
    path.exists() && super::guest::libraries(path).is_ok_and(|libraries| libraries.is_empty())
}

fn kernel(directory: &Path) -> Result<PathBuf> {
    let unpacked = directory.join("kernel");
    if let Some(kernel) = find_kernel(&unpacked) {
        return Ok(kernel);
    }
    // The package of that name only says which one it is now.
    let said = succeed(Command::new("apt-cache").args(["depends", KERNEL_PACKAGE]), PATIENCE)
        .context("apt-cache does not know a kernel; name one with NODEJOBS_KERNEL=/path/of/vmlinuz")?;
    let package = said.stdout.lines().find_map(|line| line.trim().strip_prefix("Depends: "));
    unpack(package.with_context(|| format!("{KERNEL_PACKAGE} depends on no kernel"))?, &unpacked)?;
    find_kernel(&unpacked).context("the package of the kernel holds none")
}

fn find_kernel(unpacked: &Path) -> Option<PathBuf> {
    let entries = fs::read_dir(unpacked.join("boot")).ok()?.flatten().map(|entry| entry.path());
    let is_kernel =
        |path: &PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("vmlinuz"));
    entries.into_iter().find(is_kernel)
}

fn unpack(package: &str, into: &Path) -> Result<()> {
    println!("    fetching {package}");
    let downloads = into.with_extension("packages");
    let _ = fs::remove_dir_all(&downloads);
    fs::create_dir_all(&downloads)?;
    succeed(Command::new("apt-get").args(["download", package]).current_dir(&downloads), PATIENCE)
        .with_context(|| format!("cannot fetch {package}; is it in the package lists (apt-get update)?"))?;
    for entry in fs::read_dir(&downloads)?.flatten() {
        succeed(Command::new("dpkg").arg("-x").arg(entry.path()).arg(into), PATIENCE)?;
    }
    fs::remove_dir_all(&downloads)?;
    Ok(())
}
