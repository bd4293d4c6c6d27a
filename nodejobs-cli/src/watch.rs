//! Staying with jobs until they end, also when the daemon in between is killed and started again.

use std::time::{Duration, Instant};

use nodejobs::api::{FollowEvent, FollowQuery, LogStream, WaitRequest};
use nodejobs::client::ClientError;
use nodejobs::record::JobRecord;

use crate::connect::Connection;
use crate::exit::{FAILED, Failure};

/// Waits until each of these jobs has ended, and calls `ended` for each as it does.
pub(crate) fn wait(
    connection: &mut Connection<'_>,
    references: &[String],
    mut ended: impl FnMut(&JobRecord) -> Result<(), Failure>,
) -> Result<Vec<JobRecord>, Failure> {
    let mut request = WaitRequest { jobs: references.to_vec(), any: false };
    let (mut records, mut patience) = (Vec::new(), Patience::new());
    loop {
        let cut = match connection.client.wait(&request) {
            Ok(events) => {
                let mut cut = None;
                for event in events {
                    match event {
                        Ok(record) => {
                            // A single reference may be a name or the beginning of an id.
                            let only = request.jobs.len() == 1;
                            request.jobs.retain(|job| !only && job != record.self_id.as_str());
                            ended(&record)?;
                            records.push(record);
                        }
                        Err(error) => cut = Some(error),
                    }
                }
                cut
            }
            Err(error) => Some(error),
        };
        match cut {
            None => return Ok(records),
            Some(_) if request.jobs.is_empty() => return Ok(records),
            Some(error) => patience.reconnect(connection, error)?,
        }
    }
}

/// Calls `heard` with what a job writes, each byte once, until the attempt has ended.
pub(crate) fn follow(
    connection: &mut Connection<'_>,
    id: &str,
    mut query: FollowQuery,
    mut heard: impl FnMut(&FollowEvent) -> Result<(), Failure>,
) -> Result<JobRecord, Failure> {
    let mut patience = Patience::new();
    loop {
        let cut = match connection.client.follow(id, &query) {
            Ok(events) => {
                let mut cut = None;
                for event in events {
                    let event = match event {
                        Ok(event) => event,
                        Err(error) => {
                            cut = Some(error);
                            break;
                        }
                    };
                    heard(&event)?;
                    match event {
                        FollowEvent::Output(chunk) => *from(&mut query, chunk.stream) = Some(chunk.end()),
                        FollowEvent::Truncated { stream, offset } => *from(&mut query, stream) = Some(offset),
                        FollowEvent::Ended(record) => return Ok(*record),
                        // The iterator makes an error of it.
                        FollowEvent::Error(problem) => return Err(problem.into()),
                    }
                }
                cut
            }
            Err(error) => Some(error),
        };
        match cut {
            Some(error) => patience.reconnect(connection, error)?,
            None => return Err(Failure::new(FAILED, "the stream ended without the end of the job")),
        }
    }
}

fn from(query: &mut FollowQuery, stream: LogStream) -> &mut Option<u64> {
    match stream {
        LogStream::Stdout => &mut query.stdout_from,
        LogStream::Stderr => &mut query.stderr_from,
    }
}

/// How often a connection may break: as often as it likes, but not at once and again and again.
struct Patience {
    connected: Instant,
    breaks: u32,
}

impl Patience {
    const MOST_BREAKS: u32 = 3;
    const LASTING: Duration = Duration::from_secs(1);

    fn new() -> Self {
        Self { connected: Instant::now(), breaks: 0 }
    }

    fn reconnect(&mut self, connection: &mut Connection<'_>, error: ClientError) -> Result<(), Failure> {
        if self.connected.elapsed() >= Self::LASTING {
            self.breaks = 0;
        }
        self.breaks += 1;
        if !error.is_broken() || self.breaks > Self::MOST_BREAKS {
            return Err(error.into());
        }
        connection.renew()?;
        self.connected = Instant::now();
        Ok(())
    }
}
