//! What must hold for anything that a client can send: run by the fuzz targets, and over their corpora by the tests.
//!
//! Each property takes the bytes that a fuzzer makes up, and panics where it does not hold.

use axum::extract::Query;
use axum::http::Uri;

use crate::api::{FollowQuery, ListQuery, LogQuery};
use crate::client::with_query;
use crate::config::Config;
pub use crate::server::fuzzing::http;

/// A query that is understood is understood the same after a client has written it.
pub fn queries(bytes: &[u8]) {
    let Ok(uri) = Uri::try_from([b"/?", bytes].concat()) else { return };
    let list = |uri: &Uri| {
        let Query(pairs) = Query::<Vec<(String, String)>>::try_from_uri(uri).ok()?;
        ListQuery::from_pairs(pairs).ok()
    };
    if let Some(query) = list(&uri) {
        assert!((1..=ListQuery::MAX_LIMIT).contains(&query.limit));
        assert_eq!(list(&written(&query.to_pairs())), Some(query));
    }
    if let Ok(Query(query)) = Query::<LogQuery>::try_from_uri(&uri) {
        let Query(again) = Query::<LogQuery>::try_from_uri(&written(&query.to_pairs())).expect("a query");
        assert_eq!(again, query);
    }
    if let Ok(Query(query)) = Query::<FollowQuery>::try_from_uri(&uri) {
        let Query(again) = Query::<FollowQuery>::try_from_uri(&written(&query.to_pairs())).expect("a query");
        assert_eq!(again, query);
    }
}

/// A file of settings is understood, or each mistake in it has a message and a line that it has.
pub fn settings(bytes: &[u8]) {
    match Config::parse(bytes) {
        Ok(config) => {
            assert!(!config.settings().is_empty());
            assert!(config.hooks.iter().all(|hook| !hook.on.is_empty() && !hook.timeout.is_zero()));
        }
        Err(problems) => {
            let lines = bytes.split(|byte| *byte == b'\n').count();
            assert!(!problems.is_empty());
            for problem in problems {
                let line = problem.line.map_or(1, |line| line as usize);
                assert!((1..=lines).contains(&line) && !problem.message.is_empty(), "{problem:?}");
            }
        }
    }
}

fn written(query: &[(String, String)]) -> Uri {
    with_query("/", query).parse().expect("what a client writes is a URI")
}

#[cfg(test)]
#[path = "../../fuzz/corpus.rs"]
mod corpus;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_properties_hold_for_what_the_fuzzers_found() {
        corpus::for_each("queries", queries);
        corpus::for_each("settings", settings);
        let directory = tempfile::tempdir().expect("a directory");
        corpus::for_each("http", |bytes| http(directory.path(), bytes));
    }
}
