//! A launch on its way from the owner to the keeper: resolved by the one, unpacked by the other.

use std::ffi::{CStr, c_char, c_int};
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::ptr;

use nodejobs_core::backend::{LaunchInput, LaunchSpec};
use nodejobs_core::id::AttemptId;
use nodejobs_core::spec::{LaunchContext, ResourceLimit};
use nodejobs_core::text::RawText;
use rustix::fs::{MemfdFlags, SealFlags};

use crate::protocol::{Held, LaunchHeader, LaunchLimits, RESOURCES};
use crate::trace;

/// In the environment of every process of a job: `<data directory id>:<job id>:<attempt>`.
pub const MARK_VARIABLE: &str = "NODEJOBS_MARK";
const ID_VARIABLE: &str = "JOB_ID";
const ATTEMPT_VARIABLE: &str = "NODEJOBS_ATTEMPT";

/// Where programs are looked for when the environment has no `PATH`.
const DEFAULT_PATH: &[u8] = b"/usr/local/bin:/usr/bin:/bin";

/// The value of [`MARK_VARIABLE`] for an attempt.
pub(crate) fn mark(directory_id: &str, attempt: &AttemptId) -> String {
    format!("{directory_id}:{}:{}", attempt.id, attempt.attempt)
}

/// The paths to try for a program, as `execvp` would.
pub(crate) fn candidates(program: &RawText, context: &LaunchContext) -> Vec<Vec<u8>> {
    let program = program.as_bytes();
    if program.contains(&b'/') {
        return vec![program.to_vec()];
    }
    let path = context.variable("PATH").map_or(DEFAULT_PATH, RawText::as_bytes);
    let in_directory = |directory: &[u8]| {
        let mut candidate = directory.to_vec();
        if !directory.is_empty() {
            candidate.push(b'/');
        }
        candidate.extend_from_slice(program);
        candidate
    };
    path.split(|byte| *byte == b':').map(in_directory).collect()
}

/// Packs a launch: the fixed part for the message and a sealed memfd with the strings.
pub(crate) fn pack(
    attempt: &AttemptId,
    spec: &LaunchSpec,
    stdin: &RawText,
    group: Option<&Path>,
    directory_id: &str,
) -> io::Result<(LaunchHeader, OwnedFd)> {
    let words = spec.command.to_argv();
    let program = words.first().ok_or(io::ErrorKind::InvalidInput)?;
    let candidates = candidates(program, &spec.context);
    let mut strings = Strings::default();
    for path in [&spec.cwd, stdin, &spec.output.stdout, &spec.output.stderr] {
        strings.push(&[path.as_bytes()]);
    }
    for candidate in &candidates {
        strings.push(&[candidate]);
    }
    for word in &words {
        strings.push(&[word.as_bytes()]);
    }
    let number = attempt.attempt.to_string();
    let mark = mark(directory_id, attempt);
    let ours = [(ID_VARIABLE, attempt.id.as_str()), (ATTEMPT_VARIABLE, &number), (MARK_VARIABLE, &mark)];
    let is_ours = |name: &RawText| ours.iter().any(|(known, _)| known.as_bytes() == name.as_bytes());
    let mut variables = 0;
    for (name, value) in spec.context.environment.iter().filter(|(name, _)| !is_ours(name)) {
        strings.push(&[name.as_bytes(), b"=", value.as_bytes()]);
        variables += 1;
    }
    for (name, value) in ours {
        strings.push(&[name.as_bytes(), b"=", value.as_bytes()]);
        variables += 1;
    }
    let mut soft_limits = [None; RESOURCES];
    for (resource, soft) in &spec.context.soft_limits {
        soft_limits[resource_number(*resource) as usize] = Some(*soft);
    }
    let count =
        |length: usize| u32::try_from(length).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput));
    let header = LaunchHeader {
        attempt: attempt.clone(),
        candidates: count(candidates.len())?,
        arguments: count(words.len())?,
        variables,
        bytes: strings.0.len() as u64,
        umask: spec.context.umask,
        soft_limits,
        limits: launch_limits(spec),
        held: match &spec.input {
            LaunchInput::Pipe => Some(Held::Pipe),
            LaunchInput::Terminal(size) => Some(Held::Terminal(*size)),
            LaunchInput::Null | LaunchInput::File(_) | LaunchInput::Bytes(_) => None,
        },
        trace: Some(trace::of_mark(&mark)),
        group: group.map(|path| path.as_os_str().as_bytes().to_vec()),
        makes_directories: spec.makes_directories,
    };
    Ok((header, strings.into_memfd()?))
}

fn launch_limits(spec: &LaunchSpec) -> LaunchLimits {
    let user = spec.user.clone();
    let Some(limits) = &spec.limits else { return LaunchLimits { user, ..LaunchLimits::default() } };
    let open_files = limits.open_files.map(|files| (files.soft, files.hard));
    LaunchLimits { open_files, nice: limits.nice, user }
}

#[derive(Default)]
struct Strings(Vec<u8>);

impl Strings {
    fn push(&mut self, parts: &[&[u8]]) {
        for part in parts {
            self.0.extend_from_slice(part);
        }
        self.0.push(0);
    }

    fn into_memfd(self) -> io::Result<OwnedFd> {
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let mut file = File::from(rustix::fs::memfd_create(c"nodejobs-launch", flags)?);
        file.write_all(&self.0)?;
        rustix::fs::fcntl_add_seals(
            &file,
            SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE,
        )?;
        Ok(file.into())
    }
}

/// The number by which `setrlimit` knows a limit.
pub(crate) fn resource_number(resource: ResourceLimit) -> u32 {
    match resource {
        ResourceLimit::Cpu => libc::RLIMIT_CPU,
        ResourceLimit::Fsize => libc::RLIMIT_FSIZE,
        ResourceLimit::Data => libc::RLIMIT_DATA,
        ResourceLimit::Stack => libc::RLIMIT_STACK,
        ResourceLimit::Core => libc::RLIMIT_CORE,
        ResourceLimit::Rss => libc::RLIMIT_RSS,
        ResourceLimit::Nproc => libc::RLIMIT_NPROC,
        ResourceLimit::Nofile => libc::RLIMIT_NOFILE,
        ResourceLimit::Memlock => libc::RLIMIT_MEMLOCK,
        ResourceLimit::As => libc::RLIMIT_AS,
        ResourceLimit::Locks => libc::RLIMIT_LOCKS,
        ResourceLimit::Sigpending => libc::RLIMIT_SIGPENDING,
        ResourceLimit::Msgqueue => libc::RLIMIT_MSGQUEUE,
        ResourceLimit::Nice => libc::RLIMIT_NICE,
        ResourceLimit::Rtprio => libc::RLIMIT_RTPRIO,
        ResourceLimit::Rttime => libc::RLIMIT_RTTIME,
    }
}

/// No launch needs more: the kernel takes 2 MiB of arguments and environment, specs at most 4 MiB.
const MAX_BYTES: u64 = 8 << 20;

/// A launch as the keeper has it, ready for the child.
pub(crate) struct Unpacked {
    bytes: Vec<u8>,
    offsets: Vec<usize>,
    candidates: usize,
    arguments: usize,
}

impl Unpacked {
    /// Reads the strings and checks that they are what the header says.
    pub(crate) fn read(header: &LaunchHeader, memfd: OwnedFd) -> io::Result<Self> {
        let invalid = || io::Error::new(io::ErrorKind::InvalidData, "launch does not match its header");
        if header.bytes > MAX_BYTES {
            return Err(invalid());
        }
        let mut bytes = vec![0; usize::try_from(header.bytes).map_err(|_| invalid())?];
        File::from(memfd).read_exact_at(&mut bytes, 0)?;
        let ends = bytes.iter().enumerate().filter(|(_, byte)| **byte == 0).map(|(at, _)| at + 1);
        let offsets: Vec<usize> = std::iter::once(0).chain(ends).collect();
        let (candidates, arguments) = (header.candidates as usize, header.arguments as usize);
        let expected = 4 + candidates + arguments + header.variables as usize;
        let whole = offsets.len() == expected + 1 && offsets.last() == Some(&bytes.len());
        if !whole || candidates == 0 || arguments == 0 {
            return Err(invalid());
        }
        Ok(Self { bytes, offsets, candidates, arguments })
    }

    fn text(&self, index: usize) -> &CStr {
        // `read` has checked that there are as many strings as are asked for, each with its NUL.
        CStr::from_bytes_until_nul(&self.bytes[self.offsets[index]..]).unwrap_or_default()
    }

    pub(crate) fn cwd(&self) -> &CStr {
        self.text(0)
    }

    /// The file of a stream, by the stream's descriptor.
    pub(crate) fn stream(&self, fd: c_int) -> *const c_char {
        self.text(1 + fd.unsigned_abs() as usize).as_ptr()
    }

    pub(crate) fn stdout(&self) -> &CStr {
        self.text(2)
    }

    pub(crate) fn stderr(&self) -> &CStr {
        self.text(3)
    }

    pub(crate) fn candidates(&self) -> Vec<*const c_char> {
        (4..4 + self.candidates).map(|index| self.text(index).as_ptr()).collect()
    }

    /// With one free place in front and a null pointer behind.
    pub(crate) fn argv(&self) -> Vec<*const c_char> {
        let first = 4 + self.candidates;
        let arguments = (first..first + self.arguments).map(|index| self.text(index).as_ptr());
        std::iter::once(ptr::null()).chain(arguments).chain([ptr::null()]).collect()
    }

    /// With a null pointer behind.
    pub(crate) fn envp(&self) -> Vec<*const c_char> {
        let first = 4 + self.candidates + self.arguments;
        (first..self.offsets.len() - 1).map(|index| self.text(index).as_ptr()).chain([ptr::null()]).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nodejobs_core::JobId;
    use nodejobs_core::logs::LogPaths;
    use nodejobs_core::spec::Command;

    fn spec(words: &[&str], environment: &[(&str, &str)]) -> LaunchSpec {
        LaunchSpec {
            command: Command::argv(words.iter().copied()),
            cwd: "/tmp".into(),
            context: LaunchContext {
                environment: environment.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect(),
                ..LaunchContext::default()
            },
            input: LaunchInput::Null,
            output: LogPaths { stdout: "/o".into(), stderr: "/e".into() },
            makes_directories: true,
            limits: None,
            user: None,
        }
    }

    #[test]
    fn a_launch_is_unpacked_as_it_was_packed_and_outer_marks_are_stripped() {
        let attempt = AttemptId { id: JobId::new("a").expect("valid"), attempt: 2 };
        let spec = spec(&["cat", "-n"], &[("PATH", "/x:/y"), ("JOB_ID", "outer"), (MARK_VARIABLE, "outer")]);
        let (header, memfd) = pack(&attempt, &spec, &"/in".into(), None, "dir").expect("packed");
        assert_eq!((header.candidates, header.arguments, header.variables), (2, 2, 4));
        let unpacked = Unpacked::read(&header, memfd).expect("unpacked");
        let texts: Vec<_> =
            (0..12).map(|index| unpacked.text(index).to_str().expect("UTF-8").to_owned()).collect();
        let expected = [
            "/tmp",
            "/in",
            "/o",
            "/e",
            "/x/cat",
            "/y/cat",
            "cat",
            "-n",
            "PATH=/x:/y",
            "JOB_ID=a",
            "NODEJOBS_ATTEMPT=2",
            "NODEJOBS_MARK=dir:a:2",
        ];
        assert_eq!(texts, expected);
        assert_eq!((unpacked.argv().len(), unpacked.envp().len()), (4, 5));
    }

    #[test]
    fn a_launch_that_does_not_match_its_header_is_refused() {
        let attempt = AttemptId { id: JobId::new("a").expect("valid"), attempt: 1 };
        let packed = || pack(&attempt, &spec(&["true"], &[]), &"/in".into(), None, "dir").expect("packed");
        let changes: [fn(&mut LaunchHeader); 4] = [
            |header| header.variables += 1,
            |header| header.arguments = 0,
            |header| header.bytes += 1,
            |header| header.bytes = u64::MAX,
        ];
        for change in changes {
            let (mut header, memfd) = packed();
            change(&mut header);
            assert!(Unpacked::read(&header, memfd).is_err());
        }
    }

    #[test]
    fn programs_are_looked_for_as_execvp_does() {
        let context = |path: &str| spec(&["x"], &[("PATH", path)]).context;
        let found = |program: &str, context: &LaunchContext| {
            let texts = candidates(&program.into(), context).into_iter();
            texts.map(|path| String::from_utf8(path).expect("UTF-8")).collect::<Vec<_>>()
        };
        assert_eq!(found("./x", &context("/a")), ["./x"]);
        assert_eq!(found("x", &context("/a::/b")), ["/a/x", "x", "/b/x"]);
        assert_eq!(found("x", &LaunchContext::default()), ["/usr/local/bin/x", "/usr/bin/x", "/bin/x"]);
    }
}
