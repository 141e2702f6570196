//! The task that owns a share of the conversations: picks what has happened, applies it, and hands what is
//! ready to the store. Nothing in it waits for one conversation while another could go on.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, VecDeque};
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use tern_protocol::{ConversationId, EntryId};
use tokio::sync::mpsc;
use tokio::time::{Instant, Sleep};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use super::Context;
use super::answer::Refusal;
use super::owned::{Accepted, Caller, Owned, Work};
use super::reads::{self, Retelling, Retold};
use super::settle::{GivenUp, Input, Next, Settled, World};
use super::tell::{answer, tell};
use crate::clock::stamp_ms;
use crate::store::{Answers, AppendAnswers, AppendGroup};

/// Batches under way at once in one shard; more wait for their turn.
const UNDER_WAY_MAX: usize = 4096;
/// Submissions, and lists of answers, taken in one turn.
const TURN_MAX: usize = 256;
/// Places in the queue of idle conversations that are out of date, before they are cleared away.
const STALE_MAX: usize = 1024;

/// Something that has happened.
enum Event {
    /// Submissions have come in.
    Accepted(Vec<Accepted>),
    /// The store has answered appends.
    Answered(Vec<Answers>),
    /// Things that were asked of the store are done.
    Done(Vec<Done>),
    /// A pause is over, or something has been idle for long.
    Due,
    /// No more submissions are to come.
    Closing,
    /// No more submissions can come.
    Closed,
}

/// What was asked of the store besides appends.
enum Done {
    /// For a batch on its way.
    Read(ConversationId, Input),
    /// For one whose plan stands.
    Retold(ConversationId, Retold),
    /// Appends are in the store's hands.
    Sent,
}

/// Runs a shard until it is closed and everything that it accepted is answered. One that panics begins again
/// from the store: what was under way is answered as unknown, what is in the inbox is not touched.
pub(super) async fn run(context: Context, mut inbox: mpsc::Receiver<Accepted>, closing: CancellationToken) {
    loop {
        let shard = Shard::new(context.clone());
        let ended = AssertUnwindSafe(shard.run(&mut inbox, &closing)).catch_unwind().await;
        if ended.is_ok() {
            return;
        }
        tracing::error!("an owner of conversations panicked; it begins again from the store");
    }
}

/// Where events come from besides the store.
struct Sources<'a> {
    inbox: &'a mut mpsc::Receiver<Accepted>,
    closing: Pin<Box<WaitForCancellationFutureOwned>>,
    alarm: Pin<Box<Sleep>>,
    /// No more submissions are let in.
    is_closing: bool,
    /// None is left that was let in.
    is_closed: bool,
}

impl<'a> Sources<'a> {
    fn new(inbox: &'a mut mpsc::Receiver<Accepted>, closing: &CancellationToken) -> Self {
        Self {
            inbox,
            closing: Box::pin(closing.clone().cancelled_owned()),
            alarm: Box::pin(tokio::time::sleep(Duration::ZERO)),
            is_closing: false,
            is_closed: false,
        }
    }
}

struct Shard {
    context: Context,
    owned: HashMap<ConversationId, Owned, foldhash::fast::RandomState>,
    /// Conversations in which something waits and nothing is under way.
    ready: VecDeque<ConversationId>,
    under_way: usize,
    /// Ready for the store; handed over at the end of the turn.
    appends: Vec<(u64, Arc<AppendGroup>)>,
    /// Whose append was given which ticket.
    tickets: HashMap<u64, ConversationId, foldhash::fast::RandomState>,
    next_ticket: u64,
    answers: AppendAnswers,
    answered: mpsc::Receiver<Answers>,
    asked: FuturesUnordered<BoxFuture<'static, Done>>,
    pauses: BinaryHeap<Reverse<(Instant, ConversationId)>>,
    /// Since when, and by which place, conversations are idle; ascending. Out of date if the place is not that
    /// of the conversation.
    idle: VecDeque<(Instant, u64, ConversationId)>,
    next_place: u64,
}

impl Drop for Shard {
    fn drop(&mut self) {
        self.context.metrics.owners.conversations.decrement(self.owned.len() as f64);
    }
}

impl Shard {
    fn new(context: Context) -> Self {
        let (answers, answered) = AppendAnswers::new(UNDER_WAY_MAX);
        Self {
            context,
            owned: HashMap::default(),
            ready: VecDeque::new(),
            under_way: 0,
            appends: Vec::new(),
            tickets: HashMap::default(),
            next_ticket: 0,
            answers,
            answered,
            asked: FuturesUnordered::new(),
            pauses: BinaryHeap::new(),
            idle: VecDeque::new(),
            next_place: 0,
        }
    }

    async fn run(mut self, inbox: &mut mpsc::Receiver<Accepted>, closing: &CancellationToken) {
        let mut sources = Sources::new(inbox, closing);
        while !sources.is_closed || self.under_way > 0 || !self.ready.is_empty() {
            match self.pick(&mut sources).await {
                Event::Closing => {
                    sources.inbox.close();
                    sources.is_closing = true;
                }
                Event::Closed => sources.is_closed = true,
                event => self.apply(event),
            }
            self.end_turn();
        }
    }

    /// Waits until something has happened.
    async fn pick(&mut self, sources: &mut Sources<'_>) -> Event {
        if let Some(due) = self.due().filter(|due| *due != sources.alarm.deadline()) {
            sources.alarm.as_mut().reset(due);
        }
        let has_alarm = !self.pauses.is_empty() || !self.idle.is_empty();
        let (mut accepted, mut answered) = (Vec::new(), Vec::new());
        tokio::select! {
            taken = sources.inbox.recv_many(&mut accepted, TURN_MAX), if !sources.is_closed => match taken {
                0 => Event::Closed,
                _ => Event::Accepted(accepted),
            },
            // It ends with the shard: we hold a sender.
            _ = self.answered.recv_many(&mut answered, TURN_MAX) => Event::Answered(answered),
            Some(done) = self.asked.next(), if !self.asked.is_empty() => Event::Done(vec![done]),
            () = &mut sources.closing, if !sources.is_closing => Event::Closing,
            () = &mut sources.alarm, if has_alarm => Event::Due,
        }
    }

    fn apply(&mut self, event: Event) {
        match event {
            Event::Accepted(accepted) => accepted.into_iter().for_each(|accepted| self.take_in(accepted)),
            Event::Answered(lists) => {
                for (ticket, answer) in lists.into_iter().flatten() {
                    if let Some(id) = self.tickets.remove(&ticket) {
                        self.step(id, Input::Appended(answer));
                    }
                }
            }
            Event::Done(mut done) => {
                // What else is done already belongs to this turn.
                while done.len() < TURN_MAX
                    && let Some(Some(more)) = self.asked.next().now_or_never()
                {
                    done.push(more);
                }
                done.into_iter().for_each(|done| self.on_done(done));
            }
            Event::Due | Event::Closing | Event::Closed => {}
        }
    }

    fn on_done(&mut self, done: Done) {
        match done {
            Done::Read(id, input) => self.step(id, input),
            Done::Retold(id, retold) => self.end(id, &retold),
            Done::Sent => {}
        }
    }

    fn take_in(&mut self, accepted: Accepted) {
        let id = accepted.submission.ask.conversation;
        let context = &self.context;
        let owned = self.owned.entry(id).or_insert_with(|| {
            context.metrics.owners.conversations.increment(1.0);
            Owned::new(&context.budget)
        });
        owned.idle = None;
        if let Some(accepted) = owned.push(accepted) {
            context.metrics.messages.sends_temporary.increment(1);
            accepted.refuse("too many changes wait in this conversation");
        }
        self.queue(id);
    }

    /// Puts a conversation in line if there is something to begin.
    fn queue(&mut self, id: ConversationId) {
        let Some(owned) = self.owned.get_mut(&id) else { return };
        if owned.is_ready() && !owned.is_queued {
            owned.is_queued = true;
            self.ready.push_back(id);
        }
    }

    /// What follows from what has happened: pauses that are over, batches to begin, appends for the store.
    fn end_turn(&mut self) {
        let now = Instant::now();
        while let Some(Reverse((until, id))) = self.pauses.peek().copied()
            && until <= now
        {
            self.pauses.pop();
            self.step(id, Input::PauseOver);
        }
        while self.under_way < UNDER_WAY_MAX
            && let Some(id) = self.ready.pop_front()
        {
            let Some(owned) = self.owned.get_mut(&id) else { continue };
            owned.is_queued = false;
            owned.begin((now + self.context.settle).into_std());
            self.under_way += 1;
            self.step(id, Input::Begin);
        }
        if !self.appends.is_empty() {
            let appends = std::mem::take(&mut self.appends);
            self.send(appends);
        }
        self.let_go(now);
    }

    /// All that is ready goes to the store in one call. It waits at most for room there, and not in our way.
    fn send(&mut self, appends: Vec<(u64, Arc<AppendGroup>)>) {
        let (log, answers) = (Arc::clone(&self.context.log), self.answers.clone());
        let mut sent = async move {
            log.append_all(appends, &answers).await;
            Done::Sent
        }
        .boxed();
        if (&mut sent).now_or_never().is_none() {
            self.asked.push(sent);
        }
    }

    /// Takes an answer to the batch under way in a conversation.
    fn step(&mut self, id: ConversationId, input: Input) {
        let Some(owned) = self.owned.get_mut(&id) else { return };
        let Some(Work::Settling(settling, _)) = owned.work.as_deref_mut() else { return };
        let next = settling.step(
            input,
            &mut World {
                now: Instant::now().into_std(),
                unix_ms: stamp_ms(),
                jitter: rand::random(),
                fresh_id: &mut || EntryId::from_uuid(uuid::Uuid::now_v7()),
            },
        );
        let age_ms = settling.age_ms_max();
        let log = Arc::clone(&self.context.log);
        let read = |input: BoxFuture<'static, Input>| input.map(move |input| Done::Read(id, input)).boxed();
        match next {
            Next::ReadState => self.asked.push(read(reads::state(log, id).boxed())),
            Next::LookUp(keys) => self.asked.push(read(reads::markers(log, id, keys, age_ms).boxed())),
            Next::ReadEntry(seq) => self.asked.push(read(reads::entry(log, id, seq).boxed())),
            Next::Append(group) => {
                self.next_ticket += 1;
                self.tickets.insert(self.next_ticket, id);
                self.appends.push((self.next_ticket, group));
            }
            Next::Pause(pause) => self.pauses.push(Reverse((Instant::now() + pause, id))),
            Next::Done => self.stands(id),
            Next::GiveUp(why) => self.give_up(id, &why),
        }
    }

    /// The plan stands: what else it needs to be told is read first.
    fn stands(&mut self, id: ConversationId) {
        let Some(owned) = self.owned.get_mut(&id) else { return };
        let Some(Work::Settling(settling, callers)) = owned.work.take().map(|work| *work) else { return };
        let settled = settling.into_settled();
        let retelling = Retelling::of(&settled);
        owned.work = Some(Box::new(Work::Telling(settled, callers)));
        match retelling {
            None => self.end(id, &Retold::default()),
            Some(retelling) => {
                let (log, users) = (Arc::clone(&self.context.log), Arc::clone(&self.context.users));
                let read = retelling.read(log, users, id);
                self.asked.push(read.map(move |retold| Done::Retold(id, retold)).boxed());
            }
        }
    }

    /// Tells a plan, and goes on with what waits.
    fn end(&mut self, id: ConversationId, retold: &Retold) {
        let Some(owned) = self.owned.get_mut(&id) else { return };
        let Some(Work::Telling(mut settled, mut callers)) = owned.work.take().map(|work| *work) else {
            return;
        };
        owned.end(&mut settled, &mut callers);
        self.tell(id, &settled, callers, retold);
        self.is_over(id);
    }

    fn tell(&self, id: ConversationId, settled: &Settled, callers: Vec<Caller>, retold: &Retold) {
        tell(&self.context.delivery, &self.context.metrics, id, settled, callers, retold);
    }

    /// Nothing is known of these: the clients retry, and their markers tell.
    fn give_up(&mut self, id: ConversationId, why: &GivenUp) {
        let Some(owned) = self.owned.get_mut(&id) else { return };
        let Some(Work::Settling(_, callers)) = owned.work.take().map(|work| *work) else { return };
        // That the disk is full is told once, by the store.
        if !matches!(why, GivenUp::Full) {
            tracing::warn!(conversation = %id, ?why, "a batch was given up");
        }
        for caller in owned.give_up(callers) {
            answer(&self.context.metrics, caller, Err(Refusal::Unavailable(why.for_people())));
        }
        self.is_over(id);
    }

    fn is_over(&mut self, id: ConversationId) {
        self.under_way -= 1;
        self.queue(id);
        let Some(owned) = self.owned.get_mut(&id).filter(|owned| !owned.is_queued) else { return };
        self.next_place += 1;
        owned.idle = Some(self.next_place);
        self.idle.push_back((Instant::now(), self.next_place, id));
    }

    /// Forgets conversations that have been idle for long, and the longest idle ones while memory is short.
    fn let_go(&mut self, now: Instant) {
        let metrics = &self.context.metrics.owners;
        while let Some(&(since, place, id)) = self.idle.front() {
            let Context { idle, budget, keep, memory, .. } = &self.context;
            if now < since + *idle && budget.used() <= *keep && !memory.is_short() {
                break;
            }
            self.idle.pop_front();
            if self.owned.get(&id).is_some_and(|owned| owned.idle == Some(place)) {
                self.owned.remove(&id);
                metrics.conversations.decrement(1.0);
            }
        }
        if self.idle.len() > self.owned.len() + STALE_MAX {
            let owned = &self.owned;
            self.idle.retain(|(_, place, id)| owned.get(id).is_some_and(|owned| owned.idle == Some(*place)));
        }
    }

    /// When the next pause is over or the next idle conversation is let go.
    fn due(&self) -> Option<Instant> {
        let pause = self.pauses.peek().map(|Reverse((until, _))| *until);
        let idle =
            self.idle.front().map(|(since, ..)| *since + self.context.idle.max(Duration::from_millis(1)));
        pause.into_iter().chain(idle).min()
    }
}
