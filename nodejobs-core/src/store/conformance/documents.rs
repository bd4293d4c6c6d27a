//! Rules about documents.

use super::super::{DocumentChange, DocumentKind, JobStore};
use super::case::Case;
use super::jobs::{commit, documents, put};

fn put_if_absent(kind: DocumentKind, key: &str, body: &[u8]) -> DocumentChange {
    DocumentChange::PutIfAbsent { kind, key: key.to_owned(), body: body.to_vec() }
}

fn remove(kind: DocumentKind, key: &str) -> DocumentChange {
    DocumentChange::Remove { kind, key: key.to_owned() }
}

fn keys(store: &dyn JobStore, prefix: &str, after: Option<&str>, limit: usize) -> Vec<String> {
    let found = store.documents(DocumentKind::Context, prefix, after, limit).expect("documents");
    found.into_iter().map(|(key, _)| key).collect()
}

pub(super) fn documents_are_put_kept_and_removed(case: &Case) {
    let store = case.store();
    let kind = DocumentKind::Context;
    let body = |kind| store.document(kind, "k").expect("a document");
    assert_eq!(body(kind), None);
    let check = |change: DocumentChange, expected: Option<&[u8]>| {
        commit(&*store, &[documents([change])]);
        assert_eq!(body(kind).as_deref(), expected);
    };
    check(put_if_absent(kind, "k", b"first"), Some(b"first"));
    check(put_if_absent(kind, "k", b"second"), Some(b"first"));
    check(put(kind, "k", b"a longer third"), Some(b"a longer third"));
    check(put(kind, "k", b""), Some(b""));
    check(put_if_absent(kind, "k", b"fourth"), Some(b""));
    check(remove(kind, "k"), None);
    check(remove(kind, "k"), None);
    check(put(kind, "k", b"fifth"), Some(b"fifth"));

    // The kinds do not see each other.
    commit(&*store, &[documents([put(DocumentKind::Meta, "k", b"meta"), remove(DocumentKind::Input, "k")])]);
    let there = [Some(b"fifth".to_vec()), None, Some(b"meta".to_vec()), None, None, None, None];
    assert_eq!(DocumentKind::ALL.map(body), there);
    for kind in DocumentKind::ALL {
        let expected: Vec<_> = body(kind).map(|body| ("k".to_owned(), body)).into_iter().collect();
        assert_eq!(store.documents(kind, "", None, 9).expect("documents"), expected);
    }

    // Within a unit they happen in order.
    let changes =
        [put(kind, "k", b"6"), remove(kind, "k"), put_if_absent(kind, "k", b"7"), put(kind, "l", b"8")];
    commit(&*store, &[documents(changes)]);
    assert_eq!(body(kind).as_deref(), Some(&b"7"[..]));
    assert_eq!(keys(&*store, "", None, 9), ["k", "l"]);
}

pub(super) fn documents_are_in_the_order_of_their_keys(case: &Case) {
    let store = case.store();
    // Longer than what an engine may take as a key of its own, and different only behind that.
    let long = "long/".repeat(400);
    let mut names = [
        "",
        "\0",
        "a",
        "a\0",
        "a/",
        "a/1",
        "a/10",
        "a/2",
        "a0",
        "b",
        "é",
        "A",
        "~",
        "\u{10ffff}",
        "\u{fffd}",
    ]
    .map(str::to_owned)
    .to_vec();
    names.extend(["z", "a", "m", "", "\0", "é"].map(|end| format!("{long}{end}")));
    let puts = names.iter().map(|name| put(DocumentKind::Context, name, name.as_bytes()));
    commit(&*store, &[documents(puts)]);
    names.sort();
    let longer = format!("{long}a");
    for prefix in ["", "a", "a/", "a/1", "\0", "é", "\u{10ffff}", "nothing", "long", &long, &longer] {
        let expected: Vec<&String> = names.iter().filter(|name| name.starts_with(prefix)).collect();
        let found = store.documents(DocumentKind::Context, prefix, None, usize::MAX).expect("documents");
        assert_eq!(found.iter().map(|(key, _)| key).collect::<Vec<_>>(), expected, "prefix {prefix:.20?}");
        assert!(found.iter().all(|(key, body)| key.as_bytes() == body), "the body of another document");
    }
    for name in &names {
        let body = store.document(DocumentKind::Context, name).expect("a document");
        assert_eq!(body.as_deref(), Some(name.as_bytes()));
    }
}

pub(super) fn documents_come_in_pages(case: &Case) {
    let store = case.store();
    let long = "long/".repeat(400);
    let mut names: Vec<String> = (0..10).map(|n| format!("p/{n}")).collect();
    names.extend((0..10).map(|n| format!("{long}{n}")));
    names.extend(["o", "p", "q", ""].map(str::to_owned));
    commit(&*store, &[documents(names.iter().map(|name| put(DocumentKind::Context, name, b"x")))]);
    names.sort();
    for prefix in ["", "p", "p/", "long", &long] {
        let expected: Vec<&String> = names.iter().filter(|name| name.starts_with(prefix)).collect();
        for limit in [1, 3, 10, 100] {
            let mut found: Vec<String> = Vec::new();
            loop {
                let page = keys(&*store, prefix, found.last().map(String::as_str), limit);
                assert!(page.len() <= limit);
                if page.is_empty() {
                    break;
                }
                found.extend(page);
                assert!(found.len() <= names.len(), "it does not end");
            }
            assert_eq!(found.iter().collect::<Vec<_>>(), expected, "prefix {prefix:.20?}, pages of {limit}");
        }
    }
    // A cursor need not be there, nor have the prefix.
    assert_eq!(keys(&*store, "p/", Some("p/55"), 2), ["p/6", "p/7"]);
    assert_eq!(keys(&*store, "p/", Some("a"), 2), ["p/0", "p/1"]);
    assert_eq!(keys(&*store, "p/", Some("p/9"), 2), [""; 0]);
    assert_eq!(keys(&*store, "p/", Some("z"), 2), [""; 0]);
    assert_eq!(keys(&*store, "p", Some(""), 2), ["p", "p/0"]);
    assert_eq!(keys(&*store, "p", None, 0), [""; 0]);
    let behind_long = format!("{long}4x");
    assert_eq!(keys(&*store, &long, Some(&behind_long), 1), [format!("{long}5")]);
}
