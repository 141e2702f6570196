//! Tells what was decided: durable entries to the members, then each caller the outcome of their change.

use std::sync::Arc;

use tern_protocol::{ConversationId, Entry, EntryBody, UserId, encode_deliver};

use super::answer::{Committed, Outcome, Refusal};
use super::ask::Ask;
use super::owned::Caller;
use super::plan::{Snapshot, Verdict};
use super::reads::Retold;
use super::settle::Settled;

use crate::cluster::SessionRef;
use crate::delivery::{Class, Delivery, Except, Parcel, Relations};
use crate::ops::metrics::{Metrics, record};
use crate::roster::Outgoing;

/// Tells a plan that stands. Nobody hears of an entry before it is durable, and who asked for it hears last.
pub(super) fn tell(
    delivery: &Delivery,
    metrics: &Metrics,
    id: ConversationId,
    settled: &Settled,
    callers: Vec<Caller>,
    retold: &Retold,
) {
    let outcomes = outcomes(settled, retold);
    again(delivery, id, settled, retold);
    fan_out(delivery, id, settled, &callers);
    judge_again(delivery, settled, retold);
    let duplicates = settled.plan.verdicts.iter().filter(|verdict| matches!(verdict, Verdict::Duplicate(_)));
    metrics.messages.dedupe_hits.increment(duplicates.count() as u64);
    for ((ask, caller), outcome) in settled.asks.iter().zip(callers).zip(outcomes) {
        let session = ask.asker.as_ref().map(|asker| asker.session);
        match &outcome {
            Ok(Committed { seq, .. }) => {
                tracing::debug!(conversation = %id, session, temp_id = %ask.temp_id, seq, "durable");
            }
            Err(refusal) => {
                let code = refusal.code().0;
                tracing::debug!(conversation = %id, session, temp_id = %ask.temp_id, code, "not made");
            }
        }
        answer(metrics, caller, outcome);
    }
}

/// Gives a caller the outcome, and counts it.
pub(super) fn answer(metrics: &Metrics, caller: Caller, outcome: Outcome) {
    let messages = &metrics.messages;
    match &outcome {
        Ok(committed) if committed.duplicate => messages.sends_duplicate.increment(1),
        Ok(_) => {
            messages.sends_applied.increment(1);
            record(&messages.send_ack_seconds, caller.arrived.elapsed());
        }
        Err(refusal) if refusal.code().temporary() => messages.sends_temporary.increment(1),
        Err(_) => messages.sends_refused.increment(1),
    }
    caller.reply.send(outcome);
}

/// One for each verdict.
fn outcomes(settled: &Settled, retold: &Retold) -> Vec<Outcome> {
    let plan = &settled.plan;
    let mut outcomes: Vec<Outcome> = Vec::with_capacity(plan.verdicts.len());
    for verdict in &plan.verdicts {
        let outcome = match verdict {
            Verdict::Append(_) if retold.undone => {
                Err(Refusal::Unavailable("the message store does not answer"))
            }
            Verdict::Append(index) => {
                let group = plan.group.as_ref().expect("an appended entry is in the group");
                let committed = committed(&group.entries[*index].entry);
                Ok(Committed { recipient_unknown: retold.recipient_unknown, ..committed })
            }
            Verdict::Duplicate(marker) => {
                let entry = retold.entries.iter().find(|entry| entry.seq == marker.seq);
                match entry {
                    Some(entry) => Ok(Committed { duplicate: true, ..committed(entry) }),
                    None if retold.failed => Err(Refusal::Unavailable("the message store does not answer")),
                    None => Err(Refusal::Unavailable("the committed entry cannot be read")),
                }
            }
            Verdict::SameAs(first) => match &outcomes[*first] {
                Ok(committed) => Ok(Committed { duplicate: true, ..*committed }),
                Err(refusal) => Err(refusal.clone()),
            },
            Verdict::Refuse(refusal) => Err(refusal.clone()),
        };
        outcomes.push(outcome);
    }
    outcomes
}

fn committed(entry: &Entry) -> Committed {
    Committed {
        seq: entry.seq,
        id: entry.id,
        time_ms: entry.time_ms,
        messages: entry.messages,
        duplicate: false,
        recipient_unknown: false,
    }
}

/// Entries that were committed before are told again: their first attempt may have died before it told them.
fn again(delivery: &Delivery, id: ConversationId, settled: &Settled, retold: &Retold) {
    let Some(after) = &settled.plan.after else { return };
    for entry in &retold.entries {
        let is_its = |ask: &&Ask| Some(ask.temp_id) == entry.temp_id && ask.sender == entry.sender;
        let asker = settled.asks.iter().find(is_its).and_then(|ask| ask.asker.as_ref());
        let encoded = postcard::to_stdvec(entry).expect("entries have no unsized sequences");
        delivery.hand_out(parcel(id, who_saw(after, entry), (entry, &encoded), asker));
    }
}

/// Members whose log has the entry, and those of whom it says that they are gone.
fn who_saw(after: &Snapshot, entry: &Entry) -> Arc<[UserId]> {
    let members = after.state.members.iter().filter(|member| member.first_seq <= entry.seq);
    let mut users: Vec<UserId> = members.map(|member| member.user.clone()).collect();
    let gone: &[UserId] = match &entry.body {
        EntryBody::Removed { users } => users,
        EntryBody::Left { user } => std::slice::from_ref(user),
        _ => &[],
    };
    users.extend(gone.iter().filter(|user| after.state.member(user).is_none()).cloned());
    users.into()
}

/// New entries, each to those who are members at it.
fn fan_out(delivery: &Delivery, id: ConversationId, settled: &Settled, callers: &[Caller]) {
    let plan = &settled.plan;
    let Some(group) = &plan.group else { return };
    let mut sets = plan.recipients.iter().peekable();
    let mut to = Arc::from([]);
    for (place, (new, &by)) in group.entries.iter().zip(&plan.made_by).enumerate() {
        while let Some(set) = sets.next_if(|set| set.from <= place) {
            to = Arc::clone(&set.users);
        }
        if new.entry.body.is_message() {
            // Who writes has seen what was before.
            delivery.confirmed().note(id, &new.entry.sender, new.entry.seq);
        }
        let asker = settled.asks[by].asker.as_ref();
        let parcel = parcel(id, Arc::clone(&to), (&new.entry, &new.encoded()), asker);
        delivery.hand_out(Parcel { arrived: Some(callers[by].arrived), ..parcel });
    }
}

/// Who sees whom may have changed, also by what was committed before and perhaps not told.
fn judge_again(delivery: &Delivery, settled: &Settled, retold: &Retold) {
    let Some(after) = &settled.plan.after else { return };
    let mut moved = settled.plan.moved.clone();
    for entry in &retold.entries {
        moved.push(entry.sender.clone());
        moved.extend_from_slice(match &entry.body {
            EntryBody::Created { members: users, .. }
            | EntryBody::Added { users }
            | EntryBody::Removed { users } => users,
            _ => &[],
        });
    }
    if !moved.is_empty() {
        delivery.judge_again(&Relations { members: Arc::clone(&after.members), moved: moved.into() });
    }
}

/// The session that asked gets its ack in place of a message.
fn parcel(
    conversation: ConversationId,
    to: Arc<[UserId]>,
    (entry, encoded): (&Entry, &[u8]),
    asker: Option<&SessionRef>,
) -> Parcel {
    let except = match asker {
        Some(session) if entry.body.is_message() => Except::Session(session.clone()),
        _ => Except::Nobody,
    };
    let body = Outgoing::from_binary(encode_deliver(conversation, encoded).into());
    Parcel { to, class: Class::Entry { conversation, seq: entry.seq }, body, except, arrived: None }
}
