//! The stream of every status event of a data directory: how it is asked for, and what it says.

use nodejobs_core::store::JobEvent;
use serde::{Deserialize, Serialize};

use super::event::{EventError, read};
use super::{ErrorBody, Problem};

/// Which status events are wanted.
#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EventsQuery {
    /// Only those with a higher `seq`; all of them if 0 or absent.
    #[serde(default)]
    pub after: u64,
    /// Whether the stream goes on with what happens later. If not, it ends with the newest.
    #[serde(default)]
    pub follow: bool,
}

/// What a listener to status events hears. `done` and `error` are last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StatusEvent {
    /// `status`: a job reached a status. Told in the order of [`JobEvent::seq`], without a gap.
    Status(JobEvent),
    /// `done`: there is nothing newer. Only where the stream does not follow.
    Done {
        /// The `seq` of the newest event there is, 0 if there is none.
        newest: u64,
    },
    /// `error`: the stream cannot go on. It can be asked for again after the last `seq` that was heard.
    Error(Problem),
}

#[derive(Serialize, Deserialize)]
struct DoneData {
    newest: u64,
}

impl EventsQuery {
    /// The query as keys and values.
    pub fn to_pairs(&self) -> Vec<(String, String)> {
        let Self { after, follow } = self;
        vec![("after".to_owned(), after.to_string()), ("follow".to_owned(), follow.to_string())]
    }
}

impl StatusEvent {
    /// The name and the data of the server-sent event.
    ///
    /// # Errors
    /// When a value cannot be JSON, which does not happen for values that came from JSON.
    pub fn to_sse(&self) -> Result<(&'static str, String), serde_json::Error> {
        Ok(match self {
            StatusEvent::Status(event) => ("status", serde_json::to_string(event)?),
            StatusEvent::Done { newest } => ("done", serde_json::to_string(&DoneData { newest: *newest })?),
            StatusEvent::Error(problem) => {
                ("error", serde_json::to_string(&ErrorBody { error: problem.clone() })?)
            }
        })
    }

    /// The event of that name with that data.
    ///
    /// # Errors
    /// [`EventError`] says whether the name or the data is the matter.
    pub fn from_sse(name: &str, data: &str) -> Result<Self, EventError> {
        Ok(match name {
            "status" => StatusEvent::Status(read(name, data)?),
            "done" => StatusEvent::Done { newest: read::<DoneData>(name, data)?.newest },
            "error" => StatusEvent::Error(read::<ErrorBody>(name, data)?.error),
            _ => return Err(EventError::UnknownName(name.to_owned())),
        })
    }

    /// Whether nothing comes after it.
    pub fn is_last(&self) -> bool {
        !matches!(self, StatusEvent::Status(_))
    }
}

#[cfg(test)]
mod tests {
    use nodejobs_core::id::AttemptId;
    use nodejobs_core::{JobId, Status, Timestamp};

    use super::*;
    use crate::api::ProblemKind;

    #[test]
    fn events_survive_the_way_and_the_json_is_the_documented_one() {
        let status = StatusEvent::Status(JobEvent {
            seq: 7,
            attempt: AttemptId { id: JobId::new("a").expect("valid"), attempt: 2 },
            status: Status::Running,
            reason: None,
            at: Timestamp::from_millis(0),
        });
        let error = StatusEvent::Error(Problem::new(ProblemKind::Unavailable, "leaving"));
        for (event, json) in [
            (
                status,
                r#"{"seq":7,"id":"a","attempt":2,"status":"running","reason":null,"at":"1970-01-01T00:00:00.000Z"}"#,
            ),
            (StatusEvent::Done { newest: 9 }, r#"{"newest":9}"#),
            (error, r#"{"error":{"kind":"unavailable","message":"leaving"}}"#),
        ] {
            let (name, data) = event.to_sse().expect("JSON");
            assert_eq!(data, json);
            assert_eq!(StatusEvent::from_sse(name, &data).expect("the same"), event);
            assert_eq!(event.is_last(), name != "status");
        }
        assert!(matches!(StatusEvent::from_sse("output", "{}"), Err(EventError::UnknownName(_))));
    }
}
