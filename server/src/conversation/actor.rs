//! The task of one active conversation: takes what waits, decides, appends, and only then tells.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tern_protocol::{ConversationId, Deliver, Entry, EntryId, PAGE_BYTES_MAX, SENDS_IN_FLIGHT_MAX, UserId};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::Context;
use super::answer::{Committed, Outcome, Refusal};
use super::ask::Submission;
use super::state::{ChangeKey, Decision, Facts, Plan, Verdict, decide};
use crate::clock::unix_ms;
use crate::cluster::SessionRef;
use crate::delivery::{Class, Except, Parcel};
use crate::ops::metrics::record;
use crate::roster::Outgoing;
use crate::store::{
    AppendGroup, Appended, Conversation, GROUP_ENTRIES_MAX, Marker, Order, PageLimit, StoreError,
};

/// Markers of recent commits kept to recognise predecessors without asking the store.
const RECENT_MAX: usize = 1024;
/// Changes that were refused for good, remembered for those pipelined behind them: what two full
/// sessions can have on their way.
const REFUSED_MAX: usize = 2 * SENDS_IN_FLIGHT_MAX;
/// Pause before an unsettled append is submitted again.
const SETTLE_PAUSE: Duration = Duration::from_millis(100);
/// Heads that moved under us in a row before the batch is given up as temporary.
const CONFLICTS_MAX: u32 = 64;

/// Runs until the mailbox is closed, or idle and `retire` agrees.
pub(super) async fn run(
    id: ConversationId,
    mut mailbox: mpsc::Receiver<Submission>,
    context: Context,
    retire: impl Fn(&mpsc::Receiver<Submission>) -> bool,
) {
    let idle = context.idle;
    let mut actor = Actor {
        id,
        context,
        state: None,
        recent: Recent::default(),
        refused: VecDeque::new(),
        waiting: VecDeque::new(),
    };
    let mut taken = Vec::with_capacity(1);
    loop {
        if actor.waiting.is_empty() {
            match tokio::time::timeout(idle, mailbox.recv_many(&mut taken, GROUP_ENTRIES_MAX)).await {
                Ok(0) => return,
                Ok(_) => actor.waiting.extend(taken.drain(..)),
                Err(_) if retire(&mailbox) => return,
                Err(_) => continue,
            }
        }
        actor.commit_some().await;
    }
}

/// The cached state of a log: `Some(None)` is a conversation known not to exist.
type Cached = Option<Option<Arc<Conversation>>>;

struct Actor {
    id: ConversationId,
    context: Context,
    state: Cached,
    recent: Recent,
    /// Refused for good, the newest last, at most [`REFUSED_MAX`].
    refused: VecDeque<ChangeKey>,
    waiting: VecDeque<Submission>,
}

/// The markers of the newest commits, bounded: the oldest go first.
#[derive(Default)]
struct Recent {
    markers: HashMap<ChangeKey, Marker, foldhash::fast::RandomState>,
    order: VecDeque<ChangeKey>,
}

impl Recent {
    fn insert(&mut self, key: ChangeKey, marker: Marker) {
        if self.order.len() == RECENT_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.markers.remove(&oldest);
        }
        if self.markers.insert(key.clone(), marker).is_none() {
            self.order.push_back(key);
        }
    }
}

/// Why a batch could not be settled now.
enum Unsettled {
    Store(StoreError),
    Contended,
    TimedOut,
    /// Something in it is of a user who was erased.
    Barred,
}

impl From<StoreError> for Unsettled {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl Actor {
    /// Settles a prefix of what waits.
    async fn commit_some(&mut self) {
        self.release_successors();
        self.waiting.make_contiguous();
        match self.settle().await {
            Ok(plan) => self.answer(plan).await,
            Err(unsettled) => self.refuse_all(&unsettled),
        }
    }

    /// Whoever was pipelined behind a change that was refused for good has nothing to wait for.
    fn release_successors(&mut self) {
        if self.refused.is_empty() {
            return;
        }
        for submission in &mut self.waiting {
            let is = |key: &ChangeKey, temp_id| key.0 == submission.ask.sender && key.1 == temp_id;
            submission.ask.after =
                submission.ask.after.filter(|&before| !self.refused.iter().any(|key| is(key, before)));
            // Asked for again, it is unresolved again.
            self.refused.retain(|key| !is(key, submission.ask.temp_id));
        }
    }

    fn remember_refused(&mut self, key: ChangeKey) {
        if self.refused.len() == REFUSED_MAX {
            self.refused.pop_front();
        }
        self.refused.push_back(key);
    }

    /// Decides and appends until the store has given its final word.
    async fn settle(&mut self) -> Result<Plan, Unsettled> {
        let deadline = Instant::now() + self.context.settle;
        let mut facts = self.recent_facts();
        let mut conflicts = 0;
        loop {
            if self.state.is_none() {
                self.state = Some(self.context.store.conversation(self.id).await?);
            }
            let batch = self.waiting.as_slices().0;
            let mut fresh_id = || EntryId::from_uuid(uuid::Uuid::now_v7());
            let state = self.state.as_ref().and_then(Option::as_deref);
            let plan = match decide(state, batch, &facts, unix_ms(), &mut fresh_id) {
                Decision::Lookup(keys) => {
                    self.look_up(keys, &mut facts).await?;
                    continue;
                }
                Decision::Ready(plan) => plan,
            };
            let Some(group) = &plan.group else { return Ok(plan) };
            match self.append_until_known(group, deadline).await? {
                Appended::Applied => {
                    self.state = Some(Some(group.state.clone()));
                    return Ok(plan);
                }
                Appended::Duplicates(found) => {
                    for (index, marker) in found {
                        let entry = &group.entries[index].entry;
                        if let Some(temp_id) = entry.temp_id {
                            facts.insert((entry.sender.clone(), temp_id), Some(marker));
                        }
                    }
                    // The markers may be of another owner's append: the head is not sure either.
                    self.state = None;
                }
                Appended::Conflict { .. } => {
                    conflicts += 1;
                    self.state = None;
                    if conflicts > CONFLICTS_MAX {
                        return Err(Unsettled::Contended);
                    }
                }
                Appended::Barred(_) => return Err(Unsettled::Barred),
                Appended::Unknown => return Err(Unsettled::TimedOut),
            }
        }
    }

    /// An append without an answer is submitted again as it is: its markers make the second answer final.
    async fn append_until_known(
        &self,
        group: &Arc<AppendGroup>,
        deadline: Instant,
    ) -> Result<Appended, Unsettled> {
        loop {
            let error = match self.context.store.append(group).await {
                Ok(Appended::Unknown) => Unsettled::TimedOut,
                Ok(appended) => return Ok(appended),
                Err(error) => Unsettled::Store(error),
            };
            if Instant::now() >= deadline {
                return Err(error);
            }
            tokio::time::sleep(SETTLE_PAUSE).await;
        }
    }

    fn recent_facts(&self) -> Facts {
        // Only what this batch can ask about: its own keys and the predecessors they name.
        let mut facts = Facts::new();
        if self.recent.order.is_empty() {
            return facts;
        }
        for submission in &self.waiting {
            for temp_id in std::iter::once(submission.ask.temp_id).chain(submission.ask.after) {
                let key = (submission.ask.sender.clone(), temp_id);
                if let Some(marker) = self.recent.markers.get(&key) {
                    facts.insert(key, Some(*marker));
                }
            }
        }
        facts
    }

    async fn look_up(&self, keys: Vec<ChangeKey>, facts: &mut Facts) -> Result<(), StoreError> {
        for key in keys {
            // A predecessor is at most as old as the oldest send that waits.
            let age_ms = self.waiting.iter().map(|submission| submission.ask.age_ms).max().unwrap_or(0);
            let marker = self.context.store.marker(self.id, &key.0, key.1, age_ms).await?;
            facts.insert(key, marker);
        }
        Ok(())
    }

    /// The plan is durable: fan out, then answer, and remember.
    async fn answer(&mut self, plan: Plan) {
        let decided: Vec<Submission> = self.waiting.drain(..plan.verdicts.len()).collect();
        let unknown = self.first_contact(&plan).await;
        let mut outcomes: Vec<Option<Outcome>> = vec![None; decided.len()];
        let mut fresh = Vec::new();
        for (index, verdict) in plan.verdicts.iter().enumerate() {
            let submission = &decided[index];
            outcomes[index] = Some(match verdict {
                Verdict::Append(entry) => {
                    let group = plan.group.as_ref().expect("an appended entry is in the group");
                    let new = &group.entries[*entry];
                    let marker = Marker { seq: new.entry.seq, digest: new.digest };
                    self.recent.insert((submission.ask.sender.clone(), submission.ask.temp_id), marker);
                    fresh.push((*entry, submission.ask.asker.clone(), submission.arrived));
                    let session = submission.ask.asker.as_ref().map(|asker| asker.session);
                    let (temp_id, seq) = (submission.ask.temp_id, new.entry.seq);
                    tracing::debug!(conversation = %self.id, session, %temp_id, seq, "durable");
                    Ok(Committed {
                        seq: new.entry.seq,
                        id: new.entry.id,
                        time_ms: new.entry.time_ms,
                        messages: new.entry.messages,
                        duplicate: false,
                        recipient_unknown: unknown,
                    })
                }
                Verdict::Duplicate(marker) => self.again(marker.seq, submission.ask.asker.clone()).await,
                Verdict::SameAs(first) => again_in_batch(outcomes[*first].as_ref()),
                Verdict::Refuse(refusal) => {
                    if refusal.resolves() {
                        self.remember_refused((submission.ask.sender.clone(), submission.ask.temp_id));
                    }
                    Err(refusal.clone())
                }
            });
        }
        self.fan_out(&plan, &fresh);
        for (submission, outcome) in decided.into_iter().zip(outcomes) {
            let outcome = outcome.expect("every verdict has an outcome");
            self.count(&outcome, submission.arrived);
            submission.reply.send(outcome);
        }
    }

    fn count(&self, outcome: &Outcome, arrived: std::time::Instant) {
        let messages = &self.context.metrics.messages;
        match outcome {
            Ok(committed) if committed.duplicate => messages.sends_duplicate.increment(1),
            Ok(_) => {
                messages.sends_applied.increment(1);
                record(&messages.send_ack_seconds, arrived.elapsed());
            }
            Err(refusal) if refusal.code().temporary() => messages.sends_temporary.increment(1),
            Err(_) => messages.sends_refused.increment(1),
        }
    }

    fn fan_out(&self, plan: &Plan, origins: &[(usize, Option<SessionRef>, std::time::Instant)]) {
        let Some(group) = &plan.group else { return };
        for (index, recipients) in plan.recipients.iter().enumerate() {
            let end = plan.recipients.get(index + 1).map_or(group.entries.len(), |next| next.from);
            let to: Arc<[UserId]> = recipients.users.clone().into();
            for (offset, new) in group.entries[recipients.from..end].iter().enumerate() {
                let origin = origins.iter().find(|origin| origin.0 == recipients.from + offset);
                let asker = origin.and_then(|origin| origin.1.clone());
                let arrived = origin.map(|origin| origin.2);
                self.hand_out(to.clone(), (*new.entry).clone(), asker, arrived);
            }
        }
    }

    /// The session that asked gets its ack in place of a message.
    fn hand_out(
        &self,
        to: Arc<[UserId]>,
        entry: Entry,
        asker: Option<SessionRef>,
        arrived: Option<std::time::Instant>,
    ) {
        let class = Class::Entry { conversation: self.id, seq: entry.seq };
        let except = match asker.filter(|_| entry.body.is_message()) {
            Some(session) => Except::Session(session),
            None => Except::Nobody,
        };
        let body = Outgoing::new(Deliver { conversation: self.id, entries: vec![entry] });
        self.context.delivery.hand_out(Parcel { to, class, body, except, arrived });
    }

    /// A pair that was just made: has the other user ever been here?
    async fn first_contact(&self, plan: &Plan) -> bool {
        let Some(group) = plan.group.as_ref().filter(|group| group.expected_head == 0) else { return false };
        let users: Vec<UserId> = group.state.members.iter().map(|member| member.user.clone()).collect();
        let known = self.context.store.users(&users).await;
        // A hint for people: without an answer nothing is claimed.
        known.is_ok_and(|known| known.iter().any(Option::is_none))
    }

    /// A change that was committed earlier. Its first attempt may have died before anybody was told,
    /// so the marks, the push intent and the fan-out are done again before the ack.
    async fn again(&self, seq: u64, origin: Option<SessionRef>) -> Outcome {
        self.context.metrics.messages.dedupe_hits.increment(1);
        let unavailable = |_| Refusal::Unavailable("the store does not answer");
        let limit = PageLimit { entries: 1, bytes: PAGE_BYTES_MAX };
        let found = self
            .context
            .store
            .entries(self.id, seq..=seq, Order::Ascending, limit)
            .await
            .map_err(unavailable)?;
        let entry =
            found.into_iter().next().ok_or(Refusal::Unavailable("the committed entry cannot be read"))?;
        if let Some(Some(state)) = &self.state {
            let redone = self.context.store.redo(self.id, state, std::slice::from_ref(&entry)).await;
            redone.map_err(unavailable)?;
        }
        let committed = Committed {
            seq,
            id: entry.id,
            time_ms: entry.time_ms,
            messages: entry.messages,
            duplicate: true,
            recipient_unknown: false,
        };
        if let Some(Some(state)) = &self.state {
            let to = state
                .members
                .iter()
                .filter(|member| member.first_seq <= seq)
                .map(|member| member.user.clone())
                .collect();
            self.hand_out(to, entry, origin, None);
        }
        Ok(committed)
    }

    /// Nothing is known of these: the clients retry, and their markers tell.
    fn refuse_all(&mut self, unsettled: &Unsettled) {
        self.state = None;
        let why = match unsettled {
            Unsettled::Store(error) => {
                tracing::warn!(conversation = %self.id, %error, "append failed");
                "the message store does not answer"
            }
            Unsettled::TimedOut => "the message store did not answer in time",
            Unsettled::Barred => "a user is being erased",
            Unsettled::Contended => "the conversation is being written by others",
        };
        for submission in std::mem::take(&mut self.waiting) {
            let outcome = Err(Refusal::Unavailable(why));
            self.count(&outcome, submission.arrived);
            submission.reply.send(outcome);
        }
    }
}

fn again_in_batch(first: Option<&Outcome>) -> Outcome {
    match first {
        Some(Ok(committed)) => Ok(Committed { duplicate: true, ..*committed }),
        Some(Err(refusal)) => Err(refusal.clone()),
        None => Err(Refusal::Unavailable("the first attempt is undecided")),
    }
}
