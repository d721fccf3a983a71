//! The way from the top of a document to a value, and back to the line where it stands.

use std::fmt;

use crate::node::{Kind, Node};

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Segment {
    Field(String),
    Index(usize),
    Key(String),
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Path(Vec<Segment>);

impl Path {
    pub(crate) fn push(&mut self, segment: Segment) {
        self.0.push(segment);
    }

    pub(crate) fn pop(&mut self) {
        self.0.pop();
    }

    /// The same way, one field further.
    pub(crate) fn field(&self, name: &str) -> Self {
        self.with(Segment::Field(name.to_owned()))
    }

    pub(crate) fn index(&self, index: usize) -> Self {
        self.with(Segment::Index(index))
    }

    fn with(&self, segment: Segment) -> Self {
        let mut longer = self.clone();
        longer.0.push(segment);
        longer
    }

    /// The line of the value, or of the closest thing around it that was written.
    pub(crate) fn line(&self, root: &Node) -> usize {
        let mut line = root.line;
        let mut node = root;
        for segment in &self.0 {
            let (found, at) = match (segment, &node.kind) {
                (Segment::Field(name), Kind::Map(entries)) => {
                    let json_name = camel_case(name);
                    let entry = entries.iter().find(|it| it.key == *name || it.key == json_name);
                    (entry.map(|it| &it.node), entry.map(|it| it.line))
                }
                (Segment::Key(key), Kind::Map(entries)) => {
                    let entry = entries.iter().find(|it| it.key == *key);
                    (entry.map(|it| &it.node), entry.map(|it| it.line))
                }
                (Segment::Index(index), Kind::List(items)) => {
                    let item = items.get(*index);
                    (item, item.map(|it| it.line))
                }
                (Segment::Field(_) | Segment::Key(_) | Segment::Index(_), _) => (None, None),
            };
            let (Some(found), Some(at)) = (found, at) else { break };
            (node, line) = (found, at);
        }
        line
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, segment) in self.0.iter().enumerate() {
            match segment {
                Segment::Field(name) if position == 0 => f.write_str(name)?,
                Segment::Field(name) => write!(f, ".{name}")?,
                Segment::Index(index) => write!(f, "[{index}]")?,
                Segment::Key(key) => write!(f, "[{key:?}]")?,
            }
        }
        Ok(())
    }
}

/// What protobuf's JSON calls a field.
fn camel_case(name: &str) -> String {
    let mut camel = String::with_capacity(name.len());
    let mut upper = false;
    for letter in name.chars() {
        match letter {
            '_' => upper = true,
            _ if upper => {
                camel.extend(letter.to_uppercase());
                upper = false;
            }
            _ => camel.push(letter),
        }
    }
    camel
}
