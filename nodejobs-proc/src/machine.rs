//! This machine, this boot and this pid namespace, read once, and the two clocks.

use std::io;
use std::os::unix::fs::MetadataExt;

use nodejobs_core::time::{BootTime, Moment, Timestamp};
use rustix::time::{ClockId, clock_gettime};

/// What distinguishes this machine, now, from any other place a process number could be from.
#[derive(Clone, Debug)]
pub struct Machine {
    /// `/etc/machine-id`; `None` where there is none.
    pub machine_id: Option<String>,
    /// Changes with every start of the machine.
    pub boot_id: String,
    /// Inode of this process's pid namespace.
    pub pid_namespace: u64,
    /// Whether pidfs numbers may be used.
    pub(crate) use_pidfs: bool,
    /// Whether exit statuses may be asked of the kernel.
    pub(crate) use_pidfd_info: bool,
    /// Whether threads may have descriptor tables of their own.
    pub(crate) use_own_tables: bool,
    /// Whether jobs may have cgroups.
    pub(crate) use_cgroups: bool,
}

/// Has this process's allocator give the memory back to the system that nobody uses. It would keep it for what may come.
pub fn give_memory_back() {
    crate::sys::give_memory_back();
}

/// Kernel features that are to be treated as missing: `pidfs`, `pidfd-info`, `own-tables`, `cgroups`, separated by commas. For
/// tests, and for whoever has to find out whether one of them is at fault.
pub const DISABLE_VARIABLE: &str = "NODEJOBS_DISABLE";

impl Machine {
    /// Reads what this process runs on.
    ///
    /// # Errors
    /// When `/proc` is not mounted.
    pub fn read() -> io::Result<Self> {
        let read_line = |path: &str| {
            std::fs::read_to_string(path)
                .map(|text| text.trim().to_owned())
                .map_err(|error| io::Error::new(error.kind(), format!("{path}: {error}")))
        };
        Ok(Self {
            machine_id: read_line("/etc/machine-id").ok().filter(|id| !id.is_empty()),
            boot_id: read_line("/proc/sys/kernel/random/boot_id")?,
            pid_namespace: std::fs::metadata("/proc/self/ns/pid")?.ino(),
            use_pidfs: !disabled("pidfs"),
            use_pidfd_info: kernel_is_at_least(6, 15) && !disabled("pidfd-info"),
            use_own_tables: may_have_own_tables(),
            use_cgroups: !disabled("cgroups"),
        })
    }
}

fn disabled(feature: &str) -> bool {
    let disabled = std::env::var(DISABLE_VARIABLE).unwrap_or_default();
    disabled.split(',').any(|name| name.trim() == feature)
}

/// Whether threads may have descriptor tables of their own.
pub(crate) fn may_have_own_tables() -> bool {
    !disabled("own-tables")
}

fn kernel_is_at_least(major: u32, minor: u32) -> bool {
    let system = rustix::system::uname();
    let release = system.release().to_string_lossy();
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse::<u32>);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(this_major)), Some(Ok(this_minor))) => (this_major, this_minor) >= (major, minor),
        _ => false,
    }
}

/// This instant on both clocks.
pub fn now() -> Moment {
    let millis = |clock| {
        let time = clock_gettime(clock);
        time.tv_sec * 1000 + time.tv_nsec / 1_000_000
    };
    Moment {
        wall: Timestamp::from_millis(millis(ClockId::Realtime)),
        boot: BootTime(millis(ClockId::Boottime).unsigned_abs()),
    }
}
