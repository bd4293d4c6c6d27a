//! What is kept under which key. Numbers are big-endian, so that keys are in the order of their numbers.
//!
//! | key | value |
//! |---|---|
//! | `t` | totals: last numbers, jobs by status |
//! | `j` seq | state of the newest attempt |
//! | `a` seq attempt | state of an earlier attempt |
//! | `d` seq attempt | definition of an attempt |
//! | `i` id | seq |
//! | `s` status 0 seq | nothing |
//! | `u` last update, seq | nothing |
//! | `n`, `g`, `l`, `k` hash, seq | nothing: name, group, label with its value, label |
//! | `e` number | event |
//! | `o` kind 0 key | document |

use std::collections::BTreeSet;

use sha2::{Digest as _, Sha256};

use super::super::DocumentKind;
use crate::id::JobId;
use crate::job::{Definition, JobState};
use crate::status::Status;
use crate::time::Timestamp;

pub(super) const TOTALS: &[u8] = b"t";
pub(super) const JOBS: &[u8] = b"j";
pub(super) const ATTEMPTS: &[u8] = b"a";
pub(super) const DEFINITIONS: &[u8] = b"d";
pub(super) const IDS: &[u8] = b"i";
pub(super) const EVENTS: &[u8] = b"e";
pub(super) const DOCUMENTS: &[u8] = b"o";
/// The indexes whose keys end in a seq.
pub(super) const INDEXES: [&[u8]; 6] = [b"s", b"u", b"n", b"g", b"l", b"k"];

/// So much of a document's key is in the key of its record; the rest of a longer one only by its hash, so that no key is
/// too long for an engine.
const DOCUMENT_KEY: usize = 256;

fn key(parts: &[&[u8]]) -> Vec<u8> {
    parts.concat()
}

/// The first key behind every key that begins so.
pub(super) fn behind(prefix: &[u8]) -> Vec<u8> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < u8::MAX {
            end.push(last + 1);
            break;
        }
    }
    end
}

pub(super) fn job(seq: u64) -> Vec<u8> {
    numbered(JOBS, seq)
}

pub(super) fn attempt(seq: u64, attempt: u32) -> Vec<u8> {
    key(&[ATTEMPTS, &seq.to_be_bytes(), &attempt.to_be_bytes()])
}

pub(super) fn definition(seq: u64, attempt: u32) -> Vec<u8> {
    key(&[DEFINITIONS, &seq.to_be_bytes(), &attempt.to_be_bytes()])
}

/// Everything under this prefix that belongs to that job.
pub(super) fn numbered(prefix: &[u8], seq: u64) -> Vec<u8> {
    key(&[prefix, &seq.to_be_bytes()])
}

pub(super) fn id(id: &JobId) -> Vec<u8> {
    id_prefix(id.as_str())
}

pub(super) fn id_prefix(prefix: &str) -> Vec<u8> {
    key(&[IDS, prefix.as_bytes()])
}

pub(super) fn event(number: u64) -> Vec<u8> {
    numbered(EVENTS, number)
}

/// The seq, or the number of an event, that a key ends in.
pub(super) fn last_number(key: &[u8]) -> Option<u64> {
    let start = key.len().checked_sub(8)?;
    Some(u64::from_be_bytes(key[start..].try_into().ok()?))
}

pub(super) fn status(status: Status) -> Vec<u8> {
    key(&[b"s", status.as_str().as_bytes(), &[0]])
}

pub(super) fn last_update(time: Timestamp) -> Vec<u8> {
    // Negative numbers come before the others.
    key(&[b"u", &(time.as_millis().cast_unsigned() ^ 1 << 63).to_be_bytes()])
}

pub(super) fn name(name: &str) -> Vec<u8> {
    hashed(b"n", &[name])
}

pub(super) fn group(group: &str) -> Vec<u8> {
    hashed(b"g", &[group])
}

pub(super) fn label(label: &str, value: &str) -> Vec<u8> {
    hashed(b"l", &[label, value])
}

pub(super) fn any_label(label: &str) -> Vec<u8> {
    hashed(b"k", &[label])
}

/// Texts of any length, of which only equality counts. Who finds two that are the same by chance sees it in the job.
fn hashed(prefix: &[u8], texts: &[&str]) -> Vec<u8> {
    let mut hash = Sha256::new();
    for text in texts {
        hash.update((text.len() as u64).to_be_bytes());
        hash.update(text);
    }
    key(&[prefix, &hash.finalize()[..16]])
}

/// Every key of an index that leads to this job.
pub(super) fn indexes(seq: u64, definition: &Definition, state: &JobState) -> BTreeSet<Vec<u8>> {
    let mut prefixes = vec![status(state.status), last_update(state.last_update)];
    prefixes.extend(definition.name.as_deref().map(name));
    prefixes.extend(definition.group.as_deref().map(group));
    for (key, value) in &definition.labels {
        prefixes.extend([label(key, value), any_label(key)]);
    }
    prefixes.iter().map(|prefix| numbered(prefix, seq)).collect()
}

pub(super) fn documents(kind: DocumentKind) -> Vec<u8> {
    key(&[DOCUMENTS, kind.as_str().as_bytes(), &[0]])
}

pub(super) fn document(kind: DocumentKind, name: &str) -> Vec<u8> {
    let mut key = document_prefix(kind, name);
    if name.len() > DOCUMENT_KEY {
        key.extend_from_slice(&Sha256::digest(name));
    }
    key
}

/// What the keys of all documents begin with whose own keys begin so.
pub(super) fn document_prefix(kind: DocumentKind, prefix: &str) -> Vec<u8> {
    let prefix = prefix.as_bytes();
    key(&[&documents(kind), &prefix[..prefix.len().min(DOCUMENT_KEY)]])
}

/// Whether a record's key tells a document's key only in part.
pub(super) fn is_cut(name: &str) -> bool {
    name.len() > DOCUMENT_KEY
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_in_the_order_of_what_they_stand_for() {
        let times = [i64::MIN, -1, 0, 1, i64::MAX].map(|millis| last_update(Timestamp::from_millis(millis)));
        assert!(times.is_sorted());
        assert!([0, 1, 255, 256, u64::MAX].map(job).is_sorted());
        assert_eq!(last_number(&job(258)), Some(258));
        assert_eq!(last_number(b"j"), None);
    }

    #[test]
    fn the_end_of_a_prefix_is_behind_all_that_begin_so() {
        assert_eq!(behind(b"ab"), b"ac");
        assert_eq!(behind(b"a\xff\xff"), b"b");
        assert!(behind(b"j") > job(u64::MAX));
    }

    #[test]
    fn no_key_is_long_and_none_stands_for_two() {
        let long = "k".repeat(1 << 20);
        let keys: BTreeSet<_> = [&long, &long[1..], &long[..DOCUMENT_KEY], &long[..DOCUMENT_KEY + 1], ""]
            .map(|name| document(DocumentKind::Meta, name))
            .into();
        assert_eq!(keys.len(), 5);
        assert!(keys.iter().all(|key| key.len() <= 320));
        assert!(label(&long, &long).len() <= 320);
        assert_ne!(label("a", "bc"), label("ab", "c"));
        assert_ne!(any_label("a"), label("a", ""));
    }
}
