//! What commands say that ask the same of several jobs.

use nodejobs::api::ActionResult;
use nodejobs::record::JobRecord;

use crate::exit::{Failure, overall, say};
use crate::output::{self, Format};

/// Tells of each job what was done, says what was not, and gives the exit code.
pub(super) fn tell(
    results: &[ActionResult],
    format: Format,
    done: impl Fn(&JobRecord) -> String,
) -> Result<u8, Failure> {
    match format {
        Format::Table => {
            for result in results {
                if let ActionResult::Done { record, .. } = result {
                    output::print(&format!("{}: {}\n", record.self_id, done(record)))?;
                }
            }
        }
        Format::Json => output::print_json(&results)?,
        Format::Jsonl => results.iter().try_for_each(output::print_json)?,
    }
    let failures: Vec<Failure> = results
        .iter()
        .filter_map(|result| match result {
            ActionResult::Done { .. } => None,
            ActionResult::Refused { error, .. } => Some(error.clone().into()),
        })
        .collect();
    failures.iter().for_each(|failure| say(failure));
    Ok(overall(results.len() - failures.len(), &failures))
}
