//! `cargo xtask features`: every set of features that may be chosen builds, and links what was chosen and no more.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

use crate::workspace::Workspace;

/// Features of a package that are chosen together.
struct Set {
    package: &'static str,
    /// The features, default ones included; a set [`of`](Self::is_default) the defaults names what these have to be.
    features: &'static [&'static str],
    is_default: bool,
}

const fn set(package: &'static str, features: &'static [&'static str]) -> Set {
    Set { package, features, is_default: false }
}

const fn default(package: &'static str, features: &'static [&'static str]) -> Set {
    Set { package, features, is_default: true }
}

/// Every set that has to build.
const SETS: &[Set] = &[
    set("nodejobs", &["client"]),
    // A store without `local` is of no use, and adds nothing to these.
    set("nodejobs", &["local", "sqlite"]),
    set("nodejobs", &["local", "redb"]),
    set("nodejobs", &["local", "sled"]),
    set("nodejobs", &["local", "sqlite", "redb", "sled"]),
    default("nodejobs", &["local", "sqlite"]),
    // The command owns directories, so it is `local` whatever is chosen.
    set("nodejobs-cli", &["sqlite"]),
    set("nodejobs-cli", &["redb"]),
    set("nodejobs-cli", &["sled"]),
    set("nodejobs-cli", &["sqlite", "redb", "sled"]),
    default("nodejobs-cli", &["sqlite", "redb"]),
];

/// Sets that must not build, since who owns a data directory needs a store.
const WITHOUT_STORE: &[Set] = &[set("nodejobs", &["local"]), set("nodejobs-cli", &[])];
const NEEDS_STORE: &str = "whoever owns a data directory needs a store";

/// What is linked if one of these features is chosen, and only then. `local` of the command is not a feature.
const LINKED: &[(&str, &[&str])] = &[
    ("rusqlite", &["sqlite"]),
    ("libsqlite3-sys", &["sqlite"]),
    ("redb", &["redb"]),
    ("sled", &["sled"]),
    ("rmp-serde", &["redb", "sled"]),
    ("nodejobs-store-sqlite", &["sqlite"]),
    ("nodejobs-store-redb", &["redb"]),
    ("nodejobs-store-sled", &["sled"]),
    ("nodejobs-proc", &["local"]),
    ("tokio", &["local"]),
    ("axum", &["local"]),
    ("ureq", &["local", "client"]),
];

pub(crate) fn run(workspace: &Workspace) -> Result<()> {
    let mut table = Vec::new();
    for set in SETS {
        check(workspace, set)?;
        let linked = linked(workspace, set)?;
        let wrong = set.contradictions(&linked);
        ensure!(wrong.is_empty(), "features of {set}: {}", wrong.join(", "));
        table.push([set.to_string(), "builds".to_owned(), shown(&linked)]);
    }
    for set in WITHOUT_STORE {
        fails_with_reason(workspace, set)?;
        table.push([set.to_string(), "refused".to_owned(), format!("\"{NEEDS_STORE}\"")]);
    }
    let width = |column: usize| table.iter().map(|row| row[column].len()).max().unwrap_or(0);
    let (first, second) = (width(0), width(1));
    for [set, verdict, links] in &table {
        println!("{set:first$}  {verdict:second$}  {links}");
    }
    Ok(())
}

fn check(workspace: &Workspace, set: &Set) -> Result<()> {
    let status = workspace.cargo(&set.arguments("check")).arg("--quiet").status();
    let status = status.context("cannot start cargo")?;
    ensure!(status.success(), "{set} does not build: `cargo {}` ended with {status}", set.shown("check"));
    Ok(())
}

/// The packages that a set is built of, by their names.
fn linked(workspace: &Workspace, set: &Set) -> Result<BTreeSet<String>> {
    let mut command = workspace.cargo(&set.arguments("tree"));
    command.args(["--edges", "normal", "--prefix", "none", "--format", "{p}"]);
    let output = command.output().context("cannot start cargo")?;
    ensure!(output.status.success(), "cargo tree: {}", String::from_utf8_lossy(&output.stderr).trim());
    Ok(names(&String::from_utf8_lossy(&output.stdout)))
}

fn names(tree: &str) -> BTreeSet<String> {
    tree.lines().filter_map(|line| line.split_whitespace().next()).map(str::to_owned).collect()
}

/// It does not build, and all that is said is why.
fn fails_with_reason(workspace: &Workspace, set: &Set) -> Result<()> {
    let mut command = workspace.cargo(&set.arguments("check"));
    let output =
        command.args(["--quiet", "--message-format", "json"]).output().context("cannot start cargo")?;
    let said = complaints(&String::from_utf8_lossy(&output.stdout))?;
    match said.as_slice() {
        [only] if !output.status.success() && only.starts_with(NEEDS_STORE) => Ok(()),
        _ => bail!("{set} has to be refused with \"{NEEDS_STORE}\" alone, and this was said: {said:?}"),
    }
}

/// The errors and warnings among cargo's messages.
fn complaints(messages: &str) -> Result<Vec<String>> {
    let mut complaints = Vec::new();
    for line in messages.lines() {
        let message: Value = serde_json::from_str(line).context("cargo's message is not JSON")?;
        let (level, text) = (&message["message"]["level"], &message["message"]["message"]);
        let text = text.as_str().unwrap_or_default();
        // The compiler counts its errors in an error of its own.
        if (level == "error" || level == "warning") && !text.starts_with("aborting due to") {
            complaints.push(text.to_owned());
        }
    }
    Ok(complaints)
}

impl Set {
    fn arguments(&self, task: &'static str) -> Vec<&str> {
        let mut arguments = vec![task, "--package", self.package];
        if !self.is_default {
            arguments.push("--no-default-features");
            for feature in self.features {
                arguments.extend(["--features", feature]);
            }
        }
        arguments
    }

    fn shown(&self, task: &'static str) -> String {
        self.arguments(task).join(" ")
    }

    fn has(&self, feature: &str) -> bool {
        self.features.contains(&feature) || (self.package == "nodejobs-cli" && feature == "local")
    }

    /// What is linked and was not chosen, or the other way round.
    fn contradictions(&self, linked: &BTreeSet<String>) -> Vec<String> {
        let wrong = LINKED.iter().filter_map(|(package, features)| {
            let chosen = features.iter().any(|feature| self.has(feature));
            match (chosen, linked.contains(*package)) {
                (true, false) => Some(format!("{package} is not linked")),
                (false, true) => Some(format!("{package} is linked, which nobody chose")),
                _ => None,
            }
        });
        wrong.collect()
    }
}

impl std::fmt::Display for Set {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let features = if self.is_default {
            "default".to_owned()
        } else if self.features.is_empty() {
            "none".to_owned()
        } else {
            self.features.join(",")
        };
        write!(f, "{} [{features}]", self.package)
    }
}

/// The engines among the packages, and how many packages there are.
fn shown(linked: &BTreeSet<String>) -> String {
    let engines: Vec<_> = ["libsqlite3-sys", "redb", "sled", "rmp-serde", "tokio"]
        .into_iter()
        .filter(|name| linked.contains(*name))
        .collect();
    format!(
        "{} packages: {}",
        linked.len(),
        if engines.is_empty() { "no engine".to_owned() } else { engines.join(", ") }
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_chosen_must_not_be_linked_and_what_was_has_to() {
        let tree = names(
            "nodejobs v0.1.0 (/w)\nrusqlite v0.41.1\nlibsqlite3-sys v0.39.1 (*)\n\nureq v3\nrmp-serde v1\n",
        );
        let set = set("nodejobs", &["client", "sqlite"]);
        assert_eq!(
            set.contradictions(&tree),
            ["rmp-serde is linked, which nobody chose", "nodejobs-store-sqlite is not linked"]
        );
    }

    #[test]
    fn a_build_may_complain_of_one_thing_only() {
        let line = |level: &str, text: &str| {
            serde_json::json!({ "reason": "compiler-message", "message": { "level": level, "message": text } })
                .to_string()
        };
        let said = [
            line("error", "whoever owns"),
            line("warning", "unused"),
            line("error", "aborting due to 1 previous error"),
            "{\"reason\":\"build-finished\"}".to_owned(),
        ];
        assert_eq!(complaints(&said.join("\n")).unwrap(), ["whoever owns", "unused"]);
    }

    #[test]
    fn the_defaults_are_asked_for_by_nothing() {
        assert_eq!(default("p", &["a"]).shown("check"), "check --package p");
        assert_eq!(
            set("p", &["a", "b"]).shown("check"),
            "check --package p --no-default-features --features a --features b"
        );
        assert_eq!(set("p", &[]).to_string(), "p [none]");
    }
}
