//! task-spooler, `tsp`: one server, and a process for each job that waits or runs.

use super::{Crash, Peer, Words};

/// It has no batches. The last job need not be the last to end.
const LOOP: Words = &[
    "sh",
    "-c",
    "i=0; while [ $i -lt $N ]; do tsp $JOB || exit; i=$((i+1)); done >/dev/null; tsp -w >/dev/null
     while tsp -l | grep -qE ' (queued|running) '; do :; done",
];

pub(super) const PEER: Peer = Peer {
    name: "task-spooler",
    short: "tsp",
    program: "tsp",
    version: &["tsp", "-V"],
    keeps: "in memory",
    environment: &[
        ("TS_SOCKET", "{dir}/socket"),
        ("TMPDIR", "{dir}"),
        ("TS_SLOTS", "{slots}"),
        ("TS_MAXFINISHED", "1000000"),
    ],
    start: Some(&["tsp", "-l"]),
    submit: Some(&["tsp", "{job}"]),
    wait: Some(&["tsp", "-f", "{job}"]),
    output: Some(&["tsp", "{job}"]),
    batch: Some(LOOP),
    looped: Some(LOOP),
    list: Some(&["tsp", "-l"]),
    sleepers: Some(&["sh", "-c", "i=0; while [ $i -lt $N ]; do tsp sleep 1000 || exit; i=$((i+1)); done"]),
    // Of the last one that was started.
    stop: Some(&["tsp", "-k"]),
    stop_all: Some(&[
        "sh",
        "-c",
        "for id in $(tsp -l | awk '$2 == \"running\" { print $1 }'); do tsp -k $id; done",
    ]),
    crash: Some(Crash {
        submit: &["sh", "-c", "i=0; while [ $i -lt $N ]; do tsp $JOB || exit; i=$((i+1)); done"],
        restart: &["tsp", "-l"],
        codes: &["sh", "-c", "tsp -l | awk '$2 == \"finished\" && $4 == 7' | wc -l"],
    }),
    ..Peer::NONE
};
