//! The alarm for a disk that does not hold what was written to it.

use std::sync::{Arc, OnceLock};

use tokio::sync::Notify;

use crate::rows::StorageError;

/// Shared by everything that reads the stores of a server. A server whose disk is damaged ends,
/// because answers that leave out unreadable data would be wrong.
#[derive(Clone, Default)]
pub(crate) struct DamageAlarm(Arc<Inner>);

#[derive(Default)]
struct Inner {
    first: OnceLock<StorageError>,
    raised: Notify,
}

impl DamageAlarm {
    /// Returns the error, and raises the alarm if the error means damage.
    pub(crate) fn note(&self, error: StorageError) -> StorageError {
        if error.is_damage() && self.0.first.set(error.clone()).is_ok() {
            let source = std::error::Error::source(&error);
            tracing::error!(%error, ?source, "the disk is damaged");
            self.0.raised.notify_waiters();
        }
        error
    }

    /// The first damage that was found, if any.
    pub(crate) fn found(&self) -> Option<StorageError> {
        self.0.first.get().cloned()
    }

    /// Resolves when damage is found.
    pub(crate) async fn raised(&self) -> StorageError {
        loop {
            let raised = self.0.raised.notified();
            if let Some(found) = self.found() {
                return found;
            }
            raised.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_first_damage_is_told_to_whoever_waits_and_whoever_comes_later() {
        let alarm = DamageAlarm::default();
        let waiting = alarm.clone();
        let waiting = async move { waiting.raised().await.to_string() };
        let raising = async {
            alarm.note(StorageError::new("no damage"));
            alarm.note(StorageError::damaged("first"));
            alarm.note(StorageError::damaged("second"));
        };
        let (told, ()) = tokio::join!(waiting, raising);
        assert!(told.contains("first"), "{told}");
        assert!(alarm.raised().await.to_string().contains("first"));
    }
}
