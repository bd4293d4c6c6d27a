//! Every figure that can be measured, with its budget. The budgets are those of the design, §10.

/// In the order shown. A title with `{}` is of a figure that has sizes: how many jobs it was measured with.
#[rustfmt::skip]
pub(super) const FIGURES: &[Figure] = &[
    figure("spawn-1",         "spawn + setsid + 2 logs + wait, 1 in flight",    "µs",  &[]),
    figure("spawn-1-rate",    "the same, a second",                              "/s",  &[]),
    figure("spawn-2",         "the same, 2 in flight",                           "µs",  &[]),
    figure("spawn-2-rate",    "the same, a second",                              "/s",  &[]),
    figure("append",          "append of 500 B + fdatasync",                     "ms",  &[]),
    figure("append-rate",     "the same, a second",                              "/s",  &[]),
    figure("call",            "start + wait of `true`, called as the CLI is", "ms",  &[]),

    figure("run",             "`run` returns, id durable",                       "ms",  &[Limit::AtMost(2.0)]),
    figure("wait",            "`run --wait` of true",                            "ms",  &[Limit::AtMost(4.0)]),
    figure("batch-1",         "no-op job, a batch of one, ended",                "ms",  &[]),
    figure("batch",           "no-op jobs, one batch of {}",                     "/s",  &[Limit::AtLeast(1800.0), Limit::OfFloor(0.6)]),
    figure("loop",            "no-op jobs, one `run` each in a shell",   "/s",  &[Limit::AtLeast(500.0)]),
    figure("ls",              "first page of `ls`, a batch of {} ended",                    "ms",  &[Limit::AtMost(15.0)]),
    figure("manager-idle",    "manager PSS, idle",                               "MiB", &[Limit::AtMost(15.0)]),
    figure("manager-1000",    "manager PSS, 1,000 running",                      "MiB", &[Limit::AtMost(18.0)]),
    figure("keeper-idle",     "keeper PSS (guard + worker), idle",               "MiB", &[Limit::AtMost(2.0)]),
    figure("keeper-1000",     "keeper PSS, 1,000 running",                       "MiB", &[Limit::AtMost(2.0 + 1000.0 / 1024.0)]),
    figure("memory-idle",     "all but the jobs, PSS, idle",                     "MiB", &[]),
    figure("memory",          "all but the jobs, PSS, {} running",               "MiB", &[]),
    figure("adopt-1000",      "1,000 running jobs re-adopted",                   "ms",  &[Limit::AtMost(500.0)]),
    figure("stop-1000",       "`stop --all --force` of 1,000",                   "ms",  &[]),
    figure("stop",            "`stop` of an obedient job",                       "ms",  &[Limit::AtMost(10.0)]),
    figure("stop-50",         "`stop` of 50 at once",                            "ms",  &[Limit::AtMost(30.0)]),
    // The budget, 1.0 times a direct write, has one decimal.
    figure("output",          "200 MB of output; floor: direct write",       "ms",  &[Limit::TimesFloor(1.05)]),
    // "No CPU of ours": beyond what a job of `true` costs us; 1 ms is the noise between two such runs.
    figure("output-cpu",      "our CPU time for it, less that for `true`",    "ms",  &[Limit::AtMost(1.0)]),
    figure("capped-4k",       "1 GiB in 4 KiB writes with --log-cap 10M",        "ms",  &[]),
    figure("capped-4k-peak",  "the most of it on disk",                          "MiB", &[]),
    figure("capped-64k",      "1 GiB in 64 KiB writes with --log-cap 10M",       "ms",  &[]),
    figure("capped-64k-peak", "the most of it on disk",                          "MiB", &[]),
    figure("capped-settled",  "what stays on disk of each",                      "MiB", &[Limit::AtMost(11.0)]),
    figure("wake-ups-daemon", "wake-ups of the daemon in 5 s, idle",             "",    &[Limit::AtMost(0.0)]),
    figure("wake-ups-keeper", "wake-ups of the keeper in 5 s, idle",      "",    &[Limit::AtMost(0.0)]),
    figure("crash-codes",     "right codes after kill -9, of 20",          "jobs", &[Limit::AtLeast(20.0)]),
    figure("crash-runs",      "runs of those 20 jobs",                           "",    &[Limit::AtLeast(20.0), Limit::AtMost(20.0)]),

    // The floor of these is one durable record at a time, without us.
    figure("commits-1",       "jobs accepted, 1 caller",                         "/s",  &[]),
    figure("commits-8",       "jobs accepted, 8 callers",                        "/s",  &[]),
    figure("commits-64",      "jobs accepted, 64 callers",                       "/s",  &[]),
    figure("history-import",  "`store import` of {} ended",                      "/s",  &[]),
    figure("history-bytes",   "bytes on disk, one of {} ended",                  "B",   &[]),
    figure("history-run",     "`run` returns, {} ended",                         "ms",  &[Limit::AtMost(2.0)]),
    figure("history-ls",      "first page of `ls`, {} ended",                    "ms",  &[Limit::AtMost(15.0)]),
    figure("history-ls-finished", "`ls --status finished`, {} ended",            "ms",  &[Limit::AtMost(15.0)]),
    figure("history-ls-failed",   "`ls --status failed`, {} ended",              "ms",  &[Limit::AtMost(15.0)]),
    figure("history-get",     "HTTP, first page, {} ended",                  "ms",  &[Limit::AtMost(15.0)]),
    figure("history-get-finished", "HTTP, status=finished, {} ended", "ms",  &[Limit::AtMost(15.0)]),
    figure("history-get-failed",   "HTTP, status=failed, {} ended", "ms",  &[Limit::AtMost(15.0)]),
    figure("history-manager", "manager PSS, {} ended",                           "MiB", &[Limit::AtMost(15.0)]),
    // The design has no budget for the memory of sled.
    figure("history-manager-sled", "manager PSS, {} ended",                      "MiB", &[]),
    figure("history-restart", "serves again after kill -9, {} ended",            "ms",  &[]),
];

pub(super) struct Figure {
    pub(super) name: &'static str,
    title: &'static str,
    pub(super) unit: &'static str,
    pub(super) budget: &'static [Limit],
}

const fn figure(
    name: &'static str,
    title: &'static str,
    unit: &'static str,
    budget: &'static [Limit],
) -> Figure {
    Figure { name, title, unit, budget }
}

/// One condition of a budget.
#[derive(Clone, Copy)]
pub(super) enum Limit {
    AtMost(f64),
    AtLeast(f64),
    /// At least this part of the floor: for rates.
    OfFloor(f64),
    /// At most this many times the floor: for times.
    TimesFloor(f64),
}

/// The figure of that name.
///
/// # Panics
///
/// If there is none: names are literals in the groups.
pub(super) fn find(name: &str) -> &'static Figure {
    let found = FIGURES.iter().find(|figure| figure.name == name);
    found.unwrap_or_else(|| panic!("no figure `{name}` in FIGURES"))
}

impl Figure {
    /// What it is, with its unit.
    pub(super) fn title(&self, size: Option<usize>) -> String {
        let title = self.title.replace("{}", &size.map(grouped).unwrap_or_default());
        if self.unit.is_empty() { title } else { format!("{title}, {}", self.unit) }
    }

    /// Whether `one` is better than `other`: of rates and right answers, more is.
    pub(super) fn is_better(&self, one: f64, other: f64) -> bool {
        if matches!(self.unit, "/s" | "jobs") { one > other } else { one < other }
    }
}

/// A count as one reads it: 10,000.
fn grouped(count: usize) -> String {
    let digits = count.to_string();
    let comma = |index: usize| index > 0 && (digits.len() - index).is_multiple_of(3);
    let grouped = digits
        .chars()
        .enumerate()
        .map(|(index, digit)| if comma(index) { format!(",{digit}") } else { digit.to_string() });
    grouped.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique() {
        for figure in FIGURES {
            let same = FIGURES.iter().filter(|other| other.name == figure.name);
            assert_eq!(same.count(), 1, "{}", figure.name);
        }
    }

    #[test]
    fn a_title_has_its_size_and_unit() {
        assert_eq!(find("batch").title(Some(10_000)), "no-op jobs, one batch of 10,000, /s");
        assert_eq!(find("crash-runs").title(None), "runs of those 20 jobs");
        assert_eq!(
            (grouped(1), grouped(999), grouped(1_000_000)),
            ("1".into(), "999".into(), "1,000,000".into())
        );
    }

    #[test]
    fn more_is_better_of_rates_only() {
        assert!(find("batch").is_better(2.0, 1.0) && !find("batch").is_better(1.0, 2.0));
        assert!(find("run").is_better(1.0, 2.0) && !find("run").is_better(2.0, 1.0));
    }
}
