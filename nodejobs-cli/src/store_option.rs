//! `--store`: which stores there are, which of them this build has, and how to get the others.

use std::ffi::OsStr;

use clap::builder::{PossibleValue, TypedValueParser};
use clap::error::ErrorKind;
use clap::{Arg, Command, Error};
use nodejobs::StoreKind;

/// Every store, and whether this program was built with it.
const STORES: [(&str, bool); 3] =
    [("sqlite", cfg!(feature = "sqlite")), ("redb", cfg!(feature = "redb")), ("sled", cfg!(feature = "sled"))];

/// Takes the name of a store of this build.
#[derive(Clone, Debug)]
pub(crate) struct StoreParser;

impl TypedValueParser for StoreParser {
    type Value = String;

    fn parse_ref(&self, command: &Command, _: Option<&Arg>, value: &OsStr) -> Result<String, Error> {
        let name = value.to_string_lossy();
        match STORES.iter().find(|(store, _)| *store == name) {
            Some((_, true)) => Ok(name.into_owned()),
            found => {
                let here = available().collect::<Vec<_>>().join(", ");
                let words = match found {
                    Some(_) => format!(
                        "the store '{name}' is not in this build; it has {here}\n\n  \
                         `cargo build --release -p nodejobs-cli --features {name}` makes one that has it\n"
                    ),
                    None => format!("'{name}' is no store; this build has {here}\n"),
                };
                Err(Error::raw(ErrorKind::InvalidValue, words).with_cmd(command))
            }
        }
    }

    fn possible_values(&self) -> Option<Box<dyn Iterator<Item = PossibleValue> + '_>> {
        Some(Box::new(available().map(PossibleValue::new)))
    }
}

/// What the option is for, with the store that a new directory gets if nobody says anything.
pub(crate) fn help() -> String {
    let default = StoreKind::default();
    format!("The store of a new data directory; one that exists must be of this kind [default: {default}]")
}

fn available() -> impl Iterator<Item = &'static str> {
    STORES.into_iter().filter(|(_, is_here)| *is_here).map(|(store, _)| store)
}
