//! The rules of every store that has a path.

mod common;

nodejobs_core::store_conformance!(disk: common::Sled);
