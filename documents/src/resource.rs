//! Documents into resources, as they are stored and sent.

use std::collections::BTreeSet;

use bytes::Bytes;
use prost_reflect::{DynamicMessage, ReflectMessage};

use crate::{
    constraints::Checker,
    document::{Document, Draft},
    encode::encode,
    field,
    findings::Findings,
    message,
    path::Path,
    problem::{Errors, Place, Problem, Severity},
    references::{Reference, references},
    rules,
    selector::Selector,
    sockets::{Socket, sockets},
    types::{self, Naming, PREFIX, type_url},
    walk::decode,
};

/// An xDS resource with what the checks of a set need to know of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Resource {
    pub type_url: &'static str,
    pub name: String,
    pub selector: Selector,
    /// The message, encoded; the same for the same document.
    pub bytes: Bytes,
    pub references: Vec<Reference>,
    pub sockets: Vec<Socket>,
    pub warnings: Vec<Problem>,
    /// Where it is written.
    pub place: Place,
}

impl Resource {
    /// A resource that was compiled before, for checks of a set that it is part of.
    ///
    /// None if this version does not know the type, or not these bytes.
    pub fn restore(
        place: Place,
        type_url: &str,
        name: String,
        selector: Selector,
        bytes: Bytes,
    ) -> Option<Self> {
        let type_url = types::urls().find(|it| *it == type_url)?;
        let message = decode(type_url, &bytes)?;
        let locate = |path: &Path| Place { field: path.to_string(), ..place.clone() };
        let (references, sockets) = relations(&message, locate);
        let warnings = Vec::new();
        Some(Self { type_url, name, selector, bytes, references, sockets, warnings, place })
    }
}

/// Turns documents into resources.
///
/// # Errors
///
/// Everything that is wrong with any of them, without regard to the others; the checks of a set, as
/// [`crate::duplicates`], say the rest.
pub fn compile(documents: &[Document]) -> Result<Vec<Resource>, Errors> {
    let mut checker = Checker::default();
    let mut compiled = Vec::new();
    let mut problems = Vec::new();
    for document in documents {
        let Document::Resource(draft) = document;
        let mut findings = Findings::new(&draft.origin, &draft.node);
        let resource = draft_resource(draft, &mut checker, &mut findings);
        let (warnings, errors): (Vec<Problem>, Vec<Problem>) =
            findings.into_problems().into_iter().partition(|it| it.severity == Severity::Warning);
        match resource {
            Some((message, mut resource)) if errors.is_empty() => {
                resource.warnings = warnings;
                compiled.push((draft, message, resource));
            }
            Some(_) | None => problems.extend(errors),
        }
    }
    let for_grpc = meant_for_grpc(&compiled);
    let mut resources = Vec::with_capacity(compiled.len());
    for (position, (draft, message, mut resource)) in compiled.into_iter().enumerate() {
        let mut findings = Findings::new(&draft.origin, &draft.node);
        rules::check(&message, &resource.selector, for_grpc.contains(&position), &mut findings);
        for problem in findings.into_problems() {
            match problem.severity {
                Severity::Error => problems.push(problem),
                Severity::Warning => resource.warnings.push(problem),
            }
        }
        resources.push(resource);
    }
    if problems.is_empty() {
        return Ok(resources);
    }
    problems.sort_by(|one, other| one.place.cmp(&other.place));
    Err(Errors(problems))
}

fn draft_resource(
    draft: &Draft,
    checker: &mut Checker,
    findings: &mut Findings<'_>,
) -> Option<(DynamicMessage, Resource)> {
    let message = message::read(&draft.node, findings)?;
    let url = format!("{PREFIX}{}", message.descriptor().full_name());
    let top = Path::default();
    let Some((type_url, naming)) =
        types::urls().find(|it| *it == url).and_then(|it| Some((it, types::naming(it)?)))
    else {
        let names: Vec<&str> = types::urls().map(types::short).collect();
        let cause = format!("{} is no type of resource", message.descriptor().full_name());
        let fix = format!("resources are {}", names.join(", "));
        findings.error(&top.field("@type"), "type", cause, fix);
        return None;
    };
    // What could not be read is missing, and need not be told a second time.
    if !findings.has_errors() {
        checker.check(&message, findings);
    }
    let name = name_of(draft, &message, naming, findings)?;
    let (references, sockets) = relations(&message, |path| findings.place(path));
    let resource = Resource {
        type_url,
        name,
        selector: draft.selector.clone(),
        bytes: encode(&message).into(),
        references,
        sockets,
        warnings: Vec::new(),
        place: findings.place(&top),
    };
    Some((message, resource))
}

fn name_of(
    draft: &Draft,
    message: &DynamicMessage,
    naming: Naming,
    findings: &mut Findings<'_>,
) -> Option<String> {
    let top = Path::default();
    let field = match naming {
        Naming::Field(field) => field,
        Naming::Envelope => {
            if draft.name.is_none() {
                let fix = "wrap it in `kind: Resource`, with metadata.name as clients ask for it";
                findings.error(&top, "name", "has no name of its own", fix);
            }
            return draft.name.clone();
        }
    };
    let written = field::text(message, field);
    match &draft.name {
        _ if written.is_empty() => {
            if !findings.has_errors() {
                findings.error(&top.field(field), "name", "is empty", "give it a name");
            }
            None
        }
        Some(name) if *name != written => {
            let cause = format!("is {written:?}, but the envelope's name is {name:?}");
            findings.error(&top.field(field), "name", cause, "leave metadata.name out");
            None
        }
        Some(_) | None => Some(written),
    }
}

fn relations(
    message: &DynamicMessage,
    place: impl Fn(&Path) -> Place,
) -> (Vec<Reference>, Vec<Socket>) {
    let references = references(message).into_iter().map(|it| {
        let Place { field, line, .. } = place(&it.path);
        let (type_url, name, is_required) = (it.type_url, it.name, it.is_required);
        Reference { type_url, name, field, line, is_required }
    });
    let sockets = sockets(message)
        .into_iter()
        .map(|(path, socket)| Socket { line: place(&path).line, ..socket });
    (references.collect(), sockets.collect())
}

/// Positions of the resources that a gRPC client comes to: listeners made for one, and whatever is
/// named from there.
fn meant_for_grpc(compiled: &[(&Draft, DynamicMessage, Resource)]) -> BTreeSet<usize> {
    let mut reached = BTreeSet::new();
    let listeners = compiled.iter().enumerate().filter(|(_, (_, message, resource))| {
        let is_listener = resource.type_url == type_url::LISTENER;
        is_listener && rules::is_grpc_listener(message)
    });
    let mut pending: Vec<usize> = listeners.map(|(position, _)| position).collect();
    while let Some(position) = pending.pop() {
        if !reached.insert(position) {
            continue;
        }
        let (_, _, from) = &compiled[position];
        for (position, (_, _, to)) in compiled.iter().enumerate() {
            let is_named =
                from.references.iter().any(|it| it.type_url == to.type_url && it.name == to.name);
            if is_named && from.selector.overlaps(&to.selector) {
                pending.push(position);
            }
        }
    }
    reached
}
