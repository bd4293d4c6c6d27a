//! `nodejobs explain`: why a job waits.

use clap::Args;
use nodejobs::explain::{Explanation, QueuePlace};
use nodejobs::spec::{Condition, Dependency};

use crate::connect::Target;
use crate::exit::Failure;
use crate::output::{self, Format};
use crate::readable::{ahead, now, printable};

#[derive(Args, Debug)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct Explain {
    /// An id, a unique beginning of an id, or a unique name
    #[arg(value_name = "ID")]
    job: String,
}

const AFTER_HELP: &str = "\
Examples:
  nodejobs explain ID
  nodejobs explain ID -o json | jq .queue.position

Exit status: 0, whether it waits or not; 3 if there is no such job.";

impl Explain {
    pub(crate) fn execute(self, target: &Target, format: Format) -> Result<u8, Failure> {
        super::require_references(std::slice::from_ref(&self.job))?;
        let explanation = target.connect()?.ask(|client| client.explain(&self.job))?;
        match format {
            Format::Table => output::print(&sentences(&explanation))?,
            Format::Json | Format::Jsonl => output::print_json(&explanation)?,
        }
        Ok(0)
    }
}

fn sentences(explanation: &Explanation) -> String {
    let text = std::iter::once(explanation).chain(&explanation.chain).map(sentence).collect::<String>();
    text.split_inclusive('\n').map(|line| format!("{}\n", printable(line.trim_end_matches('\n')))).collect()
}

fn sentence(explanation: &Explanation) -> String {
    let Explanation { id, status, waiting_on, held_up, next_start_at, queue, after, attempt: _, chain: _ } =
        explanation;
    if let Some(held_up) = held_up {
        return format!("{id} is {status}: {held_up}\n");
    }
    let Some(waiting_on) = waiting_on else { return format!("{id} is {status} and waits for nothing\n") };
    let mut text = match (queue, next_start_at) {
        (Some(place), _) => placed(id.as_str(), place),
        (None, Some(due)) => format!("{id} waits for its time: {due} ({})\n", ahead(now(), *due)),
        (None, None) if !after.is_empty() => format!("{id} waits for other jobs\n"),
        (None, None) if waiting_on == "deletion" => {
            format!(
                "{id} waits until the log files of the removed job with its id are deleted: nodejobs daemon status\n"
            )
        }
        (None, None) => format!("{id} waits for {waiting_on}\n"),
    };
    for Dependency { id, condition } in after {
        let how = match condition {
            Condition::Success => "succeed",
            Condition::Failure => "fail",
            Condition::Any => "end",
        };
        text.push_str(&format!("  '{id}' has to {how}\n"));
    }
    text
}

fn placed(id: &str, place: &QueuePlace) -> String {
    let mut text = format!(
        "{id} waits for a place: it is {} of {} in group '{}', with priority {}\n",
        place.position, place.waiting, place.group, place.priority
    );
    for lack in &place.lacks {
        text.push_str(&format!("  {lack}\n"));
        if let Some(holders) = lack.held_by() {
            text.push_str(&format!("    held by {holders}\n"));
        }
    }
    if let Some(behind) = &place.behind {
        text.push_str(&format!(
            "  '{behind}' is before it, and waits for what it wants: nodejobs explain {behind}\n"
        ));
    }
    text
}
