//! The keys that end an attachment, among all that are typed.

use std::str::FromStr;

/// Keys that are typed one after the other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct DetachKeys(Vec<u8>);

impl FromStr for DetachKeys {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        text.split(',').map(key).collect::<Result<_, _>>().map(Self)
    }
}

fn key(text: &str) -> Result<u8, String> {
    let bad = || {
        format!(
            "'{text}' is no key; give characters, or ctrl-a to ctrl-z and ctrl-@ [ \\ ] ^ _, with commas between them"
        )
    };
    let plain = |text: &str| match text.as_bytes() {
        [byte @ b'!'..=b'~'] => Ok(*byte),
        _ => Err(bad()),
    };
    let lower = text.to_ascii_lowercase();
    let Some(control) = lower.strip_prefix("ctrl-") else { return plain(text) };
    match plain(control)?.to_ascii_uppercase() {
        key @ b'@'..=b'_' => Ok(key - b'@'),
        _ => Err(bad()),
    }
}

/// Looks for the keys in what is typed.
#[derive(Debug)]
pub(super) struct Watch<'a> {
    keys: &'a [u8],
    /// So many of them were typed last, and are held back.
    held: usize,
}

/// What is to be done with what was typed.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Typed {
    /// This goes to the job.
    pub(super) keys: Vec<u8>,
    /// And then the attachment ends.
    pub(super) detaches: bool,
}

impl<'a> Watch<'a> {
    pub(super) fn for_keys(keys: &'a DetachKeys) -> Self {
        Self { keys: &keys.0, held: 0 }
    }

    pub(super) fn typed(&mut self, bytes: &[u8]) -> Typed {
        let mut keys = Vec::with_capacity(bytes.len());
        for byte in bytes {
            // What was held back and is none of them after all goes on, but for an end of it that may still become one.
            while self.held > 0 && *byte != self.keys[self.held] {
                let held = &self.keys[..self.held];
                let shorter =
                    (0..self.held).rev().find(|length| held.ends_with(&held[..*length])).unwrap_or(0);
                keys.extend_from_slice(&held[..self.held - shorter]);
                self.held = shorter;
            }
            if *byte == self.keys[self.held] {
                self.held += 1;
            } else {
                keys.push(*byte);
            }
            if self.held == self.keys.len() {
                self.held = 0;
                return Typed { keys, detaches: true };
            }
        }
        Typed { keys, detaches: false }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(text: &str) -> DetachKeys {
        text.parse().unwrap_or_else(|error| panic!("{error}"))
    }

    #[test]
    fn keys_are_written_as_people_write_them() {
        assert_eq!(keys("ctrl-p,ctrl-q"), DetachKeys(vec![16, 17]));
        assert_eq!(keys("Ctrl-\\,x"), DetachKeys(vec![28, b'x']));
        assert_eq!(keys("ctrl-@"), DetachKeys(vec![0]));
        for bad in ["", "ctrl-", "ctrl-1", "ctrl-p,", "ab", "\u{fc}", " "] {
            assert!(bad.parse::<DetachKeys>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn they_end_it_and_nothing_else_is_lost() {
        let keys = keys("ctrl-p,ctrl-q");
        let mut watch = Watch::for_keys(&keys);
        let typed = |keys: &[u8], detaches| Typed { keys: keys.to_vec(), detaches };
        assert_eq!(watch.typed(b"ab"), typed(b"ab", false));
        assert_eq!(watch.typed(&[16]), typed(b"", false), "held back until the next key");
        assert_eq!(watch.typed(b"x"), typed(&[16, b'x'], false));
        assert_eq!(watch.typed(&[16, 16]), typed(&[16], false));
        assert_eq!(watch.typed(&[17, b'y']), typed(b"", true));
    }

    #[test]
    fn keys_that_repeat_themselves_are_found() {
        let keys = keys("a,a,b");
        let mut watch = Watch::for_keys(&keys);
        assert_eq!(watch.typed(b"aaab"), Typed { keys: b"a".to_vec(), detaches: true });
        assert_eq!(watch.typed(b"aac"), Typed { keys: b"aac".to_vec(), detaches: false });
    }
}
