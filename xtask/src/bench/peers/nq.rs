//! nq: no manager; a process for each job, which run one after the other in a directory.

use super::{Peer, Words};

/// It has no batches. The last one starts when all before it have ended.
const LOOP: Words =
    &["sh", "-c", "i=0; while [ $i -lt $N ]; do id=$(nq $JOB) || exit; i=$((i+1)); done; nq -w $id"];

pub(super) const PEER: Peer = Peer {
    name: "nq",
    short: "nq",
    program: "nq",
    // It does not tell its version itself.
    version: &["dpkg-query", "-W", "nq"],
    keeps: "in its log file",
    environment: &[("NQDIR", "{dir}/queue")],
    submit: Some(&["nq", "{job}"]),
    wait: Some(&["sh", "-c", "nq -w $(nq $JOB)"]),
    output: Some(&["nq", "{job}"]),
    batch: Some(LOOP),
    looped: Some(LOOP),
    // In a directory each, or they would wait for each other.
    sleepers: Some(&[
        "sh",
        "-c",
        "i=0; while [ $i -lt $N ]; do NQDIR=$DIR/$ROUND.$i nq sleep 1000 || exit; i=$((i+1)); done",
    ]),
    ..Peer::NONE
};
