//! Harness of the behaviour suites: real servers, and clients that know only the wire protocol.
//!
//! Waits have a deadline only so that a hung test ends; timing never decides a test.

mod caught;
pub mod chromium;
mod client;
mod deployment;
mod hang;
pub mod http;
pub mod http3;
pub mod meter;
pub mod page;
mod quic;
mod sdk;
mod server;
pub mod tls;
pub mod token;
mod websocket;
mod wires;

pub use caught::Caught;
pub use client::{
    Ended, RawClient, Synced, Wire, fresh, message, newest, pair, positions, seqs, text, to, user,
};
pub use deployment::{Deployment, TokenKey};
pub use hang::{HANG, until, within};
pub use quic::{Arrival, Channel, QuicLink};
pub use sdk::sdk_config;
pub use server::{DEV_USERS, Exit, Options, Ready, Server, binary, installed, loose};
pub use websocket::{Subprotocol, WebSocketLink};
pub use wires::{bounded, on_chosen_wires};
