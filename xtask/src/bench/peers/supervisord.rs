//! supervisord: runs the programs of its configuration, and reads their output through pipes. It takes no jobs one by
//! one, so a batch is a section of the configuration that it is told to read.

use super::{Crash, Peer, Words};

macro_rules! program {
    ($command:literal, $then:literal) => {
        &[
            "sh",
            "-c",
            concat!(
                "cat >$DIR/programs/$ROUND.conf <<END || exit\n[program:p$ROUND]\ncommand=",
                $command,
                "\nnumprocs=$N\nprocess_name=%(program_name)s_%(process_num)d\nstartsecs=0\nautorestart=false\n",
                "stdout_logfile_maxbytes=0\nEND\nsupervisorctl -c $DIR/conf update || exit\n",
                $then
            ),
        ]
    };
}

const START: Words = &[
    "sh",
    "-c",
    "mkdir -p $DIR/programs && cat >$DIR/conf <<END && supervisord -c $DIR/conf
[unix_http_server]
file=$DIR/socket
[rpcinterface:supervisor]
supervisor.rpcinterface_factory=supervisor.rpcinterface:make_main_rpcinterface
[supervisord]
logfile=$DIR/log
pidfile=$DIR/pid
childlogdir=$DIR
minfds=16384
[supervisorctl]
serverurl=unix://$DIR/socket
[include]
files=$DIR/programs/*.conf
END
until supervisorctl -c $DIR/conf pid; do :; done",
];

pub(super) const PEER: Peer = Peer {
    name: "supervisord",
    short: "supervis.",
    program: "supervisord",
    version: &["supervisord", "--version"],
    keeps: "in memory",
    start: Some(START),
    output: Some(program!("$JOB", "")),
    batch: Some(program!(
        "$JOB",
        "while supervisorctl -c $DIR/conf status | grep -qE ' (STARTING|RUNNING|BACKOFF) '; do :; done"
    )),
    // Its exit code says that not all of them run.
    list: Some(&["sh", "-c", "supervisorctl -c $DIR/conf status || [ $? = 3 ]"]),
    sleepers: Some(program!("sleep 1000", "")),
    stop: Some(&["supervisorctl", "-c", "{dir}/conf", "stop", "all"]),
    stop_all: Some(&["supervisorctl", "-c", "{dir}/conf", "stop", "all"]),
    crash: Some(Crash {
        submit: program!("$JOB", ""),
        restart: START,
        codes: &["sh", "-c", "grep -c 'exit status 7' $DIR/log || :"],
    }),
    ..Peer::NONE
};
