//! Whether calls are logged, and where.

use proto::quorate::v1 as wire;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::bounds::{WrongOption, is_visible, text};

#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct AccessLog {
    pub to: LogTarget,
    pub format: LogFormat,
}

/// Where a line goes; written as `stdout` or a path.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum LogTarget {
    #[default]
    Stdout,
    File(String),
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LogFormat {
    /// Envoy's own line.
    #[default]
    Text,
    Json,
}

impl AccessLog {
    pub(super) fn from_proto(log: wire::AccessLogOptions) -> Self {
        Self {
            to: if log.file.is_empty() { LogTarget::Stdout } else { LogTarget::File(log.file) },
            format: if log.json { LogFormat::Json } else { LogFormat::Text },
        }
    }

    pub(super) fn to_proto(&self) -> wire::AccessLogOptions {
        let file = match &self.to {
            LogTarget::Stdout => String::new(),
            LogTarget::File(path) => path.clone(),
        };
        wire::AccessLogOptions { file, json: self.format == LogFormat::Json }
    }

    pub(super) fn check(&self) -> Result<(), WrongOption> {
        let LogTarget::File(path) = &self.to else { return Ok(()) };
        let allowed = "`stdout` or a path that begins with a `/`, of visible ASCII without quotes";
        // The path is part of an expression.
        let is_fine = |byte| is_visible(byte) && !matches!(byte, b'\'' | b'"' | b'\\');
        text("accessLog.to", path, is_fine, allowed)?;
        if path.starts_with('/') {
            return Ok(());
        }
        Err(WrongOption::new("accessLog.to", path.as_str(), format!("it is {allowed}")))
    }
}

impl Serialize for LogTarget {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(match self {
            Self::Stdout => "stdout",
            Self::File(path) => path,
        })
    }
}

impl<'de> Deserialize<'de> for LogTarget {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Ok(if text == "stdout" { Self::Stdout } else { Self::File(text) })
    }
}
