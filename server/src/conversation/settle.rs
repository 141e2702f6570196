//! Brings one batch of a conversation to its end: what is to be read or appended next, when an answer is
//! believed, and when to give up. Pure: answers of the store in, the next step out.
//!
//! What the store applied is certain by its compare-and-set. What is *not* appended is not, so two rules stand
//! here: a change is refused for good only on a state, and a missing marker, that were read after it was asked
//! for; and after an append without an answer only the entry itself says whose append it was that applied.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tern_protocol::EntryId;

use super::answer::Refusal;
use super::ask::Ask;
use super::plan::{Plan, Snapshot};
use super::state::{ChangeKey, Decision, Facts, decide};
use crate::store::{AppendGroup, Appended, Barred, Conversation, Lost, Marker, StoreError};

/// Pause before an append without an answer is submitted again.
const UNANSWERED_PAUSE: Duration = Duration::from_millis(100);
/// First pause after somebody else has written; each further one is twice as long.
const CONFLICT_PAUSE: Duration = Duration::from_millis(5);
/// Longest of these pauses.
const CONFLICT_PAUSE_MAX: Duration = Duration::from_millis(320);
/// Rounds lost to other writers before the batch is given up as temporary.
const CONFLICTS_MAX: u32 = 32;

/// What the store answered, or that a pause is over.
#[derive(Debug)]
pub(super) enum Input {
    /// Nothing was asked yet.
    Begin,
    /// To [`Next::ReadState`].
    State(Result<Option<Arc<Conversation>>, StoreError>),
    /// To [`Next::LookUp`]: every key, with its marker if it has one.
    Markers(Result<Vec<(ChangeKey, Option<Marker>)>, StoreError>),
    /// To [`Next::Append`].
    Appended(Result<Appended, StoreError>),
    /// To [`Next::ReadEntry`]: its id, if it is there.
    Entry(Result<Option<EntryId>, StoreError>),
    /// To [`Next::Pause`].
    PauseOver,
}

/// What is to be done next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Read the state.
    ReadState,
    /// Look these markers up.
    LookUp(Vec<ChangeKey>),
    /// Append this.
    Append(Arc<AppendGroup>),
    /// Read the id of the entry with this seq.
    ReadEntry(u64),
    /// Wait.
    Pause(Duration),
    /// The plan stands: tell it.
    Done,
    /// Nothing is known of the batch: all of it is refused for now.
    GiveUp(GivenUp),
}

/// Why a batch could not be settled now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum GivenUp {
    /// A read failed, or an append in a way that trying again does not mend.
    Store(String),
    /// The store has no room.
    Full,
    /// Others write as fast as we do.
    Contended,
    /// No answer until the deadline.
    TimedOut,
}

impl GivenUp {
    /// As clients are told it.
    pub(super) fn for_people(&self) -> &'static str {
        match self {
            Self::Store(_) => "the message store does not answer",
            Self::Full => "the server is short of disk space",
            Self::Contended => "the conversation is being written by others",
            Self::TimedOut => "the message store did not answer in time",
        }
    }
}

/// What the step may not find out by itself.
pub(super) struct World<'a> {
    pub(super) now: Instant,
    pub(super) unix_ms: u64,
    /// From 0 to below 1.
    pub(super) jitter: f64,
    pub(super) fresh_id: &'a mut dyn FnMut() -> EntryId,
}

/// A batch on its way to the log.
#[derive(Debug)]
pub(super) struct Settling {
    asks: Vec<Ask>,
    facts: Facts,
    /// The state to decide on; `Some(None)`: the conversation does not exist.
    known: Option<Option<Snapshot>>,
    /// The state was read after the batch was begun.
    is_read: bool,
    plan: Option<Plan>,
    /// Markers that the store found in a group of which an earlier attempt had no answer.
    found: Vec<(usize, Marker)>,
    /// An attempt at the planned group had no answer.
    unanswered: bool,
    /// That attempt had applied, as the next one found.
    found_again: bool,
    conflicts: u32,
    /// No attempt is begun after it.
    deadline: Instant,
}

/// A batch that has come to its end.
#[derive(Debug)]
pub(super) struct Settled {
    /// As it was asked, without the texts that were moved into the plan.
    pub(super) asks: Vec<Ask>,
    pub(super) plan: Plan,
    /// Its group applied in an attempt without an answer, which may have died before all of it was written.
    pub(super) found_again: bool,
}

impl Settling {
    /// A batch, what is known of the conversation from before, and until when an attempt may be begun.
    pub(super) fn new(
        asks: Vec<Ask>,
        facts: Facts,
        known: Option<Option<Snapshot>>,
        deadline: Instant,
    ) -> Self {
        Self {
            asks,
            facts,
            known,
            is_read: false,
            plan: None,
            found: Vec::new(),
            unanswered: false,
            found_again: false,
            conflicts: 0,
            deadline,
        }
    }

    /// The batch and its plan, after [`Next::Done`].
    pub(super) fn into_settled(self) -> Settled {
        let plan = self.plan.expect("a batch that is done has a plan");
        Settled { asks: self.asks, plan, found_again: self.found_again }
    }

    /// Age of the oldest change: how far back its predecessors can be.
    pub(super) fn age_ms_max(&self) -> u64 {
        self.asks.iter().map(|ask| ask.age_ms).max().unwrap_or(0)
    }

    /// Takes an answer in and says what is next.
    pub(super) fn step(&mut self, input: Input, world: &mut World<'_>) -> Next {
        match input {
            Input::Begin => self.decide(world),
            Input::State(Ok(state)) => {
                self.known = Some(state.map(Snapshot::new));
                self.is_read = true;
                self.decide(world)
            }
            Input::Markers(Ok(markers)) => {
                for (key, marker) in markers {
                    self.facts.learn(key, marker);
                }
                self.decide(world)
            }
            Input::Appended(answer) => self.on_appended(answer, world),
            Input::Entry(Ok(id)) => self.on_entry(id, world),
            Input::PauseOver => self.on_pause_over(world),
            Input::State(Err(error)) | Input::Markers(Err(error)) | Input::Entry(Err(error)) => {
                Next::GiveUp(GivenUp::Store(error.to_string()))
            }
        }
    }

    fn decide(&mut self, world: &mut World<'_>) -> Next {
        let Some(known) = &self.known else { return self.attempt(Next::ReadState, world) };
        match decide(known.as_ref(), &mut self.asks, &self.facts, world.unix_ms, world.fresh_id) {
            Decision::Lookup(keys) => self.attempt(Next::LookUp(keys), world),
            Decision::Ready(plan) if plan.refuses_for_good() && !self.is_read => {
                plan.give_back(&mut self.asks);
                self.read_again(world)
            }
            // It would be told again to those who were members at the state that is known, not at the entry.
            Decision::Ready(plan) if plan.is_behind() => {
                plan.give_back(&mut self.asks);
                self.contended().unwrap_or_else(|| self.read_again(world))
            }
            Decision::Ready(plan) => {
                let next = plan.group.clone().map_or(Next::Done, Next::Append);
                self.plan = Some(plan);
                self.unanswered = false;
                if next == Next::Done { next } else { self.attempt(next, world) }
            }
        }
    }

    /// The deadline is looked at before an attempt: with it and one attempt of the store all is over.
    fn attempt(&self, next: Next, world: &World<'_>) -> Next {
        if world.now < self.deadline { next } else { Next::GiveUp(GivenUp::TimedOut) }
    }

    fn pause(&self, pause: Duration, world: &World<'_>) -> Next {
        if world.now + pause < self.deadline { Next::Pause(pause) } else { Next::GiveUp(GivenUp::TimedOut) }
    }

    /// Takes the plan apart and the state, and what was not there when it was read, as unknown.
    fn forget(&mut self) {
        if let Some(plan) = self.plan.take() {
            plan.give_back(&mut self.asks);
        }
        self.known = None;
        self.facts.forget_absences();
    }

    /// One more round was lost to others: perhaps one too many.
    fn contended(&mut self) -> Option<Next> {
        self.conflicts += 1;
        (self.conflicts > CONFLICTS_MAX).then_some(Next::GiveUp(GivenUp::Contended))
    }

    fn read_again(&mut self, world: &World<'_>) -> Next {
        self.forget();
        self.attempt(Next::ReadState, world)
    }

    fn on_appended(&mut self, answer: Result<Appended, StoreError>, world: &mut World<'_>) -> Next {
        match answer {
            Ok(Appended::Applied) => Next::Done,
            Ok(Appended::Duplicates(found)) => self.on_duplicates(found, world),
            Ok(Appended::Barred(barred)) => self.on_barred(barred, world),
            Ok(Appended::Conflict { .. }) => self.on_conflict(world),
            Ok(Appended::Unknown) | Err(StoreError::Unavailable(_)) => {
                self.unanswered = true;
                self.pause(UNANSWERED_PAUSE, world)
            }
            Err(StoreError::Full(_)) => Next::GiveUp(GivenUp::Full),
            Err(error @ (StoreError::Corrupt(_) | StoreError::Malformed(_))) => {
                Next::GiveUp(GivenUp::Store(error.to_string()))
            }
        }
    }

    fn on_duplicates(&mut self, mut found: Vec<(usize, Marker)>, world: &World<'_>) -> Next {
        found.sort_unstable_by_key(|(index, _)| *index);
        let Some(group) = self.plan.as_ref().and_then(|plan| plan.group.as_ref()) else {
            return self.read_again(world);
        };
        let marked = group.entries.iter().enumerate().filter(|(_, new)| new.entry.temp_id.is_some());
        let own = marked.map(|(index, new)| (index, Marker { seq: new.entry.seq, digest: new.digest }));
        if self.unanswered && own.eq(found.iter().copied()) {
            // All of them, at their places: it seems that the attempt without an answer has applied.
            let seq = group.expected_head + 1;
            self.found = found;
            return self.attempt(Next::ReadEntry(seq), world);
        }
        self.on_others(found, world)
    }

    /// Somebody else has committed some of these, or we an earlier batch: the head is not sure either.
    fn on_others(&mut self, found: Vec<(usize, Marker)>, world: &World<'_>) -> Next {
        if let Some(given_up) = self.contended() {
            return given_up;
        }
        if let Some(plan) = &self.plan {
            for (index, marker) in found {
                let ask = &self.asks[plan.made_by[index]];
                self.facts.learn((ask.sender.clone(), ask.temp_id), Some(marker));
            }
        }
        self.read_again(world)
    }

    fn on_barred(&mut self, barred: Vec<(usize, Barred)>, world: &mut World<'_>) -> Next {
        let Some(plan) = self.plan.take() else { return Next::GiveUp(GivenUp::Contended) };
        for (index, why) in barred {
            let ask = &self.asks[plan.made_by[index]];
            let refusal = match why {
                Barred::Sender(Lost::Erased) => Refusal::Erased,
                Barred::Sender(Lost::Revoked) => Refusal::Revoked,
                Barred::Joining => Refusal::Unavailable("a user in it is being erased"),
                Barred::Blocking(user) => Refusal::Blocking(user),
                Barred::Blocked => Refusal::Unreachable,
                // One answer for both, so that nobody learns by it who blocks them.
                Barred::BlockedJoin(user) | Barred::Crowded(user) => Refusal::NotAddable(user),
                Barred::TooFast { user, retry_after_ms } => Refusal::AddedTooFast { user, retry_after_ms },
            };
            self.facts.bar((ask.sender.clone(), ask.temp_id), refusal);
        }
        plan.give_back(&mut self.asks);
        self.decide(world)
    }

    fn on_conflict(&mut self, world: &World<'_>) -> Next {
        if let Some(given_up) = self.contended() {
            return given_up;
        }
        if !self.is_read {
            // The state was from before: that others have written since is no contention.
            return self.read_again(world);
        }
        self.forget();
        let doublings = (self.conflicts - 1).min(16);
        let pause = (CONFLICT_PAUSE * 2_u32.pow(doublings)).min(CONFLICT_PAUSE_MAX);
        self.pause(pause.mul_f64(0.5 + world.jitter), world)
    }

    fn on_pause_over(&mut self, world: &mut World<'_>) -> Next {
        match self.plan.as_ref().and_then(|plan| plan.group.clone()) {
            // As it is: its markers make the second answer final.
            Some(group) => self.attempt(Next::Append(group), world),
            None => self.decide(world),
        }
    }

    /// Ids are given once: with ours in its place it is our group that applied, as one step.
    fn on_entry(&mut self, id: Option<EntryId>, world: &World<'_>) -> Next {
        let found = std::mem::take(&mut self.found);
        let group = self.plan.as_ref().and_then(|plan| plan.group.as_ref());
        let is_ours = group.is_some_and(|group| id == Some(group.entries[0].entry.id));
        if !is_ours {
            return self.on_others(found, world);
        }
        self.found_again = true;
        Next::Done
    }
}
