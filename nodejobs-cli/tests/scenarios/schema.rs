//! `docs/json.md` against what the program prints: every field that there is, and no other.

use std::collections::{BTreeMap, BTreeSet};

use nodejobs::Timestamp;
use nodejobs::api::Hang;
use serde_json::{Value, json};

use crate::support::{Home, text};

const PAGE: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/json.md"));

/// A row of a table.
#[derive(Debug)]
struct Field {
    kind: String,
    null: String,
}

/// The fields of each document, by the headings of the page.
fn documented() -> BTreeMap<String, BTreeMap<String, Field>> {
    let mut documents: BTreeMap<String, BTreeMap<String, Field>> = BTreeMap::new();
    let mut heading = String::new();
    for line in PAGE.lines() {
        if let Some(words) = line.strip_prefix("## ") {
            heading = words.to_owned();
        }
        let cells: Vec<_> = line.split('|').map(str::trim).collect();
        if let ["", name, kind, meaning, null, since, ""] = cells[..]
            && let Some(name) = name.strip_prefix('`').and_then(|name| name.strip_suffix('`'))
        {
            assert!(!meaning.is_empty() && !null.is_empty() && since.starts_with("0."), "{line}");
            let field = Field { kind: kind.to_owned(), null: null.to_owned() };
            assert!(documents.entry(heading.clone()).or_default().insert(name.to_owned(), field).is_none());
        }
    }
    documents
}

fn is_of_kind(kind: &str, value: &Value) -> bool {
    match kind {
        "string" => value.is_string(),
        "time" => value.as_str().is_some_and(|text| text.parse::<nodejobs::Timestamp>().is_ok()),
        "text" => value.is_string() || value["base64"].is_string(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        "boolean" => value.is_boolean(),
        "object" | "map" => value.is_object(),
        "record" => value["self_id"].is_string(),
        "error" => value["kind"].is_string(),
        "array" => value.is_array(),
        other => panic!("no such type: {other}"),
    }
}

/// Compares samples of a document with its section of the page.
struct Comparison<'a> {
    name: &'a str,
    fields: &'a BTreeMap<String, Field>,
    seen: BTreeSet<String>,
}

impl Comparison<'_> {
    fn object(&mut self, prefix: &str, value: &Value) {
        let name = self.name;
        let object = value.as_object().unwrap_or_else(|| panic!("{name}: {value}"));
        for (key, value) in object {
            let path = format!("{prefix}{key}");
            let field = self.fields.get(&path);
            let Field { kind, null } = field.unwrap_or_else(|| panic!("{name}: {path} is not on the page"));
            self.seen.insert(path.clone());
            if value.is_null() {
                assert!(null != "never" && !null.starts_with("absent"), "{name}: {path} is null");
                continue;
            }
            assert!(!null.starts_with("always"), "{name}: {path} is {value}");
            assert!(is_of_kind(kind, value), "{name}: {path} is no {kind}: {value}");
            match value {
                Value::Object(_) if kind == "object" => self.object(&format!("{path}."), value),
                Value::Array(items) => {
                    let items = items.iter().filter(|item| item.is_object() && !item["check"].is_string());
                    items.for_each(|item| self.object(&format!("{path}[]."), item));
                }
                _ => {}
            }
        }
        for (path, field) in self.fields {
            let is_here = path.strip_prefix(prefix).is_some_and(|rest| !rest.contains(['.', '[']));
            let key = &path[prefix.len().min(path.len())..];
            if is_here && !field.null.starts_with("absent") {
                assert!(object.contains_key(key), "{name}: {path} is missing in {value}");
            }
        }
    }
}

/// Every document that the command line prints, by the heading of its section.
fn printed(home: &Home) -> BTreeMap<&'static str, Vec<Value>> {
    let mut documents: BTreeMap<&str, Vec<Value>> = BTreeMap::new();
    let said = |words: &[&str]| {
        let said = home.nodejobs(["-o", "json"].iter().chain(words));
        assert!(!said.stdout.is_empty(), "{words:?}: {said:?}");
        said.json()
    };
    let all = |value: Value| value.as_array().expect("an array").clone();
    let mut add = |name, values: Vec<Value>| documents.entry(name).or_default().extend(values);

    let words = [
        "run",
        "--id",
        "full",
        "--name",
        "twin",
        "--label",
        "k=v",
        "--wait",
        "--",
        "sh",
        "-c",
        "echo x; exit 3",
    ];
    add("record", vec![said(&words)]);
    add("record", vec![said(&["run", "--id", "later", "--delay", "1h", "--", "true"])]);
    add("record", vec![said(&["run", "--id", "killed", "--name", "twin", "--wait", "kill -9 $$"])]);
    add("record", vec![said(&["run", "--id", "nowhere", "--wait", "--", "/no/such/program"])]);
    let limits = ["--nice", "19", "--memory", "1G", "--nofile", "64:128"];
    let mut limited = said(&[&["run", "--wait"], &limits[..], &["--", "true"]].concat());
    add("record", vec![limited.clone()]);
    // Where a cgroup can keep it; `machine.rs` has it from the program.
    limited["limits"]["pids"] = json!(10);
    add("record", vec![limited]);
    add("record", vec![said(&["run", "--id", "behind", "--after", "later", "--", "true"])]);
    home.ok(["run", "--id", "once", "--unique", "k", "--delay", "1h", "--", "true"]);
    add("record", vec![said(&["run", "--unique", "k", "--", "true"])]);
    home.ok(["run", "--id", "long", "--", "sleep", "1000"]);
    home.running("long");
    add("record", all(said(&["ls"])));
    add("record", vec![said(&["status", "full"]), said(&["status", "--usage", "long"])]);
    add("record", all(said(&["status", "full", "killed"])));
    add("record", all(said(&["history", "full"])));
    add("record", all(said(&["wait", "full", "killed"])));

    std::fs::write(home.data_dir().join("config.toml"), "[resources]\ngpu = 1\n").expect("written");
    home.ok(["daemon", "reload"]);
    add("group", vec![said(&["group", "set", "work", "--slots", "1"]), said(&["group", "pause", "work"])]);
    add("group", all(said(&["group", "ls"])));
    let heavy = ["run", "--id", "heavy", "--group", "work", "--need", "gpu=1", "--", "sleep", "1000"];
    home.ok(heavy);
    add("explanation", vec![said(&["explain", "heavy"]), said(&["explain", "later"])]);
    home.ok(["group", "resume", "work"]);
    home.running("heavy");
    for id in ["second", "third"] {
        home.ok(["run", "--id", id, "--group", "work", "--need", "gpu=1", "--", "true"]);
    }
    add("record", vec![said(&["status", "heavy"]), said(&["edit", "third", "--priority", "1"])]);
    add("explanation", vec![said(&["explain", "second"])]);
    // What it waits for is explained in the same way.
    let mut behind = said(&["explain", "behind"]);
    add("explanation", all(behind["chain"].take()));
    behind["chain"] = json!([]);
    add("explanation", vec![behind]);
    home.ok(["group", "set", "empty"]);
    add("group", vec![said(&["group", "rm", "empty"])]);
    home.ok(["stop", "--force", "second", "third", "heavy"]);
    let script = "case {} in 1) true;; 2) kill -9 $$;; *) exit 3;; esac";
    add("record", vec![said(&["array", "--id", "many", "--range", "1-3", "--shell", "--", script])]);
    add("record", all(said(&["wait", "many", "many.2"])));
    add("element", all(said(&["joblog", "many"])));
    add("action result", all(said(&["retry", "--failed", "many", "full"])));
    home.ok(["stop", "full", "many"]);
    home.ok(["rm", "many"]);
    add("action result", all(said(&["pause", "long", "later"])));
    add("action result", all(said(&["resume", "long", "nobody"])));
    add("action result", all(said(&["restart", "--force", "long"])));
    add("action result", all(said(&["rm", "nowhere", "twin"])));
    add("pruning", vec![said(&["prune", "--dry-run"])]);
    home.ok(["run", "--id", "reads", "--stdin", "pipe", "--", "cat"]);
    add("send result", vec![said(&["send", "reads", "x", "--eof"])]);
    add("keeper", all(said(&["doctor", "--keepers"])));
    let mut hangs = said(&["daemon", "status"]);
    let hang = Hang { doing: "read".into(), path: "/x".into(), since: Timestamp::from_millis(1), waiting: 0 };
    hangs["hanging"] = json!([hang]);
    add("daemon", vec![said(&["daemon", "start"]), hangs]);
    add("stop result", all(said(&["stop", "--force", "long", "full", "twin", "nobody"])));
    for number in 0..22 {
        home.ok(["run", "--id", &format!("many-{number}"), "--", "true"]);
    }
    add("stop result", all(said(&["stop", "many"])));

    home.ok(["run", "--id", "binary", "--wait", "printf '\\377\\376\\000'; echo e >&2"]);
    let shortened = format!("{}.1.9.0.0", home.record("binary")["seq"]);
    for words in [
        &["binary"][..],
        &["-f", "killed"],
        &["binary", "--from", &shortened],
        &["later"],
        &["binary", "--timestamps"],
    ] {
        let said = home.nodejobs(["logs", "-o", "jsonl"].iter().chain(words));
        for line in said.text().lines() {
            let line: Value = serde_json::from_str(line).expect(line);
            let keys = [("record", "end line"), ("truncated", "truncation line"), ("stream", "output line")];
            let (_, name) =
                keys.into_iter().find(|(key, _)| !line[key].is_null()).expect("a line that is known");
            add(name, vec![line]);
        }
    }
    std::fs::write(home.data_dir().join("config.toml"), "[defaults]\ngrace = \"4s\"\n").expect("written");
    add("configuration", vec![said(&["config", "show"]), said(&["daemon", "reload"])]);
    add("event", all(said(&["events"])));
    add("store", vec![said(&["store", "info"])]);
    let examination = said(&["doctor"]);
    add("finding", all(examination["checks"].clone()));
    add("examination", vec![examination]);
    add("daemon stop", vec![said(&["daemon", "stop"]), said(&["daemon", "stop"])]);
    // Where pidfds cannot be opened; the unit test of the command has the same.
    add("daemon stop", vec![json!({"stopped": null, "leaving": 7})]);

    let add_each = ["schedule", "add", "each", "--every", "1d", "--until", "9999-01-01", "--", "true"];
    add("schedule", vec![said(&add_each)]);
    add("schedule", vec![said(&["schedule", "add", "night", "--cron", "30 2 * * *", "true; true"])]);
    add("record", vec![said(&["schedule", "run", "night"])]);
    add("schedule", all(said(&["schedule", "ls"])));
    add("schedule", vec![said(&["schedule", "show", "night"])]);
    add("schedule", vec![said(&["schedule", "pause", "night"]), said(&["schedule", "resume", "night"])]);
    add("schedule", vec![said(&["schedule", "rm", "night"]), said(&["schedule", "rm", "each"])]);
    home.ok(["daemon", "stop"]);

    // As `doctor.rs` has it from the program.
    add("rescued job", vec![json!({"self_id": "a", "survivors": ["12 (sleep)"]})]);
    add("store", vec![said(&["store", "info"])]);
    add("store check", vec![said(&["store", "check"])]);
    home.ok(["store", "export", "--to", "export"]);
    let copy = Home::new();
    let export = home.path().join("export");
    let import = ["-o", "json", "store", "import", export.to_str().expect("UTF-8")];
    add("store import", vec![copy.nodejobs(import).json()]);
    let kind = text(&said(&["store", "info"]), "store").to_owned();
    add("store migration", vec![said(&["store", "migrate", "--to", &kind])]);
    // As it is printed where there is another kind to go to; `stores.rs` has it from the program.
    let migrated = json!({
        "from": "sqlite", "to": "redb", "already": false, "jobs": 1, "attempts": 1, "events": 1, "documents": 1,
        "old": "/d/jobs.sqlite.old-x", "leftovers": [],
    });
    add("store migration", vec![migrated]);

    let mut nested: BTreeMap<&str, Vec<Value>> = BTreeMap::new();
    for document in documents.values().flatten() {
        for name in ["record", "error"] {
            nested.entry(name).or_default().extend(document.get(name).cloned());
        }
    }
    for (name, values) in nested {
        documents.entry(name).or_default().extend(values);
    }
    documents
}

#[test]
fn the_page_has_every_field_that_is_printed_and_no_other() {
    let home = Home::new();
    let (documented, printed) = (documented(), printed(&home));
    let names: Vec<_> = printed.keys().map(|name| (*name).to_owned()).collect();
    assert_eq!(documented.keys().cloned().collect::<Vec<_>>(), names);
    for (name, samples) in &printed {
        let fields = &documented[*name];
        let mut comparison = Comparison { name, fields, seen: BTreeSet::new() };
        samples.iter().for_each(|sample| comparison.object("", sample));
        assert_eq!(comparison.seen, fields.keys().cloned().collect(), "{name}: what is on the page exists");
    }
    // What the page promises of the cursor.
    let part = home.nodejobs(["ls", "-o", "json", "--limit", "2"]).json();
    let next = home.nodejobs(["ls", "-o", "json", "--limit", "1", "--after", &part[1]["seq"].to_string()]);
    let third = &home.nodejobs(["ls", "-o", "json", "--limit", "3"]).json()[2];
    assert_eq!(text(&next.json()[0], "self_id"), text(third, "self_id"));
    for status in nodejobs::Status::ALL {
        assert!(PAGE.contains(&format!("`{status}`")), "{status}");
    }
}
