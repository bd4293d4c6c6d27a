//! A part of the machine of its own for a daemon that is started on the way: a delegated scope of the user's systemd, in which
//! jobs can be limited, and which does not end with the login session.

use std::fs::Metadata;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::process::Command;

/// What starts this program in a scope of its own, ready for the program and its arguments, and with the variables that it
/// needs itself. `None` where there is no manager to ask, which costs a look at one file, and where there is no need to: a
/// cgroup was named, or this process is in one already that was given to it.
///
/// The program takes the place of what starts it, with its process id and standard streams. If that fails, it ends with an
/// exit code before the program is executed.
pub fn in_scope_of_its_own(program: &Path) -> Option<Command> {
    let directory = manager(std::env::var_os("XDG_RUNTIME_DIR")?.into())?;
    if nodejobs_proc::look_for_base(None, None).is_ok_and(|base| !base.controllers.is_empty()) {
        return None;
    }
    let mut command = Command::new("systemd-run");
    command.args(["--user", "--scope", "--quiet", "--collect", "--property=Delegate=yes"]);
    command.args(["--description=nodejobs", "--"]).arg(program);
    command.env("XDG_RUNTIME_DIR", directory);
    Some(command)
}

/// The directory of the user, if its manager listens there. Another user's may have been left in the environment by `su`.
fn manager(directory: PathBuf) -> Option<PathBuf> {
    let own = rustix::process::geteuid().as_raw();
    let is_manager = |found: &Metadata| found.file_type().is_socket() && found.uid() == own;
    let is_there = directory.is_absolute()
        && std::fs::metadata(directory.join("systemd/private")).is_ok_and(|found| is_manager(&found));
    is_there.then_some(directory)
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn a_manager_is_there_if_it_has_a_socket() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().to_owned();
        assert_eq!(manager(path.clone()), None);
        std::fs::create_dir(path.join("systemd")).expect("made");
        std::fs::write(path.join("systemd/private"), "").expect("written");
        assert_eq!(manager(path.clone()), None, "a file is none");
        std::fs::remove_file(path.join("systemd/private")).expect("removed");
        let _listener = UnixListener::bind(path.join("systemd/private")).expect("a socket");
        assert_eq!(manager(path.clone()), Some(path));
        assert_eq!(manager("relative".into()), None);
    }
}
