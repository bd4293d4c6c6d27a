//! pm2: a daemon that reads all output through pipes; each command is a start of node.

use super::{Crash, Peer};

/// It has no command that waits.
macro_rules! until_ended {
    () => {
        "while pm2 jlist | grep -q '\"status\":\"online\"'; do :; done"
    };
}

/// Several programs are started from a file.
macro_rules! apps {
    ($script:literal, $arguments:literal) => {
        concat!(
            "i=0; { echo '{\"apps\":['; while [ $i -lt $N ]; do i=$((i+1));
             printf '{\"name\":\"%s\",\"script\":\"%s\",\"args\":\"%s\",\"autorestart\":false,\"interpreter\":\"none\"}' r$ROUND.$i ",
            $script,
            " '",
            $arguments,
            "'; [ $i = $N ] || echo ,; done; echo ']}'; } >$DIR/$ROUND.json; pm2 start $DIR/$ROUND.json || exit\n"
        )
    };
}

pub(super) const PEER: Peer = Peer {
    name: "pm2",
    short: "pm2",
    program: "pm2",
    version: &["pm2", "--version"],
    keeps: "in memory",
    environment: &[("PM2_HOME", "{dir}/pm2")],
    start: Some(&["pm2", "ping"]),
    submit: Some(&["pm2", "start", "{job}", "--name", "r{round}", "--no-autorestart", "--interpreter", "none"]),
    wait: Some(&[
        "sh",
        "-c",
        concat!("pm2 start $JOB --name r$ROUND --no-autorestart --interpreter none || exit; ", until_ended!()),
    ]),
    output: Some(&["pm2", "start", "{job}", "--name", "r{round}", "--no-autorestart", "--interpreter", "none"]),
    batch: Some(&["sh", "-c", concat!(apps!("$JOB", ""), until_ended!())]),
    looped: Some(&[
        "sh",
        "-c",
        concat!(
            "i=0; while [ $i -lt $N ]; do
             pm2 start $JOB --name r$ROUND.$i --no-autorestart --interpreter none || exit; i=$((i+1)); done; ",
            until_ended!()
        ),
    ]),
    list: Some(&["pm2", "ls"]),
    sleepers: Some(&["sh", "-c", apps!("sleep", "1000")]),
    stop: Some(&["pm2", "stop", "all"]),
    stop_all: Some(&["pm2", "stop", "all"]),
    crash: Some(Crash {
        submit: &["sh", "-c", concat!(apps!("$JOB", ""), "pm2 save")],
        restart: &["pm2", "resurrect"],
        codes: &["sh", "-c", "pm2 jlist | grep -o '\"exit_code\":7' | wc -l"],
    }),
    ..Peer::NONE
};
