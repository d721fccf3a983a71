//! Waiting for a condition, with a deadline, instead of sleeping.

use std::{
    fmt::Debug,
    time::{Duration, Instant},
};

/// Between two looks at a condition.
const POLL: Duration = Duration::from_millis(20);

/// For what a healthy mesh does at once, with room for a busy machine of two cores.
pub const SOON: Duration = Duration::from_secs(30);

/// For elections and restarts after whole groups were down.
pub const LATE: Duration = Duration::from_secs(60);

/// Asks until the answer is yes. Panics at the deadline, naming `what` was awaited.
pub async fn eventually(what: &str, deadline: Duration, mut condition: impl AsyncFnMut() -> bool) {
    eventually_some(what, deadline, async || condition().await.then_some(())).await;
}

/// Asks until there is an answer, and returns it. Panics at the deadline.
pub async fn eventually_some<T>(
    what: &str,
    deadline: Duration,
    mut condition: impl AsyncFnMut() -> Option<T>,
) -> T {
    let start = Instant::now();
    loop {
        if let Some(value) = condition().await {
            return value;
        }
        assert!(start.elapsed() < deadline, "not within {deadline:?}: {what}");
        tokio::time::sleep(POLL).await;
    }
}

/// Asks until the answer equals `expected`. Panics at the deadline, showing the last answer.
pub async fn eventually_eq<T: Debug + PartialEq>(
    what: &str,
    deadline: Duration,
    expected: T,
    mut actual: impl AsyncFnMut() -> T,
) {
    let start = Instant::now();
    loop {
        let last = actual().await;
        if last == expected {
            return;
        }
        assert!(
            start.elapsed() < deadline,
            "not within {deadline:?}: {what}\nexpected {expected:?}\n    last {last:?}"
        );
        tokio::time::sleep(POLL).await;
    }
}
