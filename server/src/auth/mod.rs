//! Tokens: who a user is.
