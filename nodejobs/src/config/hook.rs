//! `[[hooks]]`: commands that are run when a job reaches a status.

use std::fmt;
use std::time::Duration;

use nodejobs_core::Status;
use toml::de::DeTable;

use super::reading::Reading;
use super::values::{self, Codec};
use crate::api::Setting;

/// A command that is run when a job reaches one of these statuses.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Hook {
    /// The statuses: `on`. In a file `ended` stands for all final ones.
    pub on: Vec<Status>,
    /// What is run: `run` or `shell`.
    pub command: HookCommand,
    /// How long it may take before it is killed with everything it started: `timeout`.
    pub timeout: Duration,
    /// Variables on top of the owner's own: `env`.
    pub variables: Vec<(String, String)>,
}

/// What a hook runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HookCommand {
    /// A program and its arguments, never empty.
    Argv(Vec<String>),
    /// A script for `/bin/sh -c`.
    Shell(String),
}

impl fmt::Display for HookCommand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            HookCommand::Argv(words) => f.write_str(&words.join(" ")),
            HookCommand::Shell(script) => f.write_str(script),
        }
    }
}

// Values of variables may be secrets.
impl fmt::Debug for Hook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.variables.iter().map(|(name, _)| name.as_str()).collect();
        f.debug_struct("Hook")
            .field("on", &self.on)
            .field("command", &self.command)
            .field("timeout", &self.timeout)
            .field("variables", &names)
            .finish()
    }
}

const DEFAULT_TIMEOUT: Duration = Duration::from_secs(30);

/// Every final status.
const ENDED: &str = "ended";

const STATUSES: Codec<Vec<Status>> = Codec {
    read: |value| {
        let mut statuses = Vec::new();
        for name in (values::TEXTS.read)(value)? {
            if name == ENDED {
                statuses.extend(Status::ALL.into_iter().filter(|status| status.is_terminal()));
            } else {
                statuses.push(name.parse::<Status>().map_err(|error| format!("{error}, or '{ENDED}'"))?);
            }
        }
        if statuses.is_empty() {
            return Err("name at least one status".to_owned());
        }
        statuses.sort();
        statuses.dedup();
        Ok(statuses)
    },
    show: |value| Some(value.iter().map(|status| status.as_str()).collect::<Vec<_>>().join(",")),
};

impl<'a> Reading<'a> {
    /// The hooks of the document.
    pub(super) fn hooks(&mut self, document: &DeTable<'a>) -> Vec<Hook> {
        let Some((key, value)) = document.iter().find(|(key, _)| key.get_ref() == "hooks") else {
            return Vec::new();
        };
        let items = value.get_ref().as_array().map(|items| items.iter().collect::<Vec<_>>());
        let mut hooks = Vec::new();
        for (index, item) in items.iter().flatten().enumerate() {
            let Some(table) = item.get_ref().as_table() else {
                self.problem(item.span().start, "a hook is a table; write [[hooks]]".to_owned());
                continue;
            };
            hooks.extend(self.hook(format!("hooks.{}", index + 1), table, item.span().start));
        }
        if items.is_none() {
            self.problem(key.span().start, "'hooks' is a list of tables; write [[hooks]]".to_owned());
        }
        hooks
    }

    fn hook(&mut self, name: String, table: &DeTable<'a>, at: usize) -> Option<Hook> {
        let known = self.problems.len();
        let mut section = self.inner_section(name.clone(), table, at);
        let on = section.take("on", &STATUSES);
        let run = section.take("run", &values::WORDS);
        let shell = section.take("shell", &values::TEXT);
        let timeout = section.take("timeout", &values::SPAN).and_then(|(timeout, _)| timeout);
        let variables = section.take("env", &values::VARIABLES);
        let has = |key: &str| table.keys().any(|known| known.get_ref() == key);
        if !has("on") {
            section.problem("it says nothing about when; write on = [\"failed\"]");
        }
        let command = match (run, shell) {
            (Some((words, _)), None) => Some(HookCommand::Argv(words)),
            (None, Some((script, _))) => Some(HookCommand::Shell(script)),
            (Some(_), Some(_)) => {
                section.problem("it has both 'run' and 'shell'; choose one");
                None
            }
            (None, None) => {
                if !has("run") && !has("shell") {
                    section.problem("it runs nothing; write run = [\"PROGRAM\"] or shell = \"SCRIPT\"");
                }
                None
            }
        };
        let contains_nul = match &command {
            Some(HookCommand::Argv(words)) => words.iter().any(|word| word.contains('\0')),
            Some(HookCommand::Shell(script)) => script.contains('\0'),
            None => false,
        };
        if contains_nul {
            section.problem("a command cannot contain NUL");
        }
        // A hook runs in `/`, so a path that is not absolute would mean something there.
        if let Some(HookCommand::Argv(words)) = &command
            && let Some(program) = words.first()
            && (program.is_empty() || (program.contains('/') && !program.starts_with('/')))
        {
            section.problem(&format!("'{program}' is neither an absolute path nor the name of a program"));
        }
        section.end();
        if self.problems.len() > known {
            return None;
        }
        let hook = Hook {
            on: on?.0,
            command: command?,
            timeout: timeout.unwrap_or(DEFAULT_TIMEOUT),
            variables: variables.map(|(variables, _)| variables).unwrap_or_default(),
        };
        let on = (STATUSES.show)(&hook.on).unwrap_or_default();
        let timeout = (values::DURATION.show)(&hook.timeout).unwrap_or_default();
        let value = Some(format!("on {on}, at most {timeout}: {}", hook.command));
        let line = Some(self.line(at));
        self.settings.push(Setting { key: name, value, line });
        Some(hook)
    }
}
