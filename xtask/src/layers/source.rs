//! Reading Rust source just closely enough to tell code from comments and literals.

/// Whether the first thing in the file, after a shebang and attributes, is a `//!` line.
pub(crate) fn opens_with_doc(text: &str) -> bool {
    let mut rest = text.trim_start_matches('\u{feff}');
    if rest.starts_with("#!/") {
        rest = rest.split_once('\n').map_or("", |(_, after)| after);
    }
    loop {
        rest = rest.trim_start();
        if !rest.starts_with("#![") {
            return rest.starts_with("//!");
        }
        rest = &rest[attribute_length(rest)..];
    }
}

/// The first line, counted from 1, that holds the keyword `unsafe` outside comments and literals.
pub(crate) fn unsafe_line(text: &str) -> Option<usize> {
    let is_word = |character: char| character.is_alphanumeric() || character == '_';
    let holds = |line: &str| line.split(|character| !is_word(character)).any(|word| word == "unsafe");
    code_only(text).lines().position(holds).map(|index| index + 1)
}

/// The text with comments and literals replaced by a space and their line breaks.
fn code_only(text: &str) -> String {
    let mut code = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(character) = rest.chars().next() {
        let skip = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            comment_length(rest)
        } else if character == '"' {
            string_length(rest)
        } else if character == '\'' {
            quote_length(rest)
        } else {
            raw_string_length(rest)
        };
        if skip == 0 {
            code.push(character);
            rest = &rest[character.len_utf8()..];
        } else {
            code.push(' ');
            code.extend(rest[..skip].matches('\n'));
            rest = &rest[skip..];
        }
    }
    code
}

fn attribute_length(text: &str) -> usize {
    let mut depth = 0_u32;
    for (index, character) in text.char_indices() {
        match character {
            '[' => depth += 1,
            ']' if depth == 1 => return index + 1,
            ']' => depth -= 1,
            _ => {}
        }
    }
    text.len()
}

/// Block comments nest.
fn comment_length(text: &str) -> usize {
    let (mut depth, mut at) = (0_u32, 0);
    while at < text.len() {
        let rest = &text.as_bytes()[at..];
        if rest.starts_with(b"/*") {
            (depth, at) = (depth + 1, at + 2);
        } else if rest.starts_with(b"*/") {
            (depth, at) = (depth - 1, at + 2);
            if depth == 0 {
                return at;
            }
        } else {
            at += 1;
        }
    }
    text.len()
}

fn string_length(text: &str) -> usize {
    let mut escaped = false;
    for (index, character) in text.char_indices().skip(1) {
        match character {
            '"' if !escaped => return index + 1,
            '\\' => escaped = !escaped,
            _ => escaped = false,
        }
    }
    text.len()
}

/// `r"…"` and `r#"…"#`; 0 for anything else, `r#name` too.
fn raw_string_length(text: &str) -> usize {
    let Some(after) = text.strip_prefix('r') else { return 0 };
    let hashes = after.len() - after.trim_start_matches('#').len();
    if !after[hashes..].starts_with('"') {
        return 0;
    }
    let (open, close) = (hashes + 2, format!("\"{}", "#".repeat(hashes)));
    text[open..].find(&close).map_or(text.len(), |end| open + end + close.len())
}

/// A character literal, or only the quote of a lifetime.
fn quote_length(text: &str) -> usize {
    let mut characters = text.char_indices().skip(1);
    match (characters.next(), characters.next()) {
        (Some((_, '\\')), Some((at, escaped))) => {
            let after = at + escaped.len_utf8();
            text[after..].find('\'').map_or(text.len(), |end| after + end + 1)
        }
        (Some(_), Some((at, '\''))) => at + 1,
        _ => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_doc_line_may_follow_a_shebang_and_attributes() {
        assert!(opens_with_doc("//! A.\n"));
        assert!(opens_with_doc("#!/usr/bin/env cargo\n//! A.\n"));
        assert!(opens_with_doc("#![cfg_attr(\n    docsrs,\n    feature(x[0])\n)]\n\n//! A.\n"));
        assert!(!opens_with_doc(""));
        assert!(!opens_with_doc("// A.\n//! B.\n"));
        assert!(!opens_with_doc("/// A.\nfn f() {}\n"));
        assert!(!opens_with_doc("use a::b;\n//! A.\n"));
    }

    #[test]
    fn the_keyword_is_found_in_code_only() {
        let line = |code: &str| unsafe_line(code);
        assert_eq!(line("fn f() {\n    unsafe { g() }\n}\n"), Some(2));
        assert_eq!(line("#[unsafe(no_mangle)]\nfn f() {}\n"), Some(1));
        assert_eq!(line("/* a /* b */\n c */ unsafe fn f() {}\n"), Some(2));
        assert_eq!(line("let a = \"\\\"\n\"; unsafe {}"), Some(2));
        assert_eq!(line("fn f<'a>(b: &'a str, c: char) { c == '\"'; unsafe {} }"), Some(1));
        assert_eq!(line("let a = ('\\'', '\\u{41}', 'é'); unsafe {}"), Some(1));
        assert_eq!(line("let r#fn = r#\"\"a\"#; unsafe {}"), Some(1));
        for code in [
            "// unsafe\n/// unsafe { }\n//! unsafe",
            "/* unsafe /* unsafe */ unsafe */",
            "let a = \"unsafe \\\" unsafe\";",
            "let a = (r\"unsafe\", br#\"unsafe \" unsafe\"#);",
            "#[expect(unsafe_code, reason = \"unsafe\")]",
        ] {
            assert_eq!(line(code), None, "{code}");
        }
    }
}
