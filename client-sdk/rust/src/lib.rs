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
mod command;
mod config;
mod draft;
mod driver;
mod error;
mod event;
mod events;
mod link;
mod persistence;
mod session;
mod token;

pub use backoff::Backoff;
pub use client::{Anchor, Client, Pending};
pub use command::Ack;
pub use config::{Config, ConfigError, Confirm, TransportChoice, Trust, WebSocketFormat};
pub use draft::Draft;
pub use error::{CloseCause, ConnectError, RequestError, SendError};
pub use event::{Event, State};
pub use events::Events;
pub use persistence::{
    FilePersistence, Persistence, PersistenceError, SavedChange, SavedSend, SavedState, SavedTransport,
    Transport,
};
pub use rustls_pki_types::CertificateDer;
pub use tern_protocol::{
    BlockedUser, Code, ConversationId, ConversationKind, ConversationPage, ConversationSummary, Data,
    DataError, DeviceId, Entry, EntryBody, EntryId, GroupLeft, IdError, KIND_NAMED, Limits, MemberInfo, Page,
    PresenceState, Role, StoreId, Target, TempId, UserId, UserPresence, Welcome,
};
pub use token::{TokenError, TokenReason, TokenSource};
