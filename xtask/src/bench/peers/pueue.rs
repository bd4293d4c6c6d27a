//! pueue: a daemon that looks for something to start every 300 ms.

use super::{Crash, Peer, Words};

const LOOP: Words = &[
    "sh",
    "-c",
    "i=0; while [ $i -lt $N ]; do pueue add -- $JOB || exit; i=$((i+1)); done >/dev/null; pueue wait >/dev/null",
];

pub(super) const PEER: Peer = Peer {
    name: "pueue",
    short: "pueue",
    program: "pueue",
    version: &["pueue", "--version"],
    keeps: "in its state file",
    environment: &[("PUEUE_CONFIG_PATH", "{dir}/pueue.yml"), ("XDG_RUNTIME_DIR", "{dir}")],
    start: Some(&[
        "sh",
        "-c",
        "printf 'shared:\\n  pueue_directory: %s/state\\n  use_unix_socket: true\\ndaemon: {}\\nclient: {}\\n' $DIR >$DIR/pueue.yml
         pueued -d && until pueue status >/dev/null 2>&1; do :; done && pueue parallel $SLOTS",
    ]),
    submit: Some(&["pueue", "add", "--", "{job}"]),
    wait: Some(&["sh", "-c", "pueue wait $(pueue add -p -- $JOB)"]),
    output: Some(&["pueue", "add", "--", "{job}"]),
    batch: Some(LOOP),
    looped: Some(LOOP),
    list: Some(&["pueue", "status"]),
    // A kill pauses the group as well.
    sleepers: Some(&[
        "sh",
        "-c",
        "pueue start; i=0; while [ $i -lt $N ]; do pueue add -- sleep 1000 || exit; i=$((i+1)); done",
    ]),
    stop: Some(&["pueue", "kill"]),
    stop_all: Some(&["pueue", "kill"]),
    crash: Some(Crash {
        submit: &["sh", "-c", "i=0; while [ $i -lt $N ]; do pueue add -- $JOB || exit; i=$((i+1)); done"],
        restart: &["sh", "-c", "pueued -d && until pueue status >/dev/null 2>&1; do :; done"],
        codes: &["sh", "-c", "pueue status --json | tr -d ' \\n' | grep -o '\"Failed\":7' | wc -l"],
    }),
    ..Peer::NONE
};
