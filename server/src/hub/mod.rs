//! The sessions of this process and their outboxes.

pub mod outbox;
