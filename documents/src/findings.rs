//! Collects what is wrong with one document, each with its line.

use crate::{
    node::Node,
    path::Path,
    problem::{Origin, Place, Problem, Severity},
};

pub(crate) struct Findings<'a> {
    origin: &'a Origin,
    root: &'a Node,
    problems: Vec<Problem>,
}

impl<'a> Findings<'a> {
    /// Paths lead from `root`.
    pub(crate) fn new(origin: &'a Origin, root: &'a Node) -> Self {
        Self { origin, root, problems: Vec::new() }
    }

    pub(crate) fn error(
        &mut self,
        path: &Path,
        rule: &'static str,
        cause: impl Into<String>,
        fix: impl Into<String>,
    ) {
        self.add(Severity::Error, path, rule, cause.into(), fix.into());
    }

    pub(crate) fn add(
        &mut self,
        severity: Severity,
        path: &Path,
        rule: &'static str,
        cause: String,
        fix: String,
    ) {
        let place = self.place(path);
        self.problems.push(Problem { severity, place, rule, cause, fix });
    }

    pub(crate) fn place(&self, path: &Path) -> Place {
        Place {
            file: self.origin.file.clone(),
            document: self.origin.number,
            line: Some(path.line(self.root)),
            field: path.to_string(),
        }
    }

    pub(crate) fn has_errors(&self) -> bool {
        self.problems.iter().any(|it| it.severity == Severity::Error)
    }

    pub(crate) fn into_problems(self) -> Vec<Problem> {
        self.problems
    }
}
