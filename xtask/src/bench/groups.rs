//! What is measured: one function a group, in one table.

mod batch;
mod calls;
mod crash;
mod idle;
mod memory;
mod output;
mod stop;

use anyhow::{Result, bail};
use serde_json::Value;

use super::{Bench, capped, floor, stores};

/// Figures that share their preparation.
pub(crate) struct Group {
    pub(crate) name: &'static str,
    pub(crate) about: &'static str,
    pub(crate) measure: fn(&mut Bench) -> Result<()>,
}

/// Every group, in the order measured. A new one is a row here, its figures are rows of `FIGURES` in `figures.rs`.
#[rustfmt::skip]
pub(crate) const GROUPS: &[Group] = &[
    Group { name: "floor",   measure: floor::floors,   about: "the machine without us" },
    Group { name: "run",     measure: calls::run,      about: "latency of `run` and `run --wait`" },
    Group { name: "batch",   measure: batch::batch,    about: "no-op jobs in one batch, then `ls`" },
    Group { name: "loop",    measure: batch::looped,   about: "no-op jobs from a shell loop" },
    Group { name: "memory",  measure: memory::memory,  about: "memory, re-adoption and stop with up to 1,000 jobs" },
    Group { name: "stop",    measure: stop::stop,      about: "stop of one job and of 50" },
    Group { name: "output",  measure: output::output,  about: "200 MB of output" },
    Group { name: "capped",  measure: capped::capped,  about: "a GiB of output with --log-cap 10M" },
    Group { name: "idle",    measure: idle::idle,      about: "wake-ups while nothing happens" },
    Group { name: "crash",   measure: crash::crash,    about: "exit codes after kill -9 of the manager" },
    Group { name: "commits", measure: stores::commits, about: "jobs accepted a second, store by store" },
    Group { name: "history", measure: stores::history, about: "many ended jobs, store by store" },
];

/// Finds a group by its name.
pub(crate) fn find(name: &str) -> Result<&'static Group, String> {
    GROUPS.iter().find(|group| group.name == name).ok_or_else(|| {
        let names: Vec<_> = GROUPS.iter().map(|group| group.name).collect();
        format!("no such group; there are {}", names.join(", "))
    })
}

const SLEEP: [&str; 2] = ["sleep", "1000"];
/// How many no-op jobs a peer may run at a time: more would wait for the processors.
const SLOTS: usize = 2;

fn all_finished(records: &[Value]) -> Result<()> {
    match records.iter().find(|record| record["status"] != "finished") {
        None => Ok(()),
        Some(record) => bail!("a job of `true` did not finish: {record}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_that_is_not_there_is_answered_with_those_that_are() {
        assert!(find("floor").is_ok());
        assert!(find("flor").err().unwrap().ends_with("crash, commits, history"));
    }
}
