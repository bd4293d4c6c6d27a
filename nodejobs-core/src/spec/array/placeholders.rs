//! Placeholders in the command of an array: `{}`, `{name}` and `{index}`.
//!
//! What is in braces and no name stays (`{"a": 1}`, `{1,3}`), as does what follows a `$` (`${HOME}`). `{{name}}` is the
//! text `{name}`. In a script for the shell a value is put in quotes where it needs them, so it is one word whatever it
//! holds; that only works where the script itself has no quotes around it, so there a placeholder is refused.

use std::collections::BTreeSet;

use super::{INDEX, INDEX_VARIABLE, VALUE, Values};
use crate::spec::Command;
use crate::text::RawText;

/// Why a command with placeholders is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidPlaceholder {
    /// Nothing to put there.
    #[error("'{{{name}}}' has no value{among}; write '{{{{{name}}}}}' for the text itself")]
    NoValue {
        /// What stands in braces.
        name: String,
        /// What there is instead.
        among: String,
    },
    /// `{}` where there is more than one.
    #[error(
        "'{{}}' stands for the only value, but there are several: {0}; name the one you mean, as in '{{NAME}}'"
    )]
    Several(String),
    /// In quotes of the script.
    #[error(
        "placeholder '{{{0}}}' is in quotes, where its value could end them; leave out the quotes, since values are \
         quoted where they need it, or use \"${1}\""
    )]
    Quoted(String, String),
    /// Where it cannot be known whether it is in quotes.
    #[error(
        "the script has {0}, so it cannot be known whether placeholder '{{{1}}}' is in quotes; use \"${2}\" instead"
    )]
    Unclear(&'static str, String, String),
}

/// Whether it can be the name of a value.
pub(super) fn is_name(text: &[u8]) -> bool {
    text.first().is_some_and(|first| first.is_ascii_alphabetic() || *first == b'_')
        && text.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'))
}

/// A part of a text.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Text(Vec<u8>),
    /// What stands in braces; nothing for `{}`.
    Placeholder(String),
}

/// A command with its placeholders found.
///
/// ```
/// use nodejobs_core::spec::{Command, Elements, Placeholders};
///
/// let command = Command::shell("convert {} out/{index}.png");
/// let filled = Placeholders::of(&command)?.fill(7, &Elements::lines("a b.jpg").values(1));
/// assert_eq!(filled, Command::shell("convert 'a b.jpg' out/7.png"));
/// # Ok::<(), nodejobs_core::spec::InvalidPlaceholder>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placeholders {
    /// A script, or words.
    is_script: bool,
    texts: Vec<Vec<Piece>>,
}

impl Placeholders {
    /// Finds the placeholders of a command.
    ///
    /// # Errors
    /// If one is where a value could not be put safely.
    pub fn of(command: &Command) -> Result<Self, InvalidPlaceholder> {
        Ok(match command {
            Command::Argv(words) => Self {
                is_script: false,
                texts: words
                    .iter()
                    .map(|word| pieces(word.as_bytes(), |_| Context::Bare))
                    .collect::<Result<_, _>>()?,
            },
            Command::Shell(script) => {
                let contexts = contexts(script.as_bytes());
                Self { is_script: true, texts: vec![pieces(script.as_bytes(), |at| contexts[at])?] }
            }
        })
    }

    /// Checks that each has a value among these names.
    ///
    /// # Errors
    /// The first that has none.
    pub fn check(&self, names: &BTreeSet<String>) -> Result<(), InvalidPlaceholder> {
        let listed = || names.iter().map(|name| format!("'{{{name}}}'")).collect::<Vec<_>>().join(", ");
        for name in self.names() {
            match name {
                "" if names.len() == 1 => {}
                "" if names.len() > 1 => return Err(InvalidPlaceholder::Several(listed())),
                name if name == INDEX || names.contains(name) => {}
                name => {
                    let among =
                        if names.is_empty() { String::new() } else { format!("; there is {}", listed()) };
                    return Err(InvalidPlaceholder::NoValue { name: name.to_owned(), among });
                }
            }
        }
        Ok(())
    }

    /// How many placeholders there are.
    pub fn count(&self) -> usize {
        self.names().count()
    }

    fn names(&self) -> impl Iterator<Item = &str> {
        self.texts.iter().flatten().filter_map(|piece| match piece {
            Piece::Placeholder(name) => Some(name.as_str()),
            Piece::Text(_) => None,
        })
    }

    /// The command of the element of that number.
    pub fn fill(&self, index: u32, values: &Values) -> Command {
        let texts = self.texts.iter().map(|pieces| {
            let mut text = Vec::new();
            for piece in pieces {
                let name = match piece {
                    Piece::Text(bytes) => {
                        text.extend_from_slice(bytes);
                        continue;
                    }
                    Piece::Placeholder(name) => name,
                };
                let value = match name.as_str() {
                    INDEX => RawText::from(index.to_string()),
                    "" => values.values().next().cloned().unwrap_or_default(),
                    name => values.get(name).cloned().unwrap_or_default(),
                };
                if self.is_script {
                    quote(value.as_bytes(), &mut text);
                } else {
                    text.extend(value.into_bytes());
                }
            }
            RawText::from(text)
        });
        if self.is_script {
            Command::Shell(texts.into_iter().next().unwrap_or_default())
        } else {
            Command::Argv(texts.collect())
        }
    }
}

/// Adds a value as one word of a script.
fn quote(value: &[u8], text: &mut Vec<u8>) {
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"%+,-./:=@_".contains(byte);
    if !value.is_empty() && value.iter().all(plain) {
        return text.extend_from_slice(value);
    }
    text.push(b'\'');
    for byte in value {
        match byte {
            b'\'' => text.extend_from_slice(br"'\''"),
            byte => text.push(*byte),
        }
    }
    text.push(b'\'');
}

/// What is around a place in a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Context {
    /// Nothing: a placeholder is replaced.
    Bare,
    /// A comment, or behind a backslash: it stays.
    Stays,
    /// Quotes of the script.
    Quoted,
    /// What is not followed here.
    Unclear(&'static str),
}

/// What a brace begins.
enum Brace {
    Placeholder(String),
    /// `{{name}}`.
    Escaped(String),
}

/// What begins with the brace at this place, and how long it is.
fn brace(text: &[u8]) -> Option<(Brace, usize)> {
    let inside = |from: usize| {
        let length = text[from..].iter().position(|byte| *byte == b'}')?;
        let name = &text[from..from + length];
        (name.is_empty() || is_name(name)).then(|| String::from_utf8_lossy(name).into_owned())
    };
    if text.get(1) == Some(&b'{') {
        let name = inside(2)?;
        let length = name.len() + 4;
        return (text.get(length - 1) == Some(&b'}')).then_some((Brace::Escaped(name), length));
    }
    let name = inside(1)?;
    let length = name.len() + 2;
    Some((Brace::Placeholder(name), length))
}

/// The pieces of a text; `context` says what is around each of its places.
fn pieces(text: &[u8], context: impl Fn(usize) -> Context) -> Result<Vec<Piece>, InvalidPlaceholder> {
    let (mut pieces, mut plain, mut at) = (Vec::new(), Vec::new(), 0);
    while at < text.len() {
        let is_open = text[at] == b'{' && !is_behind_dollar(text, at) && context(at) != Context::Stays;
        match is_open.then(|| brace(&text[at..])).flatten() {
            Some((Brace::Placeholder(name), length)) => {
                match context(at) {
                    Context::Bare | Context::Stays => {}
                    Context::Quoted => return Err(InvalidPlaceholder::Quoted(name.clone(), variable(&name))),
                    Context::Unclear(what) => {
                        return Err(InvalidPlaceholder::Unclear(what, name.clone(), variable(&name)));
                    }
                }
                if !plain.is_empty() {
                    pieces.push(Piece::Text(std::mem::take(&mut plain)));
                }
                pieces.push(Piece::Placeholder(name));
                at += length;
            }
            Some((Brace::Escaped(name), length)) => {
                plain.extend(format!("{{{name}}}").into_bytes());
                at += length;
            }
            None => {
                // The second of two braces that begin nothing begins nothing either.
                let length = if text[at..].starts_with(b"{{") { 2 } else { 1 };
                plain.extend_from_slice(&text[at..at + length]);
                at += length;
            }
        }
    }
    if !plain.is_empty() {
        pieces.push(Piece::Text(plain));
    }
    Ok(pieces)
}

/// The variable that has the same value.
fn variable(name: &str) -> String {
    match name {
        "" => super::value_variable(VALUE),
        INDEX => INDEX_VARIABLE.to_owned(),
        name => super::value_variable(name),
    }
}

fn is_behind_dollar(text: &[u8], at: usize) -> bool {
    at.checked_sub(1).is_some_and(|before| text[before] == b'$')
}

/// What is around each byte of a script. What is not followed makes the whole script unclear.
fn contexts(script: &[u8]) -> Vec<Context> {
    let mut contexts = Vec::with_capacity(script.len());
    let mut unclear = None;
    let (mut single, mut double, mut comment, mut escaped) = (false, false, false, false);
    let mut word_begins = true;
    for (at, byte) in script.iter().enumerate() {
        let next = script.get(at + 1);
        contexts.push(match (single || double, comment || escaped) {
            (true, _) => Context::Quoted,
            (false, true) => Context::Stays,
            (false, false) => Context::Bare,
        });
        let was_escaped = std::mem::take(&mut escaped);
        let begins = std::mem::replace(&mut word_begins, false);
        match byte {
            b'\n' if comment => (comment, word_begins) = (false, true),
            _ if comment => {}
            b'\'' if single => single = false,
            _ if single || was_escaped => {}
            b'\\' => escaped = true,
            b'"' => double = !double,
            b'`' if double => unclear = Some("a command in backquotes inside quotes"),
            b'$' if double && next == Some(&b'(') => unclear = Some("a command inside quotes"),
            b'$' if double && next == Some(&b'{') && !is_plain_expansion(&script[at + 2..]) => {
                unclear = Some("a '${…}' that is no mere variable inside quotes");
            }
            b'$' if next == Some(&b'\'') => unclear = Some("a $'…'"),
            _ if double => {}
            b'\'' => single = true,
            b'<' if next == Some(&b'<') => unclear = Some("a '<<'"),
            b'`' => unclear = Some("a command in backquotes"),
            b'#' if begins => comment = true,
            b' ' | b'\t' | b'\n' | b';' | b'&' | b'|' | b'(' | b')' => word_begins = true,
            _ => {}
        }
    }
    if let Some(what) = unclear {
        contexts.fill(Context::Unclear(what));
    } else if single || double {
        contexts.fill(Context::Unclear("a quote that is not closed"));
    }
    contexts
}

/// Whether what follows `${` is a name and nothing else.
fn is_plain_expansion(text: &[u8]) -> bool {
    text.iter().position(|byte| *byte == b'}').is_some_and(|end| is_name(&text[..end]))
}
