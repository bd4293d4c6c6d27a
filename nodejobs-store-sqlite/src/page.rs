//! The listing: a filter becomes SQL and an index to go along.
//!
//! Without statistics the engine cannot know that three jobs are running and a million have ended, but we do: the
//! index is chosen here, by [`Route`], and forced. The numbers of the page's jobs are found first, along that index,
//! and only then their rows are read.

use nodejobs_core::filter::{JobFilter, TimeRange};
use nodejobs_core::store::{Order, Page, PageRequest};
use rusqlite::types::Value;
use rusqlite::{Connection, params_from_iter};

use crate::error::Fault;
use crate::rows;
use crate::schema::attempt_columns;

pub(crate) fn jobs(connection: &Connection, request: &PageRequest) -> Result<Page, Fault> {
    let Query { sql, parameters } = Query::new(request);
    let mut statement = connection.prepare_cached(&sql)?;
    let found = statement.query_and_then(params_from_iter(parameters), rows::job)?;
    let mut jobs = found.collect::<Result<Vec<_>, _>>()?;
    let more = jobs.len() > request.limit;
    jobs.truncate(request.limit);
    let next = jobs.last().filter(|_| more).map(|job| job.seq);
    Ok(Page { jobs, next })
}

/// The index a listing goes along, the one with the fewest expected visits first.
enum Route<'f> {
    /// One id.
    Id,
    /// Ids that start alike: as many as there are, sorted afterwards.
    IdPrefix,
    /// The jobs of a name, in order.
    Name,
    /// The jobs of a group, in order.
    Group,
    /// The jobs with this value of a label, in order.
    Label(&'f str, &'f str),
    /// The jobs that have a label, sorted afterwards.
    LabelKey(&'f str),
    /// The jobs of each status, in order, merged.
    Statuses,
    /// What changed last, sorted afterwards.
    LastUpdate,
    /// All jobs, in order.
    All,
}

impl<'f> Route<'f> {
    fn new(filter: &'f JobFilter) -> Self {
        let mut labels = filter.label.iter();
        // Live jobs are few, however many have ended.
        let only_live = !filter.status.is_empty() && !filter.status.iter().any(|status| status.is_terminal());
        if filter.self_id.is_some() {
            Route::Id
        } else if only_live {
            Route::Statuses
        } else if filter.name.is_some() {
            Route::Name
        } else if let Some((key, value)) = labels.find_map(|(key, value)| Some((key, value.as_ref()?))) {
            Route::Label(key, value)
        } else if filter.id_prefix.as_ref().is_some_and(|prefix| !prefix.is_empty()) {
            Route::IdPrefix
        } else if filter.group.is_some() {
            Route::Group
        } else if let Some((key, _)) = filter.label.first() {
            Route::LabelKey(key)
        } else if !filter.status.is_empty() {
            Route::Statuses
        } else if filter.last_update.from.is_some() {
            Route::LastUpdate
        } else {
            Route::All
        }
    }
}

struct Query {
    sql: String,
    parameters: Vec<Value>,
}

impl Query {
    fn new(request: &PageRequest) -> Self {
        let filter = &request.filter;
        let mut query = Query { sql: String::new(), parameters: Vec::new() };
        let mut conditions = query.conditions(filter);
        let (direction, behind) = match request.order {
            Order::OldestFirst => ("ASC", '>'),
            Order::NewestFirst => ("DESC", '<'),
        };
        let route = Route::new(filter);
        // Which table goes first decides where the engine looks for the order.
        let seq = match route {
            Route::Label(..) | Route::LabelKey(..) => "job_labels.seq",
            _ => "jobs.seq",
        };
        if let Some(after) = request.after {
            let after = query.parameter(i64::try_from(after).unwrap_or(i64::MAX));
            conditions.push(format!("{seq} {behind} {after}"));
        }
        // One more than wanted tells whether this is the last page.
        let limit = query.parameter(i64::try_from(request.limit.saturating_add(1)).unwrap_or(i64::MAX));
        let tail = format!("ORDER BY {seq} {direction} LIMIT {limit}");

        let one = |from: &str, conditions: &[String]| {
            let conditions = if conditions.is_empty() { "1".to_owned() } else { conditions.join(" AND ") };
            format!("SELECT {seq} FROM {from} WHERE {conditions} {tail}")
        };
        let numbers = match route {
            Route::Id | Route::IdPrefix => one("jobs INDEXED BY jobs_id", &conditions),
            Route::Name => one("jobs INDEXED BY jobs_name", &conditions),
            Route::Group => one("jobs INDEXED BY jobs_group", &conditions),
            Route::LastUpdate => one("jobs INDEXED BY jobs_last_update", &conditions),
            Route::All => one("jobs NOT INDEXED", &conditions),
            Route::Label(key, value) => {
                let (key, value) = (query.parameter(key.to_owned()), query.parameter(value.to_owned()));
                conditions.push(format!("job_labels.key = {key} AND job_labels.value = {value}"));
                conditions.push("jobs.seq = job_labels.seq".to_owned());
                // Never the other way round: a cross join is gone through as it is written.
                one("job_labels CROSS JOIN jobs", &conditions)
            }
            Route::LabelKey(key) => {
                let key = query.parameter(key.to_owned());
                conditions.push(format!("job_labels.key = {key} AND jobs.seq = job_labels.seq"));
                one("job_labels CROSS JOIN jobs", &conditions)
            }
            Route::Statuses => {
                let mut statuses = filter.status.clone();
                statuses.sort_unstable();
                statuses.dedup();
                let mut branches = Vec::new();
                for status in statuses {
                    let status = query.parameter(status.as_str().to_owned());
                    let mut conditions = conditions.clone();
                    conditions.push(format!("jobs.status = {status}"));
                    let branch = one("jobs INDEXED BY jobs_status", &conditions);
                    branches.push(format!("SELECT seq FROM ({branch})"));
                }
                match branches.as_slice() {
                    [only] => only.clone(),
                    _ => format!("{} ORDER BY seq {direction} LIMIT {limit}", branches.join(" UNION ALL ")),
                }
            }
        };
        query.sql = format!(
            concat!("SELECT ", attempt_columns!(), " FROM jobs WHERE seq IN ({}) ORDER BY seq {}"),
            numbers, direction
        );
        query
    }

    /// What the filter says, term for term as `JobFilter::matches` does; the statuses are left to the routes that
    /// take them one by one.
    fn conditions(&mut self, filter: &JobFilter) -> Vec<String> {
        let mut conditions = Vec::new();
        if !filter.status.is_empty() && !matches!(Route::new(filter), Route::Statuses) {
            let names: Vec<String> =
                filter.status.iter().map(|status| self.parameter(status.as_str().to_owned())).collect();
            // The sign keeps the engine from going along the index of statuses.
            conditions.push(format!("+jobs.status IN ({})", names.join(", ")));
        }
        let mut equal = |column: &str, value: Option<Value>| {
            if let Some(value) = value {
                let value = self.parameter(value);
                conditions.push(format!("jobs.{column} = {value}"));
            }
        };
        equal("id", filter.self_id.clone().map(Value::Text));
        equal("name", filter.name.clone().map(Value::Text));
        equal("group_name", filter.group.clone().map(Value::Text));
        equal("cwd", filter.cwd.as_ref().map(rows::raw_parameter));
        equal("dirname", filter.dirname.as_ref().map(rows::raw_parameter));
        equal("logdir", filter.logdir.as_ref().map(rows::raw_parameter));
        equal("logfile", filter.logfile.as_ref().map(rows::raw_parameter));
        equal("pid", filter.last_pid.map(Value::from));
        equal("exit_code", filter.exit_code.map(Value::from));
        if let Some(prefix) = filter.id_prefix.as_ref().filter(|prefix| !prefix.is_empty()) {
            let from = self.parameter(prefix.clone());
            conditions.push(format!("jobs.id >= {from}"));
            if let Some(end) = behind_prefix(prefix) {
                let end = self.parameter(end);
                conditions.push(format!("jobs.id < {end}"));
            }
        }
        for (key, value) in &filter.label {
            let key = self.parameter(key.clone());
            conditions.push(match value {
                Some(value) => {
                    let value = self.parameter(value.clone());
                    format!(
                        "EXISTS (SELECT 1 FROM job_labels AS l WHERE l.key = {key} AND l.value = {value} \
                         AND l.seq = jobs.seq)"
                    )
                }
                None => format!("jobs.seq IN (SELECT l.seq FROM job_labels AS l WHERE l.key = {key})"),
            });
        }
        if let Some(is_element) = filter.is_element {
            let not = if is_element { "" } else { "NOT " };
            conditions.push(format!("{not}(jobs.origin IS NOT NULL AND jobs.origin LIKE '{{\"element\":%')"));
        }
        let spans = [
            ("last_update", filter.last_update),
            ("created_at", filter.created),
            ("started_at", filter.started),
            ("ended_at", filter.ended),
        ];
        for (column, TimeRange { from, until }) in spans {
            for (comparison, bound) in [(">=", from), ("<=", until)] {
                if let Some(bound) = bound {
                    let bound = self.parameter(bound.as_millis());
                    conditions.push(format!("jobs.{column} {comparison} {bound}"));
                }
            }
        }
        conditions
    }

    /// Adds a parameter and returns what stands for it.
    fn parameter(&mut self, value: impl Into<Value>) -> String {
        self.parameters.push(value.into());
        format!("?{}", self.parameters.len())
    }
}

/// The smallest text that is greater than every text with this prefix, if there is one.
fn behind_prefix(prefix: &str) -> Option<String> {
    let mut characters: Vec<char> = prefix.chars().collect();
    while let Some(last) = characters.pop() {
        // The surrogates are no characters, so the one after U+D7FF is U+E000.
        if let Some(next) = (u32::from(last) + 1..=u32::from(char::MAX)).find_map(char::from_u32) {
            characters.push(next);
            return Some(characters.into_iter().collect());
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_prefix_is_the_next_text_of_that_length() {
        assert_eq!(behind_prefix("ab").as_deref(), Some("ac"));
        assert_eq!(behind_prefix("a\u{d7ff}").as_deref(), Some("a\u{e000}"));
        assert_eq!(behind_prefix("a\u{10ffff}\u{10ffff}").as_deref(), Some("b"));
        assert_eq!(behind_prefix("\u{10ffff}"), None);
    }
}
