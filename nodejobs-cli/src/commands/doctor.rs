//! `nodejobs doctor`: says what works here, what is weaker, and what is broken.

use clap::Args;
use nodejobs::doctor::{
    Finding, KeeperLook, KeptJob, Level, Rescued, examine, fix, keepers, stop_without_owner,
};
use nodejobs::group::RESOURCE_VARIABLE;
use nodejobs::units::show_duration;
use nodejobs::{JobId, OWN_VARIABLES};
use serde_json::json;

use crate::connect::Target;
use crate::exit::{FAILED, Failure, PARTLY, say};
use crate::output::{self, Format};
use crate::readable::{ago, now, printable};
use crate::starts::FailedStarts;

#[derive(Args, Debug)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct Doctor {
    /// List the keepers by their files and sockets, without asking a daemon or looking into the store
    #[arg(long)]
    keepers: bool,
    /// Stop these jobs, for want of a store by what their keepers know; all of them if none are named
    #[arg(long, requires = "keepers", value_name = "ID", num_args = 0..)]
    stop: Option<Vec<JobId>>,
    /// Kill them at once
    #[arg(long, requires = "stop")]
    force: bool,
    /// Repair what keeps a daemon from starting, and delete what is of no more use; then look again
    #[arg(long, conflicts_with = "keepers")]
    fix: bool,
}

const AFTER_HELP: &str = "\
Examples:
  nodejobs doctor
  nodejobs doctor -o json | jq '.checks[] | select(.level != \"ok\")'
  nodejobs doctor --keepers           who keeps which jobs here, when nothing else can be read
  nodejobs doctor --keepers --stop a  end job a all the same; a store that comes back learns how it ended
  nodejobs doctor --fix               repair what the lines above say that it repairs, and say what was done

Each line is ok, weaker (it works, but promises less or may run short) or a problem, with the reason and a way out. \
No daemon is started for it; where none runs, the store is looked into without one. Nothing is changed, unless --stop or \
--fix is given.

Exit status: 0 if nothing is broken, 1 if there is a problem. With --stop 3 if such a job does not run, 4 (also with \
--fix) if the directory has an owner, and 6 if a process has survived.";

impl Doctor {
    pub(crate) fn execute(self, target: &Target, format: Format) -> Result<u8, Failure> {
        if let Some(ids) = &self.stop {
            return stop(target, ids, self.force, format);
        }
        if self.keepers {
            return show_keepers(target, format);
        }
        if self.fix {
            let done = fix(&target.data_dir).map_err(|error| Failure::from(error.to_problem()))?;
            done.iter().for_each(|sentence| say(sentence));
            if done.is_empty() {
                say(&"there is nothing to fix");
            }
        }
        let mut findings = examine(&target.data_dir);
        findings.extend(failed_starts(target));
        findings.push(variables(std::env::vars_os().filter_map(|(name, _)| name.into_string().ok())));
        let level = findings.iter().map(|finding| finding.level).max().unwrap_or(Level::Ok);
        match format {
            Format::Table => {
                output::print(&lines(&findings))?;
                let count = |level| findings.iter().filter(|finding| finding.level == level).count();
                let (weaker, problems) = (count(Level::Weaker), count(Level::Problem));
                let ending = if problems == 1 { "" } else { "s" };
                say(&format_args!("{weaker} weaker, {problems} problem{ending}"));
            }
            Format::Json => output::print_json(&json!({"level": level, "checks": findings}))?,
            Format::Jsonl => findings.iter().try_for_each(output::print_json)?,
        }
        Ok(code(level))
    }
}

fn show_keepers(target: &Target, format: Format) -> Result<u8, Failure> {
    let keepers = keepers(&target.data_dir).map_err(|error| {
        let place = target.data_dir.join("keepers");
        Failure::caused(FAILED, format!("cannot list the keepers in '{}'", place.display()), &error)
    })?;
    match format {
        Format::Table if keepers.is_empty() => say(&"no keeper has left files here"),
        Format::Table => {
            output::print(&lines(&keepers.iter().map(KeeperLook::finding).collect::<Vec<_>>()))?;
            for job in keepers.iter().flat_map(|keeper| &keeper.jobs) {
                let KeptJob { self_id, attempt, pid } = job;
                output::print(&format!("         job     {self_id}: attempt {attempt}, pid {pid}\n"))?;
            }
        }
        Format::Json => output::print_json(&keepers)?,
        Format::Jsonl => keepers.iter().try_for_each(output::print_json)?,
    }
    Ok(code(keepers.iter().map(|keeper| keeper.finding().level).max().unwrap_or(Level::Ok)))
}

fn stop(target: &Target, ids: &[JobId], force: bool, format: Format) -> Result<u8, Failure> {
    let stopped = stop_without_owner(&target.data_dir, ids, force)
        .map_err(|error| Failure::from(error.to_problem()))?;
    let survivors = |job: &Rescued| -> Vec<String> {
        job.survivors.iter().map(|member| format!("{} ({})", member.pid, member.name)).collect()
    };
    let json = |job: &Rescued| json!({"self_id": job.id, "survivors": survivors(job)});
    match format {
        Format::Table if stopped.is_empty() => say(&"no job runs here"),
        Format::Table => stopped.iter().for_each(|job| match survivors(job).as_slice() {
            [] => say(&format_args!("{}: stopped", job.id)),
            left => {
                say(&format_args!("{}: could not be stopped: {} is still there", job.id, left.join(", ")));
            }
        }),
        Format::Json => output::print_json(&stopped.iter().map(json).collect::<Vec<_>>())?,
        Format::Jsonl => stopped.iter().try_for_each(|job| output::print_json(&json(job)))?,
    }
    Ok(if stopped.iter().all(|job| job.survivors.is_empty()) { 0 } else { PARTLY })
}

fn code(level: Level) -> u8 {
    if level == Level::Problem { FAILED } else { 0 }
}

/// One line each.
fn lines(findings: &[Finding]) -> String {
    let width = findings.iter().map(|finding| finding.check.chars().count()).max().unwrap_or(0);
    let line = |finding: &Finding| {
        let Finding { check, level, text, way_out } = finding;
        let way_out = way_out.as_ref().map_or_else(String::new, |way_out| format!(" [way out: {way_out}]"));
        printable(&format!("{level:<7}  {check:<width$}  {text}{way_out}")) + "\n"
    };
    findings.iter().map(line).collect()
}

/// In milliseconds: a failure that was longer ago says nothing about today.
const STALE_MS: u64 = 3_600_000;

/// What is remembered of daemons that could not serve.
fn failed_starts(target: &Target) -> Option<Finding> {
    const CHECK: &str = "failed starts";
    let series = FailedStarts::read(&target.data_dir)?;
    let age = now().as_millis().saturating_sub(series.last_at.as_millis()).max(0).unsigned_abs();
    if age > STALE_MS {
        return None;
    }
    let ago = ago(now(), series.last_at);
    let text = format!("{} in a row, the last one {ago}: {}", series.failures, series.why);
    let way_out = match series.wait_ms(&target.data_dir) {
        Some(wait) => {
            format!("`nodejobs daemon start` tries at once, other commands in {}", show_duration(wait))
        }
        None => "the next command tries again".to_owned(),
    };
    Some(Finding::weaker(CHECK, text, way_out))
}

/// The variables that mean something to nodejobs. Only names: values are shown by what they decide about.
fn variables(names: impl Iterator<Item = String>) -> Finding {
    const CHECK: &str = "variables";
    const KNOWN: [&str; 7] = [
        "NODEJOBS_CGROUP",
        "NODEJOBS_DIR",
        "NODEJOBS_DISABLE",
        "NODEJOBS_FAILPOINT",
        // Of hooks.
        "NODEJOBS_EVENT",
        "NODEJOBS_REASON",
        "NODEJOBS_SEQ",
    ];
    let mut set: Vec<String> = names.filter(|name| name.starts_with("NODEJOBS_")).collect();
    set.sort();
    if set.is_empty() {
        return Finding::ok(CHECK, "no NODEJOBS_* is set");
    }
    let text = set.join(", ");
    let unknown: Vec<&str> = set
        .iter()
        .map(String::as_str)
        .filter(|name| {
            !KNOWN.contains(name) && !OWN_VARIABLES.contains(name) && !name.starts_with(RESOURCE_VARIABLE)
        })
        .collect();
    if !unknown.is_empty() {
        let text = format!("{text}: {} means nothing", unknown.join(", "));
        return Finding::weaker(CHECK, text, "is a name misspelt? `NODEJOBS_DIR` is the data directory");
    }
    if set.iter().any(|name| name == "NODEJOBS_DISABLE") {
        let text = format!("{text}: NODEJOBS_DISABLE does without kernel features");
        return Finding::weaker(CHECK, text, "unset NODEJOBS_DISABLE, unless it is for a test");
    }
    if set.iter().any(|name| OWN_VARIABLES.contains(&name.as_str())) {
        return Finding::ok(CHECK, format!("{text}: this runs in a job"));
    }
    Finding::ok(CHECK, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_finding_is_one_line_whatever_it_says() {
        let findings = [Finding::ok("a", "fine"), Finding::problem("longer", "two\nlines \x1b[2J", "a way")];
        assert_eq!(
            lines(&findings),
            "ok       a       fine\nproblem  longer  two lines \u{FFFD}[2J [way out: a way]\n"
        );
    }

    #[test]
    fn variables_are_told_by_name() {
        let level = |names: &[&str]| variables(names.iter().map(|name| (*name).to_owned())).level;
        assert_eq!(level(&["HOME", "PATH"]), Level::Ok);
        assert_eq!(level(&["NODEJOBS_DIR", "NODEJOBS_MARK"]), Level::Ok);
        assert_eq!(level(&["NODEJOBS_DISABLE"]), Level::Weaker);
        let misspelt = variables(["NODEJOBS_DRI".to_owned()].into_iter());
        assert!(misspelt.level == Level::Weaker && misspelt.text.contains("NODEJOBS_DRI means nothing"));
    }
}
