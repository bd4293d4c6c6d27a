//! Values and placeholders, with what is refused.

use proptest::prelude::*;

use super::*;
use crate::spec::Command;

fn all(elements: &Elements) -> Vec<String> {
    let size = elements.validate().expect("valid");
    let show = |values: Values| {
        let pairs = values.iter().map(|(name, value)| format!("{name}={value}"));
        pairs.collect::<Vec<_>>().join(" ")
    };
    (1..=size).map(|number| show(elements.values(number))).collect()
}

fn refused(elements: Result<Elements, InvalidElements>) -> String {
    elements.and_then(|elements| elements.validate()).expect_err("refused").to_string()
}

fn range(text: &str) -> Result<Elements, InvalidElements> {
    text.parse().map(Elements::Range)
}

#[test]
fn a_range_has_both_ends_and_a_step() {
    let values = |text| all(&range(text).expect(text));
    assert_eq!(values("1-3"), ["value=1", "value=2", "value=3"]);
    assert_eq!(values("0-10:4"), ["value=0", "value=4", "value=8"]);
    assert_eq!(values("-2--1"), ["value=-2", "value=-1"]);
    assert_eq!(values("-1-0"), ["value=-1", "value=0"]);
    assert_eq!(values("7-7"), ["value=7"]);
    assert_eq!(range("1-1000000").expect("large").validate(), Ok(1_000_000));
    for bad in
        ["", "1", "1-", "-1", "a-b", "1-2-3", "1-5:", "1-5:x", "1-5:-1", "1..5", "1-99999999999999999999"]
    {
        assert!(refused(range(bad)).contains("is not a range"), "{bad}");
    }
    for empty in ["5-1", "1-5:0"] {
        assert!(refused(range(empty)).contains("is empty"), "{empty}");
    }
    assert!(refused(range("1-1000001")).contains("1000001 elements"));
    let widest = format!("{}-{}", i64::MIN, i64::MAX);
    assert!(refused(range(&widest)).contains("18446744073709551616 elements"));
}

#[test]
fn lines_are_one_value_each_without_the_empty_ones() {
    assert_eq!(all(&Elements::lines("a\n\nb c\n")), ["value=a", "value=b c"]);
    assert_eq!(all(&Elements::lines("a")), ["value=a"]);
    assert_eq!(Elements::lines(vec![0xff, b'\n']).values(1)[VALUE], vec![0xff].into());
    assert!(refused(Ok(Elements::lines("\n\n"))).contains("gives no element"));
    assert!(refused(Ok(Elements::lines("a\nb\0"))).contains("value 2 contains a NUL"));
    let many = "x\n".repeat(1_000_001);
    assert!(refused(Ok(Elements::lines(many))).contains("1000001 elements"));
    let large = "x".repeat(MAX_VALUE_BYTES);
    assert!(refused(Ok(Elements::lines(large))).contains("the values take"));
}

#[test]
fn an_object_gives_its_names_values() {
    let objects = |text: &str| Elements::Objects(Lines::new(text.into()));
    let text = r#"{"a":"x y","n":1.50,"list":[1,2],"no":null}"#;
    assert_eq!(all(&objects(text)), [r#"a=x y list=[1,2] n=1.50 no=null"#]);
    let two = objects("{\"a\":1,\"b\":2}\n{\"b\":3,\"c\":4}");
    assert_eq!(two.names(), ["b".to_owned()].into());
    for (bad, why) in [
        ("{\"a\":1}\n[1]", "object 2: not a JSON object"),
        ("{\"a\"", "object 1: not a JSON object"),
        ("{\"a b\":1}", "'a b' is no name"),
        ("{\"index\":1}", "'index' is the number"),
        ("{\"lr\":1,\"LR\":2}", "NODEJOBS_PARAM_LR"),
        ("{\"a\":\"\\u0000\"}", "NUL"),
    ] {
        assert!(refused(Ok(objects(bad))).contains(why), "{bad}: {}", refused(Ok(objects(bad))));
    }
}

#[test]
fn a_product_has_every_combination() {
    let sweep = Elements::product(["lr=0.1,0.01", "seed=1..3"]).expect("parameters");
    let first = ["lr=0.1 seed=1", "lr=0.1 seed=2", "lr=0.1 seed=3"];
    let second = ["lr=0.01 seed=1", "lr=0.01 seed=2", "lr=0.01 seed=3"];
    assert_eq!(all(&sweep), [first, second].concat());
    assert_eq!(all(&Elements::product(["x=0..10:5"]).expect("a step")), ["x=0", "x=5", "x=10"]);
    assert_eq!(all(&Elements::product(["x=a..b"]).expect("text")), ["x=a..b"]);
    let product = |parameters: &[&str]| refused(Elements::product(parameters));
    assert!(product(&["a=1..1000", "b=1..1000", "c=1..1000"]).contains("1000000000 elements"));
    assert!(product(&["a=1..9223372036854775807"; 9]).contains("elements; an array has at most"));
    assert!(product(&["a"]).contains("'a' is not a parameter"));
    assert!(product(&["a="]).contains("'a=' is not a parameter"));
    assert!(product(&["=1"]).contains("'' is no name"));
    assert!(product(&["a=1", "a=2"]).contains("rename one"));
    assert!(product(&["a=5..1"]).contains("is empty"));
    assert!(product(&[]).contains("gives no element"));
}

#[test]
fn elements_survive_json() {
    let elements = [
        range("1-10:3").expect("a range"),
        Elements::lines(vec![b'a', b'\n', 0xff]),
        Elements::product(["a=1,2", "b=1..2"]).expect("parameters"),
    ];
    for elements in elements {
        let json = serde_json::to_string(&elements).expect("JSON");
        assert_eq!(serde_json::from_str::<Elements>(&json).expect("the same"), elements, "{json}");
    }
    assert!(serde_json::from_str::<Elements>(r#"{"range":{"first":1,"last":2,"step":1,"x":1}}"#).is_err());
}

fn filled(command: &Command, values: &[(&str, &str)]) -> Result<String, InvalidPlaceholder> {
    let values: Values = values.iter().map(|(name, value)| ((*name).to_owned(), (*value).into())).collect();
    let placeholders = Placeholders::of(command)?;
    placeholders.check(&values.keys().cloned().collect())?;
    Ok(match placeholders.fill(7, &values) {
        Command::Shell(script) => script.to_string(),
        Command::Argv(words) => words.iter().map(ToString::to_string).collect::<Vec<_>>().join("|"),
    })
}

#[test]
fn words_have_values_put_in_as_they_are() {
    let one = |word: &str| filled(&Command::argv(["x", word]), &[("value", "a 'b'")]).expect(word);
    assert_eq!(one("{}"), "x|a 'b'");
    assert_eq!(one("--in={value}.{index}"), "x|--in=a 'b'.7");
    for same in [
        r#"{"a":{"b":1}}"#,
        "a{1,3}",
        "{",
        "}",
        "{ }",
        "${HOME}",
        "${value}",
        "{{a b}}",
        "{é}",
        "{{value}",
        "",
    ] {
        assert_eq!(one(same), format!("x|{same}"));
    }
    assert_eq!(one("{{}} {{value}} {{other}}"), "x|{} {value} {other}");
    assert_eq!(one("{{{}}}"), "x|{{a 'b'}}");
}

#[test]
fn a_placeholder_without_a_value_is_refused() {
    let refused = |word: &str, values: &[(&str, &str)]| {
        filled(&Command::argv([word]), values).expect_err("refused").to_string()
    };
    let two = [("lr", "1"), ("seed", "2")];
    assert_eq!(
        refused("{lrr}", &two),
        "'{lrr}' has no value; there is '{lr}', '{seed}'; write '{{lrr}}' for the text itself"
    );
    assert!(refused("{}", &two).contains("stands for the only value"));
    assert!(refused("{}", &[]).contains("has no value;"));
}

#[test]
fn a_script_gets_each_value_as_one_word() {
    let script = |text: &str| filled(&Command::shell(text), &[("value", "a'b; c")]);
    assert_eq!(script("echo {}").expect("bare"), r"echo 'a'\''b; c'");
    assert_eq!(script("x-{}-{index}").expect("bare"), r"x-'a'\''b; c'-7");
    for same in ["echo ${value}", "awk '{print $1}'", "f() { echo; }", r"echo \{}", "true # {}"] {
        assert_eq!(script(same).expect(same), same);
    }
    assert_eq!(script("true # it's {}\necho {index}").expect("a comment"), "true # it's {}\necho 7");
    assert_eq!(script(r"echo \{} {index}").expect("escaped"), r"echo \{} 7");
    assert_eq!(script("echo \"${HOME}\" {index}").expect("a variable"), "echo \"${HOME}\" 7");
    assert_eq!(script("awk '{{print}}' {index}").expect("literal"), "awk '{print}' 7");
    for (bad, why) in [
        ("echo '{}'", "NODEJOBS_PARAM_VALUE"),
        ("echo \"x {index}\"", "NODEJOBS_ARRAY_INDEX"),
        ("echo \"$(echo \"{}\")\"", "a command inside quotes"),
        ("cat <<E\nit's\nE\necho '{}'", "a '<<'"),
        ("echo `x` {}", "backquotes"),
        ("echo $'\\'' {}", "$'"),
        ("echo \"${x:-'}\" '{}'", "no mere variable"),
        ("echo {} 'open", "not closed"),
    ] {
        let error = script(bad).expect_err(bad).to_string();
        assert!(error.contains(why), "{bad}: {error}");
    }
}

/// What a shell makes of a script, if it is one.
fn shell_words(script: &str) -> Vec<String> {
    let output = std::process::Command::new("/bin/sh").args(["-c", script]).output().expect("a shell");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.split_terminator('\u{1}').map(str::to_owned).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn whatever_a_value_holds_it_is_one_word(value in "[ -~\\n'\"$`]{0,12}", words in prop::sample::subsequence(
        vec!["a", "'b c'", "\"$HOME\"", "\\'", "\\\"", "x{}y", "{}", "# '", "'\"'", "\"'\"", "\n"], 1..6)
    ) {
        let script = format!("p() {{ for w; do printf '%s\\001' \"$w\"; done; }}; p {} {{}}", words.join(" "));
        // One that is refused is safe.
        if let Ok(script) = filled(&Command::shell(script.as_str()), &[("value", &value)]) {
            let marked = filled(&Command::shell(script_with(&words)), &[("value", "MARK")]).expect("as well");
            let expected: Vec<_> = shell_words(&marked).iter().map(|word| word.replace("MARK", &value)).collect();
            prop_assert_eq!(shell_words(&script), expected, "{}", script);
        }
    }

    #[test]
    fn any_text_is_understood_without_a_panic(text in any::<String>(), parameter in "[a-z=.,:0-9-]{0,12}") {
        let _ = text.parse::<Range>();
        let _ = Elements::product([&text, &parameter]).map(|elements| elements.validate());
        let _ = Elements::Objects(Lines::new(text.clone().into())).validate();
        for command in [Command::argv([text.as_str()]), Command::shell(text.as_str())] {
            if let Ok(placeholders) = Placeholders::of(&command) {
                placeholders.fill(1, &Values::new());
            }
        }
    }
}

fn script_with(words: &[&str]) -> String {
    format!("p() {{ for w; do printf '%s\\001' \"$w\"; done; }}; p {} {{}}", words.join(" "))
}
