//! The reads of one session, one after the other, at the pace at which the client takes them.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tern_protocol::resume::CatchUp;
use tern_protocol::{
    Code, ConversationId, ConversationPage, Deliver, Envelope, Erased, Frame, Gap, HaveRead, MemberList,
    PAGE_BYTES_MAX, Page, Position, Presence, Read, SyncEnd, SyncPage, UserId,
};
use tokio::sync::mpsc;

use super::Inner;
use super::active::Handled;
use super::refused::Refused;
use crate::conversation::history::{Ahead, Anchor, Changed, ListCursor, Marked, Missing, Run};
use crate::delivery::{Except, Parcel};
use crate::presence::{Notice, WatchError};
use crate::roster::{Outgoing, Seat};
use crate::store::ReadPosition;

/// Reads waiting in one session; more are refused as temporary.
const JOBS_MAX: usize = 32;
/// A worker without work for this long ends; the next read starts another.
const IDLE: Duration = Duration::from_secs(5);
/// About how many bytes a summary takes besides its name.
const SUMMARY_BYTES: usize = 256;

/// A read to be done.
pub(super) enum Job {
    /// What changed since these cursors.
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
}

impl Job {
    fn request(&self) -> Option<u64> {
        match self {
            Self::Sync { request, .. }
            | Self::Fetch { request, .. }
            | Self::List { request, .. }
            | Self::Members { request, .. }
            | Self::Read { request, .. }
            | Self::Watch { request, .. } => *request,
        }
    }

    /// The conversation it is about, where it is about one.
    fn conversation(&self) -> Option<ConversationId> {
        match self {
            Self::Fetch { conversation, .. } | Self::Members { conversation, .. } => Some(*conversation),
            Self::Read { read, .. } => Some(read.conversation),
            Self::Sync { .. } | Self::List { .. } | Self::Watch { .. } => None,
        }
    }
}

/// Handle to the worker, which runs only while there is work. Dropping it ends the worker.
pub(super) struct Backlog {
    gateway: Arc<Inner>,
    seat: Arc<Seat>,
    worker: Option<(mpsc::Sender<Job>, tokio::task::AbortHandle)>,
}

impl Drop for Backlog {
    fn drop(&mut self) {
        if let Some((_, task)) = &self.worker {
            task.abort();
        }
    }
}

impl Backlog {
    pub(super) fn new(gateway: Arc<Inner>, seat: Arc<Seat>) -> Self {
        Self { gateway, seat, worker: None }
    }

    /// Queues a read; its answer comes on the backlog lane.
    pub(super) fn push(&mut self, job: Job) -> Result<Handled, Refused> {
        let job = match &self.worker {
            Some((sender, _)) => match sender.try_send(job) {
                Ok(()) => return Ok(Handled::Later),
                Err(mpsc::error::TrySendError::Full(_)) => {
                    return Err(Refused::rate_limited(
                        Duration::from_millis(500),
                        "reads wait in this session",
                    ));
                }
                Err(mpsc::error::TrySendError::Closed(job)) => job,
            },
            None => job,
        };
        let (sender, jobs) = mpsc::channel(JOBS_MAX);
        sender.try_send(job).map_err(|_| Refused::new(Code::UNAVAILABLE, "the session is ending"))?;
        let worker = Worker {
            gateway: Arc::clone(&self.gateway),
            seat: Arc::clone(&self.seat),
            catching_up: VecDeque::new(),
        };
        let task = tokio::spawn(worker.run(jobs));
        self.worker = Some((sender, task.abort_handle()));
        Ok(Handled::Later)
    }
}

/// The session's outbox was closed: there is nobody to read for.
struct Gone;

struct Worker {
    gateway: Arc<Inner>,
    seat: Arc<Seat>,
    /// Parts of syncs still to be sent; other reads go between them.
    catching_up: VecDeque<Part>,
}

/// A piece of a sync's answer.
enum Part {
    /// Entries `from..=to` of a log.
    Entries { request: Option<u64>, conversation: ConversationId, from: u64, to: u64 },
    /// Entries that are only named.
    Gap { request: Option<u64>, gap: Gap },
    /// Entries before the cursor have become tombstones.
    Erased { request: Option<u64>, erased: Erased },
    /// All of it was sent.
    End { request: Option<u64>, changed: u32 },
}

impl Worker {
    async fn run(mut self, mut jobs: mpsc::Receiver<Job>) {
        loop {
            let job = if self.catching_up.is_empty() {
                match tokio::time::timeout(IDLE, jobs.recv()).await {
                    Ok(Some(job)) => Some(job),
                    Ok(None) => return,
                    Err(_) => {
                        // Nothing can be queued after this, and what was queued is still done.
                        jobs.close();
                        jobs.try_recv().ok()
                    }
                }
            } else {
                jobs.try_recv().ok()
            };
            let done = match job {
                Some(job) => self.work(job).await,
                None if self.catching_up.is_empty() => return,
                None => self.catch_up().await,
            };
            if let Err(Gone) = done {
                return;
            }
        }
    }

    async fn work(&mut self, job: Job) -> Result<(), Gone> {
        let (request, conversation) = (job.request(), job.conversation());
        match self.answer(job).await {
            Ok(Some(frame)) => self.send(request, frame).await,
            Ok(None) => Ok(()),
            Err(refused) => {
                self.gateway.refused(refused.code);
                let refused = Refused { conversation: refused.conversation.or(conversation), ..refused };
                self.send(request, refused.into_frame().into()).await
            }
        }
    }

    async fn answer(&mut self, job: Job) -> Result<Option<Frame>, Refused> {
        let user = self.seat.user.clone();
        let history = self.gateway.parts.history.clone();
        match job {
            Job::Sync { request, cursors } => self.sync(request, cursors).await.map(|()| None),
            Job::Fetch { conversation, anchor, limit, .. } => {
                let page = history.page(&user, conversation, anchor, limit).await?;
                let page = page.ok_or_else(Refused::not_found)?;
                let (first_seq, head) = (page.access.first_seq, page.access.last_seq);
                Ok(Some(Page { conversation, entries: page.entries, first_seq, head }.into()))
            }
            Job::List { cursor, limit, .. } => {
                let page = history.list(&user, cursor.as_ref(), limit).await?;
                Ok(Some(ConversationPage { conversations: page.conversations, next: page.next }.into()))
            }
            Job::Members { conversation, .. } => {
                let members = history.members(&user, conversation).await?.ok_or_else(Refused::not_found)?;
                Ok(Some(MemberList { conversation, members }.into()))
            }
            Job::Read { read, .. } => {
                let parts = &self.gateway.parts;
                let Read { conversation, seq } = read;
                let marked = history.mark_read(&user, conversation, seq).await?;
                if let Marked::Rose(ReadPosition { seq, messages }) = marked {
                    let have_read = Outgoing::new(HaveRead { conversation, seq, messages });
                    let except = Except::Session(self.seat.at.clone());
                    parts.delivery.hand_out(Parcel::control([user], have_read).except(except));
                }
                Ok(None)
            }
            Job::Watch { request, users } => self.watch(request, users).await.map(|()| None),
        }
    }

    /// Sends the summaries, and lines up the entries behind them.
    async fn sync(&mut self, request: Option<u64>, cursors: Vec<Position>) -> Result<(), Refused> {
        let user = self.seat.user.clone();
        let history = self.gateway.parts.history.clone();
        let cursors: HashMap<ConversationId, u64> =
            cursors.into_iter().map(|position| (position.conversation, position.seq)).collect();
        let (changed, ahead) = history.changed(&user, &cursors).await?;
        self.count(&changed, &ahead);
        for ahead in ahead {
            let detail =
                format!("cursor {} of {} is above its head {}", ahead.cursor, ahead.conversation, ahead.head);
            let frame =
                Refused::new(Code::CURSOR_AHEAD, detail).within(ahead.conversation).into_frame().into();
            if self.send(request, frame).await.is_err() {
                return Ok(());
            }
        }
        let (mut page, mut bytes) = (Vec::new(), 0);
        let count = changed.len() as u32;
        for Changed { summary, missing } in changed {
            bytes += SUMMARY_BYTES + summary.name.as_ref().map_or(0, String::len);
            if bytes > PAGE_BYTES_MAX / 2 {
                bytes = SUMMARY_BYTES;
                let frame = SyncPage { conversations: std::mem::take(&mut page) }.into();
                if self.send(request, frame).await.is_err() {
                    return Ok(());
                }
            }
            page.push(summary);
            self.line_up(request, &missing);
        }
        self.catching_up.push_back(Part::End { request, changed: count });
        if !page.is_empty() {
            // A closed outbox is noticed at the next part.
            let _ = self.send(request, SyncPage { conversations: page }.into()).await;
        }
        Ok(())
    }

    fn count(&self, changed: &[Changed], ahead: &[Ahead]) {
        let sync = &self.gateway.parts.metrics.sync;
        let gap = changed.iter().any(|changed| matches!(changed.missing.catch_up, CatchUp::Tail { .. }));
        match (ahead.is_empty(), changed.is_empty(), gap) {
            (false, _, _) => sync.refused.increment(1),
            (true, true, _) => sync.up_to_date.increment(1),
            (true, false, true) => sync.gap.increment(1),
            (true, false, false) => sync.caught_up.increment(1),
        }
    }

    fn line_up(&mut self, request: Option<u64>, missing: &Missing) {
        let conversation = missing.conversation;
        if let Some(seq) = missing.erased_seq {
            self.catching_up.push_back(Part::Erased { request, erased: Erased { conversation, seq } });
        }
        let (gap, entries) = match missing.catch_up {
            CatchUp::Whole { from, to } => (None, Some((from, to))),
            CatchUp::Tail { gap_from, gap_to, from, to } => (Some((gap_from, gap_to)), Some((from, to))),
            CatchUp::UpToDate | CatchUp::Ahead => (None, None),
        };
        // What the user may not see and what is too much follow each other: one gap.
        let first = missing.hidden.or(gap).map(|gap| gap.0);
        if let Some((from, to)) = first.zip(gap.or(missing.hidden).map(|gap| gap.1)) {
            self.catching_up.push_back(Part::Gap { request, gap: Gap { conversation, from, to } });
        }
        if let Some((from, to)) = entries {
            self.catching_up.push_back(Part::Entries { request, conversation, from, to });
        }
    }

    /// Sends the next piece of a sync.
    async fn catch_up(&mut self) -> Result<(), Gone> {
        match self.catching_up.pop_front() {
            None => Ok(()),
            Some(Part::Gap { request, gap }) => self.send(request, gap.into()).await,
            Some(Part::Erased { request, erased }) => self.send(request, erased.into()).await,
            Some(Part::End { request, changed }) => self.send(request, SyncEnd { changed }.into()).await,
            Some(Part::Entries { request, conversation, from, to }) => {
                match self.gateway.parts.history.runs(&[Run { conversation, from, to }]).await {
                    Ok(mut runs) => {
                        let entries = runs.pop().unwrap_or_default();
                        let Some(last) = entries.last().map(|entry| entry.seq) else { return Ok(()) };
                        if last < to {
                            let rest = Part::Entries { request, conversation, from: last + 1, to };
                            self.catching_up.push_front(rest);
                        }
                        self.send(request, Deliver { conversation, entries }.into()).await
                    }
                    Err(error) => {
                        // Without this piece the sync is not complete: no SyncEnd, the client asks again.
                        self.catching_up.clear();
                        let refused = Refused::from(error).within(conversation);
                        self.send(request, refused.into_frame().into()).await
                    }
                }
            }
        }
    }

    /// The answer and later changes come through the notice.
    async fn watch(&self, request: Option<u64>, users: Vec<UserId>) -> Result<(), Refused> {
        let seat = Arc::clone(&self.seat);
        let notify = Arc::new(move |notice| {
            let (request, users) = match notice {
                Notice::Answer(users) => (request, users),
                Notice::Change(users) => (None, users),
            };
            let frame = Presence { users }.into();
            let _ = seat.outbox.push_control(&Outgoing::new(Envelope { request, frame }));
        });
        let user = &self.seat.user;
        let watched = self.gateway.parts.presence.watch(self.seat.id, user, users, notify).await;
        watched.map_err(|error| match error {
            WatchError::Store(error) => error.into(),
            WatchError::TooMany(_) => Refused::new(Code::LIMIT_EXCEEDED, error.to_string()),
            WatchError::Full => Refused::new(Code::OVER_CAPACITY, error.to_string()),
        })
    }

    async fn send(&self, request: Option<u64>, frame: Frame) -> Result<(), Gone> {
        let outgoing = Outgoing::new(Envelope { request, frame });
        self.seat.outbox.push_backlog(&outgoing).await.map_err(|_| Gone)
    }
}
