//! What is made of the definition of the commands: completions for shells, manual pages, the version.

use std::path::PathBuf;

use clap::{Args, Command};
use clap_complete::Shell;
use serde_json::json;

use crate::{
    failure::Failure,
    output::{self, Format},
};

/// Print completions for a shell.
#[derive(Args, Debug)]
#[command(long_about = "\
Print completions for a shell.

  quorate completions bash > /etc/bash_completion.d/quorate
  quorate completions zsh > ~/.zfunc/_quorate
  quorate completions fish > ~/.config/fish/completions/quorate.fish")]
pub(super) struct CompletionsArgs {
    /// The shell.
    shell: Shell,
}

/// Write the manual pages.
#[derive(Args, Debug)]
#[command(long_about = "\
Write the manual pages: quorate(1) and one for each command.

  quorate man --to /usr/local/share/man/man1
  quorate man --to . && man ./quorate-serve.1")]
pub(super) struct ManArgs {
    /// The directory for the pages; it must exist.
    #[arg(long, value_name = "DIR", default_value = ".")]
    to: PathBuf,
}

/// Print the version, with the commit that it was built from.
#[derive(Args, Debug)]
#[command(long_about = "\
Print the version, with the commit that it was built from.

  quorate version
  quorate version --format json")]
pub(super) struct VersionArgs {}

impl CompletionsArgs {
    pub(super) fn run(self, mut command: Command) -> Result<u8, Failure> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut command, "quorate", &mut script);
        output::part(&String::from_utf8_lossy(&script));
        Ok(0)
    }
}

impl ManArgs {
    pub(super) fn run(self, command: Command) -> Result<u8, Failure> {
        clap_mangen::generate_to(command, &self.to).map_err(|error| {
            Failure::other(&format!("cannot write to {}", self.to.display()), &error)
                .hint("name a directory that exists and may be written, with --to")
        })?;
        output::progress(&format!("wrote quorate.1 and its fellows to {}", self.to.display()));
        Ok(0)
    }
}

impl VersionArgs {
    pub(super) fn run(self, format: Format) -> u8 {
        let version = env!("QUORATE_VERSION");
        output::line(&match format {
            Format::Table => format!("quorate {version}"),
            Format::Json => json!({ "version": version }).to_string(),
        });
        0
    }
}
