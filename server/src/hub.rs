//! Placeholder: the sessions of this process and their outboxes.
