//! What the store holds in the end: every attempt and every event, from `store export` (docs/export.md).

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use serde_json::Value;

/// An attempt as it was recorded.
#[derive(Clone, Debug, Default)]
pub(crate) struct Attempt {
    pub(crate) number: u32,
    pub(crate) status: String,
    pub(crate) reason: Option<String>,
    pub(crate) restarts: u32,
    pub(crate) pid: Option<u32>,
    pub(crate) code: Option<i64>,
    pub(crate) signal: Option<i64>,
    /// In milliseconds of the boot clock: when its launch was decided, and when it ended.
    pub(crate) begun: u64,
    pub(crate) ended: Option<u64>,
}

/// A status that was reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Event {
    pub(crate) seq: u64,
    pub(crate) id: String,
    pub(crate) attempt: u32,
    pub(crate) status: String,
}

#[derive(Debug, Default)]
pub(crate) struct Export {
    pub(crate) jobs: BTreeMap<String, Vec<Attempt>>,
    pub(crate) events: Vec<Event>,
}

impl Export {
    pub(crate) fn parse(text: &str) -> Result<Self> {
        let mut export = Self::default();
        for line in text.lines() {
            let value: Value = serde_json::from_str(line).context("a line of the export is not JSON")?;
            let cannot = || format!("a line of the export lacks something: {line}");
            if let Some(job) = value.get("job").or(value.get("more_attempts")) {
                let attempts = job["attempts"].as_array().with_context(cannot)?;
                let attempts = attempts.iter().map(Attempt::parse).collect::<Option<Vec<_>>>();
                let id = job["id"].as_str().with_context(cannot)?.to_owned();
                export.jobs.entry(id).or_default().extend(attempts.with_context(cannot)?);
            } else if let Some(event) = value.get("event") {
                export.events.push(Event::parse(event).with_context(cannot)?);
            }
        }
        Ok(export)
    }
}

impl Attempt {
    fn parse(value: &Value) -> Option<Self> {
        Some(Self {
            number: number(&value["attempt"])?,
            status: value["status"].as_str()?.to_owned(),
            reason: value["reason"].as_str().map(str::to_owned),
            restarts: number(&value["restarts"])?,
            pid: number(&value["process"]["pid"]),
            code: value["exit"]["code"].as_i64(),
            signal: value["exit"]["signal"]["number"].as_i64(),
            begun: value["launch_asked_boot_ms"].as_u64().unwrap_or(0),
            ended: value["ended"]["boot_ms"].as_u64(),
        })
    }

    /// What commands that mirror the job end with.
    pub(crate) fn mirrored(&self) -> i64 {
        match (self.status.as_str(), self.code, self.signal) {
            ("finished" | "failed" | "stopped", Some(code), _) => code,
            ("finished" | "failed" | "stopped", None, Some(signal)) => 128 + signal,
            _ => 125,
        }
    }
}

impl Event {
    /// As it is in the export, and in the stream of events.
    pub(crate) fn parse(value: &Value) -> Option<Self> {
        Some(Self {
            seq: value["seq"].as_u64()?,
            id: value["id"].as_str()?.to_owned(),
            attempt: number(&value["attempt"])?,
            status: value["status"].as_str()?.to_owned(),
        })
    }
}

fn number(value: &Value) -> Option<u32> {
    u32::try_from(value.as_u64()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_export_is_read() {
        let export = Export::parse(concat!(
            r#"{"nodejobs_export":1,"version":"0.1.0"}"#,
            "\n",
            r#"{"job":{"seq":1,"id":"a","attempts":[{"attempt":1,"status":"failed","reason":"signal","restarts":0,"process":{"handle":"h","pid":7},"ended":{"wall":"w","boot_ms":9},"exit":{"signal":{"number":9,"core_dumped":false}},"launch_asked_boot_ms":5}]}}"#,
            "\n",
            r#"{"event":{"seq":1,"id":"a","attempt":1,"status":"starting","reason":null,"at":"w"}}"#,
        ))
        .unwrap();
        let attempt = &export.jobs["a"][0];
        assert_eq!((attempt.pid, attempt.signal, attempt.code), (Some(7), Some(9), None));
        assert_eq!((attempt.begun, attempt.ended, attempt.mirrored()), (5, Some(9), 137));
        let event = Event { seq: 1, id: "a".to_owned(), attempt: 1, status: "starting".to_owned() };
        assert_eq!(export.events, [event]);
        assert!(Export::parse(r#"{"job":{"id":"a","attempts":[{"attempt":1}]}}"#).is_err());
    }
}
