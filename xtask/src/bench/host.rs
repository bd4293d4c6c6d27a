//! What the figures were measured on, and how busy it was.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

/// The machine, as far as it makes a difference.
pub(super) struct Host {
    kernel: String,
    processors: usize,
    model: String,
    memory_mib: u64,
    /// Of the directory in which everything runs.
    file_system: String,
}

impl Host {
    pub(super) fn look(directory: &Path) -> Self {
        let read = |file: &str| fs::read_to_string(file).unwrap_or_default();
        let memory = value_of(&read("/proc/meminfo"), "MemTotal");
        let kibibytes = memory.split_whitespace().next().and_then(|number| number.parse::<u64>().ok());
        Self {
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            processors: std::thread::available_parallelism().map_or(0, usize::from),
            model: value_of(&read("/proc/cpuinfo"), "model name"),
            memory_mib: kibibytes.unwrap_or(0) / 1024,
            file_system: file_system(&read("/proc/self/mounts"), directory),
        }
    }

    pub(super) fn json(&self) -> Value {
        json!({
            "kernel": self.kernel, "processors": self.processors, "model": self.model,
            "memory_mib": self.memory_mib, "file_system": self.file_system,
        })
    }

    pub(super) fn line(&self) -> String {
        format!(
            "Linux {}, {} × {}, {} MiB, {}",
            self.kernel, self.processors, self.model, self.memory_mib, self.file_system
        )
    }
}

/// The load averages of the last 1, 5 and 15 minutes, as the kernel writes them.
pub(super) fn load() -> String {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split_whitespace().take(3).collect::<Vec<_>>().join(" ")
}

/// Of `label : value` lines the first value, or `unknown`.
fn value_of(text: &str, label: &str) -> String {
    let value = text.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        (name.trim() == label).then(|| value.trim().to_owned())
    });
    value.unwrap_or_else(|| "unknown".to_owned())
}

/// The type of what is mounted nearest above a directory. Of several at one place the last one counts.
fn file_system(mounts: &str, directory: &Path) -> String {
    let mounts = mounts.lines().filter_map(|line| {
        let mut words = line.split(' ').skip(1);
        let (place, kind) = (words.next()?, words.next()?);
        directory.starts_with(place).then_some((place.len(), kind))
    });
    mounts.max_by_key(|(length, _)| *length).map_or_else(|| "unknown".to_owned(), |(_, kind)| kind.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_mount_counts() {
        let mounts = "/dev/a / ext4 rw 0 0\ntmpfs /tmp tmpfs rw 0 0\n/dev/b /tmp/x xfs rw 0 0\n";
        assert_eq!(file_system(mounts, Path::new("/home/somebody")), "ext4");
        assert_eq!(file_system(mounts, Path::new("/tmp/x/y")), "xfs");
        assert_eq!(file_system(mounts, Path::new("/tmp/xy")), "tmpfs");
        assert_eq!(file_system("", Path::new("/")), "unknown");
    }

    #[test]
    fn the_processor_is_named() {
        let text = "processor\t: 0\nmodel name\t: Some CPU @ 2 GHz\nmodel name\t: other\n";
        assert_eq!(value_of(text, "model name"), "Some CPU @ 2 GHz");
        assert_eq!(value_of("processor : 0\n", "model name"), "unknown");
    }

    #[test]
    fn this_machine_is_known() {
        assert_eq!(load().split(' ').count(), 3);
        let host = Host::look(Path::new("/"));
        assert!(host.processors > 0 && host.memory_mib > 0 && !host.kernel.is_empty());
    }
}
