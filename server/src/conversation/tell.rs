//! Tells what was decided: durable entries to the members, then each caller the outcome of their change.

use std::time::Instant;

use tern_protocol::{ConversationId, Entry, EntryBody, UserId};

use super::answer::{Committed, Outcome, Refusal};
use super::owned::Caller;
use super::reads::Retold;
use super::settle::Settled;
use super::state::{Snapshot, Verdict};
use crate::cluster::SessionRef;
use crate::delivery::{Delivery, Fresh};
use crate::ops::metrics::{Metrics, record};

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
    let duplicates = settled.plan.verdicts.iter().filter(|verdict| matches!(verdict, Verdict::Duplicate(_)));
    metrics.messages.dedupe_hits.increment(duplicates.count() as u64);
    for ((ask, caller), outcome) in settled.asks.iter().zip(callers).zip(outcomes) {
        let session = ask.asker.as_ref().map(|asker| asker.session);
        let seq = outcome.as_ref().ok().map(|committed| committed.seq);
        tracing::debug!(conversation = %id, session, temp_id = %ask.temp_id, seq, "settled");
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
        duplicate: false,
        recipient_unknown: false,
    }
}

/// Entries that were committed before are told again: their first attempt may have died before it told them.
fn again(delivery: &Delivery, id: ConversationId, settled: &Settled, retold: &Retold) {
    let Some(after) = &settled.plan.after else { return };
    for entry in &retold.entries {
        let is_asked =
            |ask: &&super::ask::Ask| Some(ask.temp_id) == entry.temp_id && ask.sender == entry.sender;
        let asker = settled.asks.iter().find(is_asked).and_then(|ask| ask.asker.clone());
        let fresh = Fresh { entry: entry.clone(), origin: asker, arrived: None };
        delivery.fan_out(id, std::iter::once(fresh), &who_saw(after, entry));
    }
}

/// Members whose log has the entry, and those of whom it says that they are gone.
fn who_saw(after: &Snapshot, entry: &Entry) -> Vec<UserId> {
    let members = after.state.members.iter().filter(|member| member.first_seq <= entry.seq);
    let mut users: Vec<UserId> = members.map(|member| member.user.clone()).collect();
    let gone: &[UserId] = match &entry.body {
        EntryBody::Removed { users } => users,
        EntryBody::Left { user } => std::slice::from_ref(user),
        _ => &[],
    };
    users.extend(gone.iter().filter(|user| after.state.member(user).is_none()).cloned());
    users
}

fn fan_out(delivery: &Delivery, id: ConversationId, settled: &Settled, callers: &[Caller]) {
    let plan = &settled.plan;
    let Some(group) = &plan.group else { return };
    for (index, recipients) in plan.recipients.iter().enumerate() {
        let end = plan.recipients.get(index + 1).map_or(group.entries.len(), |next| next.from);
        let entries = (recipients.from..end).map(|place| {
            let by = plan.made_by[place];
            let (origin, arrived): (Option<SessionRef>, Option<Instant>) =
                (settled.asks[by].asker.clone(), Some(callers[by].arrived));
            Fresh { entry: Entry::clone(&group.entries[place].entry), origin, arrived }
        });
        delivery.fan_out(id, entries, &recipients.users);
    }
}
