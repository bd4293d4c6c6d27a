//! `xargs -P`: runs a list of jobs in the foreground and remembers none of them.

use super::Peer;

pub(super) const PEER: Peer = Peer {
    name: "xargs",
    short: "xargs",
    program: "xargs",
    version: &["xargs", "--version"],
    keeps: "nothing",
    compares: false,
    start: Some(&["sh", "-c", "echo 1 >$DIR/one"]),
    wait: Some(&["xargs", "-a", "{dir}/one", "-n1", "{job}"]),
    output: Some(&["sh", "-c", "xargs -a $DIR/one -n1 $JOB >$DIR/$ROUND.out"]),
    batch: Some(&["sh", "-c", "seq $N | xargs -n1 -P$SLOTS $JOB"]),
    ..Peer::NONE
};
