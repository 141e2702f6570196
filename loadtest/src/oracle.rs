//! Says whether what the members received is what was sent. Pure: it sees only what a client saw.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;

use tern_protocol::{Entry, EntryBody, EntryId, UserId};

use crate::plan::Plan;

/// Faults of one kind that are reported one by one; of more only the number is told.
const FAULTS_SHOWN_MAX: usize = 10;
/// Longest quote of a text in a fault, in characters.
const QUOTE_CHARS_MAX: usize = 60;

/// What one member received, in the order in which it came.
#[derive(Clone, Debug)]
pub(crate) struct Received {
    /// Which member.
    pub(crate) member: UserId,
    /// Their log.
    pub(crate) entries: Vec<Entry>,
}

/// What a client without any state was given when it came back.
#[derive(Clone, Debug, Default)]
pub(crate) struct Resumed {
    /// Entries that were only named, first and last of each gap.
    pub(crate) gaps: Vec<(u64, u64)>,
    /// Those that were handed out.
    pub(crate) entries: Vec<Entry>,
}

/// The acknowledgement of one planned message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Acked {
    /// Its place.
    pub(crate) seq: u64,
    /// Its id.
    pub(crate) id: EntryId,
}

/// What is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// A member's log has another seq where `expected` should be.
    NotDense { member: UserId, expected: u64, found: u64 },
    /// A member's log ends early or goes on too long.
    Length { member: UserId, expected: u64, found: u64 },
    /// Two members see different entries at one seq.
    Differs { member: UserId, seq: u64, other: UserId },
    /// The log does not begin with the group's creation, or something else than messages follows.
    Foreign { seq: u64 },
    /// A message that was sent is not in the log, or not often enough.
    Lost { author: UserId, text: String, times: usize },
    /// A message is in the log that was not sent, or too often.
    Surplus { author: UserId, text: String, times: usize },
    /// An author's messages are not in the order of the file: this one came where `expected` should be.
    AuthorOrder { author: UserId, place: usize, expected: String, found: String },
    /// A message was never acked.
    NotAcked { author: UserId, text: String },
    /// The entry at the acked seq is not the message that was acked.
    WrongAck { author: UserId, text: String, seq: u64 },
    /// More faults of the kind before.
    More { count: usize },
}

fn quote(text: &str) -> String {
    let quoted: String = text.chars().take(QUOTE_CHARS_MAX).collect();
    if quoted.len() < text.len() { format!("{quoted:?}…") } else { format!("{quoted:?}") }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotDense { member, expected, found } => {
                write!(f, "{member} received seq {found} where {expected} is next")
            }
            Self::Length { member, expected, found } => {
                write!(f, "{member} received {found} entries, not {expected}")
            }
            Self::Differs { member, seq, other } => {
                write!(f, "{member} and {other} see different entries at seq {seq}")
            }
            Self::Foreign { seq } => {
                write!(f, "the entry at seq {seq} is of a kind that does not belong there")
            }
            Self::Lost { author, text, times } => {
                write!(f, "{author}: {} was sent {times} times more than received", quote(text))
            }
            Self::Surplus { author, text, times } => {
                write!(f, "{author}: {} was received {times} times more than sent", quote(text))
            }
            Self::AuthorOrder { author, place, expected, found } => {
                write!(f, "{author}: message {place} should be {} and is {}", quote(expected), quote(found))
            }
            Self::NotAcked { author, text } => write!(f, "{author}: {} was never acked", quote(text)),
            Self::WrongAck { author, text, seq } => {
                write!(f, "{author}: {} was acked at seq {seq}, which holds something else", quote(text))
            }
            Self::More { count } => write!(f, "… and {count} more of this kind"),
        }
    }
}

/// One check and what it found.
#[derive(Debug)]
pub(crate) struct Check {
    /// What is checked, as a promise.
    pub(crate) name: &'static str,
    /// Empty: it holds.
    pub(crate) faults: Vec<Fault>,
}

impl Check {
    fn new(name: &'static str, mut faults: Vec<Fault>) -> Self {
        if let Some(count) = faults.len().checked_sub(FAULTS_SHOWN_MAX).filter(|count| *count > 0) {
            faults.truncate(FAULTS_SHOWN_MAX);
            faults.push(Fault::More { count });
        }
        Self { name, faults }
    }

    /// It holds.
    pub(crate) fn held(&self) -> bool {
        self.faults.is_empty()
    }
}

/// Compares the plan, the acks (one for each planned message) and what each member received.
pub(crate) fn check(plan: &Plan, acks: &[Option<Acked>], received: &[Received]) -> Vec<Check> {
    let length = plan.messages.len() as u64 + 1;
    let reference = received.first().map_or(&[][..], |first| &first.entries);
    let dense = received.iter().flat_map(|log| dense(log, length)).collect();
    let same = received.iter().skip(1).flat_map(|log| same(log, &received[0])).collect();
    vec![
        Check::new("every member received every seq once and in order", dense),
        Check::new("every member received the same log", same),
        Check::new("each author's messages are in the order of the file", author_order(plan, reference)),
        Check::new("what was received is what was sent, as often", multiset(plan, reference)),
        Check::new("every message was acked with its seq and id", acked(plan, acks, reference)),
    ]
}

/// Compares the history that a member read anew with what was received live.
pub(crate) fn check_history(history: &Received, live: &Received) -> Check {
    let mut faults = dense(history, live.entries.len() as u64);
    faults.extend(same(history, live));
    Check::new("a member from zero reads the same log page by page", faults)
}

/// Compares what a client was given that came back from zero: everything, or at most one gap at
/// the beginning and then the newest entries whole.
pub(crate) fn check_resume(resumed: &Resumed, live: &Received) -> Check {
    let member = UserId::new("a member from zero").expect("a valid user id");
    let mut faults = Vec::new();
    let mut expected = 1;
    for (from, to) in &resumed.gaps {
        if *from != expected || resumed.gaps.len() > 1 {
            faults.push(Fault::NotDense { member: member.clone(), expected, found: *from });
        }
        expected = to + 1;
    }
    for entry in &resumed.entries {
        if entry.seq != expected {
            faults.push(Fault::NotDense { member: member.clone(), expected, found: entry.seq });
        }
        expected = entry.seq + 1;
    }
    let length = live.entries.len() as u64;
    if expected != length + 1 {
        faults.push(Fault::Length { member: member.clone(), expected: length, found: expected - 1 });
    }
    faults.extend(same(&Received { member, entries: resumed.entries.clone() }, live));
    Check::new("a member from zero is given the newest entries whole and the rest by name", faults)
}

fn dense(log: &Received, length: u64) -> Vec<Fault> {
    let member = || log.member.clone();
    let mut faults = Vec::new();
    let mut expected = 1;
    for entry in &log.entries {
        if entry.seq != expected {
            faults.push(Fault::NotDense { member: member(), expected, found: entry.seq });
        }
        // After a hole or a repetition the next one is judged by itself.
        expected = entry.seq + 1;
    }
    let found = log.entries.len() as u64;
    if found != length {
        faults.push(Fault::Length { member: member(), expected: length, found });
    }
    faults
}

fn same(log: &Received, other: &Received) -> Vec<Fault> {
    let by_seq: HashMap<u64, &Entry> = other.entries.iter().map(|entry| (entry.seq, entry)).collect();
    log.entries
        .iter()
        .filter(|entry| by_seq.get(&entry.seq).is_none_or(|other| !equal(entry, other)))
        .map(|entry| Fault::Differs {
            member: log.member.clone(),
            seq: entry.seq,
            other: other.member.clone(),
        })
        .collect()
}

/// All that members see alike; a `temp_id` is of use to the sender's devices only.
fn equal(a: &Entry, b: &Entry) -> bool {
    (a.seq, a.id, a.time_ms, &a.sender, &a.sender_name, &a.body)
        == (b.seq, b.id, b.time_ms, &b.sender, &b.sender_name, &b.body)
}

fn text(entry: &Entry) -> Option<&str> {
    match &entry.body {
        EntryBody::Message { text, .. } => Some(text),
        _ => None,
    }
}

fn by_author<'a>(
    messages: impl Iterator<Item = (&'a UserId, &'a str)>,
) -> BTreeMap<&'a UserId, Vec<&'a str>> {
    let mut texts: BTreeMap<&UserId, Vec<&str>> = BTreeMap::new();
    for (author, text) in messages {
        texts.entry(author).or_default().push(text);
    }
    texts
}

fn sent(plan: &Plan) -> impl Iterator<Item = (&UserId, &str)> {
    plan.messages.iter().map(|message| (&plan.members[message.author], message.text.as_str()))
}

fn author_order(plan: &Plan, log: &[Entry]) -> Vec<Fault> {
    let received = by_author(log.iter().filter_map(|entry| Some((&entry.sender, text(entry)?))));
    let mut faults = Vec::new();
    for (author, expected) in by_author(sent(plan)) {
        let found = received.get(author).map_or(&[][..], Vec::as_slice);
        let wrong = expected.iter().zip(found).position(|(expected, found)| expected != found);
        if let Some(place) = wrong {
            faults.push(Fault::AuthorOrder {
                author: author.clone(),
                place: place + 1,
                expected: expected[place].to_owned(),
                found: found[place].to_owned(),
            });
        }
    }
    faults
}

fn multiset(plan: &Plan, log: &[Entry]) -> Vec<Fault> {
    let mut faults = Vec::new();
    let mut balance: BTreeMap<(&UserId, &str), isize> = BTreeMap::new();
    for message in sent(plan) {
        *balance.entry(message).or_default() += 1;
    }
    for (place, entry) in log.iter().enumerate() {
        match (&entry.body, place) {
            (EntryBody::Created { .. }, 0) => {}
            (EntryBody::Message { text, .. }, 1..) => *balance.entry((&entry.sender, text)).or_default() -= 1,
            _ => faults.push(Fault::Foreign { seq: entry.seq }),
        }
    }
    for ((author, text), difference) in balance {
        let (author, text, times) = (author.clone(), text.to_owned(), difference.unsigned_abs());
        match difference {
            0 => {}
            1.. => faults.push(Fault::Lost { author, text, times }),
            _ => faults.push(Fault::Surplus { author, text, times }),
        }
    }
    faults
}

fn acked(plan: &Plan, acks: &[Option<Acked>], log: &[Entry]) -> Vec<Fault> {
    let by_seq: HashMap<u64, &Entry> = log.iter().map(|entry| (entry.seq, entry)).collect();
    let mut taken = HashSet::new();
    let mut faults = Vec::new();
    for ((author, sent), ack) in sent(plan).zip(acks.iter().chain(std::iter::repeat(&None))) {
        let (author, text_sent) = (author.clone(), sent.to_owned());
        let Some(ack) = ack else {
            faults.push(Fault::NotAcked { author, text: text_sent });
            continue;
        };
        let right = by_seq
            .get(&ack.seq)
            .is_some_and(|entry| entry.id == ack.id && entry.sender == author && text(entry) == Some(sent));
        if !right || !taken.insert(ack.seq) {
            faults.push(Fault::WrongAck { author, text: text_sent, seq: ack.seq });
        }
    }
    faults
}

#[cfg(test)]
mod tests;
