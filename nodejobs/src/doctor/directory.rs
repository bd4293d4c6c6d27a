//! The data directory: whose it is, where it is, and what it says about itself.

use std::io;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;

use nodejobs_proc::machine::Machine;
use rustix::fs::{Access, AtFlags, CWD, StatVfsMountFlags, accessat, statfs, statvfs};

use super::{Finding, bytes};
use crate::directory::{network_file_system, parse};
use crate::foreign::{META, foreign_file};

/// Less than this is soon used up by logs.
const LITTLE_SPACE: u64 = 256 << 20;
/// With less than this hardly a job can be written down.
const NO_SPACE: u64 = 4 << 20;

pub(super) fn look(data_dir: &Path) -> Vec<Finding> {
    const CHECK: &str = "directory";
    let shown = data_dir.display();
    let metadata = match std::fs::metadata(data_dir) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return not_there(data_dir),
        Err(error) => {
            let text = format!("'{shown}' cannot be looked at: {error}");
            return vec![Finding::problem(CHECK, text, "choose another with --data-dir")];
        }
    };
    if !metadata.is_dir() {
        let text = format!("'{shown}' is no directory");
        return vec![Finding::problem(CHECK, text, "choose another with --data-dir")];
    }
    let own = rustix::process::geteuid().as_raw();
    let (owner, mode) = (metadata.uid(), metadata.permissions().mode() & 0o7777);
    let place = format!("'{shown}', user {owner}, mode {mode:o}");
    let first = if owner != own {
        let text = format!("{place}: it belongs to somebody else, not to user {own}");
        Finding::problem(
            CHECK,
            text,
            format!("run nodejobs as user {owner}, or choose another with --data-dir"),
        )
    } else if !may_write(data_dir) {
        Finding::problem(CHECK, format!("{place}: it cannot be written to"), format!("chmod 700 '{shown}'"))
    } else if let Ok(Some(name)) = foreign_file(data_dir) {
        let text = format!("{place}: others can look into it, and '{}' in it is not ours", name.display());
        Finding::problem(CHECK, text, format!("choose another with --data-dir, or chmod 700 '{shown}'"))
    } else if mode & 0o077 != 0 {
        let way_out = format!("chmod 700 '{shown}'; the next daemon does it, too");
        Finding::weaker(CHECK, format!("{place}: others can look into it"), way_out)
    } else {
        Finding::ok(CHECK, place)
    };
    let mut findings = vec![first];
    findings.extend(strangers(data_dir, own));
    findings.push(file_system(data_dir));
    findings.extend(says(data_dir));
    findings
}

fn may_write(path: &Path) -> bool {
    let all = Access::READ_OK | Access::WRITE_OK | Access::EXEC_OK;
    accessat(CWD, path, all, AtFlags::EACCESS).is_ok()
}

/// A directory that nobody has used yet.
fn not_there(data_dir: &Path) -> Vec<Finding> {
    const CHECK: &str = "directory";
    let shown = data_dir.display();
    let there = data_dir.ancestors().skip(1).find(|above| above.symlink_metadata().is_ok());
    let above = there.unwrap_or(Path::new("/"));
    if above.is_dir() && may_write(above) {
        let text = format!("'{shown}' is not there yet; the first command that needs it makes it");
        return vec![Finding::ok(CHECK, text), file_system(above)];
    }
    let text = format!("'{shown}' is not there and cannot be made in '{}'", above.display());
    vec![Finding::problem(CHECK, text, "choose another with --data-dir or NODEJOBS_DIR")]
}

/// Files in it that are not ours, or that others may look at.
fn strangers(data_dir: &Path, own: u32) -> Option<Finding> {
    const CHECK: &str = "files";
    let entries = match std::fs::read_dir(data_dir) {
        Ok(entries) => entries.flatten(),
        Err(error) => {
            return Some(Finding::problem(CHECK, format!("they cannot be listed: {error}"), "chmod 700 it"));
        }
    };
    let (mut foreign, mut open) = (Vec::new(), Vec::new());
    for entry in entries {
        // The entry itself, wherever a link may lead.
        let Ok(metadata) = entry.metadata() else { continue };
        let name = entry.file_name().to_string_lossy().into_owned();
        if metadata.uid() != own {
            foreign.push(name);
        } else if !metadata.is_symlink() && metadata.permissions().mode() & 0o077 != 0 {
            open.push(name);
        }
    }
    if !foreign.is_empty() {
        let text = format!("not user {own}'s, who may not be able to write them: {}", foreign.join(", "));
        return Some(Finding::problem(CHECK, text, format!("chown {own} them; did root run nodejobs here?")));
    }
    if !open.is_empty() {
        let text = format!("others may look at: {}", open.join(", "));
        return Some(Finding::weaker(
            CHECK,
            text,
            "chmod go= them; the directory keeps others out as long as it has mode 700",
        ));
    }
    None
}

fn file_system(path: &Path) -> Finding {
    const CHECK: &str = "file system";
    const OTHER: &str = "choose a directory on a local disk with --data-dir";
    let (kind, room) = match (statfs(path), statvfs(path)) {
        (Ok(kind), Ok(room)) => (u32::try_from(kind.f_type & 0xFFFF_FFFF).unwrap_or(0), room),
        (Err(error), _) | (_, Err(error)) => {
            return Finding::problem(CHECK, format!("it cannot be looked at: {error}"), OTHER);
        }
    };
    let free = room.f_bavail.saturating_mul(room.f_frsize);
    let place = format!("{}, {} free", kind_name(kind), bytes(free));
    if let Ok(Some(network)) = network_file_system(path) {
        let text = format!("{network}: locks and flushes cannot be relied on, so nodejobs refuses it");
        return Finding::problem(CHECK, text, OTHER);
    }
    if room.f_flag.contains(StatVfsMountFlags::RDONLY) {
        return Finding::problem(CHECK, format!("{place}: it is mounted read-only"), OTHER);
    }
    if free < NO_SPACE || (room.f_files > 0 && room.f_favail == 0) {
        return Finding::problem(
            CHECK,
            format!("{place}: it is full"),
            "make room; what runs goes on meanwhile",
        );
    }
    if [TMPFS, RAMFS].contains(&kind) {
        return Finding::weaker(
            CHECK,
            format!("{place}: it is memory, and gone with the next start of the machine"),
            OTHER,
        );
    }
    if free < LITTLE_SPACE {
        return Finding::weaker(CHECK, format!("{place}: logs may soon fill it"), "make room");
    }
    Finding::ok(CHECK, place)
}

const TMPFS: u32 = 0x0102_1994;
const RAMFS: u32 = 0x8584_58f6;

fn kind_name(kind: u32) -> String {
    const NAMES: [(u32, &str); 9] = [
        (0xEF53, "ext2/3/4"),
        (0x5846_5342, "xfs"),
        (0x9123_683E, "btrfs"),
        (0x2FC1_2FC1, "zfs"),
        (0xF2F5_2010, "f2fs"),
        (0x794c_7630, "overlay"),
        (0x6573_5546, "fuse"),
        (TMPFS, "tmpfs"),
        (RAMFS, "ramfs"),
    ];
    let name = NAMES.iter().find(|(number, _)| *number == kind);
    name.map_or_else(|| format!("file system {kind:#x}"), |(_, name)| (*name).to_owned())
}

/// What `nodejobs.json` says.
fn says(data_dir: &Path) -> Option<Finding> {
    const CHECK: &str = META;
    let path = data_dir.join(META);
    let bytes = match std::fs::read(&path) {
        Ok(bytes) => bytes,
        // Nobody has owned it yet.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
        Err(error) => {
            return Some(Finding::problem(CHECK, format!("it cannot be read: {error}"), "chmod 600 it"));
        }
    };
    let meta = match parse(&bytes, &path) {
        Ok(meta) => meta,
        Err(error) => {
            let way_out = "restore it, or choose another directory with --data-dir";
            return Some(Finding::problem(CHECK, error.to_problem().message, way_out));
        }
    };
    let here = Machine::read().ok().and_then(|machine| machine.machine_id);
    Some(match (&meta.machine_id, here) {
        (Some(before), Some(here)) if *before != here => {
            let text = format!("last owned on another machine, {before}; this one is {here}");
            let way_out = "if that machine is gone, remove machine_id from it: its jobs may still run there";
            Finding::problem(CHECK, text, way_out)
        }
        _ => Finding::ok(
            CHECK,
            format!("store {}, id {}, owned on this machine", meta.store, meta.directory_id),
        ),
    })
}
