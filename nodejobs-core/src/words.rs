//! Splitting a line into a program and its arguments, as a shell would, but without one.

use crate::spec::Command;

/// Why a text is not a line of words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidWords {
    /// Not one word, or only a comment.
    #[error("the command has no words; say what to run, as in 'echo hello'")]
    Empty,
    /// A quote that is not closed, or a backslash with nothing behind it.
    #[error("the command ends inside a quote or behind a backslash; close the quote, or escape it with '\\'")]
    Unfinished,
}

impl Command {
    /// A program and its arguments out of one line, split by the quoting rules of POSIX shells.
    ///
    /// No shell is involved: quotes, backslashes and `#` comments mean what they mean there; `$`, `*`, `|`, `>`, `;`
    /// and `~` are characters like any other. A command whose words are UTF-8 is this of its `Display`.
    ///
    /// ```
    /// use nodejobs_core::spec::Command;
    ///
    /// let command = Command::words(r#"grep -e "it's \"here\"" '' $HOME"#)?;
    /// assert_eq!(command, Command::argv(["grep", "-e", r#"it's "here""#, "", "$HOME"]));
    /// assert_eq!(Command::words(&command.to_string()), Ok(command));
    /// assert!(Command::words("echo 'hello").is_err());
    /// # Ok::<(), nodejobs_core::words::InvalidWords>(())
    /// ```
    ///
    /// # Errors
    /// [`InvalidWords`]: there is no word, or the text ends too early.
    pub fn words(text: &str) -> Result<Self, InvalidWords> {
        match shlex::split(text) {
            None => Err(InvalidWords::Unfinished),
            Some(words) if words.is_empty() => Err(InvalidWords::Empty),
            Some(words) => Ok(Self::argv(words)),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn quotes_and_backslashes_mean_what_they_mean_to_a_shell() {
        for (text, words) in [
            (r#""a\"b" '' c"#, &["a\"b", "", "c"][..]),
            ("  a\tb\nc  ", &["a", "b", "c"]),
            (r"a\ b 'c\d' e\'f", &["a b", r"c\d", "e'f"]),
            (r#"a"b"'c' "\n\$\\""#, &["abc", r"\n$\"]),
            ("a\\\nb # nothing\n c#d", &["ab", "c#d"]),
            ("$HOME * a|b ~ >x", &["$HOME", "*", "a|b", "~", ">x"]),
        ] {
            assert_eq!(Command::words(text), Ok(Command::argv(words.iter().copied())), "{text}");
        }
    }

    #[test]
    fn nothing_and_what_ends_too_early_are_told_apart() {
        for text in ["", "  \n", "# only this"] {
            assert_eq!(Command::words(text), Err(InvalidWords::Empty), "{text:?}");
        }
        for text in ["'", "a \"b", "it's", "a\\", r#"" \""#] {
            assert_eq!(Command::words(text), Err(InvalidWords::Unfinished), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn a_shown_command_is_read_as_it_was(words in prop::collection::vec("[ -~äß€\u{a0}\u{fffd}]{0,12}", 1..6)) {
            let command = Command::argv(words);
            prop_assert_eq!(Command::words(&command.to_string()), Ok(command));
        }
    }
}
