//! The driver: the one task that owns a client's session, links and timers. This file holds its
//! state and its loop; what each step does is in the files named after it.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tern_protocol::{DeviceId, StoreId, TempId, UserId, Welcome};
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use uuid::Uuid;

use crate::clock::Clock;
use crate::command::{Attempt, Command, Waiter};
use crate::config::{Config, ConfigError};
use crate::error::CloseCause;
use crate::event::{Event, State};
use crate::events::Queue;
use crate::link::{Addresses, Dialer, Inbound};
use crate::persistence::{SavedChange, SavedState, SavedTransport};
use crate::session::{LinkNumber, Session};
use crate::token::{TokenError, TokenReason};

mod active;
mod effects;
mod ending;
mod inbound;
mod open;
mod opening;
mod plan;
mod pulse;
mod saver;
mod shutdown;

use active::Active;
use open::Opened;
use plan::{Ending, Plan};
use saver::{Outcome, Saver};

/// Acks and cursors leave at most this often, in ms.
const ACK_MS: u64 = 50;

/// The driver's ends of the channels to the handles.
pub(crate) struct Ends {
    pub(crate) commands: mpsc::Receiver<Command>,
    pub(crate) permits: Arc<Semaphore>,
    pub(crate) state: watch::Sender<State>,
    /// What stood in the way of the last attempt.
    pub(crate) trouble: watch::Sender<Option<String>>,
    pub(crate) session: watch::Sender<Option<Arc<Welcome>>>,
    pub(crate) queue: Arc<Queue>,
}

type Boxed<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// What can happen.
enum Step {
    /// A handle asks for something; `None`: there are no handles any more.
    Command(Option<Command>),
    Inbound(LinkNumber, Inbound),
    Opened(Result<Opened, Ending>),
    Token(Result<String, TokenError>),
    Saved(Outcome),
    /// The application confirmed something or made room.
    Pulled,
    Timer,
}

/// When and where the next session is opened.
struct Schedule {
    at: u64,
    reason: TokenReason,
    target: Option<String>,
}

/// A running client.
pub(crate) struct Driver {
    config: Arc<Config>,
    ends: Ends,
    clock: Clock,
    session: Session,
    saver: Saver,
    waiters: BTreeMap<TempId, Waiter>,
    questions: BTreeMap<u64, oneshot::Sender<Attempt>>,
    // Links: the current one, one that is being replaced, and the way to the next.
    current: Option<Active>,
    old: Option<Active>,
    link_last: LinkNumber,
    /// Why the current link is the fallback.
    degraded: Option<String>,
    opening: Option<Boxed<Result<Opened, Ending>>>,
    schedule: Option<Schedule>,
    plan: Plan,
    // Where to.
    dialer: Arc<Dialer>,
    addresses: Addresses,
    device: DeviceId,
    won_last: Option<SavedTransport>,
    // Token renewal on the live session.
    renewing: Option<Boxed<Result<String, TokenError>>>,
    renew_at: Option<u64>,
    /// Acks are not sent before; `None`: at once.
    ack_at: Option<u64>,
    confirmed: bool,
    store: Option<(UserId, StoreId)>,
    stop: Option<CloseCause>,
}

impl Driver {
    pub(crate) fn new(config: Config, ends: Ends) -> Result<Self, ConfigError> {
        let addresses = Addresses::new(&config)?;
        let dialer = Arc::new(Dialer::new(&config)?);
        let device = config.device.clone().map_or_else(fresh_device, Ok)?;
        Ok(Self {
            saver: Saver::new(config.persistence.clone()),
            config: Arc::new(config),
            ends,
            clock: Clock::new(),
            session: Session::new(SavedState::default()),
            waiters: BTreeMap::new(),
            questions: BTreeMap::new(),
            current: None,
            old: None,
            link_last: 0,
            degraded: None,
            opening: None,
            schedule: None,
            plan: Plan::default(),
            dialer,
            addresses,
            device,
            won_last: None,
            renewing: None,
            renew_at: None,
            ack_at: None,
            confirmed: false,
            store: None,
            stop: None,
        })
    }

    /// Runs until the application closes the client or it stops for good.
    pub(crate) async fn run(mut self) {
        self.load().await;
        self.schedule_now(TokenReason::Connect);
        while self.stop.is_none() {
            let step = self.next().await;
            self.apply(step);
        }
        let (ends, cause) = self.shut_down().await;
        ends.close(cause);
    }

    async fn load(&mut self) {
        let Some(persistence) = self.config.persistence.clone() else { return };
        let saved = match persistence.load().await {
            Ok(saved) => saved,
            Err(error) => {
                self.stop = Some(CloseCause::Persistence(error.to_string()));
                return;
            }
        };
        if let Some(problem) = saved.damage.clone() {
            self.ends.queue.push(Event::Persistence { problem });
        }
        if self.config.device.is_none()
            && let Some(device) = saved.device.clone()
        {
            self.device = device;
        }
        if saved.device.as_ref() != Some(&self.device) {
            self.saver.push(SavedChange::Device { device: self.device.clone() });
        }
        self.store = saved.user.clone().zip(saved.store_id);
        self.won_last.clone_from(&saved.transport);
        for send in &saved.sends {
            // Saved messages count among the unresolved ones, as far as there are places.
            let _permit = self.ends.permits.clone().try_acquire_owned().ok();
            self.waiters.insert(send.temp_id, Waiter { accepted: None, resolved: None, _permit });
        }
        self.session = Session::new(saved);
    }

    /// Waits for the next thing to happen.
    async fn next(&mut self) -> Step {
        let now = self.clock.now_ms();
        let wake = self.wake_at().map(|at| Duration::from_millis(at.saturating_sub(now)));
        tokio::select! {
            command = self.ends.commands.recv() => Step::Command(command),
            (number, inbound) = recv(&mut self.current) => Step::Inbound(number, inbound),
            (number, inbound) = recv(&mut self.old) => Step::Inbound(number, inbound),
            result = ready(&mut self.opening) => Step::Opened(result),
            result = ready(&mut self.renewing) => Step::Token(result),
            outcome = self.saver.finished() => Step::Saved(outcome),
            () = self.ends.queue.pulled() => Step::Pulled,
            () = sleep(wake) => Step::Timer,
        }
    }

    /// Applies it, then does everything that is due.
    fn apply(&mut self, step: Step) {
        let now = self.clock.now_ms();
        self.session.set_room(self.ends.queue.room(), now);
        match step {
            Step::Command(None | Some(Command::Close)) => self.stop = Some(CloseCause::Requested),
            Step::Command(Some(command)) => self.on_command(command, now),
            Step::Inbound(link, inbound) => self.on_inbound(link, inbound, now),
            Step::Opened(Ok(opened)) => self.on_opened(opened, now),
            Step::Opened(Err(ending)) => self.on_open_failed(ending, now),
            Step::Token(result) => self.on_token(result, now),
            Step::Saved(outcome) => self.on_saved(outcome, now),
            Step::Pulled => self.confirmed = true,
            Step::Timer => {}
        }
        self.run_due(now);
        self.run_effects(now);
        self.saver.start(now);
    }

    fn run_due(&mut self, now: u64) {
        self.send_acks(now);
        if let Some(ending) = self.current.as_mut().and_then(|active| active.tick(now)) {
            self.on_end(ending, now);
        }
        if self.old.as_mut().and_then(|active| active.tick(now)).is_some() {
            self.drop_old();
        }
        if self.renew_at.is_some_and(|at| at <= now) {
            self.renew(TokenReason::Expiring);
        }
        if self.opening.is_none() && self.schedule.as_ref().is_some_and(|next| next.at <= now) {
            self.open();
        }
        self.session.tick(now);
    }

    fn wake_at(&self) -> Option<u64> {
        let ack = self.confirmed.then_some(self.ack_at).flatten();
        let open = self.schedule.as_ref().filter(|_| self.opening.is_none()).map(|next| next.at);
        let links = [&self.current, &self.old].into_iter().flatten().map(Active::wake_at).min();
        [self.session.wake_at(), self.saver.wake_at(), links, self.renew_at, ack, open]
            .into_iter()
            .flatten()
            .min()
    }

    /// Takes confirmations at most every [`ACK_MS`]: the first at once, those after it together.
    fn send_acks(&mut self, now: u64) {
        let busy = self.current.as_ref().is_some_and(Active::busy);
        if !self.confirmed || self.ack_at.is_some_and(|at| at > now) {
            return;
        }
        self.ack_at = Some(now + ACK_MS);
        if busy {
            return;
        }
        self.confirmed = false;
        self.take_confirmed();
    }

    fn take_confirmed(&mut self) {
        let confirmed = self.ends.queue.take_confirmed().into_iter();
        self.session
            .confirm(confirmed.map(|(conversation, seq)| tern_protocol::Position { conversation, seq }));
    }
}

async fn recv(active: &mut Option<Active>) -> (LinkNumber, Inbound) {
    match active {
        Some(active) => (active.number, active.recv().await),
        None => std::future::pending().await,
    }
}

/// The result of a future that may not be there; it is gone afterwards. Cancel-safe.
async fn ready<T>(future: &mut Option<Boxed<T>>) -> T {
    match future {
        Some(running) => {
            let result = running.await;
            *future = None;
            result
        }
        None => std::future::pending().await,
    }
}

async fn sleep(wait: Option<Duration>) {
    match wait {
        Some(wait) => tokio::time::sleep(wait).await,
        None => std::future::pending().await,
    }
}

fn fresh_device() -> Result<DeviceId, ConfigError> {
    let problem = "a fresh device id was refused";
    let text = Uuid::new_v4().to_string();
    DeviceId::new(&text).map_err(|_| ConfigError::Address { field: "device", value: text, problem })
}
