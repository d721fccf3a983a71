//! The levels of the registry's commands: which versions know them.
//!
//! A level is added with every kind of command, and with every field of a command, that an earlier
//! version would ignore. A command has the level of what it says, so that one which says nothing
//! new can be proposed while servers are upgraded.

use proto::quorate::v1::{
    ConfigureService, RegisterInstance, RegistryCommand, ServiceOptions, registry_command::Command,
};

/// The level of commands that this version knows.
pub(super) const KNOWN: u32 = 2;

/// From this level on a service may be configured for good, created without an instance, and have
/// more options than the two that the first version knew.
pub(crate) const CONFIGURED: u32 = 2;

/// From this level on there are resources that people write.
const RESOURCES: u32 = 2;

pub(super) fn level_of(command: &RegistryCommand) -> u32 {
    match &command.command {
        Some(Command::RegisterInstance(RegisterInstance { instance, .. })) => {
            match instance.as_ref().and_then(|it| it.options.as_ref()) {
                Some(_) => CONFIGURED,
                None => 1,
            }
        }
        Some(Command::ConfigureService(command)) => level_of_configuring(command),
        Some(Command::PutResources(_) | Command::DeleteResources(_)) => RESOURCES,
        Some(
            Command::DeregisterInstance(_)
            | Command::SetInstanceHealth(_)
            | Command::ExpireLease(_)
            | Command::ReapInstance(_)
            | Command::RecordServer(_)
            | Command::RecordNode(_)
            | Command::SetNodeState(_)
            | Command::DecideGroup(_)
            | Command::AssignReplica(_)
            | Command::ReportLeader(_)
            | Command::MarkLeases(_)
            | Command::DeregisterSilent(_)
            | Command::RemoveService(_)
            | Command::ReapService(_)
            | Command::RemoveNode(_)
            | Command::RemoveServer(_),
        )
        | None => 1,
    }
}

fn level_of_configuring(command: &ConfigureService) -> u32 {
    let ConfigureService { name: _, options, configured, create } = command;
    let of_the_first = options.as_ref().is_none_or(|it| {
        let ServiceOptions { stream_idle_ms, try_unhealthy, .. } = *it;
        *it == ServiceOptions { stream_idle_ms, try_unhealthy, ..ServiceOptions::default() }
    });
    if of_the_first && !configured && create.is_empty() { 1 } else { CONFIGURED }
}

#[cfg(test)]
mod tests {
    use proto::quorate::v1::Instance;

    use super::*;

    #[test]
    fn what_says_nothing_new_is_known_to_every_version() {
        let register = |options| {
            let instance = Some(Instance { options, ..Instance::default() });
            level(Command::RegisterInstance(RegisterInstance {
                instance,
                ..RegisterInstance::default()
            }))
        };
        let configure = |options, configured, create: &str| {
            let (name, create) = ("orders".to_owned(), create.to_owned());
            level(Command::ConfigureService(ConfigureService { name, options, configured, create }))
        };
        let old = ServiceOptions { try_unhealthy: true, ..ServiceOptions::default() };
        let new = ServiceOptions { request_timeout_ms: Some(1), ..ServiceOptions::default() };
        assert_eq!((register(None), register(Some(old.clone()))), (1, 2));
        assert_eq!((configure(None, false, ""), configure(Some(old.clone()), false, "")), (1, 1));
        assert_eq!(configure(Some(new), false, ""), 2);
        assert_eq!(configure(Some(old.clone()), true, ""), 2);
        assert_eq!(configure(Some(old), false, "http1"), 2);
    }

    fn level(command: Command) -> u32 {
        level_of(&RegistryCommand { command: Some(command) })
    }
}
