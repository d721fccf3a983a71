//! The constraints that Envoy's .proto files put on fields, by protoc-gen-validate.
//!
//! Envoy checks them when a resource arrives, and refuses the whole of it. They are options of the
//! fields, read from the descriptors, so that no table of them grows old here. Beside them stand
//! two more reasons for which Envoy refuses a field: that its time is over, and that it is no
//! regular expression.

mod judge;
mod text;
mod verdict;

use std::{collections::BTreeMap, rc::Rc};

use prost_reflect::{
    DynamicMessage, ExtensionDescriptor, FieldDescriptor, MapKey, MessageDescriptor,
    OneofDescriptor, ReflectMessage, Value,
};

use crate::{
    descriptors::descriptors,
    field,
    findings::Findings,
    path::{Path, Segment},
    problem::Severity,
    walk::{key_text, walk},
};
#[cfg(test)]
pub(crate) use judge::KNOWN;
use judge::judge;

/// Checks messages one after the other and keeps what it has learned of their types.
#[derive(Default)]
pub(crate) struct Checker {
    types: BTreeMap<String, Rc<Constraints>>,
}

/// Of one message type.
struct Constraints {
    fields: Vec<Constrained>,
    required_oneofs: Vec<OneofDescriptor>,
}

struct Constrained {
    field: FieldDescriptor,
    /// `validate.FieldRules`.
    rules: Option<DynamicMessage>,
    is_disallowed: bool,
    is_deprecated: bool,
}

impl Checker {
    pub(crate) fn check(&mut self, message: &DynamicMessage, findings: &mut Findings<'_>) {
        walk(message, &mut |path, message| self.check_one(path, message, findings));
    }

    fn check_one(&mut self, path: &Path, message: &DynamicMessage, findings: &mut Findings<'_>) {
        let constraints = self.constraints(&message.descriptor());
        for constrained in &constraints.fields {
            constrained.check(&path.field(constrained.field.name()), message, findings);
        }
        for oneof in &constraints.required_oneofs {
            if !oneof.fields().any(|it| message.has_field(&it)) {
                let members: Vec<String> = oneof.fields().map(|it| it.name().to_owned()).collect();
                let cause = format!("has no {}", oneof.name().replace('_', " "));
                findings.error(path, "required", cause, format!("give {}", members.join(" or ")));
            }
        }
        if field::name(message) == "envoy.type.matcher.v3.RegexMatcher"
            && let Err(error) = regex::Regex::new(&field::text(message, "regex"))
        {
            // Not an error: RE2 takes a few things literally that are wrong here, as a lone brace.
            let cause = format!("may be no regular expression: {}", last_line(&error.to_string()));
            let fix = "see whether RE2 reads it as it is meant".to_owned();
            findings.add(Severity::Warning, &path.field("regex"), "regex", cause, fix);
        }
    }

    fn constraints(&mut self, descriptor: &MessageDescriptor) -> Rc<Constraints> {
        if let Some(known) = self.types.get(descriptor.full_name()) {
            return Rc::clone(known);
        }
        let read = Rc::new(Constraints::of(descriptor));
        self.types.insert(descriptor.full_name().to_owned(), Rc::clone(&read));
        read
    }
}

impl Constraints {
    fn of(descriptor: &MessageDescriptor) -> Self {
        let fields = descriptor.fields().map(Constrained::of);
        let required_oneofs = descriptor.oneofs().filter(|it| {
            let required = extension("validate.required");
            required.is_some_and(|it_| it.options().get_extension(&it_).as_bool() == Some(true))
        });
        Self {
            fields: fields.filter(Constrained::says_something).collect(),
            required_oneofs: required_oneofs.collect(),
        }
    }
}

impl Constrained {
    fn of(field: FieldDescriptor) -> Self {
        let options = field.options();
        let rules = rules_of(&field);
        let disallowed = extension("envoy.annotations.disallowed_by_default");
        let is_disallowed =
            disallowed.is_some_and(|it| options.get_extension(&it).as_bool() == Some(true));
        let is_deprecated = field::flag(&options, "deprecated");
        Self { field, rules, is_disallowed, is_deprecated }
    }

    fn says_something(&self) -> bool {
        self.rules.is_some() || self.is_disallowed || self.is_deprecated
    }

    fn check(&self, path: &Path, message: &DynamicMessage, findings: &mut Findings<'_>) {
        let is_set = message.has_field(&self.field);
        if is_set && (self.is_disallowed || self.is_deprecated) {
            let (severity, cause) = match self.is_disallowed {
                true => (Severity::Error, "is deprecated, and Envoy refuses it by default"),
                false => (Severity::Warning, "is deprecated, and a later Envoy will refuse it"),
            };
            let fix = format!("see what replaces it in {}", self.field.parent_message().name());
            findings.add(severity, path, "deprecated", cause.to_owned(), fix);
        }
        let Some(rules) = &self.rules else { return };
        if !is_set {
            return self.check_absent(path, rules, findings);
        }
        let value = message.get_field(&self.field);
        check_value(path, &self.field, value.as_ref(), rules, findings);
    }

    fn check_absent(&self, path: &Path, rules: &DynamicMessage, findings: &mut Findings<'_>) {
        // The rules of an alternative hold once it is chosen.
        if self.field.containing_oneof().is_some_and(|it| !it.is_synthetic()) {
            return;
        }
        let is_required = kinds(rules).any(|(_, rule)| field::flag(&rule, "required"))
            || field::sub(rules, "message").is_some_and(|it| field::flag(&it, "required"));
        if is_required {
            findings.error(path, "required", "is missing", "give it a value");
        } else if !self.field.supports_presence() {
            // A scalar that is not written has its default, and the rules hold for that.
            let default = self.field.default_value();
            check_value(path, &self.field, &default, rules, findings);
        }
    }
}

/// Rules for a kind of value, each with the name of the kind, as `string`.
fn kinds(rules: &DynamicMessage) -> impl Iterator<Item = (String, DynamicMessage)> {
    let set: Vec<(String, DynamicMessage)> = rules
        .fields()
        .filter(|(field, _)| field.name() != "message")
        .filter_map(|(field, value)| Some((field.name().to_owned(), value.as_message()?.clone())))
        .collect();
    set.into_iter()
}

fn check_value(
    path: &Path,
    field: &FieldDescriptor,
    value: &Value,
    rules: &DynamicMessage,
    findings: &mut Findings<'_>,
) {
    for (kind, rule) in kinds(rules) {
        match kind.as_str() {
            "repeated" => check_list(path, field, value, &rule, findings),
            "map" => check_map(path, field, value, &rule, findings),
            _ => judge_one(path, field, value, (&kind, &rule), findings),
        }
    }
}

fn check_list(
    path: &Path,
    field: &FieldDescriptor,
    value: &Value,
    rule: &DynamicMessage,
    findings: &mut Findings<'_>,
) {
    let items = value.as_list().unwrap_or_default();
    count(path, items.len(), rule, ("min_items", "max_items", "items"), findings);
    if field::flag(rule, "unique") {
        for (index, item) in items.iter().enumerate() {
            if items[..index].contains(item) {
                let path = path.index(index);
                findings.error(&path, "unique", "repeats an earlier item", "leave one of them");
            }
        }
    }
    if let Some(each) = field::sub(rule, "items") {
        for (index, item) in items.iter().enumerate() {
            check_value(&path.index(index), field, item, &each, findings);
        }
    }
}

fn check_map(
    path: &Path,
    field: &FieldDescriptor,
    value: &Value,
    rule: &DynamicMessage,
    findings: &mut Findings<'_>,
) {
    let Some(entries) = value.as_map() else { return };
    count(path, entries.len(), rule, ("min_pairs", "max_pairs", "entries"), findings);
    let mut entries: Vec<(&MapKey, &Value)> = entries.iter().collect();
    entries.sort_by(|one, other| one.0.cmp(other.0));
    for (key, value) in entries {
        let mut path = path.clone();
        path.push(Segment::Key(key_text(key)));
        if let Some(rules) = field::sub(rule, "keys") {
            check_value(&path, field, &key.clone().into(), &rules, findings);
        }
        if let Some(rules) = field::sub(rule, "values") {
            check_value(&path, field, value, &rules, findings);
        }
    }
}

fn count(
    path: &Path,
    count: usize,
    rule: &DynamicMessage,
    (least, most, what): (&'static str, &'static str, &str),
    findings: &mut Findings<'_>,
) {
    let count = count as u64;
    let bound = |name: &str| field::number(rule, name);
    if let Some(bound) = bound(least).filter(|it| count < *it) {
        let cause = format!("has {count} {what}");
        findings.error(path, least, cause, format!("give at least {bound}"));
    }
    if let Some(bound) = bound(most).filter(|it| count > *it) {
        let cause = format!("has {count} {what}");
        findings.error(path, most, cause, format!("give at most {bound}"));
    }
}

fn judge_one(
    path: &Path,
    field: &FieldDescriptor,
    value: &Value,
    (kind, rule): (&str, &DynamicMessage),
    findings: &mut Findings<'_>,
) {
    if field::flag(rule, "ignore_empty") && value.is_default_for_field(field) {
        return;
    }
    for (constraint, operand) in rule.fields() {
        if let Err(verdict) = judge((kind, rule), constraint.name(), operand, field, value) {
            findings.error(path, verdict.rule, verdict.cause, verdict.fix);
        }
    }
}

/// `validate.FieldRules` of a field.
pub(crate) fn rules_of(field: &FieldDescriptor) -> Option<DynamicMessage> {
    let options = field.options();
    let rules = extension("validate.rules").filter(|it| options.has_extension(it))?;
    options.get_extension(&rules).as_message().cloned()
}

fn extension(name: &str) -> Option<ExtensionDescriptor> {
    descriptors().get_extension_by_name(name)
}

/// Errors of the parser of regular expressions draw pictures; their last line says it.
fn last_line(text: &str) -> String {
    let line = text.lines().last().unwrap_or_default();
    line.strip_prefix("error: ").unwrap_or(line).to_owned()
}
