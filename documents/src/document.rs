//! Files into documents: which one says who gets what.
//!
//! A document with `@type` at its top is a resource that every client gets. A document with `kind`
//! is an envelope: `kind: Resource` has the resource within it, and may say its name and who gets
//! it. Other kinds of envelopes are told apart here, by `kind` alone.

mod envelope;

use crate::{
    findings::Findings,
    node::{self, Kind, Node, Unreadable},
    path::Path,
    problem::{Errors, Origin, Place, Problem, Severity},
    selector::Selector,
};

/// A file larger than this is not read. A set of resources that large reaches no client.
pub const LARGEST_FILE: usize = 16 << 20;

/// What a person wrote, and where it came from.
#[derive(Clone, Copy, Debug)]
pub struct File<'a> {
    /// As errors name it. What ends in `.json` is JSON, the rest YAML.
    pub name: &'a str,
    pub text: &'a str,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Document {
    /// An xDS resource, still as it was written.
    Resource(Draft),
}

#[derive(Clone, Debug, PartialEq)]
pub struct Draft {
    pub(crate) origin: Origin,
    /// The envelope's name for it.
    pub(crate) name: Option<String>,
    pub(crate) selector: Selector,
    pub(crate) node: Node,
}

/// Reads files as far as their documents: syntax, envelopes and selectors.
///
/// # Errors
///
/// Everything that is wrong with any of the files.
pub fn parse(files: &[File<'_>]) -> Result<Vec<Document>, Errors> {
    let mut documents = Vec::new();
    let mut problems = Vec::new();
    for file in files {
        match nodes(file) {
            Ok(nodes) => {
                for (number, node) in nodes {
                    let origin = Origin { file: file.name.to_owned(), number };
                    match document(origin, node) {
                        Ok(document) => documents.push(document),
                        Err(found) => problems.extend(found),
                    }
                }
            }
            Err(problem) => problems.push(*problem),
        }
    }
    if problems.is_empty() { Ok(documents) } else { Err(Errors(problems)) }
}

fn nodes(file: &File<'_>) -> Result<Vec<(usize, Node)>, Box<Problem>> {
    let problem = |it: Unreadable| {
        Box::new(Problem {
            severity: Severity::Error,
            place: Place { file: file.name.to_owned(), line: Some(it.line), ..Place::default() },
            rule: it.rule,
            cause: it.cause,
            fix: it.fix.to_owned(),
        })
    };
    if file.text.len() > LARGEST_FILE {
        let cause = format!("is larger than {LARGEST_FILE} bytes");
        let unreadable = Unreadable { line: 1, rule: "size", cause, fix: "split the file" };
        return Err(problem(unreadable));
    }
    let text = file.text.strip_prefix('\u{feff}').unwrap_or(file.text);
    let nodes = match file.name.ends_with(".json") {
        true => node::parse_json(text),
        false => node::parse_yaml(text),
    };
    nodes.map_err(problem)
}

fn document(origin: Origin, node: Node) -> Result<Document, Vec<Problem>> {
    if node.get("@type").is_some() {
        let (name, selector) = (None, Selector::default());
        return Ok(Document::Resource(Draft { origin, name, selector, node }));
    }
    let kind = node.get("kind").and_then(Node::text);
    let mut findings = Findings::new(&origin, &node);
    let top = Path::default();
    match kind {
        Some("Resource") => {
            return envelope::read(origin, node).map(Document::Resource);
        }
        Some(other) => findings.error(
            &top.field("kind"),
            "kind",
            format!("{other} is no kind of document"),
            "write `kind: Resource`",
        ),
        None if matches!(node.kind, Kind::Map(_)) => findings.error(
            &top,
            "kind",
            "has neither @type nor kind",
            "begin a resource with its \"@type\", or wrap it in `kind: Resource`",
        ),
        None => findings.error(
            &top,
            "kind",
            format!("is {} where a map belongs", node.describe()),
            "write one resource in a document, and `---` between documents",
        ),
    }
    Err(findings.into_problems())
}
