//! What is said to the holder of a job's input: the small process that keeps a job's pipe or terminal open, whoever else
//! dies. One message per packet of a seqpacket socket; numbers are little-endian.
//!
//! | to the holder | | answered |
//! |---|---|---|
//! | `i` bytes | give the job these, at most [`MAX_INPUT`] of them | `t`, once it has taken all |
//! | `e` | end its input: nothing follows; at a terminal, what Ctrl-D types | `t` |
//! | `c` | take back what is not done yet of the last `i` or `e` | by the `t` of that |
//! | `f` | write all output that is there to the log | `t` |
//! | `a` rows columns lines, two bytes each | show the output, from so many lines before its end on, and set the size | |
//! | `r` rows columns, two bytes each | set the size | |
//!
//! | from the holder | |
//! |---|---|
//! | `t` number, four bytes | so many bytes of the `i` were taken; of others 0, or 1 of an `e` that was taken back |
//! | `o` bytes | output, to whoever is attached |
//!
//! `a` and `r` are for terminals alone. The connection ends when the job has closed its input or terminal, and one that is
//! attached when its main process has ended.

use sha2::{Digest, Sha256};

use crate::id::AttemptId;
use crate::spec::TerminalSize;

/// What is given at once is given as a whole or not at all, as far as pipes go (`PIPE_BUF`).
pub const MAX_INPUT: usize = 4096;
/// No message is longer.
pub const MESSAGE_LEN: usize = 1 + (16 << 10);

/// The name of the holder's socket, in the directory of keepers.
///
/// ```
/// use nodejobs_core::{JobId, holder, id::AttemptId};
///
/// let id = JobId::new(&"x".repeat(JobId::MAX_LEN)).expect("valid");
/// let name = holder::socket_name(&AttemptId { id, attempt: 1 });
/// // However long the id: a socket's address has 108 bytes.
/// assert!(name.len() == 39 && name.ends_with(holder::SOCKET_ENDING));
/// ```
pub fn socket_name(attempt: &AttemptId) -> String {
    let hash = Sha256::digest(format!("{}/{}", attempt.id, attempt.attempt));
    hash.iter().take(16).map(|byte| format!("{byte:02x}")).chain([SOCKET_ENDING.to_owned()]).collect()
}

/// Of the names of holders' sockets.
pub const SOCKET_ENDING: &str = ".holder";

/// A message that is not one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a message of the holder's protocol")]
pub struct InvalidMessage;

/// To the holder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ToHolder<'a> {
    /// Give the job these bytes.
    Input(&'a [u8]),
    /// End its input.
    End,
    /// Take back what is not done yet of the last input or end.
    Cancel,
    /// Write all output that is there to the log.
    Flush,
    /// Show the output.
    Attach {
        /// Of the terminal that shows it.
        size: TerminalSize,
        /// How many lines of what is there already.
        lines: u16,
    },
    /// The terminal that shows it has this size now.
    Resize(TerminalSize),
}

/// From the holder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FromHolder<'a> {
    /// It is done; of input, so many bytes were taken. 1 says of an end that it was taken back.
    Taken(u32),
    /// Output.
    Output(&'a [u8]),
}

impl<'a> ToHolder<'a> {
    /// The packet.
    pub fn encode(&self) -> Vec<u8> {
        let mut packet = Vec::new();
        match self {
            ToHolder::Input(bytes) => packet.extend([b"i", *bytes].concat()),
            ToHolder::End => packet.push(b'e'),
            ToHolder::Cancel => packet.push(b'c'),
            ToHolder::Flush => packet.push(b'f'),
            ToHolder::Attach { size, lines } => {
                packet.push(b'a');
                packet.extend([size.rows, size.columns, *lines].into_iter().flat_map(u16::to_le_bytes));
            }
            ToHolder::Resize(size) => {
                packet.push(b'r');
                packet.extend([size.rows, size.columns].into_iter().flat_map(u16::to_le_bytes));
            }
        }
        packet
    }

    /// The message of a packet.
    ///
    /// # Errors
    /// [`InvalidMessage`].
    pub fn decode(packet: &'a [u8]) -> Result<Self, InvalidMessage> {
        let number = |pair: [u8; 2]| u16::from_le_bytes(pair);
        Ok(match packet {
            [b'i', bytes @ ..] if (1..=MAX_INPUT).contains(&bytes.len()) => ToHolder::Input(bytes),
            b"e" => ToHolder::End,
            b"c" => ToHolder::Cancel,
            b"f" => ToHolder::Flush,
            &[b'a', r0, r1, c0, c1, l0, l1] => ToHolder::Attach {
                size: TerminalSize { rows: number([r0, r1]), columns: number([c0, c1]) },
                lines: number([l0, l1]),
            },
            &[b'r', r0, r1, c0, c1] => {
                ToHolder::Resize(TerminalSize { rows: number([r0, r1]), columns: number([c0, c1]) })
            }
            _ => return Err(InvalidMessage),
        })
    }
}

impl<'a> FromHolder<'a> {
    /// The packet.
    pub fn encode(&self) -> Vec<u8> {
        match self {
            FromHolder::Taken(count) => [b"t".as_slice(), &count.to_le_bytes()].concat(),
            FromHolder::Output(bytes) => [b"o", *bytes].concat(),
        }
    }

    /// The message of a packet.
    ///
    /// # Errors
    /// [`InvalidMessage`].
    pub fn decode(packet: &'a [u8]) -> Result<Self, InvalidMessage> {
        match packet {
            &[b't', a, b, c, d] => Ok(FromHolder::Taken(u32::from_le_bytes([a, b, c, d]))),
            [b'o', bytes @ ..] if !bytes.is_empty() => Ok(FromHolder::Output(bytes)),
            _ => Err(InvalidMessage),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::JobId;

    #[test]
    fn messages_are_read_as_they_were_written() {
        let size = TerminalSize { rows: 24, columns: 300 };
        let input = [7; MAX_INPUT];
        let all = [
            ToHolder::Input(&input),
            ToHolder::End,
            ToHolder::Cancel,
            ToHolder::Flush,
            ToHolder::Attach { size, lines: 0x1234 },
            ToHolder::Resize(size),
        ];
        for message in all {
            assert_eq!(ToHolder::decode(&message.encode()), Ok(message));
        }
        for message in [FromHolder::Taken(70_000), FromHolder::Output(b"x")] {
            assert_eq!(FromHolder::decode(&message.encode()), Ok(message));
        }
    }

    #[test]
    fn what_is_too_long_too_short_or_unknown_is_none() {
        let long = [b"i".as_slice(), &[0; MAX_INPUT + 1]].concat();
        for bad in [&long[..], b"", b"i", b"e ", b"a12345", b"a1234567", b"r123", b"x"] {
            assert_eq!(ToHolder::decode(bad), Err(InvalidMessage), "{bad:?}");
        }
        for bad in [&b""[..], b"t123", b"t12345", b"o", b"x"] {
            assert_eq!(FromHolder::decode(bad), Err(InvalidMessage), "{bad:?}");
        }
    }

    #[test]
    fn attempts_have_sockets_of_their_own() {
        let name =
            |id: &str, attempt| socket_name(&AttemptId { id: JobId::new(id).expect("valid"), attempt });
        assert_ne!(name("a", 1), name("a", 2));
        assert_ne!(name("a", 11), name("a1", 1));
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_decoders_panic(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
            let _ = ToHolder::decode(&bytes);
            let _ = FromHolder::decode(&bytes);
        }
    }
}
