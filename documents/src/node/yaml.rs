//! YAML 1.2 into nodes.
//!
//! The parser gives events and does not recurse. Anchors and aliases work, and every repetition
//! counts, so that no few lines become a billion values. Tags are refused: protobuf says what a
//! value is.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
};

use saphyr_parser::{Event, Parser, ScalarStyle, ScanError, Span, Tag};

use super::{Entry, Kind, MOST_DEEP, MOST_NODES, Node, Unreadable, duplicate, too_deep, too_many};

/// The documents of a text, with the position of each; empty ones are counted and left out.
pub(crate) fn parse(text: &str) -> Result<Vec<(usize, Node)>, Unreadable> {
    let mut composer = Composer::default();
    let mut parser = Parser::new_from_str(text);
    while let Some(event) = parser.next_event() {
        let (event, span) = event.map_err(|error| unreadable(text, &error))?;
        composer.event(event, span)?;
    }
    Ok(composer.documents)
}

fn unreadable(text: &str, error: &ScanError) -> Unreadable {
    let line = error.marker().line();
    // The scanner reads ahead, and has a bound of its own.
    if error.info().contains("recursion limit") {
        return too_deep(line);
    }
    let cause = format!("is not YAML: {}", error.info());
    Unreadable { line, rule: "yaml", cause, fix: fix_for(text, line) }
}

/// Tabs are the mistake that parsers explain worst.
fn fix_for(text: &str, line: usize) -> &'static str {
    let written = text.lines().nth(line.saturating_sub(1)).unwrap_or_default();
    let indent = &written[..written.len() - written.trim_start().len()];
    if indent.contains('\t') { "indent by spaces, not by tabs" } else { "mend the syntax there" }
}

#[derive(Default)]
struct Composer {
    documents: Vec<(usize, Node)>,
    /// Documents begun, empty ones among them.
    number: usize,
    open: Vec<Open>,
    anchors: BTreeMap<usize, Anchored>,
    nodes: usize,
}

/// A collection whose end is still to come.
struct Open {
    line: usize,
    anchor: usize,
    content: Content,
    /// Values in it so far, and how deep they nest.
    nodes: usize,
    depth: usize,
}

enum Content {
    List(Vec<Node>),
    Map { entries: Vec<Entry>, keys: BTreeSet<String>, key: Option<(String, usize)> },
}

struct Anchored {
    node: Node,
    nodes: usize,
    depth: usize,
}

impl Composer {
    fn event(&mut self, event: Event<'_>, span: Span) -> Result<(), Unreadable> {
        let line = span.start.line();
        match event {
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => Ok(()),
            Event::DocumentStart(_) => {
                self.number += 1;
                self.anchors.clear();
                Ok(())
            }
            Event::Alias(anchor) => self.alias(anchor, line),
            Event::Scalar(text, style, anchor, tag) => {
                refuse_tag(tag.as_ref(), line)?;
                let node = Node { line, kind: scalar(text, style) };
                self.complete(node, anchor, 1, 0)
            }
            Event::SequenceStart(anchor, tag) => {
                self.begin(Content::List(Vec::new()), anchor, tag.as_ref(), line)
            }
            Event::MappingStart(anchor, tag) => {
                let (entries, keys) = (Vec::new(), BTreeSet::new());
                self.begin(Content::Map { entries, keys, key: None }, anchor, tag.as_ref(), line)
            }
            Event::SequenceEnd | Event::MappingEnd => self.end(),
        }
    }

    fn begin(
        &mut self,
        content: Content,
        anchor: usize,
        tag: Option<&Cow<'_, Tag>>,
        line: usize,
    ) -> Result<(), Unreadable> {
        refuse_tag(tag, line)?;
        if self.open.len() >= MOST_DEEP {
            return Err(too_deep(line));
        }
        self.open.push(Open { line, anchor, content, nodes: 1, depth: 0 });
        Ok(())
    }

    fn end(&mut self) -> Result<(), Unreadable> {
        let Some(open) = self.open.pop() else { return Ok(()) };
        let kind = match open.content {
            Content::List(items) => Kind::List(items),
            Content::Map { entries, .. } => Kind::Map(entries),
        };
        let node = Node { line: open.line, kind };
        self.complete(node, open.anchor, open.nodes, open.depth + 1)
    }

    fn alias(&mut self, anchor: usize, line: usize) -> Result<(), Unreadable> {
        let Some(anchored) = self.anchors.get(&anchor) else {
            return Err(Unreadable {
                line,
                rule: "alias",
                cause: "repeats something that contains it".to_owned(),
                fix: "write it out",
            });
        };
        if self.open.len() + anchored.depth > MOST_DEEP {
            return Err(too_deep(line));
        }
        // Counted before it is copied.
        self.nodes += anchored.nodes;
        if self.nodes > MOST_NODES {
            return Err(too_many(line));
        }
        let (nodes, depth) = (anchored.nodes, anchored.depth);
        let node = Node { line, kind: anchored.node.kind.clone() };
        self.put(node, nodes, depth)
    }

    /// A value whose end was read: anchored if it has an anchor, and put where it belongs.
    fn complete(
        &mut self,
        node: Node,
        anchor: usize,
        nodes: usize,
        depth: usize,
    ) -> Result<(), Unreadable> {
        self.nodes += 1;
        if self.nodes > MOST_NODES {
            return Err(too_many(node.line));
        }
        if anchor > 0 {
            // The copy counts too: anchors within anchors would keep a value once for each.
            self.nodes += nodes;
            self.anchors.insert(anchor, Anchored { node: node.clone(), nodes, depth });
        }
        self.put(node, nodes, depth)
    }

    fn put(&mut self, node: Node, nodes: usize, depth: usize) -> Result<(), Unreadable> {
        let Some(open) = self.open.last_mut() else {
            if node.kind != Kind::Null {
                self.documents.push((self.number, node));
            }
            return Ok(());
        };
        open.nodes += nodes;
        open.depth = open.depth.max(depth);
        match &mut open.content {
            Content::List(items) => items.push(node),
            Content::Map { entries, keys, key } => match key.take() {
                None => *key = Some(as_key(node, keys)?),
                Some((key, line)) => entries.push(Entry { key, line, node }),
            },
        }
        Ok(())
    }
}

fn as_key(node: Node, keys: &mut BTreeSet<String>) -> Result<(String, usize), Unreadable> {
    let line = node.line;
    let key = match node.kind {
        Kind::Plain(key) | Kind::Quoted(key) => key,
        Kind::Null => String::new(),
        Kind::List(_) | Kind::Map(_) => {
            let cause = "has a list or a map as a key".to_owned();
            return Err(Unreadable { line, rule: "yaml", cause, fix: "quote keys with braces" });
        }
    };
    if key == "<<" {
        return Err(Unreadable {
            line,
            rule: "yaml",
            cause: "merges by <<, which YAML 1.2 does not have".to_owned(),
            fix: "repeat whole values by aliases, or write them out",
        });
    }
    if !keys.insert(key.clone()) {
        return Err(duplicate(line, &key));
    }
    Ok((key, line))
}

fn refuse_tag(tag: Option<&Cow<'_, Tag>>, line: usize) -> Result<(), Unreadable> {
    match tag {
        None => Ok(()),
        Some(tag) => Err(Unreadable {
            line,
            rule: "yaml",
            cause: format!("has the tag {}{}", tag.handle, tag.suffix),
            fix: "leave tags out; the field says what its value is",
        }),
    }
}

fn scalar(text: Cow<'_, str>, style: ScalarStyle) -> Kind {
    match style {
        ScalarStyle::Plain => match &*text {
            "" | "~" | "null" | "Null" | "NULL" => Kind::Null,
            _ => Kind::Plain(text.into_owned()),
        },
        ScalarStyle::SingleQuoted
        | ScalarStyle::DoubleQuoted
        | ScalarStyle::Literal
        | ScalarStyle::Folded => Kind::Quoted(text.into_owned()),
    }
}
