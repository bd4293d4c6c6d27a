//! A disk that is full: said, and nothing that happens meanwhile is forgotten.

use std::path::PathBuf;
use std::process::Command;

use serde_json::{Value, json};

use crate::support::{Home, eventually, is_alive, kill, pid_of, said, text};

/// A small disk of its own.
struct Disk {
    place: tempfile::TempDir,
}

impl Disk {
    /// `None` where this user may not mount one.
    fn new(size: &str) -> Option<Self> {
        let place = tempfile::tempdir().expect("a temporary directory");
        let options = format!("size={size},mode=700");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &options, "nodejobs-test"])
            .arg(place.path())
            .output();
        match mounted {
            Ok(output) if output.status.success() => Some(Self { place }),
            Ok(output) => {
                eprintln!("skipped, no disk to fill: {}", String::from_utf8_lossy(&output.stderr).trim());
                None
            }
            Err(error) => {
                eprintln!("skipped, no disk to fill: {error}");
                None
            }
        }
    }

    /// Takes all the space that is left.
    fn fill(&self) -> PathBuf {
        use std::io::Write as _;
        let path = self.place.path().join("filler");
        let mut file = std::fs::File::create(&path).expect("made");
        for size in [1 << 16, 4096, 1] {
            while file.write_all(&vec![b'x'; size]).is_ok() {}
        }
        path
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(self.place.path()).output();
    }
}

/// N26
#[test]
fn a_full_disk_is_said_and_forgets_nothing() {
    let Some(disk) = Disk::new("12m") else { return };
    let home = Home::below(disk.place.path().join("data"));
    home.ok(["daemon", "start"]);
    home.ok(["run", "--id", "early", "--wait", "--", "true"]);
    let go = home.path().join("go");
    let wait = format!("until [ -e '{}' ]; do sleep 0.05; done; exit 7", go.display());
    home.ok(["run", "--id", "during", "--", "sh", "-c", &wait]);
    let during = home.running("during");

    let filler = disk.fill();
    let big = "x".repeat(100_000);
    for _ in 0..3 {
        let said = said(home.command(["run", "--id", "late", "--", "true"]).env("BIG", &big));
        assert_eq!(said.code, 5, "{said:?}");
        assert!(said.stderr.contains("store"), "{said:?}");
    }
    assert_eq!(home.record("early")["status"], "finished", "what is there can be read");
    let trouble = text(&home.daemon(), "store_trouble").to_owned();
    assert!(!trouble.is_empty());
    let doctor = home.nodejobs(["doctor"]);
    assert!(doctor.code == 1 && doctor.text().contains(&trouble), "{trouble}: {doctor:?}");
    assert_eq!(home.nodejobs(["status", "late"]).code, 3, "what was refused is not there");
    // It ends while its end cannot be written down.
    std::fs::write(&go, "").expect("written");
    eventually("the job has ended", || (!is_alive(pid_of(&during["last_pid"]))).then_some(()));

    std::fs::remove_file(filler).expect("removed");
    let ended = home.ended("during");
    assert_eq!((&ended["status"], &ended["exit_code"]), (&json!("failed"), &json!(7)), "{ended}");
    home.ok(["run", "--id", "late", "--wait", "--", "true"]);
    assert_eq!(home.record("late")["attempt"], 1);
    assert_eq!(home.daemon()["store_trouble"], Value::Null);
}

/// Whatever ends while nothing can be written, and whoever is killed meanwhile.
#[test]
fn outcomes_on_a_full_disk_outlive_the_daemon_and_are_written_when_there_is_room() {
    const JOBS: usize = 20;
    for victims in [&["daemon"][..], &["daemon", "worker"], &["daemon", "guard"]] {
        let Some(disk) = Disk::new("12m") else { return };
        let home = Home::below(disk.place.path().join("data"));
        let go = home.path().join("go");
        let ids: Vec<String> = (1..=JOBS).map(|code| format!("job-{code}")).collect();
        for (code, id) in (1..).zip(&ids) {
            let script = format!("until [ -e '{}' ]; do sleep 0.05; done; exit {code}", go.display());
            home.ok(["run", "--id", id, "--", "sh", "-c", &script]);
        }
        let pids: Vec<u32> = ids.iter().map(|id| pid_of(&home.running(id)["last_pid"])).collect();
        let (guard, worker) = home.keeper();
        let daemon = home.daemon_pid();
        let filler = disk.fill();
        // Not written down anywhere but on the disk that is full.
        std::fs::write(home.path().join("go"), "").expect("an empty file");
        eventually("all have ended", || (!pids.iter().any(|pid| is_alive(*pid))).then_some(()));
        for victim in victims {
            kill(match *victim {
                "daemon" => daemon,
                "guard" => guard,
                _ => worker,
            });
        }
        let said = home.nodejobs(["ls"]);
        assert!(said.code == 0 || said.code == 5, "{victims:?}: {said:?}");

        std::fs::remove_file(filler).expect("removed");
        for (code, id) in (1..).zip(&ids) {
            let record = home.ended(id);
            let outcome = (text(&record, "status"), record["exit_code"].as_i64(), record["attempt"].as_i64());
            assert_eq!(outcome, ("failed", Some(code), Some(1)), "{victims:?}: {record}");
        }
    }
}
