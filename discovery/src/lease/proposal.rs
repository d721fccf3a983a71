//! The proposals of the table.

use proto::quorate::v1::{
    ExpireLease, LeaseMark, MarkLeases, ReapInstance, ReapService, RegistryCommand, RemoveService,
    registry_command::Command,
};

/// A command that the leader should submit, once it has confirmed that it leads.
#[derive(Clone, Debug, PartialEq)]
pub enum Proposal {
    Expire { lease_id: u64, granted_index: u64 },
    Mark(Vec<LeaseMark>),
    Reap { service: String, id: String, down_since_index: u64 },
    RemoveService { name: String },
    ReapService { name: String, retired_since_index: u64 },
}

impl Proposal {
    /// The command to submit. `term` is the term in which leadership was confirmed *after* the
    /// proposal was made.
    pub fn into_command(self, term: u64) -> RegistryCommand {
        let command = match self {
            Self::Expire { lease_id, granted_index } => {
                Command::ExpireLease(ExpireLease { lease_id, granted_index, term })
            }
            Self::Mark(marks) => Command::MarkLeases(MarkLeases { marks, term }),
            Self::Reap { service, id, down_since_index } => {
                Command::ReapInstance(ReapInstance { service, id, down_since_index })
            }
            Self::RemoveService { name } => {
                Command::RemoveService(RemoveService { name, force: false, if_empty: true })
            }
            Self::ReapService { name, retired_since_index } => {
                Command::ReapService(ReapService { name, retired_since_index })
            }
        };
        RegistryCommand { command: Some(command) }
    }
}
