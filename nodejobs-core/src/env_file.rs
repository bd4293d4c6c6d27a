//! Files of environment variables: one `KEY=VALUE` a line, read without a shell and without expanding anything.
//!
//! | line | means |
//! |---|---|
//! | `KEY=VALUE` | the value as it stands, without the spaces and tabs around it |
//! | `KEY="VALUE"` | with `\n` for a line break and `\"`, `\\`, `\$` for the second character; no other backslash |
//! | `KEY='VALUE'` | as it stands |
//! | `export KEY=…` | the same as without `export` |
//! | `# …`, blank | nothing |
//!
//! `KEY` is letters, digits and `_`, and does not begin with a digit. A quoted value may be followed by a comment. In an
//! unquoted one ` #` is refused: programs differ on whether a comment begins there, and to guess would cut a password
//! short. `$` is a character like any other. Lines end with LF or CR LF, and a value does not go on in the next one.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use crate::text::RawText;

/// The largest file that is read, in bytes.
pub const MAX_BYTES: usize = 1 << 20;

/// Why a file of variables is refused. Nothing of what stands in the file is repeated: it may be a secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum EnvFileError {
    /// More than [`MAX_BYTES`].
    #[error("it has {0} bytes; at most {MAX_BYTES} are read")]
    TooLarge(usize),
    /// A line that is wrong.
    #[error("line {line}: {problem}")]
    Line {
        /// Counted from 1.
        line: usize,
        /// What is wrong with it.
        problem: LineProblem,
    },
}

/// What is wrong with a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LineProblem {
    /// There is no `=`.
    #[error("there is no '='; write KEY=VALUE, or '#' before a comment")]
    NoEquals,
    /// What is before the `=` is no name.
    #[error(
        "what is before '=' is not a name; use letters, digits and '_', no digit first, and no space before '='"
    )]
    BadName,
    /// A NUL byte, which no variable can hold.
    #[error("a NUL byte cannot be in a variable; remove it")]
    Nul,
    /// A quote is opened and not closed.
    #[error("the quote is not closed in this line; write \\n inside double quotes for a line break")]
    Unclosed,
    /// Something that is no comment follows the closing quote.
    #[error("something follows the closing quote; quote all of the value, or none of it")]
    BehindQuote,
    /// A backslash that means nothing.
    #[error(r#"inside double quotes only \n, \", \\ and \$ mean something; write \\ for a backslash"#)]
    BadEscape,
    /// ` #` in an unquoted value.
    #[error(
        "' #' in a value without quotes may be meant as a comment or not; quote the value, or remove the comment"
    )]
    UnclearComment,
}

/// Reads a file of variables, see the [module](self). Of a name that is there twice, the later value counts.
///
/// ```
/// use nodejobs_core::env_file::parse;
///
/// let variables = parse(b"# for the tests\nexport PORT=8080\nGREETING=\"hello\\n$USER\"\n")?;
/// assert_eq!(variables, [("PORT".into(), "8080".into()), ("GREETING".into(), "hello\n$USER".into())]);
/// let error = parse(b"PORT=8080\nhunter2").unwrap_err();
/// assert!(error.to_string().starts_with("line 2: there is no '='"));
/// # Ok::<(), nodejobs_core::env_file::EnvFileError>(())
/// ```
///
/// # Errors
/// [`EnvFileError`] says which line is wrong and how, without a word of it.
pub fn parse(bytes: &[u8]) -> Result<Vec<(RawText, RawText)>, EnvFileError> {
    if bytes.len() > MAX_BYTES {
        return Err(EnvFileError::TooLarge(bytes.len()));
    }
    let mut variables: Vec<(RawText, RawText)> = Vec::new();
    let mut known: HashMap<&[u8], usize> = HashMap::new();
    for (index, line) in bytes.split(|byte| *byte == b'\n').enumerate() {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let variable = parse_line(line).map_err(|problem| EnvFileError::Line { line: index + 1, problem })?;
        let Some((name, value)) = variable else { continue };
        match known.entry(name) {
            Entry::Occupied(known) => variables[*known.get()].1 = value.into(),
            Entry::Vacant(new) => {
                new.insert(variables.len());
                variables.push((name.to_vec().into(), value.into()));
            }
        }
    }
    Ok(variables)
}

type Variable<'a> = (&'a [u8], Vec<u8>);

/// The variable of a line, if it has one.
fn parse_line(line: &[u8]) -> Result<Option<Variable<'_>>, LineProblem> {
    let line = trim(line);
    if line.is_empty() || line[0] == b'#' {
        return Ok(None);
    }
    if line.contains(&0) {
        return Err(LineProblem::Nul);
    }
    let equals = line.iter().position(|byte| *byte == b'=').ok_or(LineProblem::NoEquals)?;
    let (name, value) = (&line[..equals], trim(&line[equals + 1..]));
    let name = match name.strip_prefix(b"export") {
        Some(behind) if behind.first().copied().is_some_and(is_blank) => trim_start(behind),
        _ => name,
    };
    let is_name = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_';
    if !name.iter().all(is_name) || name.first().is_none_or(u8::is_ascii_digit) {
        return Err(LineProblem::BadName);
    }
    let value = match value.split_first() {
        Some((b'\'', rest)) => single_quoted(rest)?,
        Some((b'"', rest)) => double_quoted(rest)?,
        _ if starts_comment(value) || value.windows(2).any(|two| is_blank(two[0]) && two[1] == b'#') => {
            return Err(LineProblem::UnclearComment);
        }
        _ => value.to_vec(),
    };
    Ok(Some((name, value)))
}

fn single_quoted(rest: &[u8]) -> Result<Vec<u8>, LineProblem> {
    let end = rest.iter().position(|byte| *byte == b'\'').ok_or(LineProblem::Unclosed)?;
    nothing_behind(&rest[end + 1..])?;
    Ok(rest[..end].to_vec())
}

fn double_quoted(rest: &[u8]) -> Result<Vec<u8>, LineProblem> {
    let mut value = Vec::with_capacity(rest.len());
    let mut bytes = rest.iter();
    loop {
        match bytes.next() {
            None => return Err(LineProblem::Unclosed),
            Some(b'"') => break,
            Some(b'\\') => value.push(match bytes.next() {
                None => return Err(LineProblem::Unclosed),
                Some(b'n') => b'\n',
                Some(escaped @ (b'"' | b'\\' | b'$')) => *escaped,
                Some(_) => return Err(LineProblem::BadEscape),
            }),
            Some(byte) => value.push(*byte),
        }
    }
    nothing_behind(bytes.as_slice())?;
    Ok(value)
}

/// Whether what is behind a closing quote means nothing.
fn nothing_behind(rest: &[u8]) -> Result<(), LineProblem> {
    let comment = trim_start(rest);
    match rest.is_empty() || (comment.len() < rest.len() && starts_comment(comment)) {
        true => Ok(()),
        false => Err(LineProblem::BehindQuote),
    }
}

fn starts_comment(text: &[u8]) -> bool {
    text.first() == Some(&b'#')
}

fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t')
}

fn trim(text: &[u8]) -> &[u8] {
    let end = text.iter().rposition(|byte| !is_blank(*byte)).map_or(0, |last| last + 1);
    trim_start(&text[..end])
}

fn trim_start(text: &[u8]) -> &[u8] {
    let start = text.iter().position(|byte| !is_blank(*byte)).unwrap_or(text.len());
    &text[start..]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &[u8]) -> Vec<(String, Vec<u8>)> {
        let variables = parse(text).unwrap_or_else(|error| panic!("{error}"));
        variables.into_iter().map(|(name, value)| (name.to_string(), value.into_bytes())).collect()
    }

    fn value(text: &[u8]) -> Vec<u8> {
        let [(_, value)] = read(text).try_into().expect("one variable");
        value
    }

    #[test]
    fn every_kind_of_line_is_read() {
        let text = b"\n# A=1\r\n  \t\nA=1\r\n export B=two words \nexport\tC=\nexport=5\n_9='#'\nA=3";
        let expected = [("A", &b"3"[..]), ("B", b"two words"), ("C", b""), ("export", b"5"), ("_9", b"#")];
        assert_eq!(read(text), expected.map(|(name, value)| (name.to_owned(), value.to_vec())));
        assert_eq!(read(b""), []);
    }

    #[test]
    fn values_are_what_they_look_like() {
        for (line, expected) in [
            (&b"A= b "[..], &b"b"[..]),
            (b"A=b=c", b"b=c"),
            (b"A=$HOME/`x`\\n", b"$HOME/`x`\\n"),
            (b"A=a#b", b"a#b"),
            (b"A={\"k\": 'v'}", b"{\"k\": 'v'}"),
            (b"A=\xff\xfe", b"\xff\xfe"),
            (b"A=''", b""),
            (b"A=' b\\n\" '  # said", b" b\\n\" "),
            (br#"A="a\n\"\\\$'$b#" "#, b"a\n\"\\$'$b#"),
            (b"A=\"\xff\"\r\n", b"\xff"),
            (b"A=a\rb", b"a\rb"),
        ] {
            assert_eq!(value(line), expected, "{}", line.escape_ascii());
        }
    }

    #[test]
    fn a_bad_line_is_named_by_its_number_and_never_repeated() {
        for (line, problem) in [
            (&b"s3cret"[..], LineProblem::NoEquals),
            (b"export s3cret", LineProblem::NoEquals),
            (b"s3cret =1", LineProblem::BadName),
            (b"9s3cret=1", LineProblem::BadName),
            (b"=s3cret", LineProblem::BadName),
            (b"export =s3cret", LineProblem::BadName),
            (b"\xc3\xa4=s3cret", LineProblem::BadName),
            (b"A.B=s3cret", LineProblem::BadName),
            (b"A=s3cret\0", LineProblem::Nul),
            (b"A='s3cret", LineProblem::Unclosed),
            (b"A=\"s3cret", LineProblem::Unclosed),
            (b"A=\"s3cret\\", LineProblem::Unclosed),
            (b"A=\"s3cret\\\"", LineProblem::Unclosed),
            (b"A='s3cret'x", LineProblem::BehindQuote),
            (b"A='s3cret'#x", LineProblem::BehindQuote),
            (b"A=\"s3cret\" x", LineProblem::BehindQuote),
            (b"A=\"s3cret\\t\"", LineProblem::BadEscape),
            (b"A=s3cret # x", LineProblem::UnclearComment),
            (b"A= #s3cret", LineProblem::UnclearComment),
        ] {
            let text = [b"A=1\r\n\n", line, b"\nB=2"].concat();
            let error = parse(&text).expect_err("a bad line");
            assert_eq!(error, EnvFileError::Line { line: 3, problem }, "{}", line.escape_ascii());
            let said = format!("{error} {error:?}");
            assert!(!said.contains("s3cret") && said.starts_with("line 3: "), "{said}");
        }
    }

    #[test]
    fn a_file_may_be_so_large_and_no_larger() {
        let mut text = vec![b'#'; MAX_BYTES];
        assert_eq!(parse(&text), Ok(vec![]));
        text.push(b'\n');
        assert_eq!(parse(&text), Err(EnvFileError::TooLarge(MAX_BYTES + 1)));
    }
}
