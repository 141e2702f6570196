//! Client for Tern: durable, ordered chat over QUIC or WebTransport with a WebSocket fallback.
//!
//! [`Client::connect`] opens a session and gives a cheap handle and the stream of [`Events`]. The
//! client reconnects by itself, re-sends what is not acked under the same `temp_id`, and hands
//! every entry of every conversation to the application once and in order.
//!
//! ```no_run
//! # async fn run() -> Result<(), Box<dyn std::error::Error>> {
//! use tern_client::{Client, Config, UserId};
//!
//! let config = Config::new("token").quic("chat.example:4433").websocket("wss://chat.example:4433");
//! let (client, mut events) = Client::connect(config).await?;
//! let ack = client.send(UserId::new("bob")?, "hi").await?;
//! println!("durable as {} in {}", ack.seq, ack.conversation);
//! while let Some(event) = events.next().await {
//!     println!("{event:?}");
//! }
//! # Ok(())
//! # }
//! ```

mod backoff;
mod client;
mod clock;
mod config;
mod driver;
mod error;
mod events;
mod link;
mod persistence;
mod session;
mod token;

pub use backoff::Backoff;
pub use client::{Ack, Anchor, Client, Pending};
pub use config::{Config, ConfigError, Confirm, TransportChoice, Trust, WebSocketFormat};
pub use error::{CloseCause, ConnectError, RequestError, SendError};
pub use events::{Event, Events, State};
pub use persistence::{
    FilePersistence, Persistence, PersistenceError, SavedChange, SavedSend, SavedState, SavedTransport,
    Transport,
};
pub use rustls_pki_types::CertificateDer;
pub use tern_protocol::{
    Code, ConversationId, ConversationKind, ConversationPage, ConversationSummary, DeviceId, Entry,
    EntryBody, EntryId, IdError, Limits, MemberInfo, Page, PresenceState, Role, StoreId, Target, TempId,
    UserId, UserPresence, Welcome,
};
pub use token::{TokenError, TokenReason, TokenSource};
