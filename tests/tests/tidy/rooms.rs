//! The floors of a crate: which of its modules names which, read from the code.
//!
//! A module and what is nested in it are one room to whatever stands beside it. Rooms of one folder
//! may name each other in one direction only; who is named stands below. A parent and its children
//! name each other freely, since they are one room from outside. A name that a module only passes on
//! (`pub use`) counts for the module that defines it. Tests are left out.

use std::collections::{BTreeMap, BTreeSet};

/// The path of a module inside its crate; the crate's root is empty.
type ModulePath = Vec<String>;

/// The modules of one crate.
#[derive(Debug, Default)]
pub(crate) struct House {
    modules: BTreeMap<ModulePath, Module>,
}

#[derive(Debug, Default)]
struct Module {
    /// Names that its `use` declarations bring into scope, with the paths that they stand for.
    imports: BTreeMap<String, Path>,
    /// Every path that is named in it.
    paths: Vec<Path>,
    /// Children that exist in tests only.
    test_only: BTreeSet<String>,
}

/// A path as it is written, but with its beginning resolved: inside this crate, or elsewhere.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Path {
    Own(Vec<String>),
    Foreign,
}

/// Which room of a folder names which, and by which name.
type Edges = BTreeMap<(String, String), String>;

impl House {
    /// Reads a crate: each file by its path below the crate's `src/`.
    pub(crate) fn read(files: &BTreeMap<String, String>) -> Self {
        let mut house = Self::default();
        for file in files.keys() {
            house.modules.entry(module_of(file)).or_default();
        }
        // A path may begin with the name of a child, so all of them must be known first.
        for (file, text) in files {
            Scan::new(module_of(file), &mut house).run(&tokens(text));
        }
        house
    }

    /// The circles of every folder, described.
    pub(crate) fn circles(&self) -> Vec<String> {
        let mut folders: BTreeMap<ModulePath, Edges> = BTreeMap::new();
        for (from, module) in self.modules.iter().filter(|(path, _)| !self.is_test(path)) {
            for path in &module.paths {
                let Some(to) = self.target(path, 0) else { continue };
                let common = from.iter().zip(&to).take_while(|(left, right)| left == right).count();
                // One holds the other.
                if common == from.len() || common == to.len() || self.is_test(&to) {
                    continue;
                }
                let Path::Own(segments) = path else { continue };
                let label = format!("{} names {}", from.join("::"), segments.join("::"));
                let edge = (from[common].clone(), to[common].clone());
                folders.entry(from[..common].to_vec()).or_default().entry(edge).or_insert(label);
            }
        }
        folders.iter().filter_map(|(folder, edges)| circle(folder, edges)).collect()
    }

    fn is_test(&self, path: &[String]) -> bool {
        (0..path.len()).any(|depth| {
            self.modules
                .get(&path[..depth])
                .is_some_and(|parent| parent.test_only.contains(&path[depth]))
        })
    }

    /// The module that defines what the path names, if it is one of this crate's.
    fn target(&self, path: &Path, hops: usize) -> Option<ModulePath> {
        const MOST_HOPS: usize = 16;
        let Path::Own(segments) = path else { return None };
        let known =
            (0..=segments.len()).rev().find(|end| self.modules.contains_key(&segments[..*end]))?;
        let module = &self.modules[&segments[..known]];
        let passed_on = segments.get(known).and_then(|name| module.imports.get(name));
        match passed_on {
            Some(Path::Own(origin)) if hops < MOST_HOPS => {
                let rest = segments[known + 1..].iter().cloned();
                let origin = Path::Own(origin.iter().cloned().chain(rest).collect());
                self.target(&origin, hops + 1)
            }
            Some(_) => None,
            None => Some(segments[..known].to_vec()),
        }
    }
}

/// The first circle among the rooms of a folder.
fn circle(folder: &[String], edges: &Edges) -> Option<String> {
    let mut open: BTreeSet<&str> =
        edges.keys().flat_map(|(from, to)| [from.as_str(), to.as_str()]).collect();
    // Whoever names nobody that is left is in no circle.
    while let Some(ground) = open
        .iter()
        .copied()
        .find(|room| !edges.keys().any(|(from, to)| from == room && open.contains(to.as_str())))
    {
        open.remove(ground);
    }
    let mut at = *open.first()?;
    let mut walked = vec![at];
    loop {
        let (_, next) = edges.keys().find(|(from, to)| from == at && open.contains(to.as_str()))?;
        if let Some(begin) = walked.iter().position(|room| room == next) {
            walked.push(next);
            let steps = walked[begin..].windows(2).map(|pair| {
                let edge = (pair[0].to_owned(), pair[1].to_owned());
                format!("    {} -> {}: {}", pair[0], pair[1], edges[&edge])
            });
            let place = if folder.is_empty() { "the crate".to_owned() } else { folder.join("::") };
            return Some(format!("  in {place}:\n{}", steps.collect::<Vec<_>>().join("\n")));
        }
        walked.push(next);
        at = next;
    }
}

/// `a/b.rs` is the module `a::b`; `lib.rs` and `main.rs` are the root.
fn module_of(file: &str) -> ModulePath {
    match file.strip_suffix(".rs").unwrap_or(file) {
        "lib" | "main" => Vec::new(),
        path => path.split('/').map(str::to_owned).collect(),
    }
}

/// One pass over the tokens of a file.
struct Scan<'a> {
    house: &'a mut House,
    /// The module of the file and, inside of it, the inline modules that are open.
    module: ModulePath,
    /// How deep in braces each open inline module begins.
    inline: Vec<usize>,
    depth: usize,
}

impl<'a> Scan<'a> {
    fn new(module: ModulePath, house: &'a mut House) -> Self {
        Self { house, module, inline: Vec::new(), depth: 0 }
    }

    fn run(mut self, tokens: &[String]) {
        let mut at = 0;
        while at < tokens.len() {
            at = self.step(tokens, at);
        }
    }

    /// Takes what stands at a place; gives the place after it.
    fn step(&mut self, tokens: &[String], at: usize) -> usize {
        let token = |offset: usize| tokens.get(at + offset).map_or("", String::as_str);
        match token(0) {
            "#" if is_cfg_test(&tokens[at..]) => self.skip_test_item(tokens, at + 7),
            "{" => {
                self.depth += 1;
                at + 1
            }
            "}" => {
                self.depth = self.depth.saturating_sub(1);
                if self.inline.last() == Some(&self.depth) {
                    self.inline.pop();
                    self.module.pop();
                }
                at + 1
            }
            "mod" if token(2) == "{" => {
                self.inline.push(self.depth);
                self.module.push(token(1).to_owned());
                self.house.modules.entry(self.module.clone()).or_default();
                at + 2
            }
            "use" => self.take_use(tokens, at + 1, &mut Vec::new()),
            "crate" | "super" | "self" if token(1) == "::" => self.take_path(tokens, at),
            _ => at + 1,
        }
    }

    /// What only tests see: a module, a `use`, or an item, which is left to the walk.
    fn skip_test_item(&mut self, tokens: &[String], mut at: usize) -> usize {
        while tokens.get(at).is_some_and(|it| it == "#") {
            at = end_of(tokens, at + 1);
        }
        if tokens.get(at).is_some_and(|it| it == "pub") {
            at += 1;
            if tokens.get(at).is_some_and(|it| it == "(") {
                at = end_of(tokens, at);
            }
        }
        match tokens.get(at).map(String::as_str) {
            Some("mod") => {
                let name = tokens[at + 1].clone();
                self.here().test_only.insert(name);
                if tokens[at + 2] == "{" { end_of(tokens, at + 2) } else { at + 2 }
            }
            Some("use") => {
                tokens[at..].iter().position(|it| it == ";").map_or(tokens.len(), |end| at + end)
            }
            _ => at,
        }
    }

    /// One tree of a `use` declaration, and the rest of its group if it stands in one.
    fn take_use(&mut self, tokens: &[String], mut at: usize, prefix: &mut Vec<String>) -> usize {
        let outer = prefix.len();
        loop {
            match tokens.get(at).map(String::as_str) {
                Some("::") => at += 1,
                Some("{") => {
                    loop {
                        at = self.take_use(tokens, at + 1, prefix);
                        if tokens.get(at).is_none_or(|it| it != ",") {
                            break;
                        }
                    }
                    prefix.truncate(outer);
                    return at + 1;
                }
                Some("as") => {
                    let name = tokens[at + 1].clone();
                    self.import(name, prefix);
                    prefix.truncate(outer);
                    return at + 2;
                }
                Some("," | ";" | "}") | None => {
                    // `self` in a group names the prefix itself.
                    if prefix.len() > outer {
                        if prefix.len() > 1 && prefix.last().is_some_and(|it| it == "self") {
                            prefix.pop();
                        }
                        let name = prefix.last().cloned().unwrap_or_default();
                        self.import(name, prefix);
                    }
                    prefix.truncate(outer);
                    return at;
                }
                Some(segment) => {
                    prefix.push(segment.to_owned());
                    at += 1;
                }
            }
        }
    }

    fn take_path(&mut self, tokens: &[String], mut at: usize) -> usize {
        let mut segments = vec![tokens[at].clone()];
        while tokens.get(at + 1).is_some_and(|it| it == "::")
            && tokens.get(at + 2).is_some_and(|it| is_name(it))
        {
            segments.push(tokens[at + 2].clone());
            at += 2;
        }
        let path = self.absolute(&segments);
        self.here().paths.push(path);
        at + 1
    }

    fn import(&mut self, name: String, segments: &[String]) {
        let path = self.absolute(segments);
        let here = self.here();
        here.paths.push(path.clone());
        if name != "*" && name != "_" {
            here.imports.insert(name, path);
        }
    }

    fn absolute(&self, segments: &[String]) -> Path {
        let mut base = self.module.clone();
        let mut rest = segments;
        while let Some((first, after)) = rest.split_first() {
            match first.as_str() {
                "crate" => base.clear(),
                "super" => _ = base.pop(),
                "self" => {}
                name => {
                    let mut child = self.module.clone();
                    child.push(name.to_owned());
                    let is_own =
                        rest.len() < segments.len() || self.house.modules.contains_key(&child);
                    if !is_own {
                        return Path::Foreign;
                    }
                    break;
                }
            }
            rest = after;
        }
        base.extend(rest.iter().filter(|it| *it != "*").cloned());
        Path::Own(base)
    }

    fn here(&mut self) -> &mut Module {
        self.house.modules.entry(self.module.clone()).or_default()
    }
}

fn is_cfg_test(tokens: &[String]) -> bool {
    let expected = ["#", "[", "cfg", "(", "test", ")", "]"];
    tokens.len() > expected.len() && tokens.iter().zip(expected).all(|(left, right)| left == right)
}

fn is_name(token: &str) -> bool {
    token.starts_with(|it: char| it.is_alphabetic() || it == '_')
}

/// The place after the bracket that closes the one at `at`.
fn end_of(tokens: &[String], at: usize) -> usize {
    let mut depth = 0_usize;
    for (offset, token) in tokens[at..].iter().enumerate() {
        match token.as_str() {
            "{" | "(" | "[" => depth += 1,
            "}" | ")" | "]" => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return at + offset + 1;
        }
    }
    tokens.len()
}

/// Names, `::` and single signs. Comments, texts, numbers and lifetimes are left out.
fn tokens(text: &str) -> Vec<String> {
    let mut tokens = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let taken = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("::") {
            tokens.push("::".to_owned());
            2
        } else if let Some(length) = literal(rest) {
            length
        } else if first.is_alphanumeric() || first == '_' {
            let end = rest.find(|it: char| !it.is_alphanumeric() && it != '_');
            let end = end.unwrap_or(rest.len());
            if is_name(rest) {
                tokens.push(rest[..end].to_owned());
            }
            end
        } else {
            if !first.is_whitespace() {
                tokens.push(first.to_string());
            }
            first.len_utf8()
        };
        rest = &rest[taken..];
    }
    tokens
}

/// The length of the text, the character or the lifetime that stands at the beginning.
fn literal(rest: &str) -> Option<usize> {
    if let Some(raw) = rest.strip_prefix('b').unwrap_or(rest).strip_prefix('r') {
        let signs = raw.len() - raw.trim_start_matches('#').len();
        if let Some(inside) = raw[signs..].strip_prefix('"') {
            let close = format!("\"{}", "#".repeat(signs));
            let end = inside.find(&close).map_or(inside.len(), |end| end + close.len());
            return Some(rest.len() - inside.len() + end);
        }
    }
    let quoted = rest.strip_prefix('b').unwrap_or(rest);
    if let Some(inside) = quoted.strip_prefix('"') {
        return Some(rest.len() - inside.len() + closing(inside, '"'));
    }
    let inside = quoted.strip_prefix('\'')?;
    let mut characters = inside.chars();
    match (characters.next(), characters.next()) {
        (Some('\\'), _) | (Some(_), Some('\'')) => {
            Some(rest.len() - inside.len() + closing(inside, '\''))
        }
        // A lifetime: the mark alone, its name follows.
        _ => rest.starts_with('\'').then_some(1),
    }
}

/// The length up to and with the mark that closes a text, past what is escaped.
fn closing(inside: &str, mark: char) -> usize {
    let mut escaped = false;
    for (at, character) in inside.char_indices() {
        if !escaped && character == mark {
            return at + mark.len_utf8();
        }
        escaped = !escaped && character == '\\';
    }
    inside.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn circles(files: &[(&str, &str)]) -> Vec<String> {
        let files = files.iter().map(|(file, text)| ((*file).to_owned(), (*text).to_owned()));
        House::read(&files.collect()).circles()
    }

    #[test]
    fn modules_on_floors_are_no_circle() {
        let found = circles(&[
            ("lib.rs", "mod above; mod below; pub use above::Upper;"),
            ("above.rs", "use crate::below::{self, Lower};"),
            ("below.rs", "pub struct Lower;"),
        ]);
        assert_eq!(found, [] as [&str; 0]);
    }

    #[test]
    fn a_circle_is_named_with_what_ties_it() {
        let found = circles(&[
            ("lib.rs", "mod left; mod middle; mod right;"),
            ("left.rs", "use std::fmt; use crate::{middle::{Middle, Other as Another}};"),
            ("middle.rs", "fn carry() { crate::right::turn() }"),
            ("right.rs", "use super::left;"),
        ]);
        let expected = "  in the crate:\n    left -> middle: left names middle::Middle\n    \
                        middle -> right: middle names right::turn\n    \
                        right -> left: right names left";
        assert_eq!(found, [expected]);
    }

    #[test]
    fn a_circle_inside_a_room_is_one_and_a_parent_with_its_child_is_none() {
        let found = circles(&[
            ("lib.rs", "mod room;"),
            ("room.rs", "mod left; mod right; use self::left::Left; pub struct Room;"),
            ("room/left.rs", "use super::{Room, right::Right};"),
            ("room/right.rs", "use crate::room::left::inner::Deep;"),
            ("room/left/inner.rs", ""),
        ]);
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].contains("in room:"), "{found:?}");
    }

    #[test]
    fn a_name_that_is_passed_on_counts_for_the_module_that_defines_it() {
        let found = circles(&[
            ("lib.rs", "mod left; mod right; pub use self::{left::Left, right::Right};"),
            ("left.rs", "use crate::Right;"),
            ("right.rs", "use crate::Left;"),
        ]);
        assert_eq!(found.len(), 1, "{found:?}");
    }

    #[test]
    fn tests_comments_and_texts_tie_nothing() {
        let found = circles(&[
            ("lib.rs", "mod left; mod right; #[cfg(test)] mod testing;"),
            ("left.rs", "use crate::right::Right;"),
            (
                "right.rs",
                "// See crate::left::Left.\nconst TEXT: &str = \"\\\"crate::left::Left\";\n\
                 const QUOTE: char = '\"'; fn text<'a>() { r#\"\"crate::left\"# }\n\
                 #[cfg(test)] use crate::left::Other;\n\
                 #[cfg(test)] mod tests { use crate::left::Left; }",
            ),
            ("testing.rs", "use crate::left::Left;"),
        ]);
        assert_eq!(found, [] as [&str; 0]);
    }
}
