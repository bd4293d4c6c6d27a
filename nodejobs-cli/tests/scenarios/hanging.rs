//! File systems that stop answering: whatever is on them waits, and nothing else does.

mod disk;
mod launches;
mod logs;
mod pace;
mod tree;

use std::process::{Child, Command, Stdio};

use rustix::process::Signal;

use crate::support::{Home, said, signal};
use disk::{Hang, HangingDisk};
use pace::Pace;

/// Reads a file in a process of its own.
fn reader(path: &str) -> Child {
    Command::new("cat").arg(path).stdout(Stdio::piped()).spawn().expect("cat starts")
}

/// What the tests of this file rest on.
#[test]
fn the_disk_of_these_tests_serves_hangs_and_goes_on() {
    let Some(disk) = HangingDisk::mount() else { return };
    disk.put("hello", b"#!/bin/sh\necho hello\n", 0o755);
    assert_eq!(said(&mut Command::new(disk.at("hello"))).text(), "hello");
    let script =
        "mkdir d && cd d && echo a > f && echo b >> f && mv f g && cat g && rm g && ls . && cd .. && rmdir d";
    let told = said(Command::new("sh").args(["-ec", script]).current_dir(disk.path()));
    assert_eq!((told.code, told.text().as_str()), (0, "a\nb"), "{told:?}");
    let written = said(Command::new("sh").args(["-c", "echo x > made"]).current_dir(disk.path()));
    assert_eq!((written.code, disk.content("made")), (0, Some(b"x\n".to_vec())), "{written:?}");

    for how in Hang::BOTH {
        disk.hang(how);
        assert!(!disk.has_asked(), "{how:?}: nobody wants anything");
        let mut waits = reader(&disk.at("hello"));
        let mut killed = reader(&disk.at("hello"));
        disk.is_asked();
        assert!(waits.try_wait().expect("asked").is_none(), "{how:?}: it is not answered");
        signal(killed.id(), Signal::KILL);
        if how == Hang::NotTaken {
            assert!(!killed.wait().expect("waited").success());
        }
        disk.answer();
        let read = waits.wait_with_output().expect("answered");
        assert!(read.status.success() && read.stdout.ends_with(b"hello\n"), "{how:?}: {read:?}");
        let _ = killed.wait();
    }

    // Whoever still waits when the test is over gets an error.
    disk.hang(Hang::Taken);
    let left = reader(&disk.at("hello"));
    disk.is_asked();
    let place = disk.path().to_owned();
    drop(disk);
    assert!(!left.wait_with_output().expect("answered").status.success());
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").expect("read");
    assert!(!mounts.contains(&*place.to_string_lossy()) && !place.exists(), "nothing is left: {mounts}");
}

/// The command reads it itself: whoever has asked waits, and nobody else.
#[test]
fn an_env_file_that_hangs_keeps_only_its_own_command_waiting() {
    for how in Hang::BOTH {
        let Some(disk) = HangingDisk::mount() else { return };
        disk.put("env", b"FROM=file\n", 0o600);
        let home = Home::new();
        home.ok(["daemon", "start"]);
        let pace = Pace::of(&home);
        disk.hang(how);
        let file = disk.at("env");
        let mut command = home.command(["run", "--env-file", &file, "--wait", "test $FROM = file && exit 7"]);
        let mut waits = command.stdout(Stdio::null()).spawn().expect("started");
        disk.is_asked();
        pace.is_kept(&home);
        assert!(waits.try_wait().expect("asked").is_none(), "{how:?}");
        disk.answer();
        assert_eq!(waits.wait().expect("ended").code(), Some(7), "{how:?}");
        drop(disk);
    }
}
