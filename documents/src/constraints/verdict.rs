//! What a judgement ends in.

/// Why a value does not hold.
#[derive(Debug)]
pub(super) struct Verdict {
    pub(super) rule: &'static str,
    pub(super) cause: String,
    pub(super) fix: String,
}

pub(super) fn refuse(
    rule: &'static str,
    cause: impl Into<String>,
    fix: impl Into<String>,
) -> Result<(), Verdict> {
    Err(Verdict { rule, cause: cause.into(), fix: fix.into() })
}
