//! What one session asks the store, one after the other, at the pace at which the client takes the answers
//! and beside everything live. One queue and at most one worker for each session; all workers together
//! read from the store at most `session.reads_max` at a time.

mod catch_up;
mod worker;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tern_protocol::{
    ACK_POSITIONS_MAX, Code, ConversationId, ConversationSummary, Deliver, Erased, Gap, Position, Read,
    UserId,
};
use tokio::task::AbortHandle;

use super::Inner;
use super::refused::Refused;
use crate::budget::{Charge, MemoryPart};
use crate::conversation::history::{Anchor, ListCursor, Run};
use crate::roster::Seat;
use crate::store::Right;
use worker::Worker;

/// Questions waiting in one session; more are refused as temporary.
const JOBS_MAX: usize = 32;
/// What a client waits that has asked too much.
const RETRY: Duration = Duration::from_millis(500);

/// What a user decides about who reaches them.
#[derive(Debug)]
pub(super) enum Decision {
    /// To block a user, or not any more.
    Block { user: UserId, blocked: bool },
    /// To stay in a group.
    Keep(ConversationId),
}

/// Something to ask the store.
#[derive(Debug)]
pub(super) enum Job {
    /// What changed since these cursors. It takes the place of one before that has not ended.
    Sync { request: Option<u64>, cursors: Vec<Position> },
    /// A page of history.
    Fetch { request: Option<u64>, conversation: ConversationId, anchor: Anchor, limit: usize },
    /// A page of conversations.
    List { request: Option<u64>, cursor: Option<ListCursor>, limit: usize },
    /// The members.
    Members { request: Option<u64>, conversation: ConversationId },
    /// A read position to be kept.
    Read { request: Option<u64>, read: Read },
    /// Users to be watched.
    Watch { request: Option<u64>, users: Vec<UserId> },
    /// Something that the user decides, by this token.
    Decide { request: Option<u64>, decision: Decision, right: Right },
    /// A page of the users whom they block.
    Blocks { request: Option<u64>, after: Option<UserId> },
    /// How far the client is in conversations of which it is not known what it was told.
    Ack { request: Option<u64>, positions: Vec<Position> },
    /// The user types, at that time.
    Typing { conversation: ConversationId, since: Instant },
}

impl Job {
    fn request(&self) -> Option<u64> {
        match self {
            Self::Sync { request, .. }
            | Self::Fetch { request, .. }
            | Self::List { request, .. }
            | Self::Members { request, .. }
            | Self::Read { request, .. }
            | Self::Watch { request, .. }
            | Self::Decide { request, .. }
            | Self::Blocks { request, .. }
            | Self::Ack { request, .. } => *request,
            Self::Typing { .. } => None,
        }
    }

    /// Memory it takes while it waits, in bytes, about.
    fn bytes(&self) -> usize {
        let besides = match self {
            Self::Sync { cursors, .. } => size_of_val(cursors.as_slice()),
            Self::Ack { positions, .. } => size_of_val(positions.as_slice()),
            Self::Watch { users, .. } => {
                users.iter().map(|user| size_of_val(user) + user.as_str().len()).sum()
            }
            _ => 0,
        };
        size_of::<Waiting>() + besides
    }

    /// The conversation it is about, where it is about one.
    fn conversation(&self) -> Option<ConversationId> {
        match self {
            Self::Fetch { conversation, .. }
            | Self::Members { conversation, .. }
            | Self::Typing { conversation, .. } => Some(*conversation),
            Self::Read { read, .. } => Some(read.conversation),
            Self::Decide { decision: Decision::Keep(conversation), .. } => Some(*conversation),
            Self::Sync { .. }
            | Self::List { .. }
            | Self::Watch { .. }
            | Self::Decide { .. }
            | Self::Blocks { .. }
            | Self::Ack { .. } => None,
        }
    }
}

/// A question in the queue, with the memory it takes there.
#[derive(Debug)]
struct Waiting {
    job: Job,
    memory: Charge,
}

/// A piece of a sync.
enum Part {
    /// Conversations that changed, to be sent in one frame.
    Page { request: Option<u64>, conversations: Vec<ConversationSummary> },
    /// Entries that are named and not sent.
    Gap { request: Option<u64>, gap: Gap },
    /// Something that was sent earlier is not to be kept.
    Erased { request: Option<u64>, erased: Erased },
    /// Entries to be read and sent, in as many frames as it takes.
    Entries { request: Option<u64>, run: Run },
    /// Entries that were read.
    Deliver { request: Option<u64>, deliver: Deliver },
    /// That was all.
    End { request: Option<u64>, changed: u32 },
}

/// The outbox of the session was closed: there is nobody to read for.
struct Gone;

/// Handle to the questions of a session. Dropping it ends its worker, which is there only while there is
/// work.
pub(super) struct Reads {
    gateway: Arc<Inner>,
    seat: Arc<Seat>,
    slot: Arc<Slot>,
}

impl Drop for Reads {
    fn drop(&mut self) {
        self.slot.end();
    }
}

impl Reads {
    pub(super) fn new(gateway: Arc<Inner>, seat: Arc<Seat>) -> Self {
        Self { gateway, seat, slot: Arc::default() }
    }

    /// Queues a question; its answer goes to the backlog of the outbox.
    pub(super) fn push(&self, job: Job) -> Result<(), Refused> {
        let memory = self
            .gateway
            .memory
            .part(MemoryPart::Reads)
            .try_charge(job.bytes())
            .ok_or_else(Refused::short_of_memory)?;
        let about = job.conversation();
        let queued = self.slot.push(Waiting { job, memory }, || {
            let (gateway, seat) = (Arc::clone(&self.gateway), Arc::clone(&self.seat));
            let worker = Worker::new(gateway, seat, Arc::clone(&self.slot));
            tokio::spawn(worker.run()).abort_handle()
        });
        queued.map_err(|refused| match about {
            Some(conversation) => refused.within(conversation),
            None => refused,
        })
    }
}

/// The queue of a session and the place of its worker. Both change under one lock, so that no worker ends
/// beside a new question and there are never two.
#[derive(Debug, Default)]
struct Slot {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    jobs: VecDeque<Waiting>,
    worker: Option<AbortHandle>,
    ended: bool,
}

impl Slot {
    fn push(&self, question: Waiting, start: impl FnOnce() -> AbortHandle) -> Result<(), Refused> {
        let mut state = self.state.lock();
        if state.ended {
            return Err(Refused::new(Code::UNAVAILABLE, "the session is ending"));
        }
        if let Some(question) = state.merge(question) {
            if state.jobs.len() >= JOBS_MAX {
                return Err(Refused::rate_limited(RETRY, "reads wait in this session"));
            }
            state.jobs.push_back(question);
        }
        if state.worker.is_none() {
            state.worker = Some(start());
        }
        Ok(())
    }

    /// The next question. Without one the place of the worker is free, unless it is `busy` otherwise.
    fn next(&self, busy: bool) -> Option<Job> {
        let mut state = self.state.lock();
        let job = state.jobs.pop_front();
        if job.is_none() && !busy {
            state.worker = None;
            state.jobs = VecDeque::new();
        }
        job.map(|waiting| waiting.job)
    }

    /// The worker has ended, however.
    fn leave(&self) {
        self.state.lock().worker = None;
    }

    /// Nobody asks any more.
    fn end(&self) {
        let mut state = self.state.lock();
        state.ended = true;
        state.jobs = VecDeque::new();
        if let Some(worker) = state.worker.take() {
            worker.abort();
        }
    }
}

impl State {
    /// The job, unless one that waits takes it in. A sync that waits is replaced by the new one.
    fn merge(&mut self, mut question: Waiting) -> Option<Waiting> {
        match (&mut question.job, self.jobs.back_mut()) {
            (Job::Sync { .. }, _) => self.jobs.retain(|waiting| !matches!(waiting.job, Job::Sync { .. })),
            (
                Job::Ack { positions, .. },
                Some(Waiting { job: Job::Ack { positions: waiting, .. }, memory }),
            ) if positions.len() + waiting.len() <= ACK_POSITIONS_MAX => {
                waiting.append(positions);
                memory.resize(memory.bytes() + question.memory.bytes());
                return None;
            }
            // A notice that waits says the same.
            (Job::Typing { .. }, Some(_)) => return None,
            _ => {}
        }
        Some(question)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::budget::Budget;

    fn fetch(number: u64) -> Job {
        let conversation = ConversationId::from_bytes([1; 16]);
        Job::Fetch { request: Some(number), conversation, anchor: Anchor::Latest, limit: 1 }
    }

    fn sync(number: u64) -> Job {
        Job::Sync { request: Some(number), cursors: Vec::new() }
    }

    fn ack(number: u8) -> Job {
        let conversation = ConversationId::from_bytes([number; 16]);
        Job::Ack { request: None, positions: vec![Position { conversation, seq: 1 }] }
    }

    fn waiting(job: Job) -> Waiting {
        Waiting { memory: Budget::new(usize::MAX).charge(job.bytes()), job }
    }

    /// A task that does nothing, in the place of a worker.
    fn idle() -> AbortHandle {
        tokio::spawn(std::future::pending::<()>()).abort_handle()
    }

    fn requests(slot: &Slot) -> Vec<Option<u64>> {
        std::iter::from_fn(|| slot.next(true)).map(|job| job.request()).collect()
    }

    #[tokio::test]
    async fn there_is_one_worker_however_questions_and_its_end_meet() {
        let slot = Slot::default();
        let mut workers = 0;
        let push = |workers: &mut u32| {
            let start = || {
                *workers += 1;
                idle()
            };
            slot.push(waiting(fetch(1)), start).unwrap();
        };
        push(&mut workers);
        push(&mut workers);
        assert_eq!(workers, 1);
        assert!(slot.next(false).is_some() && slot.next(false).is_some());
        // It is told that there is nothing more before or after a new question, never beside it.
        push(&mut workers);
        assert!(slot.next(false).is_some());
        assert_eq!(workers, 1);
        assert!(slot.next(false).is_none());
        push(&mut workers);
        assert_eq!(workers, 2, "the first has gone");
        assert!(slot.next(true).is_some() && slot.next(true).is_none());
        push(&mut workers);
        assert_eq!(workers, 2, "it is busy with a sync");
    }

    #[tokio::test]
    async fn questions_are_bounded_and_a_new_sync_takes_the_place_of_one_that_waits() {
        let slot = Slot::default();
        for number in 0..JOBS_MAX as u64 {
            slot.push(waiting(if number == 3 { sync(number) } else { fetch(number) }), idle).unwrap();
        }
        let refused = slot.push(waiting(fetch(99)), idle).unwrap_err();
        assert_eq!((refused.code, refused.retry_after), (Code::RATE_LIMITED, Some(RETRY)));
        slot.push(waiting(sync(100)), idle).unwrap();
        let mut expected: Vec<Option<u64>> = (0..JOBS_MAX as u64).filter(|n| *n != 3).map(Some).collect();
        expected.push(Some(100));
        assert_eq!(requests(&slot), expected);
    }

    #[tokio::test]
    async fn acks_that_wait_are_one_question_up_to_the_limit_of_a_frame() {
        let slot = Slot::default();
        for number in 0..=ACK_POSITIONS_MAX {
            slot.push(waiting(ack(number as u8)), idle).unwrap();
        }
        let positions = |job| match job {
            Some(Job::Ack { positions, .. }) => positions.len(),
            other => panic!("{other:?}"),
        };
        assert_eq!(positions(slot.next(true)), ACK_POSITIONS_MAX);
        assert_eq!(positions(slot.next(true)), 1);
    }

    #[tokio::test]
    async fn an_ended_session_keeps_no_questions_and_takes_none() {
        let slot = Slot::default();
        let worker = tokio::spawn(std::future::pending::<()>());
        slot.push(waiting(fetch(1)), || worker.abort_handle()).unwrap();
        slot.end();
        assert!(worker.await.unwrap_err().is_cancelled());
        assert!(slot.next(true).is_none());
        assert!(slot.push(waiting(fetch(2)), || unreachable!("nobody works for it")).is_err());
    }
}
