//! Goes through a TOML document table by table, and remembers what is wrong with it and where.

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::ConfigProblem;
use super::values::Codec;
use crate::api::Setting;

/// Names that are less alike than this are not meant by one another.
const ALIKE: f64 = 0.8;

/// A file that is being understood.
pub(super) struct Reading<'a> {
    text: &'a str,
    pub(super) problems: Vec<ConfigProblem>,
    pub(super) settings: Vec<Setting>,
}

/// One table of it.
pub(super) struct Section<'r, 'a> {
    reading: &'r mut Reading<'a>,
    /// As it is called in a setting's key.
    name: String,
    table: Option<&'r DeTable<'a>>,
    /// Where it begins.
    line: Option<u32>,
    known: Vec<&'static str>,
}

impl<'a> Reading<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        Self { text, problems: Vec::new(), settings: Vec::new() }
    }

    /// The document, if it is TOML. Tables that nobody knows are problems.
    pub(super) fn document(&mut self, tables: &[&'static str]) -> Option<DeTable<'a>> {
        let (document, errors) = DeTable::parse_recoverable(self.text);
        for error in &errors {
            let message = error.message().lines().collect::<Vec<_>>().join(", ");
            self.problem(error.span().map_or(0, |span| span.start), message);
        }
        if !errors.is_empty() {
            return None;
        }
        let document = document.into_inner();
        for key in document.keys() {
            if !tables.contains(&&**key.get_ref()) {
                let message =
                    format!("unknown table or key '{}'{}", key.get_ref(), instead(key.get_ref(), tables));
                self.problem(key.span().start, message);
            }
        }
        Some(document)
    }

    pub(super) fn problem(&mut self, at: usize, message: String) {
        let line = Some(self.line(at));
        self.problems.push(ConfigProblem { line, message });
    }

    pub(super) fn line(&self, at: usize) -> u32 {
        line_of(self.text.as_bytes(), at)
    }

    /// A table of the document; an empty one if it is not there.
    pub(super) fn section<'r>(&'r mut self, document: &'r DeTable<'a>, name: &str) -> Section<'r, 'a> {
        let found = document.iter().find(|(key, _)| key.get_ref() == name);
        let table = found.and_then(|(key, value)| {
            let table = value.get_ref().as_table();
            if table.is_none() {
                self.problem(key.span().start, format!("'{name}' is a table; write [{name}]"));
            }
            table
        });
        let line = found.map(|(key, _)| self.line(key.span().start));
        Section { reading: self, name: name.to_owned(), table, line, known: Vec::new() }
    }

    /// A table that is not one of the document's own.
    pub(super) fn inner_section<'r>(
        &'r mut self,
        name: String,
        table: &'r DeTable<'a>,
        at: usize,
    ) -> Section<'r, 'a> {
        let line = Some(self.line(at));
        Section { reading: self, name, table: Some(table), line, known: Vec::new() }
    }
}

impl<'r, 'a> Section<'r, 'a> {
    /// The value of a key, if it has one.
    fn find(&mut self, key: &'static str) -> Option<&'r Spanned<DeValue<'a>>> {
        self.known.push(key);
        self.table?.iter().find(|(known, _)| known.get_ref() == key).map(|(_, value)| value)
    }

    /// Understands the value of a key; a mistake is remembered.
    pub(super) fn take<T>(&mut self, key: &'static str, codec: &Codec<T>) -> Option<(T, u32)> {
        let value = self.find(key)?;
        let at = value.span().start;
        match (codec.read)(value.get_ref()) {
            Ok(read) => Some((read, self.reading.line(at))),
            Err(message) => {
                self.reading.problem(at, format!("{}.{key}: {message}", self.name));
                None
            }
        }
    }

    /// Understands a setting, which has its default already.
    pub(super) fn setting<T>(&mut self, key: &'static str, setting: &mut T, codec: &Codec<T>) {
        let mut line = None;
        if let Some((value, found)) = self.take(key, codec) {
            *setting = value;
            line = Some(found);
        }
        let key = format!("{}.{key}", self.name);
        self.reading.settings.push(Setting { key, value: (codec.show)(setting), line });
    }

    /// Says what is wrong with the table as a whole.
    pub(super) fn problem(&mut self, message: &str) {
        let message = format!("{}: {message}", self.name);
        self.reading.problems.push(ConfigProblem { line: self.line, message });
    }

    /// Names what nobody has asked for; the line at which the table begins, if it is there.
    pub(super) fn end(self) -> Option<u32> {
        for key in self.table.into_iter().flat_map(DeTable::keys) {
            let name = key.get_ref();
            if !self.known.iter().any(|known| known == name) {
                let message =
                    format!("unknown key '{name}' in [{}]{}", self.name, instead(name, &self.known));
                self.reading.problem(key.span().start, message);
            }
        }
        self.line
    }
}

/// The name that was meant, or all there are.
fn instead(name: &str, known: &[&str]) -> String {
    let likeness = |known: &&&str| strsim::jaro_winkler(name, known);
    let nearest = known.iter().max_by(|a, b| likeness(a).total_cmp(&likeness(b)));
    match nearest.filter(|known| likeness(known) >= ALIKE) {
        Some(nearest) => format!("; did you mean '{nearest}'?"),
        None => format!("; there are {}", known.join(", ")),
    }
}

/// The line of a place in a text, from 1.
pub(super) fn line_of(text: &[u8], at: usize) -> u32 {
    let before = text.iter().take(at).filter(|byte| **byte == b'\n').count();
    u32::try_from(before).unwrap_or(u32::MAX).saturating_add(1)
}
