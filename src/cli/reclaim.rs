//! `quorate reclaim`: says which copy of a data directory is kept.

use std::path::PathBuf;

use clap::Args;
use mesh::{DataDir, DataDirError, node_hex};
use serde_json::json;

use crate::{
    failure::{Failure, chain},
    output::{self, Format},
};

/// Keep this copy of a data directory, and no other.
#[derive(Args, Debug)]
#[command(long_about = "\
Say that this data directory is the one to go on with, after two servers were started from copies of
it, or after it was moved and the other voters of its groups cannot be reached. Its server must be
stopped. Remove every other copy first: two servers that both reclaim can each acknowledge writes that
the other one loses. Prefer the copy that served last; if that is not known, keep none and start on an
empty directory, as a new server.

  quorate reclaim --data-dir /var/lib/quorate")]
pub(crate) struct ReclaimArgs {
    /// The data directory that is kept.
    #[arg(long, value_name = "DIR")]
    data_dir: PathBuf,
}

impl ReclaimArgs {
    pub(crate) fn run(self, format: Format) -> Result<u8, Failure> {
        let node_id = DataDir::reclaim(&self.data_dir).map_err(|error| match &error {
            DataDirError::Io { .. } => Failure::other("cannot reclaim it", &error),
            DataDirError::Locked(_)
            | DataDirError::OtherServices { .. }
            | DataDirError::OtherMesh { .. }
            | DataDirError::NewerFormat { .. }
            | DataDirError::OlderFormat { .. }
            | DataDirError::Overtaken(_)
            | DataDirError::Damaged { .. }
            | DataDirError::NotADataDir(_) => {
                Failure::refused(chain(&error)).hint("stop its server, and check --data-dir")
            }
        })?;
        let (node, dir) = (node_hex(node_id), self.data_dir.display().to_string());
        match format {
            Format::Table => output::line(&format!("{dir} is kept as node {node}")),
            Format::Json => output::line(&json!({ "node_id": node, "data_dir": dir }).to_string()),
        }
        Ok(0)
    }
}
