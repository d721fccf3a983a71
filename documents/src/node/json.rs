//! JSON into nodes: one value after the other, whatever whitespace stands between them.
//!
//! YAML is nearly a superset of JSON, but not where JSON is indented by tabs, and has no pairs of
//! surrogates. Hence a parser for files that say that they are JSON.

use std::{collections::BTreeSet, iter::Peekable, str::Chars};

use super::{Entry, Kind, MOST_DEEP, MOST_NODES, Node, Unreadable, duplicate, too_deep, too_many};

/// The values of a text, with the position of each.
pub(crate) fn parse(text: &str) -> Result<Vec<(usize, Node)>, Unreadable> {
    let mut reader = Reader { rest: text.chars().peekable(), line: 1, depth: 0, nodes: 0 };
    let mut documents = Vec::new();
    while reader.peek().is_some() {
        let node = reader.value()?;
        documents.push((documents.len() + 1, node));
    }
    Ok(documents)
}

struct Reader<'a> {
    rest: Peekable<Chars<'a>>,
    line: usize,
    depth: usize,
    nodes: usize,
}

impl Reader<'_> {
    /// The next character that is not whitespace.
    fn peek(&mut self) -> Option<char> {
        while let Some(space) = self.rest.next_if(|it| matches!(it, ' ' | '\t' | '\r' | '\n')) {
            self.line += usize::from(space == '\n');
        }
        self.rest.peek().copied()
    }

    fn value(&mut self) -> Result<Node, Unreadable> {
        let next = self.peek();
        let line = self.line;
        self.nodes += 1;
        if self.nodes > MOST_NODES {
            return Err(too_many(line));
        }
        let kind = match next {
            Some('{') => self.nested(Self::map)?,
            Some('[') => self.nested(Self::list)?,
            Some('"') => Kind::Quoted(self.string()?),
            Some(it) if it.is_ascii_alphanumeric() || it == '-' => self.word()?,
            Some(it) => return Err(self.wrong(format!("has {it:?} where a value belongs"))),
            None => return Err(self.wrong("ends where a value belongs")),
        };
        Ok(Node { line, kind })
    }

    fn nested(
        &mut self,
        read: fn(&mut Self) -> Result<Kind, Unreadable>,
    ) -> Result<Kind, Unreadable> {
        self.depth += 1;
        if self.depth > MOST_DEEP {
            return Err(too_deep(self.line));
        }
        self.rest.next();
        let kind = read(self);
        self.depth -= 1;
        kind
    }

    fn map(&mut self) -> Result<Kind, Unreadable> {
        let mut entries = Vec::new();
        let mut keys = BTreeSet::new();
        if self.peek() == Some('}') {
            self.rest.next();
            return Ok(Kind::Map(entries));
        }
        loop {
            if self.peek() != Some('"') {
                return Err(self.wrong("has no quoted key where one belongs"));
            }
            let line = self.line;
            let key = self.string()?;
            if !keys.insert(key.clone()) {
                return Err(duplicate(line, &key));
            }
            if self.peek() != Some(':') {
                return Err(self.wrong("has no colon after a key"));
            }
            self.rest.next();
            entries.push(Entry { key, line, node: self.value()? });
            if self.ends('}')? {
                return Ok(Kind::Map(entries));
            }
        }
    }

    fn list(&mut self) -> Result<Kind, Unreadable> {
        let mut items = Vec::new();
        if self.peek() == Some(']') {
            self.rest.next();
            return Ok(Kind::List(items));
        }
        loop {
            items.push(self.value()?);
            if self.ends(']')? {
                return Ok(Kind::List(items));
            }
        }
    }

    /// Whether the collection ends here; otherwise a comma says that it goes on.
    fn ends(&mut self, end: char) -> Result<bool, Unreadable> {
        let next = self.peek();
        if next != Some(end) && next != Some(',') {
            return Err(self.wrong(format!("has no comma and no {end:?} after a value")));
        }
        self.rest.next();
        Ok(next == Some(end))
    }

    fn word(&mut self) -> Result<Kind, Unreadable> {
        let mut word = String::new();
        let belongs = |it: &char| it.is_ascii_alphanumeric() || matches!(it, '-' | '+' | '.');
        while let Some(letter) = self.rest.next_if(belongs) {
            word.push(letter);
        }
        match word.as_str() {
            "null" => Ok(Kind::Null),
            "true" | "false" => Ok(Kind::Plain(word)),
            _ if word.parse::<f64>().is_ok_and(f64::is_finite) => Ok(Kind::Plain(word)),
            _ => Err(self.wrong(format!("has {word}, which is no value"))),
        }
    }

    fn string(&mut self) -> Result<String, Unreadable> {
        let mut text = String::new();
        self.rest.next();
        loop {
            match self.rest.next() {
                Some('"') => return Ok(text),
                Some('\\') => text.push(self.escaped()?),
                Some(it) if it >= ' ' => text.push(it),
                Some(_) => {
                    return Err(self.wrong("has a line break or control character in quotes"));
                }
                None => return Err(self.wrong("ends within quotes")),
            }
        }
    }

    fn escaped(&mut self) -> Result<char, Unreadable> {
        match self.rest.next() {
            Some(it @ ('"' | '\\' | '/')) => Ok(it),
            Some('b') => Ok('\u{8}'),
            Some('f') => Ok('\u{c}'),
            Some('n') => Ok('\n'),
            Some('r') => Ok('\r'),
            Some('t') => Ok('\t'),
            Some('u') => self.unicode(),
            Some(_) | None => Err(self.wrong("has an escape that JSON does not know")),
        }
    }

    fn unicode(&mut self) -> Result<char, Unreadable> {
        let first = self.four_digits()?;
        let code = if (0xd800..0xdc00).contains(&first) {
            let marked = self.rest.next() == Some('\\') && self.rest.next() == Some('u');
            let second = if marked { self.four_digits()? } else { 0 };
            match second.checked_sub(0xdc00) {
                Some(low) if low < 0x400 => 0x1_0000 + ((first - 0xd800) << 10) + low,
                Some(_) | None => first,
            }
        } else {
            first
        };
        char::from_u32(code).ok_or_else(|| self.wrong("has half of a pair of surrogates"))
    }

    fn four_digits(&mut self) -> Result<u32, Unreadable> {
        let mut number = 0;
        for _ in 0..4 {
            let digit = self.rest.next().and_then(|it| it.to_digit(16));
            number =
                number * 16 + digit.ok_or_else(|| self.wrong("has \\u without four digits"))?;
        }
        Ok(number)
    }

    fn wrong(&self, what: impl Into<String>) -> Unreadable {
        let cause = format!("is not JSON: it {}", what.into());
        Unreadable { line: self.line, rule: "json", cause, fix: "mend the syntax there" }
    }
}
