//! A document as it was written: a tree that remembers its lines.
//!
//! A scalar stays text until the field is known that it belongs to. Only then is it clear whether
//! `no`, `0777` or `1.0` is a word, a number, or a mistake.

mod json;
mod yaml;

pub(crate) use json::parse as parse_json;
pub(crate) use yaml::parse as parse_yaml;

/// How deep documents may nest. Envoy's own messages end at less than half of it.
pub(crate) const MOST_DEEP: usize = 64;

/// Values of one file, those counted again that an alias repeats.
pub(crate) const MOST_NODES: usize = 1_000_000;

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Node {
    pub(crate) line: usize,
    pub(crate) kind: Kind,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Kind {
    Null,
    /// Without quotes: a number, a boolean or, in YAML, a word.
    Plain(String),
    Quoted(String),
    List(Vec<Node>),
    Map(Vec<Entry>),
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Entry {
    pub(crate) key: String,
    pub(crate) line: usize,
    pub(crate) node: Node,
}

/// Why a text is no tree, and where.
#[derive(Debug, PartialEq)]
pub(crate) struct Unreadable {
    pub(crate) line: usize,
    pub(crate) rule: &'static str,
    pub(crate) cause: String,
    pub(crate) fix: &'static str,
}

impl Node {
    pub(crate) fn get(&self, key: &str) -> Option<&Self> {
        match &self.kind {
            Kind::Map(entries) => entries.iter().find(|it| it.key == key).map(|it| &it.node),
            Kind::Null | Kind::Plain(_) | Kind::Quoted(_) | Kind::List(_) => None,
        }
    }

    pub(crate) fn text(&self) -> Option<&str> {
        match &self.kind {
            Kind::Plain(text) | Kind::Quoted(text) => Some(text),
            Kind::Null | Kind::List(_) | Kind::Map(_) => None,
        }
    }

    /// What it is, for whoever expected something else.
    pub(crate) fn describe(&self) -> String {
        match &self.kind {
            Kind::Null => "nothing".to_owned(),
            Kind::Plain(text) => shorten(text),
            Kind::Quoted(text) => format!("\"{}\"", shorten(text)),
            Kind::List(_) => "a list".to_owned(),
            Kind::Map(_) => "a map".to_owned(),
        }
    }
}

fn shorten(text: &str) -> String {
    match text.char_indices().nth(60) {
        None => text.to_owned(),
        Some((end, _)) => format!("{}…", &text[..end]),
    }
}

fn too_deep(line: usize) -> Unreadable {
    Unreadable {
        line,
        rule: "depth",
        cause: format!("nests deeper than {MOST_DEEP} levels"),
        fix: "flatten it",
    }
}

fn too_many(line: usize) -> Unreadable {
    Unreadable {
        line,
        rule: "size",
        cause: format!("has more than {MOST_NODES} values, aliases included"),
        fix: "split the file, or write less with aliases",
    }
}

fn duplicate(line: usize, key: &str) -> Unreadable {
    Unreadable {
        line,
        rule: "duplicate-key",
        cause: format!("has the key {:?} twice", shorten(key)),
        fix: "leave one of them",
    }
}
