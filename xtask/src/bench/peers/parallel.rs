//! GNU parallel with a job log: runs a list of jobs in the foreground.

use super::Peer;

pub(super) const PEER: Peer = Peer {
    name: "parallel",
    short: "parallel",
    program: "parallel",
    version: &["parallel", "--version"],
    keeps: "in its job log",
    wait: Some(&["parallel", "--will-cite", "-N0", "--joblog", "{dir}/{round}", "{job}", ":::", "1"]),
    output: Some(&["sh", "-c", "parallel --will-cite -N0 --joblog $DIR/$ROUND $JOB ::: 1 >$DIR/$ROUND.out"]),
    batch: Some(&["sh", "-c", "seq $N | parallel --will-cite -N0 -j$SLOTS --joblog $DIR/$ROUND $JOB"]),
    ..Peer::NONE
};
