//! The options of `run` that say in which queue a job waits, and what it takes there.

use clap::Args;
use nodejobs::group::{InvalidName, check_resource_name};
use nodejobs::spec::JobSpec;

use crate::commands::group::group_name;
use crate::exit::{Failure, USAGE};

const QUEUE: &str = "Queue";

#[derive(Args, Debug)]
pub(super) struct PlaceOptions {
    /// The group in whose queue it waits; `group set` makes one [default: default]
    #[arg(long, value_name = "NAME", value_parser = group_name, help_heading = QUEUE)]
    group: Option<String>,
    /// How many slots of its group it takes [default: 1]
    #[arg(long, value_name = "N", allow_negative_numbers = true, help_heading = QUEUE)]
    slots: Option<u32>,
    /// Who waits with a higher one goes first [default: 0]
    #[arg(long, value_name = "N", allow_negative_numbers = true, help_heading = QUEUE)]
    priority: Option<i32>,
    /// How many it needs of a named resource, such as gpu=1; may be repeated
    #[arg(long = "need", value_name = "NAME=N", value_parser = need, help_heading = QUEUE)]
    needs: Vec<(String, u32)>,
}

impl PlaceOptions {
    pub(super) fn apply(self, spec: &mut JobSpec) -> Result<(), Failure> {
        spec.group = self.group;
        spec.slots = self.slots.unwrap_or(spec.slots);
        spec.priority = self.priority.unwrap_or(spec.priority);
        for (name, count) in self.needs {
            if spec.needs.insert(name.clone(), count).is_some() {
                return Err(Failure::new(USAGE, format!("resource '{name}' is given twice")));
            }
        }
        Ok(())
    }
}

/// So many of a named resource.
pub(crate) fn need(text: &str) -> Result<(String, u32), String> {
    let (name, count) = text.split_once('=').ok_or("write NAME=N, such as gpu=1")?;
    check_resource_name(name).map_err(|error: InvalidName| error.to_string())?;
    let count = count.parse().map_err(|_| format!("'{count}' is no number of '{name}'"))?;
    Ok((name.to_owned(), count))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_need_has_a_name_and_a_number() {
        assert_eq!(need("gpu=2"), Ok(("gpu".to_owned(), 2)));
        for bad in ["gpu", "=1", "gpu=", "gpu=x", "gpu=-1", "GPU=1", "gpu=1.5"] {
            assert!(need(bad).is_err(), "{bad}");
        }
    }
}
