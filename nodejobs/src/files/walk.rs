//! The way along a path to the file system that it leads to, one mount at a time.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::path::{Component, Path, PathBuf};

use super::mounts::{Device, Table};

/// As many symbolic links as the kernel follows.
const MAX_LINKS: usize = 40;

/// How far a path was followed. Each step touches only the file system that it is on.
#[derive(Debug)]
pub(super) struct Walk {
    /// Without symbolic links.
    real: PathBuf,
    rest: VecDeque<OsString>,
    links: usize,
}

impl Walk {
    /// Where a path begins by its text: nothing was touched yet.
    pub(super) fn begin(path: &Path, mounts: &Table) -> (Self, Device) {
        let (point, device) = mounts.of(path);
        let rest = names(path.strip_prefix(point).unwrap_or(path)).collect();
        (Self { real: point.to_owned(), rest, links: 0 }, device)
    }

    /// Goes on as far as this file system reaches. The next one, if the path leads to another.
    pub(super) fn go_on(&mut self, here: Device, mounts: &Table) -> Option<Device> {
        while let Some(name) = self.rest.pop_front() {
            if name == ".." {
                self.real.pop();
            } else {
                let next = self.real.join(&name);
                // A place where something is mounted is no link, and to ask would be to ask what is mounted there.
                let target = (mounts.of(&next).0 != next).then(|| std::fs::read_link(&next).ok()).flatten();
                match target {
                    Some(target) if self.links < MAX_LINKS => self.follow(&target, mounts),
                    _ => self.real = next,
                }
            }
            let device = mounts.of(&self.real).1;
            if device != here {
                return Some(device);
            }
        }
        None
    }

    fn follow(&mut self, target: &Path, mounts: &Table) {
        self.links += 1;
        let mut target_names: VecDeque<OsString> = names(target).collect();
        if target.is_absolute() {
            let (begin, _) = Self::begin(target, mounts);
            (self.real, target_names) = (begin.real, begin.rest);
        }
        target_names.append(&mut self.rest);
        self.rest = target_names;
    }
}

fn names(path: &Path) -> impl Iterator<Item = OsString> {
    path.components().filter_map(|component| match component {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some("..".into()),
        Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::super::mounts::Mounts;
    use super::*;

    #[test]
    fn links_are_followed_up_to_the_next_mount() {
        let place = tempfile::tempdir().expect("a directory");
        let mounts = Mounts::default().now();
        symlink("/proc/self", place.path().join("out")).expect("a link");
        std::fs::create_dir(place.path().join("d")).expect("made");
        symlink("../out/fd", place.path().join("d/twice")).expect("a link");
        symlink("loop", place.path().join("loop")).expect("a link");
        let here = mounts.of(place.path()).1;
        let proc = mounts.of(Path::new("/proc")).1;
        for (name, leads_to) in [("d/x/y", None), ("d/twice/0", Some(proc)), ("loop/x", None)] {
            let (mut walk, device) = Walk::begin(&place.path().join(name), &mounts);
            assert_eq!(device, here, "{name}: by its text");
            assert_eq!(walk.go_on(here, &mounts), leads_to, "{name}");
        }
    }
}
