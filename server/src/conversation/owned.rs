//! One conversation in the hands of its owner: what is remembered of it, what waits, and what is under way.

use std::collections::VecDeque;
use std::time::Instant;

use tern_protocol::TempId;

use super::answer::{Refusal, Reply};
use super::ask::{Ask, Submission};
use super::plan::{Snapshot, Verdict};
use super::recent::{FinalRefusals, Recent};
use super::settle::{Settled, Settling};
use super::state::Facts;
use crate::budget::{Budget, Charge};
use crate::store::{Conversation, GROUP_BYTES_MAX, GROUP_ENTRIES_MAX, Marker, Member};

/// Submissions waiting in one conversation; more are refused as temporary.
pub(super) const WAITING_MAX: usize = 512;
/// Memory of a conversation besides what is counted by its size, in bytes, about: itself, its place in a map that
/// is half full, its state without members.
const BYTES_BESIDES: usize = 768;
const _: () = assert!(2 * size_of::<Owned>() + size_of::<Conversation>() <= BYTES_BESIDES);
/// Memory of a member, in bytes, about: twice an id of the usual length.
const MEMBER_BYTES: usize = size_of::<Member>() + 64;

/// A submission that was taken in, with the memory it takes until it is answered.
#[derive(Debug)]
pub(super) struct Accepted {
    pub(super) submission: Submission,
    pub(super) charge: Charge,
}

/// Who waits for the answer to a change of the batch that is under way.
#[derive(Debug)]
pub(super) struct Caller {
    pub(super) arrived: Instant,
    pub(super) reply: Reply,
    charge: Charge,
}

/// What is being done with a batch.
#[derive(Debug)]
pub(super) enum Work {
    /// It is on its way to the log.
    Settling(Settling, Vec<Caller>),
    /// Its plan stands; what it needs to be told is being read.
    Telling(Settled, Vec<Caller>),
}

/// A conversation that this node owns.
#[derive(Debug)]
pub(super) struct Owned {
    /// The newest state that is known; `Some(None)`: it does not exist. Only a guess for what is refused.
    pub(super) known: Option<Option<Snapshot>>,
    recent: Recent,
    refusals: FinalRefusals,
    waiting: VecDeque<Accepted>,
    pub(super) work: Option<Box<Work>>,
    /// It stands in the queue of those that are ready to be worked on.
    pub(super) is_queued: bool,
    /// Its place in the queue of idle ones, while nothing waits and nothing is under way.
    pub(super) idle: Option<u64>,
    charge: Charge,
}

impl Owned {
    pub(super) fn new(budget: &Budget) -> Self {
        Self {
            known: None,
            recent: Recent::default(),
            refusals: FinalRefusals::default(),
            waiting: VecDeque::new(),
            work: None,
            is_queued: false,
            idle: None,
            charge: budget.charge(BYTES_BESIDES),
        }
    }

    /// Takes a submission in, or gives it back if too many wait.
    pub(super) fn push(&mut self, accepted: Accepted) -> Option<Accepted> {
        if self.waiting.len() == WAITING_MAX {
            return Some(accepted);
        }
        self.waiting.push_back(accepted);
        None
    }

    /// Something waits and nothing is under way.
    pub(super) fn is_ready(&self) -> bool {
        self.work.is_none() && !self.waiting.is_empty()
    }

    /// Begins with what waits: as much as fits in one group.
    pub(super) fn begin(&mut self, deadline: Instant) {
        let (mut bytes, mut count) = (0, 0);
        for accepted in self.waiting.iter().take(GROUP_ENTRIES_MAX) {
            bytes += accepted.submission.ask.change.weight();
            if count > 0 && bytes > GROUP_BYTES_MAX {
                break;
            }
            count += 1;
        }
        let (mut asks, mut callers) = (Vec::with_capacity(count), Vec::with_capacity(count));
        for Accepted { submission, charge } in self.waiting.drain(..count) {
            let Submission { ask, arrived, reply } = submission;
            asks.push(ask);
            callers.push(Caller { arrived, reply, charge });
        }
        self.refusals.release(&mut asks);
        let facts = self.facts(&asks);
        let settling = Settling::new(asks, facts, self.known.clone(), deadline);
        self.work = Some(Box::new(Work::Settling(settling, callers)));
    }

    /// What this batch can ask about: its own keys and the predecessors they name.
    fn facts(&self, asks: &[Ask]) -> Facts {
        let mut facts = Facts::default();
        let mut learn = |ask: &Ask, temp_id: TempId| {
            if let Some(marker) = self.recent.marker(&ask.sender, temp_id) {
                facts.learn((ask.sender.clone(), temp_id), Some(marker));
            }
        };
        for ask in asks {
            learn(ask, ask.temp_id);
            if let Some(before) = ask.after {
                learn(ask, before);
            }
        }
        facts
    }

    /// Ends with a batch whose plan stands: remembers what was decided, and puts what did not fit back to the
    /// front. What is left belongs to the verdicts, one each.
    pub(super) fn end(&mut self, settled: &mut Settled, callers: &mut Vec<Caller>) {
        let decided = settled.plan.verdicts.len();
        for (ask, caller) in settled.asks.drain(decided..).zip(callers.drain(decided..)).rev() {
            let Caller { arrived, reply, charge } = caller;
            self.waiting.push_front(Accepted { submission: Submission { ask, arrived, reply }, charge });
        }
        for (ask, verdict) in settled.asks.iter().zip(&settled.plan.verdicts) {
            let key = || (ask.sender.clone(), ask.temp_id);
            match (verdict, &settled.plan.group) {
                (Verdict::Append(index), Some(group)) => {
                    let new = &group.entries[*index];
                    self.recent.remember(key(), Marker { seq: new.entry.seq, digest: new.digest });
                }
                (Verdict::Refuse(refusal), _) if refusal.resolves() => self.refusals.remember(key()),
                _ => {}
            }
        }
        self.known = Some(settled.plan.after.clone());
        let members = settled.plan.after.as_ref().map_or(0, |after| after.members.len());
        let memory = self.recent.bytes() + self.refusals.bytes() + members * MEMBER_BYTES;
        self.charge.resize(BYTES_BESIDES + memory);
    }

    /// The batch came to nothing: nobody who waits is answered any better.
    pub(super) fn give_up(&mut self, callers: Vec<Caller>) -> impl Iterator<Item = Caller> + use<> {
        self.known = None;
        let waiting = std::mem::take(&mut self.waiting).into_iter();
        callers.into_iter().chain(waiting.map(|Accepted { submission, charge }| Caller {
            arrived: submission.arrived,
            reply: submission.reply,
            charge,
        }))
    }
}

impl Accepted {
    /// Answers that there is no room for it.
    pub(super) fn refuse(self, why: &'static str) {
        self.submission.reply.send(Err(Refusal::Busy(why)));
    }
}
