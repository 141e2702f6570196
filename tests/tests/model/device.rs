//! A device of a user: the real client, and a record of what it handed to its application.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tern_client::{
    Backoff, Client, ConversationId, DeviceId, Entry, Event, FilePersistence, SendError, UserId,
};
use tern_tests::{Server, Wire, sdk_config, within};
use tokio::task::JoinHandle;

/// What the application has of one conversation.
#[derive(Clone, Debug, Default)]
pub(crate) struct Had {
    /// Handed out up to here.
    pub(crate) position: u64,
    /// Everything that was handed out, over all starts.
    pub(crate) entries: BTreeMap<u64, Entry>,
    /// Entries handed out or left out since the last start: the next must follow.
    started: bool,
}

/// What the application was told.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    pub(crate) logs: BTreeMap<ConversationId, Had>,
    /// Times that the store was another one.
    pub(crate) stores: usize,
    /// The first thing that must not happen.
    pub(crate) fault: Option<String>,
}

impl Seen {
    fn fault(&mut self, what: String) {
        self.fault.get_or_insert(what);
    }

    fn take(&mut self, event: Event) {
        match event {
            Event::Entry { conversation, entry } => {
                let had = self.logs.entry(conversation).or_default();
                let next = had.position + 1;
                // After a start the application may get again what it had not confirmed.
                let follows = if had.started { entry.seq == next } else { entry.seq <= next };
                let first = had.position == 0;
                had.started = true;
                had.position = entry.seq;
                let before = had.entries.insert(entry.seq, entry.clone());
                if !follows && !first {
                    self.fault(format!("{conversation}: entry {} after {}", entry.seq, next - 1));
                }
                if before.is_some_and(|before| before != entry) {
                    self.fault(format!("{conversation}: entry {} has changed", entry.seq));
                }
            }
            Event::Gap { conversation, from, to } => {
                let had = self.logs.entry(conversation).or_default();
                let next = had.position + 1;
                let follows = if had.started { from == next } else { from <= next };
                let first = had.position == 0;
                had.started = true;
                had.position = to;
                if (!follows && !first) || to < from {
                    self.fault(format!("{conversation}: gap {from} to {to} after {}", next - 1));
                }
            }
            // Whether a refusal was due is checked where it was asked for.
            Event::SendFailed { error: SendError::Refused { .. }, .. } => {}
            Event::SendFailed { temp_id, to, error } => {
                self.fault(format!("{temp_id} to {to:?} failed: {error}"));
            }
            // What is kept of it is not what the server has.
            Event::Erased { conversation, seq } => {
                let had = self.logs.entry(conversation).or_default();
                had.entries.retain(|kept, _| *kept >= seq);
            }
            Event::StoreChanged { .. } => {
                self.logs.clear();
                self.stores += 1;
            }
            // All that is saved is good, and no store ends before its entries.
            Event::Persistence { .. } | Event::Resync { .. } => {
                self.fault(format!("{event:?}"));
            }
            Event::Presence(_)
            | Event::Typing { .. }
            | Event::Read { .. }
            | Event::Conversations(_)
            | Event::BlockChanged { .. }
            | Event::State(_) => {}
        }
    }
}

/// One device, started or not.
pub(crate) struct Device {
    pub(crate) user: UserId,
    pub(crate) name: String,
    wire: Wire,
    file: PathBuf,
    running: Option<(Client, JoinHandle<()>)>,
    /// Restores of the server before it was there.
    pub(crate) born: usize,
    seen: Arc<Mutex<Seen>>,
}

impl Device {
    pub(crate) fn new(user: UserId, name: String, wire: Wire, file: PathBuf) -> Self {
        Self { user, name, wire, file, running: None, born: 0, seen: Arc::default() }
    }

    /// Another device in this one's place, with nothing saved.
    pub(crate) fn replaced(&self, number: u64, born: usize) -> Self {
        let file = self.file.with_file_name(format!("{}-{number}", self.name));
        Self { born, ..Self::new(self.user.clone(), self.name.clone(), self.wire, file) }
    }

    /// Starts the client on what the device has saved.
    pub(crate) async fn start(&mut self, server: &Server) {
        self.seen.lock().logs.values_mut().for_each(|had| had.started = false);
        let mut claims = server.claims(self.user.as_str());
        // Its user may have been erased in this very second, and is back.
        claims["iat"] = (claims["iat"].as_i64().expect("seconds") + 1).into();
        let mut config =
            sdk_config(server, self.wire, server.sign(&claims)).persistence(FilePersistence::new(&self.file));
        // A server that restarts is found again soon.
        config.backoff = Backoff { first: Duration::from_millis(50), max: Duration::from_millis(400) };
        config.attempt_timeout = Duration::from_secs(2);
        config.device = Some(DeviceId::new(&self.name).expect("a device id"));
        let (client, mut events) = within("a session", Client::connect(config)).await.expect("a session");
        let seen = self.seen.clone();
        let listening = tokio::spawn(async move {
            while let Some(event) = events.next().await {
                seen.lock().take(event);
            }
        });
        self.running = Some((client, listening));
    }

    /// Ends the client in order; what it has accepted and not sent stays saved.
    pub(crate) async fn stop(&mut self) {
        let (client, listening) = self.running.take().expect("the device runs");
        within("the end of a client", client.close()).await;
        within("the last event", listening).await.expect("the listener is well");
    }

    /// Times that it was told of another store.
    pub(crate) fn stores(&self) -> usize {
        self.seen.lock().stores
    }

    pub(crate) fn client(&self) -> &Client {
        &self.running.as_ref().expect("the device runs").0
    }

    /// What the application has of a conversation.
    pub(crate) fn had(&self, conversation: ConversationId) -> Option<Had> {
        self.seen.lock().logs.get(&conversation).cloned()
    }

    /// # Panics
    /// If something happened that must not.
    pub(crate) fn check(&self) {
        if let Some(fault) = &self.seen.lock().fault {
            panic!("{}: {fault}", self.name);
        }
    }
}
