//! The handle of a client: what an application can ask for. The work is done by the driver.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tern_protocol::{ConversationId, Target, TempId, UserId, WATCH_USERS_MAX, Welcome};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch};
use uuid::Uuid;

use crate::command::{Ack, Command, Submission, Waiter};
use crate::config::{Config, ConfigError};
use crate::draft::Draft;
use crate::driver;
use crate::error::{CloseCause, ConnectError, RequestError, SendError};
use crate::event::State;
use crate::events::{Events, Queue};
use crate::session::Change;

mod groups;
mod people;
mod questions;

pub use questions::Anchor;

/// Commands that wait for the driver, besides submissions.
const COMMANDS_MAX: usize = 256;

/// A chat client: cheap to clone, usable from any task. It keeps one session open, reconnects by
/// itself and re-sends what is not acked. It stops when [`Client::close`] is called or when every
/// clone and the [`Events`] are dropped.
#[derive(Clone)]
pub struct Client {
    commands: mpsc::Sender<Command>,
    permits: Arc<Semaphore>,
    state: watch::Receiver<State>,
    trouble: watch::Receiver<Option<String>>,
    session: watch::Receiver<Option<Arc<Welcome>>>,
    queue: Arc<Queue>,
    request_timeout: Duration,
}

impl Client {
    /// Starts a client that connects in the background, and returns at once.
    ///
    /// # Errors
    /// The configuration cannot be used. Everything that goes wrong later is told as a [`State`].
    pub fn start(config: Config) -> Result<(Self, Events), ConfigError> {
        config.check_limits()?;
        let runtime = tokio::runtime::Handle::try_current().map_err(|_| ConfigError::NoRuntime)?;
        let (commands, inbox) = mpsc::channel(config.pending_max + COMMANDS_MAX);
        let (state_tx, state) = watch::channel(State::Connecting);
        let (trouble_tx, trouble) = watch::channel(None);
        let (session_tx, session) = watch::channel(None);
        let permits = Arc::new(Semaphore::new(config.pending_max));
        let queue = Arc::new(Queue::new(config.events_max, config.confirm));
        let request_timeout = config.request_timeout;
        let ends = driver::Ends {
            commands: inbox,
            permits: permits.clone(),
            state: state_tx,
            trouble: trouble_tx,
            session: session_tx,
            queue: queue.clone(),
        };
        runtime.spawn(driver::Driver::new(config, ends)?.run());
        let events = Events::new(queue.clone(), commands.clone());
        Ok((Self { commands, permits, state, trouble, session, queue, request_timeout }, events))
    }

    /// Starts a client and waits for its first session.
    ///
    /// # Errors
    /// The configuration cannot be used; a refusal that trying again does not mend, at once; or
    /// no session within [`Config::connect_timeout`]. The client is stopped after an error.
    pub async fn connect(config: Config) -> Result<(Self, Events), ConnectError> {
        let timeout = config.connect_timeout;
        let (client, events) = Self::start(config)?;
        let online = async {
            let mut state = client.state.clone();
            loop {
                match &*state.borrow_and_update() {
                    State::Closed { cause } => return Err(ConnectError::Stopped(cause.clone())),
                    now if now.is_online() => return Ok(()),
                    _ => {}
                }
                if state.changed().await.is_err() {
                    return Err(ConnectError::Stopped(CloseCause::Requested));
                }
            }
        };
        match tokio::time::timeout(timeout, online).await {
            Ok(result) => result.map(|()| (client, events)),
            Err(_) => {
                let last = client.trouble.borrow().clone();
                let last = last.unwrap_or_else(|| "the first attempt has not ended".to_owned());
                Err(ConnectError::Timeout { timeout, last })
            }
        }
    }

    /// Sends a message and waits until it is durable, over reconnects if need be. Waits for room
    /// when `pending_max` changes are unresolved. It is a text, or a [`Draft`] with more beside it.
    ///
    /// Dropping the future does not take the message back.
    ///
    /// # Errors
    /// The message was refused or given up, or the client has stopped; never [`SendError::Full`].
    pub async fn send(&self, to: impl Into<Target>, message: impl Into<Draft>) -> Result<Ack, SendError> {
        let change = Change::Message { to: to.into(), draft: message.into() };
        self.change(change).await
    }

    /// Accepts a message for sending, without waiting. Messages to one conversation become
    /// durable in the order of these calls.
    ///
    /// With persistence, [`Pending::accepted`] tells when it is saved; it does not leave before.
    ///
    /// # Errors
    /// [`SendError::Full`], [`SendError::Closed`], or [`SendError::Refused`] for a message that is
    /// empty or too long.
    pub fn submit(&self, to: impl Into<Target>, message: impl Into<Draft>) -> Result<Pending, SendError> {
        self.submit_as(fresh_temp_id(), to, message)
    }

    /// Like [`Client::submit`] with a `temp_id` of the application's, for those that keep their
    /// own list of messages: the same id with the same content is the same message.
    ///
    /// # Errors
    /// As [`Client::submit`]; the returned future may also say [`SendError::InUse`].
    pub fn submit_as(
        &self,
        temp_id: TempId,
        to: impl Into<Target>,
        message: impl Into<Draft>,
    ) -> Result<Pending, SendError> {
        let change = Change::Message { to: to.into(), draft: message.into() };
        let permit = self.permits.clone().try_acquire_owned().map_err(|error| match error {
            tokio::sync::TryAcquireError::NoPermits => SendError::Full,
            tokio::sync::TryAcquireError::Closed => SendError::Closed,
        })?;
        let (command, pending) = prepare(temp_id, change, permit)?;
        self.commands.try_send(command).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => SendError::Full,
            mpsc::error::TrySendError::Closed(_) => SendError::Closed,
        })?;
        Ok(pending)
    }

    async fn change(&self, change: Change) -> Result<Ack, SendError> {
        let permit = self.permits.clone().acquire_owned().await.map_err(|_| SendError::Closed)?;
        let (command, pending) = prepare(fresh_temp_id(), change, permit)?;
        self.commands.send(command).await.map_err(|_| SendError::Closed)?;
        pending.await
    }

    /// Tells the user's other sessions, and every later one, that the user has read up to here.
    /// It is sent when there is a session; it never goes back. An own message says the same of itself.
    ///
    /// # Errors
    /// The client has stopped.
    pub async fn mark_read(&self, conversation: ConversationId, seq: u64) -> Result<(), RequestError> {
        self.command(Command::Read { conversation, seq }).await
    }

    /// Watches the presence of these users (at most 200), and of these only, over reconnects.
    /// Answered by [`Event::Presence`](crate::Event::Presence).
    ///
    /// # Errors
    /// More than 200 users ([`RequestError::Refused`]), or the client has stopped.
    pub async fn watch(&self, users: Vec<UserId>) -> Result<(), RequestError> {
        if users.len() > WATCH_USERS_MAX {
            let code = tern_protocol::Code::LIMIT_EXCEEDED;
            let detail = format!("watch_users: {} of at most {WATCH_USERS_MAX}", users.len());
            return Err(RequestError::Refused { code, detail });
        }
        self.command(Command::Watch(users)).await
    }

    /// Shows the user as typing for some 5 s. May be lost; nothing happens without a session.
    ///
    /// # Errors
    /// The client has stopped.
    pub async fn typing(&self, to: impl Into<Target>) -> Result<(), RequestError> {
        self.command(Command::Typing(to.into())).await
    }

    async fn command(&self, command: Command) -> Result<(), RequestError> {
        self.commands.send(command).await.map_err(|_| RequestError::Closed)
    }

    /// With [`Confirm::Manual`](crate::Confirm::Manual): the application has handled every entry
    /// of this conversation up to `seq`. Cumulative; lower ones than before change nothing.
    /// It is saved and acked to the server within some 50 ms.
    pub fn confirm(&self, conversation: ConversationId, seq: u64) {
        self.queue.confirm(conversation, seq);
    }

    /// The state of the connection now.
    pub fn state(&self) -> State {
        self.state.borrow().clone()
    }

    /// A channel that follows the state of the connection.
    pub fn states(&self) -> watch::Receiver<State> {
        self.state.clone()
    }

    /// The newest session's Welcome: user, device, store, limits. `None` before the first one.
    pub fn session(&self) -> Option<Arc<Welcome>> {
        self.session.borrow().clone()
    }

    /// Stops the client: acks and saves what was confirmed, tells the server, closes. Unresolved
    /// sends end with [`SendError::Closed`]. Takes at most some 2 s.
    pub async fn close(self) {
        let mut state = self.states();
        // A command that is not taken means that the driver is stopping already.
        let _ = self.commands.send(Command::Close).await;
        let closed = |now: &State| matches!(now, State::Closed { .. });
        // The channel ends only with the driver.
        let _ = state.wait_for(closed).await;
    }
}

fn prepare(
    temp_id: TempId,
    change: Change,
    permit: OwnedSemaphorePermit,
) -> Result<(Command, Pending), SendError> {
    change.check()?;
    let (accepted_tx, accepted) = oneshot::channel();
    let (resolved_tx, resolved) = oneshot::channel();
    let waiter = Waiter { accepted: Some(accepted_tx), resolved: Some(resolved_tx), _permit: Some(permit) };
    Ok((Command::Submit(Submission { temp_id, change, waiter }), Pending { temp_id, accepted, resolved }))
}

fn fresh_temp_id() -> TempId {
    TempId::from_uuid(Uuid::new_v4())
}

/// A message that was submitted: a future of its ack. Dropping it does not take the message back.
#[derive(Debug)]
pub struct Pending {
    /// Its id, which its entry in the log carries as well.
    pub temp_id: TempId,
    accepted: oneshot::Receiver<()>,
    resolved: oneshot::Receiver<Result<Ack, SendError>>,
}

impl Pending {
    /// Waits until the message is accepted: saved, where there is persistence. From then on a
    /// crash of the application does not lose it.
    ///
    /// # Errors
    /// It could not be saved, was refused before that, or the client has stopped.
    pub async fn accepted(&mut self) -> Result<(), SendError> {
        if (&mut self.accepted).await.is_ok() {
            return Ok(());
        }
        match (&mut self.resolved).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(error),
            Err(_) => Err(SendError::Closed),
        }
    }
}

impl Future for Pending {
    type Output = Result<Ack, SendError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.resolved).poll(context).map(|result| result.unwrap_or(Err(SendError::Closed)))
    }
}
