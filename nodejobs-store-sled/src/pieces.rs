//! Large values in pieces.
//!
//! sled writes what is too large for its log into a file of its own, a blob, and never syncs that one. What is large to
//! it is a node of the tree, which holds up to 17 entries; a quarter of a segment is the limit, 128 KiB. So no value is
//! larger than [`PIECE`].

use sled::IVec;

/// Bytes of a value, or of a piece of one. 17 of them, with keys of 320 bytes, are less than 128 KiB.
pub(crate) const PIECE: usize = 6 << 10;

/// Says that the value follows.
const WHOLE: u8 = 0;
/// Says that the number of its pieces follows.
const CUT: u8 = 1;

/// Where pieces are; no other key begins so.
const PIECES: u8 = 0xff;

/// What is stored for a value: what comes under its own key, and its pieces.
pub(crate) fn cut<'v>(key: &[u8], value: &'v [u8]) -> (Vec<u8>, impl Iterator<Item = (Vec<u8>, &'v [u8])>) {
    let is_cut = value.len() > PIECE;
    let head = if is_cut {
        let count = u32::try_from(value.len().div_ceil(PIECE)).unwrap_or(u32::MAX);
        [[CUT].as_slice(), &count.to_be_bytes()].concat()
    } else {
        [[WHOLE].as_slice(), value].concat()
    };
    let pieces = if is_cut { value.chunks(PIECE) } else { [].chunks(PIECE) };
    let key = key.to_vec();
    (head, (0..).zip(pieces).map(move |(number, piece)| (piece_key(&key, number), piece)))
}

/// How many pieces there are for what is stored under a key; `None` if it is nothing that [`cut`] has made.
pub(crate) fn count(head: &[u8]) -> Option<u32> {
    match head.split_first()? {
        (&WHOLE, _) => Some(0),
        (&CUT, count) => Some(u32::from_be_bytes(count.try_into().ok()?)),
        _ => None,
    }
}

/// The value again. `None` if it is not whole.
pub(crate) fn join<E>(
    key: &[u8],
    head: &[u8],
    get: impl Fn(&[u8]) -> Result<Option<IVec>, E>,
) -> Result<Option<Vec<u8>>, E> {
    let Some(count) = count(head) else { return Ok(None) };
    if count == 0 {
        return Ok(Some(head[1..].to_vec()));
    }
    let mut value = Vec::new();
    for number in 0..count {
        match get(&piece_key(key, number))? {
            Some(piece) => value.extend_from_slice(&piece),
            None => return Ok(None),
        }
    }
    Ok(Some(value))
}

pub(crate) fn piece_key(key: &[u8], number: u32) -> Vec<u8> {
    [[PIECES].as_slice(), key, &number.to_be_bytes()].concat()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::convert::Infallible;

    use super::*;

    #[test]
    fn values_come_back_whole_or_not_at_all() {
        for length in [0, 1, PIECE - 1, PIECE, PIECE + 1, 3 * PIECE, 1 << 20] {
            let value: Vec<u8> = (0..length).map(|number| u8::try_from(number % 251).unwrap_or(0)).collect();
            let (head, pieces) = cut(b"key", &value);
            let mut stored: BTreeMap<Vec<u8>, Vec<u8>> =
                pieces.map(|(key, piece)| (key, piece.to_vec())).collect();
            assert!(stored.values().chain([&head]).all(|piece| piece.len() <= PIECE + 1));
            assert_eq!(count(&head), u32::try_from(stored.len()).ok());
            let joined = |stored: &BTreeMap<Vec<u8>, Vec<u8>>| {
                join(b"key", &head, |key| {
                    Ok::<_, Infallible>(stored.get(key).map(|piece| piece.as_slice().into()))
                })
            };
            assert!(joined(&stored) == Ok(Some(value)));
            if stored.pop_last().is_some() {
                assert!(joined(&stored) == Ok(None));
            }
        }
        assert_eq!(count(b""), None);
        assert_eq!(count(b"\x01\x00"), None);
        assert_eq!(count(b"\x07"), None);
    }
}
