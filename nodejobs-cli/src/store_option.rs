//! The name of a store as an option: which ones this build has, and how to get the others.

use std::ffi::OsStr;

use clap::builder::{PossibleValue, TypedValueParser};
use clap::error::ErrorKind;
use clap::{Arg, Command, Error};
use nodejobs::StoreKind;

/// Takes the name of a store of this build.
#[derive(Clone, Debug)]
pub(crate) struct StoreParser;

impl TypedValueParser for StoreParser {
    type Value = String;

    fn parse_ref(&self, command: &Command, _: Option<&Arg>, value: &OsStr) -> Result<String, Error> {
        let name = value.to_string_lossy();
        match name.parse::<StoreKind>() {
            Ok(kind) => Ok(kind.to_string()),
            Err(error) => Err(Error::raw(ErrorKind::InvalidValue, format!("{error}\n")).with_cmd(command)),
        }
    }

    fn possible_values(&self) -> Option<Box<dyn Iterator<Item = PossibleValue> + '_>> {
        Some(Box::new(StoreKind::available().into_iter().map(|kind| PossibleValue::new(kind.as_str()))))
    }
}

/// What `--store` is for, with the store that a new directory gets if nobody says anything.
pub(crate) fn help() -> String {
    let default = StoreKind::default();
    format!("The store of a new data directory; one that exists must be of this kind [default: {default}]")
}
