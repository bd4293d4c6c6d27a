//! The part of a request behind the question mark.

use nodejobs_core::Status;
use nodejobs_core::filter::{FilterError, JobFilter};
use nodejobs_core::group::DEFAULT_GROUP;
use nodejobs_core::store::Order;
use serde::{Deserialize, Serialize};

use super::{FollowEvent, LogStream, Problem};

/// Which jobs a listing shows: conditions that all have to hold, the order, and which part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListQuery {
    conditions: Vec<(String, String)>,
    /// The conditions, understood.
    filter: JobFilter,
    /// In which direction; newest first if nothing is said.
    pub order: Order,
    /// Only jobs behind this `seq` in that direction.
    pub after: Option<u64>,
    /// At most so many, 1 to [`MAX_LIMIT`](Self::MAX_LIMIT).
    pub limit: usize,
    /// Whether records say what running jobs use now. Takes a moment: each of their processes is looked at, twice if
    /// nobody has asked for it within the last ten seconds.
    pub usage: bool,
}

impl Default for ListQuery {
    fn default() -> Self {
        Self {
            conditions: Vec::new(),
            filter: JobFilter::default(),
            order: Order::NewestFirst,
            after: None,
            limit: Self::DEFAULT_LIMIT,
            usage: false,
        }
    }
}

impl ListQuery {
    /// How many jobs a part has if nothing is said.
    pub const DEFAULT_LIMIT: usize = 100;
    /// How many jobs a part has at most.
    pub const MAX_LIMIT: usize = 1000;

    /// Adds a condition; the keys are those of [`JobFilter`].
    ///
    /// ```
    /// use nodejobs::api::ListQuery;
    ///
    /// let mut query = ListQuery::default();
    /// query.require("status", "running,queued")?;
    /// assert!(query.require("colour", "red").is_err());
    /// # Ok::<(), nodejobs::filter::FilterError>(())
    /// ```
    ///
    /// # Errors
    /// [`FilterError`] for a key or value that means nothing; the query is as it was.
    pub fn require(&mut self, key: &str, value: &str) -> Result<(), FilterError> {
        self.filter.set(key, value)?;
        self.conditions.push((key.to_owned(), value.to_owned()));
        Ok(())
    }

    /// The jobs of a group that have not ended, first submitted first. Those of the default group are found among all: their
    /// records have no group.
    ///
    /// # Errors
    /// [`FilterError`] for what can be no group's name.
    pub fn live_of_group(group: &str) -> Result<Self, FilterError> {
        let mut query = Self { order: Order::OldestFirst, limit: Self::MAX_LIMIT, ..Self::default() };
        for status in Status::ALL.into_iter().filter(|status| !status.is_terminal()) {
            query.require("status", status.as_str())?;
        }
        if group != DEFAULT_GROUP {
            query.require("group", group)?;
        }
        Ok(query)
    }

    /// The conditions, understood.
    pub fn filter(&self) -> &JobFilter {
        &self.filter
    }

    /// The query as keys and values.
    pub fn to_pairs(&self) -> Vec<(String, String)> {
        let mut pairs = self.conditions.clone();
        let order = match self.order {
            Order::OldestFirst => "oldest_first",
            Order::NewestFirst => "newest_first",
        };
        pairs.push(("order".to_owned(), order.to_owned()));
        pairs.extend(self.after.map(|seq| ("after".to_owned(), seq.to_string())));
        pairs.push(("limit".to_owned(), self.limit.to_string()));
        pairs.extend(self.usage.then(|| ("usage".to_owned(), "true".to_owned())));
        pairs
    }

    /// The query from keys and values, as a server receives it.
    ///
    /// # Errors
    /// A problem of kind `usage` that names the first key or value that means nothing.
    pub fn from_pairs<K: AsRef<str>, V: AsRef<str>>(
        pairs: impl IntoIterator<Item = (K, V)>,
    ) -> Result<Self, Problem> {
        let mut query = Self::default();
        for (key, value) in pairs {
            let value = value.as_ref();
            match key.as_ref() {
                "order" => {
                    query.order = match value {
                        "oldest_first" => Order::OldestFirst,
                        "newest_first" => Order::NewestFirst,
                        _ => {
                            return Err(Problem::usage(format!(
                                "order '{value}' is neither newest_first nor oldest_first"
                            )));
                        }
                    }
                }
                "after" => {
                    let seq = value.parse().map_err(|_| {
                        Problem::usage(format!("after '{value}' is not the seq of a job, a whole number"))
                    })?;
                    query.after = Some(seq);
                }
                "limit" => {
                    query.limit = match value.parse() {
                        Ok(limit @ 1..=Self::MAX_LIMIT) => limit,
                        _ => {
                            return Err(Problem::usage(format!(
                                "limit '{value}' is not a number from 1 to {}",
                                Self::MAX_LIMIT
                            )));
                        }
                    }
                }
                "usage" => {
                    query.usage = value
                        .parse()
                        .map_err(|_| Problem::usage(format!("usage '{value}' is neither true nor false")))?;
                }
                key => query.require(key, value).map_err(|error| Problem::usage(error.to_string()))?,
            }
        }
        Ok(query)
    }
}

/// What a record is to say beside what is stored.
#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct StatusQuery {
    /// What the job uses now, if it runs; see [`ListQuery::usage`].
    pub usage: bool,
}

impl StatusQuery {
    /// The query as keys and values.
    pub fn to_pairs(&self) -> Vec<(String, String)> {
        self.usage.then(|| ("usage".to_owned(), "true".to_owned())).into_iter().collect()
    }
}

/// Which bytes of a log file are wanted.
#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogQuery {
    /// Of which attempt; the newest if absent.
    pub attempt: Option<u32>,
    /// Only so many last lines.
    pub tail: Option<u64>,
    /// Only what is behind so many first bytes of the file.
    pub offset: Option<u64>,
}

/// Which output a follower wants.
#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FollowQuery {
    /// Of which attempt; the newest if absent. The stream ends with this attempt.
    pub attempt: Option<u32>,
    /// Begin with so many last lines of each stream; with all of them if absent.
    pub tail: Option<u64>,
    /// Go on at this offset of standard output, whatever `tail` says: where an earlier stream was cut off.
    pub stdout_from: Option<u64>,
    /// Go on at this offset of standard error, whatever `tail` says.
    pub stderr_from: Option<u64>,
}

impl LogQuery {
    /// The query as keys and values.
    pub fn to_pairs(&self) -> Vec<(String, String)> {
        let Self { attempt, tail, offset } = self;
        pairs([("attempt", attempt.map(u64::from)), ("tail", *tail), ("offset", *offset)])
    }
}

impl FollowQuery {
    /// Asks for what comes behind this event, over the next connection.
    pub fn go_on_behind(&mut self, event: &FollowEvent) {
        let (stream, offset) = match event {
            FollowEvent::Output(chunk) => (chunk.stream, chunk.end()),
            FollowEvent::Truncated { stream, offset } => (*stream, *offset),
            FollowEvent::Ended(_) | FollowEvent::Error(_) => return,
        };
        let from = match stream {
            LogStream::Stdout => &mut self.stdout_from,
            LogStream::Stderr => &mut self.stderr_from,
        };
        *from = Some(offset);
    }

    /// The query as keys and values.
    pub fn to_pairs(&self) -> Vec<(String, String)> {
        let Self { attempt, tail, stdout_from, stderr_from } = self;
        pairs([
            ("attempt", attempt.map(u64::from)),
            ("tail", *tail),
            ("stdout_from", *stdout_from),
            ("stderr_from", *stderr_from),
        ])
    }
}

fn pairs<const N: usize>(values: [(&str, Option<u64>); N]) -> Vec<(String, String)> {
    let text = |(key, value): (&str, Option<u64>)| Some((key.to_owned(), value?.to_string()));
    values.into_iter().filter_map(text).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listing_survives_the_way_through_pairs() {
        let mut query = ListQuery {
            order: Order::OldestFirst,
            after: Some(7),
            limit: 3,
            usage: true,
            ..ListQuery::default()
        };
        for (key, value) in [("status", "running,failed"), ("label", "a=b"), ("label", "c")] {
            query.require(key, value).expect("a condition");
        }
        assert_eq!(ListQuery::from_pairs(query.to_pairs()), Ok(query));
        let nothing = ListQuery::from_pairs::<&str, &str>([]).expect("nothing is asked");
        assert_eq!((nothing.order, nothing.limit), (Order::NewestFirst, 100));
    }

    #[test]
    fn a_bad_pair_is_named() {
        for (key, value, word) in [
            ("colour", "red", "'colour'"),
            ("status", "done", "'done'"),
            ("order", "up", "'up'"),
            ("after", "-1", "'-1'"),
            ("limit", "0", "'0'"),
            ("limit", "1001", "'1001'"),
            ("usage", "1", "'1'"),
        ] {
            let problem = ListQuery::from_pairs([(key, value)]).expect_err(key);
            assert!(problem.message.contains(word), "{problem}");
        }
    }
}
