//! The settings: what they are, where each comes from, and whether the daemon goes by them.

use std::path::Path;

use super::{Finding, owner::Running};
use crate::api::Setting;
use crate::client::Client;
use crate::config::{CONFIG_NAME, Config};

pub(super) fn look(data_dir: &Path, running: &Running) -> Vec<Finding> {
    let config = match Config::load(data_dir) {
        Ok(config) => config,
        Err(error) => {
            let way_out = "mend it, or remove it: no daemon starts with it and no job is accepted";
            return vec![Finding::problem(CONFIG_NAME, error.to_string(), way_out)];
        }
    };
    let mut tables: Vec<(&str, Vec<String>)> = Vec::new();
    for setting in config.settings() {
        let (table, key) = setting.key.split_once('.').unwrap_or(("", &setting.key));
        let text = shown(key, setting);
        match tables.iter_mut().find(|(name, _)| *name == table) {
            Some((_, settings)) => settings.push(text),
            None => tables.push((table, vec![text])),
        }
    }
    let mut findings: Vec<Finding> = tables
        .iter()
        .map(|(table, settings)| Finding::ok(&format!("[{table}]"), settings.join("; ")))
        .collect();
    findings.extend(differs(data_dir, running, &config));
    findings
}

fn shown(key: &str, setting: &Setting) -> String {
    let value = setting.value.as_deref().unwrap_or("none");
    let origin = setting.line.map_or_else(|| "default".to_owned(), |line| format!("{CONFIG_NAME}:{line}"));
    format!("{key} = {value} ({origin})")
}

/// What the daemon goes by, if that is something else.
fn differs(data_dir: &Path, running: &Running, config: &Config) -> Option<Finding> {
    let Running::Daemon(_) = running else { return None };
    // One of an earlier version knows no settings, which `versions` tells.
    let its = Client::connect(data_dir).ok()?.config().ok()?;
    let owners = |settings: &[Setting]| -> Vec<(String, Option<String>)> {
        let own = settings.iter().filter(|setting| !setting.key.starts_with("defaults."));
        own.map(|setting| (setting.key.clone(), setting.value.clone())).collect()
    };
    let (its, now) = (owners(&its.settings), owners(config.settings()));
    let other =
        now.iter().filter(|setting| !its.contains(setting)).chain(its.iter().filter(|s| !now.contains(s)));
    let mut keys: Vec<&str> = other.map(|(key, _)| key.as_str()).collect();
    keys.sort_unstable();
    keys.dedup();
    if keys.is_empty() {
        return None;
    }
    let text = format!("it has changed since the daemon read it: {}", keys.join(", "));
    Some(Finding::weaker(CONFIG_NAME, text, "`nodejobs daemon reload`"))
}
