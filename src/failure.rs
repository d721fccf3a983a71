//! How a command ends when it does not end well: an exit code that scripts can rely on, what is
//! wrong, and what to do about it.

use std::time::Duration;

use tonic::{Code as GrpcCode, Status};

/// The exit codes of the command line, apart from 0. They are part of the interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Code {
    Other = 1,
    /// Wrong usage or configuration.
    Usage = 2,
    NoneFound = 3,
    /// No quorum, or nobody answers.
    Unreachable = 4,
    /// What was asked about is there, and not well.
    Unhealthy = 5,
    Denied = 6,
    /// A safety rule forbids it.
    Refused = 7,
    Timeout = 8,
}

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub(crate) struct Failure {
    pub(crate) code: Code,
    pub(crate) message: String,
    /// What to do about it.
    pub(crate) hint: Option<String>,
    /// Whether it may pass by itself, though its code does not say so.
    pub(crate) passing: bool,
    /// Of a refused registration: how the process stands that holds the id.
    pub(crate) holder: Option<Holder>,
}

/// How the holder of an instance's id stands, as DISCO's leader sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Holder {
    /// How long ago it was heard; nothing if the leader never heard it.
    pub(crate) heard_ago: Option<Duration>,
    /// How long its lease lasts without another sign of it.
    pub(crate) left: Duration,
}

impl Holder {
    fn of(status: &Status) -> Option<Self> {
        let millis = |key: &str| {
            let value = status.metadata().get(key)?.to_str().ok()?;
            Some(Duration::from_millis(value.parse().ok()?))
        };
        Some(Self {
            heard_ago: millis("quorate-holder-heard-ms-ago"),
            left: millis("quorate-holder-left-ms")?,
        })
    }
}

impl Failure {
    pub(crate) fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), hint: None, passing: false, holder: None }
    }

    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self::new(Code::Usage, message)
    }

    pub(crate) fn refused(message: impl Into<String>) -> Self {
        Self::new(Code::Refused, message)
    }

    /// An error without a code of its own, told with its whole chain of causes.
    pub(crate) fn other(context: &str, error: &(dyn std::error::Error + 'static)) -> Self {
        Self::new(Code::Other, format!("{context}: {}", chain(error)))
    }

    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    pub(crate) fn passing(mut self) -> Self {
        self.passing = true;
        self
    }

    /// Whether the same command may succeed later without any change.
    pub(crate) fn retryable(&self) -> bool {
        self.passing || matches!(self.code, Code::Unreachable | Code::Timeout)
    }

    /// What a server answered, as the command line tells it.
    pub(crate) fn from_status(address: std::net::SocketAddr, status: &Status) -> Self {
        let code = match status.code() {
            GrpcCode::Unavailable => Code::Unreachable,
            GrpcCode::DeadlineExceeded => Code::Timeout,
            GrpcCode::PermissionDenied | GrpcCode::Unauthenticated => Code::Denied,
            GrpcCode::FailedPrecondition | GrpcCode::AlreadyExists | GrpcCode::Aborted => {
                Code::Refused
            }
            GrpcCode::NotFound => Code::NoneFound,
            GrpcCode::InvalidArgument | GrpcCode::OutOfRange => Code::Usage,
            GrpcCode::Ok
            | GrpcCode::Cancelled
            | GrpcCode::Unknown
            | GrpcCode::ResourceExhausted
            | GrpcCode::Unimplemented
            | GrpcCode::Internal
            | GrpcCode::DataLoss => Code::Other,
        };
        let said = if status.message().is_empty() {
            status.code().description()
        } else {
            status.message()
        };
        let mut failure = Self::new(code, format!("{address}: {said}"));
        failure.holder = Holder::of(status);
        if status.code() == GrpcCode::Unimplemented {
            failure.hint(
                "the server at this address does not run the `disco` service; name a DISCO \
                 server with --disco",
            )
        } else if status.code() == GrpcCode::Unavailable {
            failure.hint("the server answers, but cannot serve yet or now: see `quorate status`")
        } else {
            failure
        }
    }
}

/// An error and all its causes, since none of them repeats the next.
pub(crate) fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut parts = vec![error.to_string()];
    let mut source = error.source();
    while let Some(error) = source {
        let part = error.to_string();
        // Some libraries wrap an error in another of the same words.
        if parts.last() != Some(&part) {
            parts.push(part);
        }
        source = error.source();
    }
    parts.join(": ")
}
