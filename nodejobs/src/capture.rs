//! What a job inherits from the process that submits it.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::ffi::OsStringExt as _;
use std::sync::OnceLock;

use nodejobs_core::RawText;
use nodejobs_core::group::{CUDA_VARIABLE, RESOURCE_VARIABLE};
use nodejobs_core::spec::{ARRAY_VARIABLE, INDEX_VARIABLE, LaunchContext, ResourceLimit, value_variable};
use rustix::process::{Resource, getrlimit};
#[cfg(feature = "local")]
use rustix::process::{Rlimit, setrlimit};
use rustix::rand::GetRandomFlags;

/// Variables that nodejobs sets for a job. They speak of that job, so they are not passed on to what it submits.
pub const OWN_VARIABLES: [&str; 5] =
    ["JOB_ID", "NODEJOBS_ATTEMPT", "NODEJOBS_MARK", ARRAY_VARIABLE, INDEX_VARIABLE];

const LIMITS: [(ResourceLimit, Resource); 16] = [
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

/// The environment, umask and soft limits of this process.
///
/// # Errors
/// When the kernel does not tell the umask (`/proc` is not there).
pub fn capture_context() -> io::Result<LaunchContext> {
    Ok(LaunchContext {
        environment: environment(std::env::vars_os()),
        umask: Some(own_umask()?),
        soft_limits: LIMITS.into_iter().map(|(limit, resource)| (limit, soft_limit(resource))).collect(),
    })
}

/// The soft limit of open files before [`raise_open_files`] raised it.
static ORIGINAL_NOFILE: OnceLock<u64> = OnceLock::new();

fn soft_limit(resource: Resource) -> u64 {
    match ORIGINAL_NOFILE.get() {
        Some(original) if resource == Resource::Nofile => *original,
        _ => getrlimit(resource).current.unwrap_or(u64::MAX),
    }
}

/// Lets this process open as many files as it may: an owner holds a descriptor for every process it watches. Jobs get
/// the limit that was there before.
#[cfg(feature = "local")]
pub(crate) fn raise_open_files() {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    ORIGINAL_NOFILE.get_or_init(|| current.unwrap_or(u64::MAX));
    // Without it things work up to the limit there is.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
}

/// A fresh [`submit_key`](nodejobs_core::spec::JobSpec::submit_key): 128 random bits.
///
/// # Errors
/// When the kernel gives no random bytes.
pub fn new_submit_key() -> io::Result<String> {
    let mut bytes = [0_u8; 16];
    let count = rustix::rand::getrandom(&mut bytes[..], GetRandomFlags::empty())?;
    if count < bytes.len() {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

fn environment(
    variables: impl Iterator<Item = (std::ffi::OsString, std::ffi::OsString)>,
) -> Vec<(RawText, RawText)> {
    let variables: Vec<_> = variables.map(|(name, value)| (name.into_vec(), value.into_vec())).collect();
    let gpu = format!("{RESOURCE_VARIABLE}GPU");
    let values = value_variable("");
    let has_gpu = variables.iter().any(|(name, _)| *name == gpu.as_bytes());
    variables
        .into_iter()
        // A name with `=` cannot be set again as what it is; the standard library splits "=a=b" so.
        .filter(|(name, _)| !name.is_empty() && !name.contains(&b'='))
        .filter(|(name, _)| !OWN_VARIABLES.iter().any(|own| own.as_bytes() == name))
        // What another job has of named resources.
        .filter(|(name, _)| !name.starts_with(RESOURCE_VARIABLE.as_bytes()))
        .filter(|(name, _)| !(has_gpu && name == CUDA_VARIABLE.as_bytes()))
        // A job that an element of an array submits has none of that one's values.
        .filter(|(name, _)| !name.starts_with(values.as_bytes()))
        .map(|(name, value)| (name.into(), value.into()))
        .collect()
}

/// Asking by `umask(2)` sets it, for all threads of whoever embeds us.
fn own_umask() -> io::Result<u32> {
    // It is the second line, after a name of at most 64 bytes.
    let mut head = [0; 256];
    let length = File::open("/proc/self/status")?.read(&mut head)?;
    umask(&String::from_utf8_lossy(&head[..length]))
}

fn umask(status: &str) -> io::Result<u32> {
    status
        .lines()
        .find_map(|line| u32::from_str_radix(line.strip_prefix("Umask:")?.trim(), 8).ok())
        .ok_or_else(|| io::Error::other("/proc/self/status does not tell the umask"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_context_of_this_process_is_complete() {
        let context = capture_context().expect("a context");
        assert_eq!(context.soft_limits.len(), 16);
        assert!(context.umask.is_some_and(|umask| umask <= 0o777), "{context:?}");
        let path = std::env::var_os("PATH").map(|path| RawText::from(path.into_vec()));
        assert_eq!(context.variable("PATH").cloned(), path);
    }

    #[test]
    fn our_own_and_impossible_variables_are_left_out() {
        let pairs =
            [("A", "1"), ("JOB_ID", "x"), ("=C:", "d"), ("NODEJOBS_MARK", "y"), ("NODEJOBS_DIR", "/d")];
        let kept = environment(pairs.into_iter().map(|(name, value)| (name.into(), value.into())));
        assert_eq!(kept, [("A".into(), "1".into()), ("NODEJOBS_DIR".into(), "/d".into())]);
    }

    #[test]
    fn the_umask_is_read_as_octal() {
        assert_eq!(umask("Name:\tx\nUmask:\t0027\nState:\tR\n").expect("a umask"), 0o027);
        assert!(umask("Name:\tx\n").is_err());
    }

    #[test]
    fn submit_keys_differ() {
        let (one, other) = (new_submit_key().expect("a key"), new_submit_key().expect("a key"));
        assert_eq!(one.len(), 32);
        assert_ne!(one, other);
    }
}
