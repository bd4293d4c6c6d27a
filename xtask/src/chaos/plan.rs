//! The kinds of work: what a job runs, how it is submitted, and what has to become of it if nobody interferes.
//!
//! Each attempt appends to one file of evidence: `S ID ATTEMPT PID` as its first act, `E ID ATTEMPT CODE` as its last.

use std::path::Path;

use super::random::Random;
use super::slow_mount::PROGRAM;

/// Where all jobs write their evidence: a name in the directory they run in.
pub(crate) const EVIDENCE: &str = "evidence";
/// What a [`Kind::Reader`] reads: a name in the same directory.
pub(crate) const INPUT: &str = "input";
/// So many lines are in it.
pub(crate) const INPUT_LINES: u32 = 400;
/// What the jobs within jobs end with.
const INNER_CODE: u8 = 3;

/// What a job does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Ends at once.
    Quick,
    /// Ends after a while.
    Slow,
    /// Leaves children and grandchildren behind, in sessions of their own too.
    Forker,
    /// Fails in its first attempts, and is started again by its policy, at most so often.
    Flaky { failures: u32, most: u32 },
    /// Does not heed SIGTERM.
    Stubborn,
    /// Writes many lines to both streams.
    Writer { lines: u32 },
    /// Repeats what it reads.
    Reader,
    /// Is no program.
    Missing,
    /// Runs a job in a data directory of its own, with a daemon of its own.
    Nested,
    /// The job in there.
    Inner,
}

/// A job as it will be submitted.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    pub(crate) kind: Kind,
    seconds: &'static str,
    code: u8,
    /// What of it is on the file system that answers slowly.
    slow: Option<Slow>,
}

/// What of a job is on the file system that answers slowly, or not at all for a while.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Slow {
    /// It is entered before the program is executed.
    Directory,
    /// It is read while it is executed.
    Program,
}

impl Plan {
    pub(crate) fn draw(random: &mut Random) -> Self {
        let kind = match random.below(40) {
            0..=9 => Kind::Quick,
            10..=15 => Kind::Slow,
            16..=20 => Kind::Forker,
            21..=25 => Kind::Flaky { failures: random.pick(&[1, 2, 9]), most: random.pick(&[1, 3]) },
            26..=28 => Kind::Stubborn,
            29..=33 => Kind::Writer { lines: random.pick(&[50, 300, 1500]) },
            34..=36 => Kind::Reader,
            37 | 38 => Kind::Missing,
            _ => Kind::Nested,
        };
        Self {
            kind,
            seconds: random.pick(&["0.02", "0.1", "0.3", "0.8", "2"]),
            code: random.pick(&[0, 0, 0, 1, 2, 7, 42, 255]),
            slow: match random.below(12) {
                0 => Some(Slow::Directory),
                1 => Some(Slow::Program),
                _ => None,
            },
        }
    }

    /// One that lives long enough for several to submit it at once.
    pub(crate) fn contended() -> Self {
        Self { kind: Kind::Slow, seconds: "2", code: 7, slow: None }
    }

    /// The job that a [`Kind::Nested`] one runs.
    pub(crate) fn inner() -> Self {
        Self { kind: Kind::Inner, seconds: "0.3", code: INNER_CODE, slow: None }
    }

    /// What this attempt ends with if it is left alone.
    pub(crate) fn code(&self, attempt: u32) -> u8 {
        match self.kind {
            Kind::Flaky { failures, .. } if attempt > failures => 0,
            Kind::Flaky { .. } => self.code.max(1),
            _ => self.code,
        }
    }

    /// How often the policy starts it again after a failure.
    pub(crate) fn most_restarts(&self) -> u32 {
        match self.kind {
            Kind::Flaky { most, .. } => most,
            _ => 0,
        }
    }

    /// Standard output and standard error of an attempt that was left alone, where that is known.
    pub(crate) fn output(&self, id: &str, attempt: u32) -> Option<[String; 2]> {
        let lines = |word: &str, lines: u32| -> String {
            (1..=lines).map(|line| format!("{word} {id} {attempt} {line}\n")).collect()
        };
        match self.kind {
            Kind::Writer { lines: count } => Some([lines("out", count), lines("err", count)]),
            Kind::Reader => Some([lines("got", INPUT_LINES), String::new()]),
            _ => None,
        }
    }

    /// Options of `run`, apart from the id and the directory.
    pub(crate) fn options(&self) -> Vec<String> {
        let words: &[&str] = match self.kind {
            Kind::Flaky { most, .. } => {
                let most = most.to_string();
                return ["--restart", "on-failure", "--restart-delay", "30ms", "--max-restarts", &most]
                    .map(str::to_owned)
                    .to_vec();
            }
            Kind::Stubborn => &["--grace", "200ms"],
            Kind::Reader => &["--stdin", INPUT],
            _ => &["--grace", "1s"],
        };
        words.iter().map(|word| (*word).to_owned()).collect()
    }

    /// What puts a part of it on the slow file system: further options, what the command begins with in the place of a
    /// script, and what its script begins with. `work` is where it runs otherwise.
    pub(crate) fn slow(&self, mount: &Path, work: &Path) -> Option<(Vec<String>, Vec<String>, String)> {
        // What is read by a name is beside the evidence.
        let slow = self.slow.filter(|_| !matches!(self.kind, Kind::Missing | Kind::Reader))?;
        let script = format!("cd '{}' || exit 99; ", work.display());
        Some(match slow {
            Slow::Directory => {
                let directory = mount.join("directory").display().to_string();
                (vec!["--cwd".to_owned(), directory], Vec::new(), script)
            }
            Slow::Program => {
                let program = mount.join(PROGRAM).display().to_string();
                (Vec::new(), vec![program, "-c".to_owned()], String::new())
            }
        })
    }

    /// What comes after `--`, and whether it is a script. `nodejobs` is a command line for an inner directory.
    pub(crate) fn command(&self, nodejobs: &str) -> (String, bool) {
        if self.kind == Kind::Missing {
            return ("/nonexistent/program".to_owned(), false);
        }
        let seconds = self.seconds;
        let code = match self.kind {
            Kind::Flaky { failures, .. } => {
                format!("{}; [ $NODEJOBS_ATTEMPT -gt {failures} ] && code=0", self.code.max(1))
            }
            _ => self.code.to_string(),
        };
        let body = match self.kind {
            Kind::Quick | Kind::Missing => ":".to_owned(),
            Kind::Slow | Kind::Inner => format!("sleep {seconds}"),
            Kind::Flaky { .. } => "sleep 0.05".to_owned(),
            Kind::Forker => format!(
                "setsid sleep 1000 & (setsid sh -c \"sleep 1001 & exec sleep 1002\" &); (sleep 1003 &); sleep {seconds}"
            ),
            Kind::Stubborn => format!("trap '' TERM; sleep {seconds}; sleep 1"),
            // A shell says on its standard error when a child of its was killed.
            Kind::Writer { lines } => format!(
                "line=0; while [ $line -lt {lines} ]; do line=$((line+1)); \
                 echo out $JOB_ID $NODEJOBS_ATTEMPT $line; echo err $JOB_ID $NODEJOBS_ATTEMPT $line >&2; \
                 case $line in *00) {{ sleep 0.03; }} 2>/dev/null;; esac; done"
            ),
            Kind::Reader => "while read line; do echo got $JOB_ID $NODEJOBS_ATTEMPT $line; done".to_owned(),
            Kind::Nested => {
                let (inner, _) = Self::inner().command("");
                format!("{nodejobs} run --id $JOB_ID.$NODEJOBS_ATTEMPT.in --wait --shell -- '{inner}'")
            }
        };
        let script = format!(
            "echo S $JOB_ID $NODEJOBS_ATTEMPT $$ >> {EVIDENCE}; {body}; code={code}; \
             echo E $JOB_ID $NODEJOBS_ATTEMPT $code >> {EVIDENCE}; exit $code"
        );
        (script, true)
    }
}

/// The id of the job that runs a nested one.
pub(crate) fn outer_id(inner: &str) -> Option<&str> {
    Some(inner.strip_suffix(".in")?.rsplit_once('.')?.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flaky_job_fails_until_it_does_not() {
        let plan = Plan { kind: Kind::Flaky { failures: 2, most: 3 }, seconds: "0", code: 0, slow: None };
        assert_eq!([1, 2, 3, 4].map(|attempt| plan.code(attempt)), [1, 1, 0, 0]);
        assert_eq!(plan.most_restarts(), 3);
        assert_eq!(Plan::contended().code(1), Plan::contended().code(5));
    }

    #[test]
    fn an_inner_job_knows_whose_it_is() {
        assert_eq!(outer_id("c12.1.in"), Some("c12"));
        assert_eq!(outer_id("c12"), None);
    }

    #[test]
    fn a_script_ends_with_what_was_planned() {
        let directory = std::env::temp_dir().join(format!("xtask-plan-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let said = |plan: Plan, attempt: &str| {
            let mut command = crate::process::sealed("sh");
            command.current_dir(&directory).args(["-c", &plan.command("").0]);
            command.env("JOB_ID", "c1").env("NODEJOBS_ATTEMPT", attempt);
            crate::process::finish(&mut command, std::time::Duration::from_secs(30)).unwrap()
        };
        let writer = Plan { kind: Kind::Writer { lines: 50 }, seconds: "0", code: 42, slow: None };
        let ended = said(writer, "2");
        assert_eq!(ended.status.code(), Some(42));
        assert_eq!([ended.stdout, ended.stderr], writer.output("c1", 2).unwrap());
        let flaky = Plan { kind: Kind::Flaky { failures: 1, most: 3 }, seconds: "0", code: 7, slow: None };
        assert_eq!(["1", "2"].map(|attempt| said(flaky, attempt).status.code()), [Some(7), Some(0)]);
        let evidence = std::fs::read_to_string(directory.join(EVIDENCE)).unwrap();
        let ends: Vec<&str> = evidence.lines().filter(|line| line.starts_with('E')).collect();
        assert_eq!(ends, ["E c1 2 42", "E c1 1 7", "E c1 2 0"]);
        assert_eq!(evidence.lines().filter(|line| line.starts_with("S c1 ")).count(), 3);
        std::fs::remove_dir_all(directory).unwrap();
    }
}
