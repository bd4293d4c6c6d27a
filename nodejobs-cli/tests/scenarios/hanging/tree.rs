//! What a file system of the tests keeps: directories and files, in memory.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::time::SystemTime;

use fuser::{Errno, FileAttr, FileType, INodeNo};

/// Directories and files by number.
pub(crate) struct Tree {
    nodes: BTreeMap<u64, Node>,
    next: u64,
}

struct Node {
    perm: u16,
    changed: SystemTime,
    links: u32,
    content: Content,
}

enum Content {
    Directory(BTreeMap<OsString, u64>),
    File(Vec<u8>),
}

impl Tree {
    /// With an empty root.
    pub(super) fn new() -> Self {
        let mut tree = Self { nodes: BTreeMap::new(), next: INodeNo::ROOT.0 };
        tree.add(0o755, Content::Directory(BTreeMap::new()));
        tree
    }

    fn add(&mut self, perm: u16, content: Content) -> u64 {
        let number = self.next;
        self.next += 1;
        self.nodes.insert(number, Node { perm, changed: SystemTime::now(), links: 1, content });
        number
    }

    fn node(&self, number: u64) -> Result<&Node, Errno> {
        self.nodes.get(&number).ok_or(Errno::ESTALE)
    }

    fn node_mut(&mut self, number: u64) -> Result<&mut Node, Errno> {
        let node = self.nodes.get_mut(&number).ok_or(Errno::ESTALE)?;
        node.changed = SystemTime::now();
        Ok(node)
    }

    fn names(&mut self, number: u64) -> Result<&mut BTreeMap<OsString, u64>, Errno> {
        match &mut self.node_mut(number)?.content {
            Content::Directory(names) => Ok(names),
            Content::File(_) => Err(Errno::ENOTDIR),
        }
    }

    fn bytes(&mut self, number: u64) -> Result<&mut Vec<u8>, Errno> {
        match &mut self.node_mut(number)?.content {
            Content::File(bytes) => Ok(bytes),
            Content::Directory(_) => Err(Errno::EISDIR),
        }
    }

    pub(super) fn attr(&self, number: u64) -> Result<FileAttr, Errno> {
        let node = self.node(number)?;
        let (kind, size) = match &node.content {
            Content::Directory(_) => (FileType::Directory, 0),
            Content::File(bytes) => (FileType::RegularFile, bytes.len() as u64),
        };
        Ok(FileAttr {
            ino: INodeNo(number),
            size,
            blocks: size.div_ceil(512),
            atime: node.changed,
            mtime: node.changed,
            ctime: node.changed,
            crtime: node.changed,
            kind,
            perm: node.perm,
            nlink: node.links,
            uid: rustix::process::getuid().as_raw(),
            gid: rustix::process::getgid().as_raw(),
            rdev: 0,
            blksize: 4096,
            flags: 0,
        })
    }

    pub(super) fn lookup(&self, parent: u64, name: &OsStr) -> Result<FileAttr, Errno> {
        match &self.node(parent)?.content {
            Content::Directory(names) => self.attr(*names.get(name).ok_or(Errno::ENOENT)?),
            Content::File(_) => Err(Errno::ENOTDIR),
        }
    }

    pub(super) fn make(
        &mut self,
        parent: u64,
        name: &OsStr,
        perm: u32,
        is_directory: bool,
    ) -> Result<FileAttr, Errno> {
        if self.names(parent)?.contains_key(name) {
            return Err(Errno::EEXIST);
        }
        let content =
            if is_directory { Content::Directory(BTreeMap::new()) } else { Content::File(Vec::new()) };
        let number = self.add(u16::try_from(perm & 0o7777).unwrap_or(0o700), content);
        self.names(parent)?.insert(name.to_owned(), number);
        self.attr(number)
    }

    /// The node stays, for those who have it open.
    pub(super) fn remove(&mut self, parent: u64, name: &OsStr, directory: bool) -> Result<(), Errno> {
        let number = *self.names(parent)?.get(name).ok_or(Errno::ENOENT)?;
        match (&self.node(number)?.content, directory) {
            (Content::Directory(names), true) if !names.is_empty() => return Err(Errno::ENOTEMPTY),
            (Content::Directory(_), true) | (Content::File(_), false) => {}
            (Content::Directory(_), false) => return Err(Errno::EISDIR),
            (Content::File(_), true) => return Err(Errno::ENOTDIR),
        }
        self.names(parent)?.remove(name);
        self.node_mut(number)?.links = 0;
        Ok(())
    }

    pub(super) fn rename(&mut self, from: (u64, &OsStr), to: (u64, &OsStr)) -> Result<(), Errno> {
        let number = *self.names(from.0)?.get(from.1).ok_or(Errno::ENOENT)?;
        self.names(to.0)?;
        self.names(from.0)?.remove(from.1);
        if let Some(replaced) = self.names(to.0)?.insert(to.1.to_owned(), number) {
            self.node_mut(replaced)?.links = 0;
        }
        Ok(())
    }

    pub(super) fn change(
        &mut self,
        number: u64,
        perm: Option<u32>,
        size: Option<u64>,
    ) -> Result<FileAttr, Errno> {
        if let Some(size) = size {
            self.bytes(number)?.resize(usize::try_from(size).map_err(|_| Errno::EFBIG)?, 0);
        }
        if let Some(perm) = perm {
            self.node_mut(number)?.perm = u16::try_from(perm & 0o7777).unwrap_or(0o700);
        }
        self.attr(number)
    }

    pub(super) fn read(&mut self, number: u64, offset: u64, size: u32) -> Result<&[u8], Errno> {
        let bytes = self.bytes(number)?;
        let start = usize::try_from(offset).unwrap_or(usize::MAX).min(bytes.len());
        let end = start.saturating_add(size as usize).min(bytes.len());
        Ok(&bytes[start..end])
    }

    pub(super) fn write(&mut self, number: u64, offset: u64, data: &[u8]) -> Result<u32, Errno> {
        let bytes = self.bytes(number)?;
        let start = usize::try_from(offset).map_err(|_| Errno::EFBIG)?;
        let end = start + data.len();
        if bytes.len() < end {
            bytes.resize(end, 0);
        }
        bytes[start..end].copy_from_slice(data);
        u32::try_from(data.len()).map_err(|_| Errno::EFBIG)
    }

    /// Number, kind and name of everything in a directory.
    pub(super) fn list(&self, number: u64) -> Result<Vec<(u64, FileType, OsString)>, Errno> {
        let Content::Directory(names) = &self.node(number)?.content else { return Err(Errno::ENOTDIR) };
        let dots = [".", ".."].map(|name| (number, FileType::Directory, name.into()));
        let kind = |number: u64| self.attr(number).map_or(FileType::RegularFile, |attr| attr.kind);
        let entries = names.iter().map(|(name, number)| (*number, kind(*number), name.clone()));
        Ok(dots.into_iter().chain(entries).collect())
    }

    /// The number of a path below the root.
    pub(super) fn find(&self, path: &Path) -> Result<u64, Errno> {
        path.iter().try_fold(INodeNo::ROOT.0, |number, name| Ok(self.lookup(number, name)?.ino.0))
    }

    /// The content of a file.
    pub(super) fn content(&self, path: &Path) -> Option<Vec<u8>> {
        match &self.node(self.find(path).ok()?).ok()?.content {
            Content::File(bytes) => Some(bytes.clone()),
            Content::Directory(_) => None,
        }
    }
}
