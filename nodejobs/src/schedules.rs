//! Schedules, on the owner's side: their calendars, and what can be asked of them.

mod cron;
mod service;
mod zone;

use jiff::tz::TimeZone;
use nodejobs_core::engine::KnownSchedule;
use nodejobs_core::schedule::{Calendar, Every, Schedule, Timing};
use nodejobs_core::store::{DocumentKind, JobStore};

use crate::api::ProblemKind;
use crate::error::Error;
use cron::CronCalendar;

pub use zone::machine_time_zone;

/// The schedules that a store has, with their calendars.
pub(crate) fn stored(store: &dyn JobStore) -> Result<Vec<KnownSchedule>, Error> {
    let schedules = read_all(store)?.into_iter().map(|schedule| {
        let calendar = calendar(&schedule.timing)
            .inspect_err(|why| {
                log::error!("schedule '{}' is not due until this is mended: {why}", schedule.name);
            })
            .ok();
        KnownSchedule { schedule, calendar }
    });
    Ok(schedules.collect())
}

/// Every schedule as it is stored, in the order of their names.
fn read_all(store: &dyn JobStore) -> Result<Vec<Schedule>, Error> {
    let documents = store.documents(DocumentKind::Schedule, "", None, Schedule::MAX_COUNT + 1)?;
    documents.iter().map(|(name, body)| read(name, body)).collect()
}

fn read_one(store: &dyn JobStore, name: &str) -> Result<Schedule, Error> {
    let body = store.document(DocumentKind::Schedule, name)?;
    body.map_or_else(|| Err(no_schedule(name)), |body| read(name, &body))
}

fn read(name: &str, body: &[u8]) -> Result<Schedule, Error> {
    Schedule::from_bytes(body).map_err(|error| {
        let message = format!("the store is damaged at document schedule '{name}'; restore it from a backup");
        Error::new(ProblemKind::Unavailable, message).with_source(error)
    })
}

fn no_schedule(name: &str) -> Error {
    Error::new(
        ProblemKind::NotFound,
        format!("there is no schedule '{name}'; `nodejobs schedule ls` lists them"),
    )
}

/// The times of a schedule; says in words why they cannot be known.
fn calendar(timing: &Timing) -> Result<Box<dyn Calendar>, String> {
    Ok(match timing {
        Timing::Every { every_ms, from } => Box::new(Every { every_ms: *every_ms, from: *from }),
        Timing::Cron { expression, zone } => {
            let (zone, _): (TimeZone, String) = zone::zone(zone)?;
            Box::new(CronCalendar::new(expression, zone)?)
        }
    })
}
