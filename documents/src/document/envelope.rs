//! `kind: Resource`: a resource with a name and a selector around it.

use std::collections::{BTreeMap, BTreeSet};

use super::Draft;
use crate::{
    findings::Findings,
    node::{Entry, Kind, Node},
    path::{Path, Segment},
    problem::{Origin, Problem, nearest},
    selector::{ClientKind, Selector},
};

const FIELDS: [&str; 4] = ["kind", "metadata", "selector", "resource"];
const METADATA: [&str; 1] = ["name"];
const SELECTOR: [&str; 5] = ["node_id", "cluster", "zone", "client", "metadata"];

pub(super) fn read(origin: Origin, node: Node) -> Result<Draft, Vec<Problem>> {
    let mut findings = Findings::new(&origin, &node);
    let top = Path::default();
    known_fields(&node, &top, &FIELDS, &mut findings);
    let name = node.get("metadata").and_then(|it| read_metadata(it, &mut findings));
    let selector = node.get("selector").map(|it| read_selector(it, &mut findings));
    match node.get("resource") {
        None => findings.error(
            &top,
            "envelope",
            "has no resource",
            "put the resource with its @type under `resource`",
        ),
        Some(resource) if resource.get("@type").is_none() => findings.error(
            &top.field("resource"),
            "envelope",
            "has no @type",
            "begin it with `\"@type\": type.googleapis.com/…`",
        ),
        Some(_) => {}
    }
    let problems = findings.into_problems();
    let resource = match node.kind {
        Kind::Map(entries) => entries.into_iter().find(|it| it.key == "resource"),
        Kind::Null | Kind::Plain(_) | Kind::Quoted(_) | Kind::List(_) => None,
    };
    match resource {
        Some(Entry { node, .. }) if problems.is_empty() => {
            Ok(Draft { origin, name, selector: selector.unwrap_or_default(), node })
        }
        Some(_) | None => Err(problems),
    }
}

fn read_metadata(node: &Node, findings: &mut Findings<'_>) -> Option<String> {
    let path = Path::default().field("metadata");
    known_fields(node, &path, &METADATA, findings);
    let name = node.get("name")?;
    match name.text() {
        Some(text) if !text.is_empty() => Some(text.to_owned()),
        Some(_) | None => {
            let cause = format!("is {} where a name belongs", name.describe());
            findings.error(&path.field("name"), "envelope", cause, "write the resource's name");
            None
        }
    }
}

fn read_selector(node: &Node, findings: &mut Findings<'_>) -> Selector {
    let path = Path::default().field("selector");
    known_fields(node, &path, &SELECTOR, findings);
    let mut words = |field: &str| match node.get(field) {
        Some(values) => alternatives(values, &path.field(field), findings),
        None => BTreeSet::new(),
    };
    let (node_ids, clusters, zones) = (words("node_id"), words("cluster"), words("zone"));
    let clients = words("client");
    let mut kinds = BTreeSet::new();
    for client in &clients {
        match client.as_str() {
            "envoy" => kinds.insert(ClientKind::Envoy),
            "grpc" => kinds.insert(ClientKind::Grpc),
            _ => {
                let cause = format!("{client} is no kind of client");
                findings.error(&path.field("client"), "selector", cause, "write envoy or grpc");
                false
            }
        };
    }
    let mut metadata = BTreeMap::new();
    if let Some(tree) = node.get("metadata") {
        let mut at = path.field("metadata");
        read_paths(tree, &mut Vec::new(), &mut at, &mut metadata, findings);
    }
    Selector { node_ids, clusters, zones, kinds, metadata }
}

/// Leaves of a tree that is shaped as the node's own metadata.
fn read_paths(
    node: &Node,
    keys: &mut Vec<String>,
    at: &mut Path,
    paths: &mut BTreeMap<Vec<String>, BTreeSet<String>>,
    findings: &mut Findings<'_>,
) {
    let Kind::Map(entries) = &node.kind else {
        if keys.is_empty() {
            let cause = format!("is {} where a map belongs", node.describe());
            findings.error(at, "selector", cause, "write keys of the node's metadata");
        } else {
            paths.insert(keys.clone(), alternatives(node, at, findings));
        }
        return;
    };
    for entry in entries {
        keys.push(entry.key.clone());
        at.push(Segment::Key(entry.key.clone()));
        read_paths(&entry.node, keys, at, paths, findings);
        at.pop();
        keys.pop();
    }
}

/// One word, or a list of them; never none, which would match everybody.
fn alternatives(node: &Node, path: &Path, findings: &mut Findings<'_>) -> BTreeSet<String> {
    let items = match &node.kind {
        Kind::List(items) => items.as_slice(),
        Kind::Null | Kind::Plain(_) | Kind::Quoted(_) | Kind::Map(_) => std::slice::from_ref(node),
    };
    let mut words = BTreeSet::new();
    for item in items {
        match item.text() {
            Some(text) if !text.is_empty() => {
                words.insert(text.to_owned());
            }
            Some(_) | None => {
                let cause = format!("has {} where a word belongs", item.describe());
                findings.error(path, "selector", cause, "write a word or a list of words");
            }
        }
    }
    if items.is_empty() {
        let cause = "is empty, and would match nobody";
        findings.error(path, "selector", cause, "leave it out to match everybody");
    }
    words
}

fn known_fields(node: &Node, path: &Path, known: &[&str], findings: &mut Findings<'_>) {
    let Kind::Map(entries) = &node.kind else {
        let cause = format!("is {} where a map belongs", node.describe());
        findings.error(path, "envelope", cause, format!("write {}", known.join(", ")));
        return;
    };
    for entry in entries.iter().filter(|it| !known.contains(&it.key.as_str())) {
        let fix = match nearest(&entry.key, known.iter().copied()) {
            Some(close) => format!("write {close}"),
            None => format!("the fields are {}", known.join(", ")),
        };
        let cause = format!("there is no field {}", entry.key);
        findings.error(&path.field(&entry.key), "unknown-field", cause, fix);
    }
}
