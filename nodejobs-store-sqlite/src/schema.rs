//! The tables, the indexes and the version of the format.
//!
//! Rules for whoever changes this: a reader refuses every version but its own; a change that an older version cannot
//! write correctly raises [`FORMAT`], and [`UPGRADES`] says how a file of the version before becomes one of this.

/// Version of the format, `PRAGMA user_version`.
pub(crate) const FORMAT: u32 = 4;

/// The oldest version that is still read, by making it into the present one first.
pub(crate) const OLDEST_FORMAT: u32 = 2;

/// What makes a file of a version into one of the next, beginning with [`OLDEST_FORMAT`].
pub(crate) const UPGRADES: [&str; (FORMAT - OLDEST_FORMAT) as usize] = [CREATE_COUNTS, ADD_QUEUES];

/// Says that the file is ours, `PRAGMA application_id`: the letters `njob`.
pub(crate) const APPLICATION_ID: i64 = 0x6e6a_6f62;

/// How far an attempt got, in the order in which `rows.rs` reads and writes it.
macro_rules! state_columns {
    () => {
        "attempt, restarts, status, reason, detail, waiting_on, pid, process_handle, started_at, started_boot, \
         ended_at, ended_boot, exit_code, signal, core_dumped, cpu_ms, peak_memory_kib, launch_asked_boot, \
         stdout_start, stderr_start, pending_restart, last_update, assigned"
    };
}

/// What an attempt runs, in the order in which `rows.rs` reads and writes it.
macro_rules! definition_columns {
    () => {
        "name, group_name, priority, slots, context_key, submit_key, created_at, cwd, dirname, log_layout, \
         merge, logdir, logfile, input, start, policy, labels, command, needs, after_jobs, origin, array"
    };
}

/// Every stored column of an attempt, in the order in which `rows.rs` reads it.
macro_rules! attempt_columns {
    () => {
        concat!(
            "seq, id, revision, ",
            $crate::schema::state_columns!(),
            ", ",
            $crate::schema::definition_columns!()
        )
    };
}

pub(crate) use {attempt_columns, definition_columns, state_columns};

/// What `jobs` and `attempts` have in common. Small columns come first and the long ones last, so that looking at
/// the head of a row does not follow it over its pages. `ANY` holds text where it is UTF-8 and a blob where it is not.
macro_rules! attempt_fields {
    () => {
        "
  id              TEXT NOT NULL,
  revision        INTEGER NOT NULL,    -- counts the changes of the job
  attempt         INTEGER NOT NULL,    -- from 1
  restarts        INTEGER NOT NULL,
  status          TEXT NOT NULL,
  reason          TEXT,
  detail          TEXT,
  waiting_on      TEXT,
  pid             INTEGER,
  process_handle  TEXT,                -- what finds this very process again
  started_at      INTEGER,             -- milliseconds since 1970, as all times named _at
  started_boot    INTEGER,             -- milliseconds since the machine started
  ended_at        INTEGER,
  ended_boot      INTEGER,
  exit_code       INTEGER,
  signal          INTEGER,             -- the signal that ended it
  core_dumped     INTEGER,
  cpu_ms          INTEGER,
  peak_memory_kib INTEGER,
  launch_asked_boot INTEGER NOT NULL,
  stdout_start    INTEGER NOT NULL,    -- where its output begins in the log files
  stderr_start    INTEGER NOT NULL,
  pending_restart TEXT,                -- submit_key of the attempt that begins once this one was stopped
  last_update     INTEGER NOT NULL,    -- milliseconds since 1970
  name            TEXT,
  group_name      TEXT,
  priority        INTEGER NOT NULL,
  slots           INTEGER NOT NULL,
  context_key     TEXT NOT NULL,       -- the document of kind 'context' with environment, umask and limits
  submit_key      TEXT,
  created_at      INTEGER NOT NULL,
  cwd             ANY NOT NULL,
  dirname         ANY NOT NULL,
  log_layout      TEXT NOT NULL,       -- spread, directory, file, file_in_directory
  merge           INTEGER NOT NULL,    -- standard error goes into the same file
  logdir          ANY NOT NULL,
  logfile         ANY NOT NULL,        -- standard output
  input           TEXT NOT NULL,       -- JSON
  start           TEXT NOT NULL,       -- JSON
  policy          TEXT NOT NULL,       -- JSON
  labels          TEXT NOT NULL,       -- JSON
  command         TEXT NOT NULL,       -- JSON
  runtime_ms      ANY AS (CASE WHEN ended_boot > started_boot THEN ended_boot - started_boot
                              WHEN ended_boot IS NOT NULL AND started_boot IS NOT NULL THEN 0 END) VIRTUAL"
    };
}

/// How many jobs have which status, so that nobody counts a million of them. Kept by the engine, whoever writes.
const CREATE_COUNTS: &str = "
CREATE TABLE counts (                  -- how many jobs have which status
  status          TEXT PRIMARY KEY,
  jobs            INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
INSERT INTO counts (status, jobs) SELECT status, count(*) FROM jobs GROUP BY status;
CREATE TRIGGER counts_insert AFTER INSERT ON jobs BEGIN
  INSERT INTO counts (status, jobs) VALUES (new.status, 1) ON CONFLICT (status) DO UPDATE SET jobs = jobs + 1;
END;
CREATE TRIGGER counts_update AFTER UPDATE OF status ON jobs WHEN old.status <> new.status BEGIN
  UPDATE counts SET jobs = jobs - 1 WHERE status = old.status;
  INSERT INTO counts (status, jobs) VALUES (new.status, 1) ON CONFLICT (status) DO UPDATE SET jobs = jobs + 1;
END;
CREATE TRIGGER counts_delete AFTER DELETE ON jobs BEGIN
  UPDATE counts SET jobs = jobs - 1 WHERE status = old.status;
END;
";

/// What jobs take of named resources, what they wait for, and what has begun them: JSON, absent where there is nothing.
const ADD_QUEUES: &str = "
ALTER TABLE jobs ADD COLUMN assigned TEXT;
ALTER TABLE jobs ADD COLUMN needs TEXT;
ALTER TABLE jobs ADD COLUMN after_jobs TEXT;
ALTER TABLE jobs ADD COLUMN origin TEXT;
ALTER TABLE jobs ADD COLUMN array TEXT;
ALTER TABLE attempts ADD COLUMN assigned TEXT;
ALTER TABLE attempts ADD COLUMN needs TEXT;
ALTER TABLE attempts ADD COLUMN after_jobs TEXT;
ALTER TABLE attempts ADD COLUMN origin TEXT;
ALTER TABLE attempts ADD COLUMN array TEXT;
";

/// Makes an empty database into a store of the oldest version; [`UPGRADES`] do the rest.
///
/// An index ends in the row's number without saying so, and that number is `seq`: each of them also serves listings
/// in the order of submission.
pub(crate) const CREATE: &str = concat!(
    "
CREATE TABLE jobs (                    -- each job with its newest attempt
  seq             INTEGER PRIMARY KEY AUTOINCREMENT,",
    attempt_fields!(),
    "
) STRICT;
CREATE UNIQUE INDEX jobs_id ON jobs (id);
CREATE INDEX jobs_status ON jobs (status);
CREATE INDEX jobs_last_update ON jobs (last_update);
CREATE INDEX jobs_name ON jobs (name) WHERE name IS NOT NULL;
CREATE INDEX jobs_group ON jobs (group_name) WHERE group_name IS NOT NULL;

CREATE TABLE job_labels (              -- jobs.labels, for finding
  key             TEXT NOT NULL,
  value           TEXT NOT NULL,
  seq             INTEGER NOT NULL,
  PRIMARY KEY (key, value, seq)
) STRICT, WITHOUT ROWID;

CREATE TABLE attempts (                -- earlier attempts
  seq             INTEGER NOT NULL,",
    attempt_fields!(),
    ",
  UNIQUE (seq, attempt)
) STRICT;

CREATE TABLE events (                  -- a job reached a status
  seq             INTEGER PRIMARY KEY, -- without a gap: nothing is ever deleted from the end
  id              TEXT NOT NULL,
  attempt         INTEGER NOT NULL,
  status          TEXT NOT NULL,
  reason          TEXT,
  at              INTEGER NOT NULL
) STRICT;

CREATE TABLE documents (
  kind            TEXT NOT NULL,
  key             TEXT NOT NULL,
  body            ANY NOT NULL,
  UNIQUE (kind, key)
) STRICT;
"
);
