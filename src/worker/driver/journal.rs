//! The journal of the outbox, as the driver has it.

use std::future::pending;

use futures_util::future::BoxFuture;

use super::super::outbox::{JournalWriter, Outbox, Saved};

/// One write is made at a time.
#[derive(Default)]
pub(super) enum Journal {
    /// The worker has none, or it cannot be used any longer.
    #[default]
    None,
    Idle(JournalWriter),
    Saving(BoxFuture<'static, Option<Saved>>),
}

impl Journal {
    pub(super) fn new(writer: Option<JournalWriter>) -> Self {
        writer.map_or(Self::None, Self::Idle)
    }

    /// Writes what the outbox has for it, if nothing is being written.
    pub(super) fn save(&mut self, outbox: &mut Outbox) {
        if !matches!(self, Self::Idle(_)) {
            return;
        }
        if let Some(unsaved) = outbox.take_unsaved()
            && let Self::Idle(writer) = std::mem::take(self)
        {
            *self = Self::Saving(Box::pin(writer.save(unsaved)));
        }
    }

    /// Resolves when a write has ended. Never resolves if nothing is being written. Cancel safe.
    pub(super) async fn saved(&mut self) -> Option<Saved> {
        match self {
            Self::Saving(saving) => saving.await,
            _ => pending().await,
        }
    }
}
