//! The Tern server as a library: the binary `tern`, the load generator and the tests run it.
//!
//! Modules depend downwards only; see ARCHITECTURE.md, section 4.

pub mod auth;
pub mod budget;
pub mod cli;
pub mod clock;
pub mod cluster;
pub mod config;
pub mod conversation;
pub mod delivery;
pub mod descriptors;
pub mod drain;
pub mod events;
pub mod http;
pub mod node;
pub mod ops;
pub mod presence;
pub mod push;
pub mod registry;
pub mod roster;
pub mod router;
pub mod session;
pub mod store;
pub mod transport;
pub mod upkeep;
