//! What a command prints: tables for people, JSON for programs, and failures in the same format.
//! The only place that writes to standard output.

use std::io::{self, Write};

use clap::ValueEnum;
use comfy_table::{Table, presets};
use serde::Serialize;
use serde_json::{Value, json};

use crate::failure::Failure;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// Columns for people.
    #[default]
    Table,
    /// One JSON object; errors, on standard error, too.
    Json,
}

/// Rows under column names that scripts may rely on.
#[derive(Debug)]
pub(crate) struct Listing {
    /// Key of the rows in JSON.
    pub(crate) name: &'static str,
    pub(crate) columns: &'static [&'static str],
    pub(crate) rows: Vec<Vec<String>>,
    /// The same rows for programs.
    pub(crate) records: Value,
    /// Which mesh answered, at which revision: told above the rows.
    pub(crate) answer: Answer,
}

/// Which mesh answered, and how fresh the answer is.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Answer {
    pub(crate) mesh_id: String,
    pub(crate) revision: u64,
    /// DISCO's leader as the answering server knows it.
    pub(crate) leader: Option<String>,
    pub(crate) stale_for_ms: u64,
}

impl Listing {
    pub(crate) fn print(&self, format: Format) {
        match format {
            Format::Table => line(&self.table()),
            Format::Json => line(&self.json().to_string()),
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    fn table(&self) -> String {
        let mut table = Table::new();
        table.load_style(presets::NOTHING);
        table.set_header(self.columns.iter().copied());
        for row in &self.rows {
            table.add_row(row);
        }
        let mut text = self.answer.line();
        if !self.rows.is_empty() {
            for row in table.to_string().lines() {
                text.push('\n');
                text.push_str(row.trim());
            }
        }
        text
    }

    fn json(&self) -> Value {
        json!({
            "mesh_id": self.answer.mesh_id,
            "revision": self.answer.revision,
            "leader": self.answer.leader,
            "stale_for_ms": self.answer.stale_for_ms,
            self.name: self.records,
        })
    }
}

impl Answer {
    pub(crate) fn line(&self) -> String {
        let leader = self.leader.as_deref().unwrap_or("none");
        let mesh = if self.mesh_id.is_empty() { "none" } else { &self.mesh_id };
        let mut line = format!("mesh {mesh}  revision {}  leader {leader}", self.revision);
        if self.stale_for_ms > 0 {
            line.push_str(&format!("  (no quorum for {} ms: this may be old)", self.stale_for_ms));
        }
        line
    }
}

/// A line on standard output. A reader that has gone away is no failure.
pub(crate) fn line(text: &str) {
    let _ = writeln!(io::stdout().lock(), "{text}");
}

/// Text on standard output, without the end of a line.
pub(crate) fn part(text: &str) {
    let mut out = io::stdout().lock();
    let _ = write!(out, "{text}").and_then(|()| out.flush());
}

/// A line about progress, on standard error.
pub(crate) fn progress(text: &str) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}

/// Text about progress, on standard error, without the end of a line.
pub(crate) fn progress_part(text: &str) {
    let mut out = io::stderr().lock();
    let _ = write!(out, "{text}").and_then(|()| out.flush());
}

pub(crate) fn failure(failure: &Failure, format: Format) {
    let text = match format {
        Format::Table => {
            let hint = failure.hint.as_ref().map(|hint| format!("\nhint: {hint}"));
            format!("error: {}{}", failure.message, hint.unwrap_or_default())
        }
        Format::Json => json!({
            "code": failure.code as u8,
            "message": failure.message,
            "hint": failure.hint,
            "retryable": failure.retryable(),
        })
        .to_string(),
    };
    progress(&text);
}

/// A text in JSON: null if there is none.
pub(crate) fn known(text: &str) -> Option<&str> {
    (!text.is_empty()).then_some(text)
}

/// A node id as people read it.
pub(crate) fn node_id(id: u64) -> String {
    format!("{id:016x}")
}
