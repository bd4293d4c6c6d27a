//! What owner and keeper say to each other over a seqpacket socket, one message per packet.
//!
//! The protocol has a version and changes only by addition: unknown bytes at the end of a message are ignored, at the end
//! of a launch additions of unknown kinds (each has its kind, its length and its bytes). Whether a keeper knows what it
//! must not ignore is said by its features. And the keeper's side of the journal format is its own ([`crate::journal`]). Little-endian throughout.

use nodejobs_core::backend::User;
use nodejobs_core::id::{AttemptId, JobId};
use nodejobs_core::spec::TerminalSize;

use crate::journal::{ENTRY_LEN, MAX_POSITION};

/// Version of this protocol.
pub(crate) const PROTOCOL_VERSION: u32 = 1;
/// No message is longer.
pub(crate) const MESSAGE_LEN: usize = 4096;
/// Resource limits that can be passed on.
pub(crate) const RESOURCES: usize = 16;

/// A message that is not one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a message of the keeper's protocol")]
pub(crate) struct InvalidMessage;

/// From the owner to the keeper.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum OwnerMessage {
    /// Must be the first message of a connection.
    Hello {
        version: u32,
        generation: u64,
        /// What the owner understands beyond the first version, a bit each, as a keeper's features.
        features: u32,
    },
    /// Launch an attempt; the strings are in the memfd that comes with it.
    Launch(Box<LaunchHeader>),
    /// Everything before this position is in the owner's store.
    Acknowledge { position: u64 },
    /// The launch of an attempt is not wanted any more; with [`GATES`].
    CallOff { attempt: AttemptId },
    /// Is anybody there? With [`GATES`].
    Ping,
}

/// The fixed part of a launch. The memfd holds NUL-terminated strings in this order: working directory, standard
/// input, standard output, standard error, the names to try for the program, the arguments, the environment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LaunchHeader {
    pub(crate) attempt: AttemptId,
    pub(crate) candidates: u32,
    pub(crate) arguments: u32,
    pub(crate) variables: u32,
    pub(crate) bytes: u64,
    pub(crate) umask: Option<u32>,
    pub(crate) soft_limits: [Option<u64>; RESOURCES],
    pub(crate) limits: LaunchLimits,
    /// What it gets instead of the standard input among the strings; with [`HOLDING`].
    pub(crate) held: Option<Held>,
    /// What is made of the job's mark for its [trace](crate::trace).
    pub(crate) trace: Option<u64>,
    /// What the child writes a 0 to in order to be in the job's cgroup; with [`GROUPS`].
    pub(crate) group: Option<Vec<u8>>,
    /// The child makes the directories of the log files if they are not there; with [`GATES`].
    pub(crate) makes_directories: bool,
}

/// What the keeper makes for a job and a [holder](crate::holder) keeps open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Held {
    /// Standard input.
    Pipe,
    /// Standard input, output and error.
    Terminal(TerminalSize),
}

impl Held {
    fn encode(self) -> Vec<u8> {
        match self {
            Held::Pipe => Vec::new(),
            Held::Terminal(TerminalSize { rows, columns }) => {
                [rows.to_le_bytes(), columns.to_le_bytes()].concat()
            }
        }
    }

    fn decode(bytes: &[u8]) -> Result<Self, InvalidMessage> {
        if bytes.is_empty() {
            return Ok(Held::Pipe);
        }
        let mut input = Reader(bytes);
        let mut number = || input.array().map(u16::from_le_bytes);
        Ok(Held::Terminal(TerminalSize { rows: number()?, columns: number()? }))
    }
}

/// What a keeper with [`LIMITS`] sets in the child.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub(crate) struct LaunchLimits {
    /// Soft and hard limit of open files; without a hard one, that stays, unless the soft one is above it.
    pub(crate) open_files: Option<(u64, Option<u64>)>,
    pub(crate) nice: Option<i32>,
    pub(crate) user: Option<User>,
}

impl LaunchLimits {
    fn encode(&self) -> Vec<u8> {
        let Self { open_files, nice, user } = self;
        let mut out = Writer(Vec::new());
        out.optional(open_files.map(|(soft, _)| soft));
        out.optional(open_files.and_then(|(_, hard)| hard));
        out.optional(nice.map(|nice| u64::from(nice.cast_unsigned())));
        out.u8(u8::from(user.is_some()));
        if let Some(User { uid, gid, groups }) = user {
            let groups = &groups[..groups.len().min(User::MAX_GROUPS)];
            [uid, gid].into_iter().chain(groups).for_each(|number| out.u32(*number));
        }
        out.0
    }

    fn decode(bytes: &[u8]) -> Result<Self, InvalidMessage> {
        let mut input = Reader(bytes);
        let (soft, hard) = (input.optional()?, input.optional()?);
        let nice = input.optional()?.map(u32::try_from).transpose().map_err(|_| InvalidMessage)?;
        let mut user = None;
        if input.u8()? != 0 {
            let (uid, gid, mut groups) = (input.u32()?, input.u32()?, Vec::new());
            while !input.0.is_empty() {
                groups.push(input.u32()?);
            }
            if groups.len() > User::MAX_GROUPS {
                return Err(InvalidMessage);
            }
            user = Some(User { uid, gid, groups });
        }
        let nice = nice.map(u32::cast_signed);
        Ok(Self { open_files: soft.map(|soft| (soft, hard)), nice, user })
    }
}

/// From the keeper to the owner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum KeeperMessage {
    /// Answers a hello. The launches that it has not come to the end of follow, then every journal entry from `first` on.
    /// Those before `end` are the past.
    Welcome(Welcome),
    /// This launch is neither executed nor failed.
    Launching { attempt: AttemptId },
    /// Raw journal entries, the first of which has this position.
    Entries { position: u64, raw: Vec<u8> },
    /// A newer owner has spoken to this keeper.
    Superseded { generation: u64 },
    /// Answers a ping.
    Pong,
}

/// What a keeper says first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Welcome {
    pub(crate) version: u32,
    /// The guard, as long as there is one.
    pub(crate) guard: Option<u32>,
    /// The worker, as long as there is one.
    pub(crate) worker: Option<u32>,
    /// No launches are taken any more.
    pub(crate) draining: bool,
    pub(crate) first: u64,
    pub(crate) end: u64,
    pub(crate) program_version: String,
    /// What it can beyond the first version, a bit each.
    pub(crate) features: u32,
    /// How many [`KeeperMessage::Launching`] follow.
    pub(crate) launching: u32,
    /// What it does not tell of proves nothing: the journal that it went on with is damaged.
    pub(crate) is_damaged: bool,
    /// So many launches stand still that it takes no more.
    pub(crate) is_stuck: bool,
}

/// It sets limits that come with a launch.
pub(crate) const LIMITS: u32 = 1;
/// The keeper makes what is [`Held`].
pub(crate) const HOLDING: u32 = 2;
/// Its children enter their jobs' cgroups.
pub(crate) const GROUPS: u32 = 4;
/// A launch goes through a [gate](crate::gates), and its child makes the directories of its log files.
pub(crate) const GATES: u32 = 8;
/// All features of this version.
pub(crate) const FEATURES: u32 = LIMITS | HOLDING | GROUPS | GATES;
/// The longest path of a cgroup's file, in bytes.
const MAX_GROUP_PATH: usize = 1024;

const HELLO: u8 = 1;
const LAUNCH: u8 = 2;
const ACKNOWLEDGE: u8 = 3;
const CALL_OFF: u8 = 4;
const PING: u8 = 5;
const WELCOME: u8 = 1;
const ENTRIES: u8 = 2;
const SUPERSEDED: u8 = 3;
const LAUNCHING: u8 = 4;
const PONG: u8 = 5;

/// What was added to a launch since the first version.
const ADDED_LIMITS: u8 = 1;
const ADDED_HELD: u8 = 2;
const ADDED_TRACE: u8 = 3;
const ADDED_GROUP: u8 = 4;
const ADDED_DIRECTORIES: u8 = 5;

/// Bytes before the raw entries of an `Entries` message.
pub(crate) const ENTRIES_HEADER_LEN: usize = 16;
/// Bytes of raw entries that fit into one message.
pub(crate) const ENTRIES_LEN: usize = (MESSAGE_LEN - ENTRIES_HEADER_LEN) / ENTRY_LEN * ENTRY_LEN;

impl OwnerMessage {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Writer(Vec::with_capacity(256));
        match self {
            OwnerMessage::Hello { version, generation, features } => {
                out.u8(HELLO);
                out.u32(*version);
                out.u64(*generation);
                if *features != 0 {
                    out.u32(*features);
                }
            }
            OwnerMessage::Launch(header) => {
                out.u8(LAUNCH);
                out.attempt(&header.attempt);
                out.u32(header.candidates);
                out.u32(header.arguments);
                out.u32(header.variables);
                out.u64(header.bytes);
                out.optional(header.umask.map(u64::from));
                for limit in header.soft_limits {
                    out.optional(limit);
                }
                if header.limits != LaunchLimits::default() {
                    out.addition(ADDED_LIMITS, &header.limits.encode());
                }
                if let Some(held) = header.held {
                    out.addition(ADDED_HELD, &held.encode());
                }
                if let Some(trace) = header.trace {
                    out.addition(ADDED_TRACE, &trace.to_le_bytes());
                }
                if let Some(group) = &header.group {
                    out.addition(ADDED_GROUP, group);
                }
                if header.makes_directories {
                    out.addition(ADDED_DIRECTORIES, &[]);
                }
            }
            OwnerMessage::Acknowledge { position } => {
                out.u8(ACKNOWLEDGE);
                out.u64(*position);
            }
            OwnerMessage::CallOff { attempt } => {
                out.u8(CALL_OFF);
                out.attempt(attempt);
            }
            OwnerMessage::Ping => out.u8(PING),
        }
        out.0
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, InvalidMessage> {
        let mut input = Reader(bytes);
        match input.u8()? {
            HELLO => {
                let (version, generation) = (input.u32()?, input.u64()?);
                // The first version had none to tell of.
                let features = if input.0.is_empty() { 0 } else { input.u32()? };
                Ok(OwnerMessage::Hello { version, generation, features })
            }
            LAUNCH => {
                let mut header = LaunchHeader {
                    attempt: input.attempt()?,
                    candidates: input.u32()?,
                    arguments: input.u32()?,
                    variables: input.u32()?,
                    bytes: input.u64()?,
                    umask: None,
                    soft_limits: [None; RESOURCES],
                    limits: LaunchLimits::default(),
                    held: None,
                    trace: None,
                    group: None,
                    makes_directories: false,
                };
                let umask = input.optional()?.map(u32::try_from).transpose();
                header.umask = umask.map_err(|_| InvalidMessage)?;
                for limit in &mut header.soft_limits {
                    *limit = input.optional()?;
                }
                while !input.0.is_empty() {
                    match input.addition()? {
                        (ADDED_LIMITS, bytes) => header.limits = LaunchLimits::decode(bytes)?,
                        (ADDED_HELD, bytes) => header.held = Some(Held::decode(bytes)?),
                        (ADDED_TRACE, bytes) => header.trace = Some(Reader(bytes).u64()?),
                        (ADDED_GROUP, bytes) if bytes.len() <= MAX_GROUP_PATH => {
                            header.group = Some(bytes.to_vec());
                        }
                        (ADDED_GROUP, _) => return Err(InvalidMessage),
                        (ADDED_DIRECTORIES, _) => header.makes_directories = true,
                        _ => {}
                    }
                }
                Ok(OwnerMessage::Launch(Box::new(header)))
            }
            ACKNOWLEDGE => Ok(OwnerMessage::Acknowledge { position: input.u64()? }),
            CALL_OFF => Ok(OwnerMessage::CallOff { attempt: input.attempt()? }),
            PING => Ok(OwnerMessage::Ping),
            _ => Err(InvalidMessage),
        }
    }
}

impl KeeperMessage {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Writer(Vec::with_capacity(MESSAGE_LEN));
        match self {
            KeeperMessage::Welcome(welcome) => {
                out.u8(WELCOME);
                out.u32(welcome.version);
                out.u32(welcome.guard.unwrap_or(0));
                out.u32(welcome.worker.unwrap_or(0));
                out.u8(u8::from(welcome.draining));
                out.u64(welcome.first);
                out.u64(welcome.end);
                out.text(&welcome.program_version);
                let flags = u32::from(welcome.is_damaged) | u32::from(welcome.is_stuck) << 1;
                if welcome.features != 0 {
                    out.u32(welcome.features);
                    if flags != 0 || welcome.launching != 0 {
                        out.u32(flags);
                        out.u32(welcome.launching);
                    }
                }
            }
            KeeperMessage::Launching { attempt } => {
                out.u8(LAUNCHING);
                out.attempt(attempt);
            }
            KeeperMessage::Pong => out.u8(PONG),
            KeeperMessage::Entries { position, raw } => {
                out.u8(ENTRIES);
                out.u64(*position);
                out.0.resize(ENTRIES_HEADER_LEN, 0);
                out.0.extend_from_slice(raw);
            }
            KeeperMessage::Superseded { generation } => {
                out.u8(SUPERSEDED);
                out.u64(*generation);
            }
        }
        out.0
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, InvalidMessage> {
        let mut input = Reader(bytes);
        match input.u8()? {
            WELCOME => {
                let mut welcome = Welcome {
                    version: input.u32()?,
                    guard: Some(input.u32()?).filter(|pid| *pid != 0),
                    worker: Some(input.u32()?).filter(|pid| *pid != 0),
                    draining: input.u8()? != 0,
                    first: input.u64()?,
                    end: input.u64()?,
                    program_version: input.text()?,
                    // The first version had none to tell of.
                    features: if input.0.is_empty() { 0 } else { input.u32()? },
                    launching: 0,
                    is_damaged: false,
                    is_stuck: false,
                };
                // Without features it has nothing that these could be about.
                if welcome.features != 0 && !input.0.is_empty() {
                    let flags = input.u32()?;
                    (welcome.is_damaged, welcome.is_stuck) = (flags & 1 != 0, flags & 2 != 0);
                    welcome.launching = input.u32()?;
                }
                Ok(KeeperMessage::Welcome(welcome))
            }
            ENTRIES => {
                let position = input.u64()?;
                let raw = bytes.get(ENTRIES_HEADER_LEN..).ok_or(InvalidMessage)?.to_vec();
                if position > MAX_POSITION || raw.len() % ENTRY_LEN != 0 {
                    return Err(InvalidMessage);
                }
                Ok(KeeperMessage::Entries { position, raw })
            }
            SUPERSEDED => Ok(KeeperMessage::Superseded { generation: input.u64()? }),
            LAUNCHING => Ok(KeeperMessage::Launching { attempt: input.attempt()? }),
            PONG => Ok(KeeperMessage::Pong),
            _ => Err(InvalidMessage),
        }
    }
}

struct Writer(Vec<u8>);

impl Writer {
    fn u8(&mut self, value: u8) {
        self.0.push(value);
    }

    fn u32(&mut self, value: u32) {
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    fn u64(&mut self, value: u64) {
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    fn optional(&mut self, value: Option<u64>) {
        self.u8(u8::from(value.is_some()));
        self.u64(value.unwrap_or(0));
    }

    fn addition(&mut self, kind: u8, bytes: &[u8]) {
        self.u8(kind);
        self.0.extend_from_slice(&u16::try_from(bytes.len()).unwrap_or(u16::MAX).to_le_bytes());
        self.0.extend_from_slice(bytes);
    }

    fn attempt(&mut self, attempt: &AttemptId) {
        self.u32(attempt.attempt);
        self.text(attempt.id.as_str());
    }

    /// A text of at most 255 bytes; a longer one is cut.
    fn text(&mut self, text: &str) {
        let bytes = &text.as_bytes()[..text.len().min(255)];
        self.u8(u8::try_from(bytes.len()).unwrap_or(255));
        self.0.extend_from_slice(bytes);
    }
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> Result<&'a [u8], InvalidMessage> {
        let (taken, rest) = self.0.split_at_checked(length).ok_or(InvalidMessage)?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], InvalidMessage> {
        self.take(N)?.try_into().map_err(|_| InvalidMessage)
    }

    fn u8(&mut self) -> Result<u8, InvalidMessage> {
        self.array().map(u8::from_le_bytes)
    }

    fn u32(&mut self) -> Result<u32, InvalidMessage> {
        self.array().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Result<u64, InvalidMessage> {
        self.array().map(u64::from_le_bytes)
    }

    fn optional(&mut self) -> Result<Option<u64>, InvalidMessage> {
        let present = self.u8()? != 0;
        let value = self.u64()?;
        Ok(present.then_some(value))
    }

    fn addition(&mut self) -> Result<(u8, &'a [u8]), InvalidMessage> {
        let kind = self.u8()?;
        let length = self.array().map(u16::from_le_bytes)?;
        Ok((kind, self.take(usize::from(length))?))
    }

    fn attempt(&mut self) -> Result<AttemptId, InvalidMessage> {
        let attempt = self.u32()?;
        let id = JobId::new(&self.text()?).map_err(|_| InvalidMessage)?;
        Ok(AttemptId { id, attempt })
    }

    fn text(&mut self) -> Result<String, InvalidMessage> {
        let length = usize::from(self.u8()?);
        std::str::from_utf8(self.take(length)?).map(str::to_owned).map_err(|_| InvalidMessage)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn launch() -> OwnerMessage {
        let id = JobId::new(&"x".repeat(JobId::MAX_LEN)).expect("valid");
        let mut soft_limits = [None; RESOURCES];
        soft_limits[7] = Some(u64::MAX);
        OwnerMessage::Launch(Box::new(LaunchHeader {
            attempt: AttemptId { id, attempt: 2 },
            candidates: 3,
            arguments: 4,
            variables: 5,
            bytes: 6,
            umask: Some(0o077),
            soft_limits,
            limits: LaunchLimits {
                open_files: Some((1024, Some(u64::MAX))),
                nice: Some(-20),
                user: Some(User { uid: 1, gid: 2, groups: vec![7; User::MAX_GROUPS] }),
            },
            held: Some(Held::Terminal(TerminalSize { rows: 24, columns: 300 })),
            trace: Some(7),
            group: Some(vec![b'/'; 512 + 256 + 14]),
            makes_directories: true,
        }))
    }

    #[test]
    fn messages_are_read_as_they_were_written_and_fit() {
        let hello = OwnerMessage::Hello { version: PROTOCOL_VERSION, generation: 9, features: FEATURES };
        let attempt = || AttemptId { id: JobId::new("a").expect("valid"), attempt: 2 };
        let call_off = OwnerMessage::CallOff { attempt: attempt() };
        let acknowledge = OwnerMessage::Acknowledge { position: 7 };
        for message in [hello, launch(), acknowledge, call_off, OwnerMessage::Ping] {
            let mut bytes = message.encode();
            assert!(bytes.len() <= MESSAGE_LEN);
            assert_eq!(OwnerMessage::decode(&bytes), Ok(message.clone()));
            // Added by a later version.
            bytes.extend_from_slice(b"\xc8\x03\x00new");
            assert_eq!(OwnerMessage::decode(&bytes), Ok(message));
        }
        let welcome = Welcome {
            version: PROTOCOL_VERSION,
            guard: Some(1),
            worker: None,
            draining: true,
            first: 2,
            end: 3,
            program_version: "0.1.0".to_owned(),
            features: FEATURES,
            launching: 0,
            is_damaged: false,
            is_stuck: false,
        };
        let stuck = Welcome { launching: 3, is_stuck: true, is_damaged: true, ..welcome.clone() };
        let messages = [
            KeeperMessage::Welcome(welcome),
            KeeperMessage::Welcome(stuck),
            KeeperMessage::Launching { attempt: attempt() },
            KeeperMessage::Entries { position: 5, raw: vec![1; ENTRIES_LEN] },
            KeeperMessage::Superseded { generation: 4 },
            KeeperMessage::Pong,
        ];
        for message in messages {
            let bytes = message.encode();
            assert!(bytes.len() <= MESSAGE_LEN);
            assert_eq!(KeeperMessage::decode(&bytes), Ok(message));
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_decoders_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            let _ = OwnerMessage::decode(&bytes);
            let _ = KeeperMessage::decode(&bytes);
        }

        #[test]
        fn a_cut_message_is_refused(length in 0_usize..500) {
            let bytes = launch().encode();
            let cut = &bytes[..length.min(bytes.len() - 1)];
            // Between two additions is where a version that knows fewer of them ends.
            if let Ok(shorter) = OwnerMessage::decode(cut) {
                prop_assert_eq!(shorter.encode(), cut);
            }
        }
    }
}
