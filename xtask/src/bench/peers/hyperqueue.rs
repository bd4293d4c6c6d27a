//! HyperQueue, `hq`: a server with a journal, and a worker that runs the jobs.

use super::{Crash, Peer, Words};

const START: Words = &[
    "sh",
    "-c",
    "hq server start --host localhost --journal $DIR/journal >$DIR/server.out 2>&1 &
     until hq server info >/dev/null 2>&1; do kill -0 $! || exit; done
     hq worker start --cpus $SLOTS >$DIR/worker.out 2>&1 &
     until hq worker list | grep -q RUNNING; do kill -0 $! || exit; done",
];

pub(super) const PEER: Peer = Peer {
    name: "HyperQueue",
    short: "hq",
    program: "hq",
    version: &["hq", "--version"],
    keeps: "in its journal",
    environment: &[("HQ_SERVER_DIR", "{dir}/server")],
    start: Some(START),
    submit: Some(&["hq", "submit", "--", "{job}"]),
    wait: Some(&["hq", "submit", "--wait", "--", "{job}"]),
    output: Some(&["hq", "submit", "--", "{job}"]),
    batch: Some(&["sh", "-c", "hq submit --array 1-$N --wait -- $JOB"]),
    looped: Some(&[
        "sh",
        "-c",
        "i=0; while [ $i -lt $N ]; do hq submit -- $JOB || exit; i=$((i+1)); done >/dev/null; hq job wait all",
    ]),
    // A batch is one job there.
    list: Some(&["hq", "task", "list", "last"]),
    sleepers: Some(&["sh", "-c", "hq submit --array 1-$N -- sleep 1000"]),
    stop: Some(&["hq", "job", "cancel", "all"]),
    stop_all: Some(&["hq", "job", "cancel", "all"]),
    crash: Some(Crash {
        submit: &["sh", "-c", "hq submit --array 1-$N -- $JOB"],
        restart: START,
        codes: &["sh", "-c", "hq task list last --output-mode json | grep -c 'exit code 7' || :"],
    }),
    ..Peer::NONE
};
