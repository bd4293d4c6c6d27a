//! Somebody who listens to all events meanwhile, and goes on after the last one heard whenever the daemon was killed.

use std::io::BufRead;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use super::export::Event;
use super::scene::Scene;
use crate::process::pause;
use crate::product::Api;

/// How long the last question may remain without an answer.
const PATIENCE: Duration = Duration::from_secs(90);

/// Everything that was heard up to the newest event after `enough`; less, if nobody answers any more.
pub(crate) fn listen(scene: &Scene, enough: &AtomicBool) -> Result<Vec<Event>> {
    let api = Api::new(&scene.data().join("sock"));
    let (mut heard, mut since) = (Vec::new(), None);
    loop {
        let last = enough.load(Ordering::Acquire);
        if last && since.get_or_insert_with(Instant::now).elapsed() > PATIENCE {
            return Ok(heard);
        }
        // What the last question is answered with ends by itself.
        let after = heard.last().map_or(0, |event: &Event| event.seq);
        if let Ok(stream) = api.stream(&format!("/v1/events?after={after}&follow={}", !last)) {
            let complete = take_in(stream, &mut heard)?;
            if last && complete {
                return Ok(heard);
            }
        }
        pause(Duration::from_millis(3))?;
    }
}

/// Reads until the stream breaks; whether it said that there is no more.
fn take_in(stream: impl BufRead, heard: &mut Vec<Event>) -> Result<bool> {
    let mut name = String::new();
    for line in stream.lines() {
        // The daemon was killed: what was read so far counts.
        let Ok(line) = line else { return Ok(false) };
        if let Some(word) = line.strip_prefix("event:") {
            word.trim().clone_into(&mut name);
        } else if let Some(data) = line.strip_prefix("data:") {
            match name.as_str() {
                "status" => {
                    let value = serde_json::from_str(data).with_context(|| format!("no JSON: {data}"))?;
                    heard.push(Event::parse(&value).with_context(|| format!("no event: {data}"))?);
                }
                "done" => return Ok(true),
                _ => return Ok(false),
            }
        }
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_is_heard_as_far_as_it_goes() {
        let event = |seq: u64| {
            format!(
                "event: status\ndata: {{\"seq\":{seq},\"id\":\"a\",\"attempt\":1,\"status\":\"running\"}}\n\n"
            )
        };
        let mut heard = Vec::new();
        assert!(!take_in(format!("{}: \n\n{}", event(1), event(2)).as_bytes(), &mut heard).unwrap());
        assert!(take_in(format!("{}event: done\ndata: {{}}\n\n", event(3)).as_bytes(), &mut heard).unwrap());
        assert!(!take_in("event: error\ndata: {}\n\n".as_bytes(), &mut heard).unwrap());
        assert_eq!(heard.iter().map(|event| event.seq).collect::<Vec<_>>(), [1, 2, 3]);
        assert!(take_in("event: status\ndata: {\"seq\":4}\n\n".as_bytes(), &mut heard).is_err());
    }
}
