//! What a job inherits from whoever submits it: environment, umask, soft limits.

use std::collections::BTreeMap;
use std::os::unix::ffi::OsStringExt;
use std::sync::OnceLock;

use nodejobs_core::spec::{LaunchContext, ResourceLimit};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

const RESOURCES: [(ResourceLimit, Resource); 16] = [
    (ResourceLimit::Cpu, Resource::Cpu),
    (ResourceLimit::Fsize, Resource::Fsize),
    (ResourceLimit::Data, Resource::Data),
    (ResourceLimit::Stack, Resource::Stack),
    (ResourceLimit::Core, Resource::Core),
    (ResourceLimit::Rss, Resource::Rss),
    (ResourceLimit::Nproc, Resource::Nproc),
    (ResourceLimit::Nofile, Resource::Nofile),
    (ResourceLimit::Memlock, Resource::Memlock),
    (ResourceLimit::As, Resource::As),
    (ResourceLimit::Locks, Resource::Locks),
    (ResourceLimit::Sigpending, Resource::Sigpending),
    (ResourceLimit::Msgqueue, Resource::Msgqueue),
    (ResourceLimit::Nice, Resource::Nice),
    (ResourceLimit::Rtprio, Resource::Rtprio),
    (ResourceLimit::Rttime, Resource::Rttime),
];

/// The soft limit of open files before [`raise_open_files`] raised it.
static ORIGINAL_NOFILE: OnceLock<u64> = OnceLock::new();

/// The environment, umask and soft limits of this process, for a job that shall run as if it were started here.
///
/// ```
/// use nodejobs::spec::{Command, JobSpec};
///
/// let mut spec = JobSpec::new(Command::argv(["make"]), "/src");
/// spec.context = nodejobs::capture_context();
/// ```
pub fn capture_context() -> LaunchContext {
    let environment =
        std::env::vars_os().map(|(name, value)| (name.into_vec().into(), value.into_vec().into())).collect();
    let mut soft_limits: BTreeMap<ResourceLimit, u64> = RESOURCES
        .into_iter()
        .map(|(limit, resource)| (limit, getrlimit(resource).current.unwrap_or(u64::MAX)))
        .collect();
    if let Some(original) = ORIGINAL_NOFILE.get() {
        soft_limits.insert(ResourceLimit::Nofile, *original);
    }
    LaunchContext { environment, umask: own_umask(), soft_limits }
}

/// Read, not set: setting it to read it would change it for every thread for a moment.
fn own_umask() -> Option<u32> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("Umask:"))?;
    u32::from_str_radix(line.trim(), 8).ok()
}

/// Lets this process open as many files as it may: an owner holds a descriptor for every process it watches.
pub(crate) fn raise_open_files() {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    ORIGINAL_NOFILE.get_or_init(|| current.unwrap_or(u64::MAX));
    // Without it things work up to the limit there is.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limits_and_the_umask_of_this_process_are_captured() {
        let context = capture_context();
        assert!(context.variable("PATH").is_some());
        assert!(context.umask.is_some_and(|umask| umask <= 0o777));
        assert_eq!(context.soft_limits.len(), RESOURCES.len());
    }
}
