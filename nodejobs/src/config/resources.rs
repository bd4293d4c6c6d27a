//! `[resources]`: what there is on the machine that jobs may need, by names that the user chooses.

use std::collections::BTreeMap;

use nodejobs_core::group::{MAX_COUNT, check_resource_name};
use toml::de::DeTable;

use super::reading::Reading;
use super::values;
use crate::api::Setting;

impl<'a> Reading<'a> {
    /// How many there are of each.
    pub(super) fn resources(&mut self, document: &DeTable<'a>) -> BTreeMap<String, u32> {
        let mut resources = BTreeMap::new();
        let Some((key, value)) = document.iter().find(|(key, _)| key.get_ref() == "resources") else {
            return resources;
        };
        let Some(table) = value.get_ref().as_table() else {
            self.problem(key.span().start, "'resources' is a table; write [resources]".to_owned());
            return resources;
        };
        for (key, value) in table {
            let name = key.get_ref().to_string();
            let counted = check_resource_name(&name)
                .map_err(|error| error.to_string())
                .and_then(|()| values::count(value.get_ref(), MAX_COUNT));
            match counted {
                Ok(count) => {
                    let line = Some(self.line(key.span().start));
                    let (key, value) = (format!("resources.{name}"), Some(count.to_string()));
                    self.settings.push(Setting { key, value, line });
                    resources.insert(name, count);
                }
                Err(problem) => self.problem(key.span().start, format!("resources.{name}: {problem}")),
            }
        }
        resources
    }
}
