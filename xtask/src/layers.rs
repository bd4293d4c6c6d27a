//! `cargo xtask layers`: the direction of the dependencies and the rules every source file keeps.

mod source;

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

use crate::workspace::{Member, Workspace};

/// Every member of the workspace and the members it may be built with. Nothing points sideways or up.
const ARROWS: &[(&str, &[&str])] = &[
    ("nodejobs-core", &[]),
    ("nodejobs-store-sqlite", &["nodejobs-core"]),
    ("nodejobs-store-redb", &["nodejobs-core"]),
    ("nodejobs-store-sled", &["nodejobs-core"]),
    ("nodejobs-proc", &["nodejobs-core"]),
    (
        "nodejobs",
        &[
            "nodejobs-core",
            "nodejobs-store-sqlite",
            "nodejobs-store-redb",
            "nodejobs-store-sled",
            "nodejobs-proc",
        ],
    ),
    ("nodejobs-cli", &["nodejobs"]),
    ("xtask", &[]),
];

/// Members that hold rules or live in the keeper, and what they may therefore never link.
const PLAIN: &[&str] = &["nodejobs-core", "nodejobs-proc"];
const HEAVY: &[&str] = &["tokio", "hyper", "axum", "rusqlite", "redb", "sled"];

/// What every member takes from the workspace: section and key of its Cargo.toml.
const INHERITED: &[(&str, &str)] =
    &[("package", "version"), ("package", "edition"), ("package", "license"), ("lints", "")];

/// The files and directories that may hold `unsafe`.
const UNSAFE: &[&str] = &["nodejobs-proc/src/sys.rs", "nodejobs-proc/src/sys/", "xtask/src/bench/floor.rs"];

/// One broken rule: where, what, and the way out.
struct Problem {
    file: PathBuf,
    wrong: String,
    way_out: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: {}\n    way out: {}", self.file.display(), self.wrong, self.way_out)
    }
}

pub(crate) fn run(workspace: &Workspace) -> Result<()> {
    let mut problems = check_arrows(&workspace.root, &workspace.members);
    let mut files = 0;
    for member in &workspace.members {
        problems.extend(check_manifest(&member.manifest, &read(&member.manifest)?));
        for file in source_files(member.directory())? {
            files += 1;
            let name = file.strip_prefix(&workspace.root).unwrap_or(&file);
            problems.extend(check_source(name, &read(&file)?));
        }
    }
    for problem in &problems {
        eprintln!("{problem}");
    }
    match problems.len() {
        0 => println!("layers: ok ({} members, {files} source files)", workspace.members.len()),
        1 => bail!("layers: 1 problem"),
        count => bail!("layers: {count} problems"),
    }
    Ok(())
}

/// Checks who is in the workspace and who depends on whom.
fn check_arrows(root: &Path, members: &[Member]) -> Vec<Problem> {
    let mut problems = Vec::new();
    let mut problem = |file: &Path, wrong: String, way_out: String| {
        problems.push(Problem { file: file.to_owned(), wrong, way_out });
    };
    for (name, _) in ARROWS {
        let expected = root.join(name).join("Cargo.toml");
        match members.iter().find(|member| member.name == *name) {
            None => problem(
                &root.join("Cargo.toml"),
                format!("member {name} is missing"),
                format!("put {name} back, or take it out of ARROWS in xtask/src/layers.rs and the design"),
            ),
            Some(member) if member.manifest != expected => problem(
                &member.manifest,
                format!("member {name} is not at the top level"),
                format!("move it to {}", expected.display()),
            ),
            Some(_) => {}
        }
    }
    for member in members {
        let Some((_, allowed)) = ARROWS.iter().find(|(name, _)| *name == member.name) else {
            problem(
                &member.manifest,
                format!("member {} has no place in the layers", member.name),
                "put its code into one of the members there are, or give it a row in ARROWS in \
                 xtask/src/layers.rs and in the design"
                    .to_owned(),
            );
            continue;
        };
        for dependency in &member.dependencies {
            let inside = members.iter().any(|other| other.name == *dependency);
            if inside && !allowed.contains(&dependency.as_str()) {
                let may = if allowed.is_empty() { "no member".to_owned() } else { allowed.join(", ") };
                problem(
                    &member.manifest,
                    format!("{} depends on {dependency}", member.name),
                    format!("{} may use {may}: move what both need down, or pass it in", member.name),
                );
            }
            if PLAIN.contains(&member.name.as_str()) && HEAVY.contains(&dependency.as_str()) {
                problem(
                    &member.manifest,
                    format!("{} depends on {dependency}", member.name),
                    "no database and no async runtime here: the code that needs it belongs into a store \
                     or into nodejobs"
                        .to_owned(),
                );
            }
        }
    }
    problems
}

/// Checks that a member's Cargo.toml takes the shared settings from the workspace.
fn check_manifest(manifest: &Path, text: &str) -> Vec<Problem> {
    let mut section = String::new();
    let mut seen = Vec::new();
    for line in text.lines() {
        let line: String = line.split('#').next().unwrap_or_default().split_whitespace().collect();
        if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            section = name.to_owned();
        } else {
            // `a.workspace=true`, `a={workspace=true}` and `workspace=true` under `[a]` say the same.
            let line = line.replace("={workspace=true}", ".workspace=true");
            if let Some(key) = line.strip_suffix("workspace=true") {
                let path = format!("{section}.{key}");
                seen.push(path.trim_matches('.').to_owned());
            }
        }
    }
    INHERITED
        .iter()
        .map(|(section, key)| if key.is_empty() { (*section).to_owned() } else { format!("{section}.{key}") })
        .filter(|path| !seen.contains(path))
        .map(|path| Problem {
            file: manifest.to_owned(),
            wrong: format!("{path} is not taken from the workspace"),
            way_out: match path.split_once('.') {
                Some((section, key)) => format!("write `{key}.workspace = true` under `[{section}]`"),
                None => format!("write `workspace = true` under `[{path}]`"),
            },
        })
        .collect()
}

/// Checks one source file, named from the root of the workspace.
fn check_source(name: &Path, text: &str) -> Vec<Problem> {
    let mut problems = Vec::new();
    if !source::opens_with_doc(text) {
        problems.push(Problem {
            file: name.to_owned(),
            wrong: "does not open with a `//!` line".to_owned(),
            way_out: "say in one `//!` line what the file is for".to_owned(),
        });
    }
    let allowed = UNSAFE.iter().any(|place| match place.strip_suffix('/') {
        Some(directory) => name.starts_with(directory),
        None => name == Path::new(place),
    });
    if let Some(line) = source::unsafe_line(text).filter(|_| !allowed) {
        problems.push(Problem {
            file: name.to_owned(),
            wrong: format!("`unsafe` in line {line}"),
            way_out: "system calls without a safe wrapper live in nodejobs-proc/src/sys".to_owned(),
        });
    }
    problems
}

/// Every `.rs` file under a directory, in order; build output and hidden directories are left out.
fn source_files(directory: &Path) -> Result<Vec<PathBuf>> {
    let cannot = || format!("cannot list {}", directory.display());
    let mut files = Vec::new();
    for entry in fs::read_dir(directory).with_context(cannot)? {
        let entry = entry.with_context(cannot)?;
        let (path, name) = (entry.path(), entry.file_name());
        if entry.file_type().with_context(cannot)?.is_dir() {
            if name != "target" && !name.to_string_lossy().starts_with('.') {
                files.extend(source_files(&path)?);
            }
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

fn read(file: &Path) -> Result<String> {
    fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The workspace as it should be, with `extra` dependencies added.
    fn members(extra: &[(&str, &str)]) -> Vec<Member> {
        let member = |(name, allowed): &(&str, &[&str])| Member {
            name: (*name).to_owned(),
            manifest: Path::new("/w").join(name).join("Cargo.toml"),
            dependencies: allowed
                .iter()
                .copied()
                .chain(extra.iter().filter(|(from, _)| from == name).map(|(_, to)| *to))
                .map(str::to_owned)
                .collect(),
        };
        ARROWS.iter().map(member).collect()
    }

    fn wrong(members: &[Member]) -> Vec<String> {
        check_arrows(Path::new("/w"), members).into_iter().map(|problem| problem.wrong).collect()
    }

    #[test]
    fn the_layers_as_designed_pass() {
        assert_eq!(wrong(&members(&[])), Vec::<String>::new());
        assert_eq!(
            wrong(&members(&[("nodejobs-core", "serde"), ("nodejobs", "tokio")])),
            Vec::<String>::new()
        );
    }

    #[test]
    fn an_arrow_up_or_sideways_fails() {
        for (from, to) in [
            ("nodejobs-core", "nodejobs"),
            ("nodejobs-core", "nodejobs-store-sqlite"),
            ("nodejobs-proc", "nodejobs"),
            ("nodejobs-proc", "nodejobs-store-sled"),
            ("nodejobs-store-redb", "nodejobs-store-sled"),
            ("nodejobs-cli", "nodejobs-core"),
            ("nodejobs-cli", "nodejobs-proc"),
            ("nodejobs", "nodejobs-cli"),
            ("xtask", "nodejobs"),
        ] {
            assert_eq!(wrong(&members(&[(from, to)])), [format!("{from} depends on {to}")]);
        }
    }

    #[test]
    fn an_engine_in_core_or_proc_fails() {
        for to in HEAVY {
            assert_eq!(wrong(&members(&[("nodejobs-proc", to)])), [format!("nodejobs-proc depends on {to}")]);
            assert_eq!(wrong(&members(&[("nodejobs-core", to)])), [format!("nodejobs-core depends on {to}")]);
        }
    }

    #[test]
    fn members_are_exactly_the_ones_listed() {
        let mut missing = members(&[]);
        missing.retain(|member| member.name != "nodejobs-proc");
        assert_eq!(wrong(&missing), ["member nodejobs-proc is missing"]);

        let mut more = members(&[]);
        more.push(Member {
            name: "nodejobs-util".to_owned(),
            manifest: "/w/nodejobs-util/Cargo.toml".into(),
            dependencies: Vec::new(),
        });
        assert_eq!(wrong(&more), ["member nodejobs-util has no place in the layers"]);

        let mut moved = members(&[]);
        moved[0].manifest = "/w/crates/nodejobs-core/Cargo.toml".into();
        assert_eq!(wrong(&moved), ["member nodejobs-core is not at the top level"]);
    }

    #[test]
    fn a_problem_names_the_file_and_the_way_out() {
        let problems = check_arrows(Path::new("/w"), &members(&[("nodejobs-cli", "nodejobs-core")]));
        assert_eq!(
            problems[0].to_string(),
            "/w/nodejobs-cli/Cargo.toml: nodejobs-cli depends on nodejobs-core\n    \
             way out: nodejobs-cli may use nodejobs: move what both need down, or pass it in"
        );
    }

    #[test]
    fn shared_settings_are_inherited_in_any_spelling() {
        let wrong = |text: &str| -> Vec<String> {
            check_manifest(Path::new("a/Cargo.toml"), text).into_iter().map(|problem| problem.wrong).collect()
        };
        let good = "[package]\nname = \"a\"\nversion.workspace = true\nedition = { workspace = true } # said once\n\
                    license.workspace=true\n[lints]\nworkspace = true\n";
        assert_eq!(wrong(good), Vec::<String>::new());
        assert_eq!(
            wrong(&good.replace("version.workspace = true", "version = \"1.0.0\"")),
            ["package.version is not taken from the workspace"]
        );
        assert_eq!(
            wrong(&good.replace("[lints]\nworkspace = true", "[dependencies]\nworkspace = true")),
            ["lints is not taken from the workspace"]
        );
    }

    #[test]
    fn unsafe_stays_in_its_places() {
        let wrong = |name: &str, text: &str| check_source(Path::new(name), text).len();
        let text = "//! Calls.\nfn f() { unsafe { g() } }\n";
        assert_eq!(wrong("nodejobs-proc/src/sys.rs", text), 0);
        assert_eq!(wrong("nodejobs-proc/src/sys/clone.rs", text), 0);
        assert_eq!(wrong("nodejobs-proc/src/system.rs", text), 1);
        assert_eq!(wrong("nodejobs-core/src/lib.rs", text), 1);
        assert_eq!(wrong("nodejobs-core/src/lib.rs", "fn f() {}\n"), 1, "no `//!` line");
    }
}
