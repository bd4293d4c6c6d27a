//! Flipped bits in what keepers have left that are dead: in an entry, in the header, in the page of gates.

use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use super::random::Random;

/// The length of the header and of each entry of a journal.
const RECORD: u64 = 256;

/// Flips bits in the files of dead keepers; in how many.
pub(crate) fn flip(keepers: &Path, random: &mut Random) -> Result<usize> {
    let mut flipped = 0;
    for path in dead(keepers) {
        // Half of them stay as they are, so that there is something to compare.
        if random.one_in(2) {
            continue;
        }
        flipped += usize::from(flip_one(&path, random)?);
    }
    Ok(flipped)
}

/// Files of keepers whose socket nobody listens to.
fn dead(keepers: &Path) -> Vec<PathBuf> {
    let paths = fs::read_dir(keepers).into_iter().flatten().flatten().map(|entry| entry.path());
    let is_dead = |path: &PathBuf| {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let is_file = name.ends_with(".journal") || name.ends_with(".gates");
        let keeper = name.split('.').next().unwrap_or_default();
        is_file && UnixStream::connect(keepers.join(format!("{keeper}.sock"))).is_err()
    };
    let mut dead: Vec<PathBuf> = paths.filter(is_dead).collect();
    dead.sort();
    dead
}

fn flip_one(path: &Path, random: &mut Random) -> Result<bool> {
    let cannot = || format!("cannot flip a bit of {}", path.display());
    let file = File::options().read(true).write(true).open(path).with_context(cannot)?;
    let length = file.metadata().with_context(cannot)?.len();
    if length == 0 {
        return Ok(false);
    }
    for _ in 0..1 + random.below(3) {
        // One in four meets the header.
        let offset = if random.one_in(4) { random.below(length.min(RECORD)) } else { random.below(length) };
        let mut byte = [0];
        file.read_exact_at(&mut byte, offset).with_context(cannot)?;
        byte[0] ^= 1 << random.below(8);
        file.write_all_at(&byte, offset).with_context(cannot)?;
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_the_dead_are_changed_and_those_of_the_living_are_not() {
        let directory = std::env::temp_dir().join(format!("xtask-flip-{}", std::process::id()));
        fs::create_dir_all(&directory).unwrap();
        let _listener = std::os::unix::net::UnixListener::bind(directory.join("b.sock")).unwrap();
        for name in ["a.journal", "a.gates", "b.journal", "a.other"] {
            fs::write(directory.join(name), [0; 1024]).unwrap();
        }
        let mut random = Random::new(1, 1);
        let changed = (0..20).map(|_| flip(&directory, &mut random).unwrap()).sum::<usize>();
        assert!(changed > 0);
        let is_same = |name: &str| fs::read(directory.join(name)).unwrap() == [0; 1024];
        assert_eq!(["a.journal", "a.gates", "b.journal", "a.other"].map(is_same), [false, false, true, true]);
        fs::remove_dir_all(directory).unwrap();
    }
}
