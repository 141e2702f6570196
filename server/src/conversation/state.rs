//! Decides what a batch of submissions does to a conversation: who may, in which order, under
//! which seq. Pure: state and facts in, one append group and a verdict for each submission out.

use std::collections::HashMap;
use std::sync::Arc;

use tern_protocol::{
    ConversationId, ConversationKind, Entry, EntryBody, EntryId, GROUP_MEMBERS_MAX, Role, TempId, UserId,
};

use super::answer::Refusal;
use super::ask::{Ask, Change, Submission};
use crate::store::{
    AppendGroup, Conversation, Departure, GROUP_BYTES_MAX, GROUP_ENTRIES_MAX, Marker, Member, NewEntry,
};

/// Names a change across retries (within one conversation).
pub type ChangeKey = (UserId, TempId);
/// What is known of markers: absent means not looked up, `None` that there is none.
pub type Facts = HashMap<ChangeKey, Option<Marker>>;

/// Who receives an entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recipients {
    /// Index of the first entry of the group that these users receive.
    pub from: usize,
    /// Members at that entry, and who just went.
    pub users: Vec<UserId>,
}

/// What happens to one submission of a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Entry `index` of the group is this change.
    Append(usize),
    /// It was committed before.
    Duplicate(Marker),
    /// It is the same change as submission `index` of the batch.
    SameAs(usize),
    /// It is not made.
    Refuse(Refusal),
}

/// The decision about a batch.
#[derive(Debug, PartialEq, Eq)]
pub enum Decision {
    /// These markers must be looked up first.
    Lookup(Vec<ChangeKey>),
    /// Append this group, then answer.
    Ready(Plan),
}

/// A decided batch.
#[derive(Debug, PartialEq, Eq)]
pub struct Plan {
    /// What to append; `None` if nothing is new.
    pub group: Option<Arc<AppendGroup>>,
    /// One for each submission that was decided, in order: a prefix of the batch.
    pub verdicts: Vec<Verdict>,
    /// Who receives which entries: each set holds until the next one's `from`.
    pub recipients: Vec<Recipients>,
}

/// Decides about as many submissions of a batch as fit in one group.
///
/// `now_ms` is the wall clock; entry times never decrease whatever it says. `fresh_id` makes ids.
pub fn decide(
    state: Option<&Conversation>,
    batch: &[Submission],
    facts: &Facts,
    now_ms: u64,
    fresh_id: &mut dyn FnMut() -> EntryId,
) -> Decision {
    let mut work = Work::new(state, now_ms, fresh_id);
    let mut seen: HashMap<ChangeKey, usize> = HashMap::new();
    let mut verdicts = Vec::with_capacity(batch.len());
    let mut lookups = Vec::new();
    let mut bytes = 0;
    for (index, Submission { ask, .. }) in batch.iter().enumerate() {
        bytes += ask.change.weight();
        if index > 0 && (bytes > GROUP_BYTES_MAX || work.entries.len() + 2 > GROUP_ENTRIES_MAX) {
            break;
        }
        let key = (ask.sender.clone(), ask.temp_id);
        let verdict = match seen.get(&key) {
            Some(&first) if batch[first].ask.change == ask.change => Verdict::SameAs(first),
            Some(&first) => conflict(&verdicts[first]),
            None => judge(&mut work, ask, &key, facts, &seen, &verdicts, &mut lookups),
        };
        seen.entry(key).or_insert(index);
        verdicts.push(verdict);
    }
    if !lookups.is_empty() {
        return Decision::Lookup(lookups);
    }
    Decision::Ready(work.finish(batch[0].ask.conversation, state, verdicts))
}

/// The same `temp_id` twice in a batch for different things. While the first has no seq yet the
/// second is put off: its retry meets the marker and learns the seq.
fn conflict(first: &Verdict) -> Verdict {
    match first {
        Verdict::Append(_) | Verdict::SameAs(_) => Verdict::Refuse(Refusal::OutOfOrder),
        Verdict::Duplicate(marker) => Verdict::Refuse(Refusal::Conflict { seq: marker.seq }),
        Verdict::Refuse(refusal) => Verdict::Refuse(refusal.clone()),
    }
}

fn judge(
    work: &mut Work<'_>,
    ask: &Ask,
    key: &ChangeKey,
    facts: &Facts,
    seen: &HashMap<ChangeKey, usize>,
    verdicts: &[Verdict],
    lookups: &mut Vec<ChangeKey>,
) -> Verdict {
    // An earlier commit answers before anything else is asked: also for somebody who has left.
    if let Some(Some(marker)) = facts.get(key) {
        return if marker.digest == ask.change.digest() {
            Verdict::Duplicate(*marker)
        } else {
            Verdict::Refuse(Refusal::Conflict { seq: marker.seq })
        };
    }
    if let Some(before) = ask.after {
        let before = (ask.sender.clone(), before);
        let resolved = match (seen.get(&before), facts.get(&before)) {
            (Some(&index), _) => match &verdicts[index] {
                Verdict::Refuse(refusal) => refusal.resolves(),
                Verdict::Append(_) | Verdict::Duplicate(_) | Verdict::SameAs(_) => true,
            },
            (None, Some(marker)) => marker.is_some(),
            (None, None) => {
                lookups.push(before);
                true
            }
        };
        if !resolved {
            return refuse_unless_known(key, facts, lookups, Refusal::OutOfOrder);
        }
    }
    match work.apply(ask) {
        Ok(index) => Verdict::Append(index),
        Err(refusal) => refuse_unless_known(key, facts, lookups, refusal),
    }
}

/// Nothing is refused before it is certain that it was not committed earlier.
fn refuse_unless_known(
    key: &ChangeKey,
    facts: &Facts,
    lookups: &mut Vec<ChangeKey>,
    refusal: Refusal,
) -> Verdict {
    if !facts.contains_key(key) {
        lookups.push(key.clone());
    }
    Verdict::Refuse(refusal)
}

/// The conversation while a batch is applied to it.
struct Work<'a> {
    state: Option<Conversation>,
    entries: Vec<NewEntry>,
    departures: Vec<Departure>,
    recipients: Vec<Recipients>,
    /// The member list differs from the last recipients.
    members_changed: bool,
    time_ms: u64,
    fresh_id: &'a mut dyn FnMut() -> EntryId,
}

impl<'a> Work<'a> {
    fn new(state: Option<&Conversation>, now_ms: u64, fresh_id: &'a mut dyn FnMut() -> EntryId) -> Self {
        let time_ms = now_ms.max(state.map_or(0, |state| state.last_time_ms));
        Self {
            state: state.cloned(),
            entries: Vec::new(),
            departures: Vec::new(),
            recipients: Vec::new(),
            members_changed: true,
            time_ms,
            fresh_id,
        }
    }

    /// Makes the change in the working state, or says why not and leaves it untouched.
    fn apply(&mut self, ask: &Ask) -> Result<usize, Refusal> {
        let is_erasure = matches!(ask.change, Change::Erase { .. });
        if !is_erasure {
            check_reachable(std::slice::from_ref(&ask.sender))?;
        }
        match &ask.change {
            Change::Message { text, data, reply_to } => {
                if let Some(seq) = reply_to {
                    self.check_reply(ask, *seq)?;
                }
                let (text, data) = (text.clone(), data.clone());
                self.message(ask, EntryBody::Message { text, data, reply_to: *reply_to })
            }
            Change::Create { name, members } => self.create(ask, name, members),
            Change::Add { users } => self.add(ask, users),
            Change::Remove { users } => self.remove(ask, users),
            Change::Leave => self.leave(ask),
            Change::Rename { name } => {
                self.group_role(ask, Role::Admin, "only admins and owners rename a group")?;
                self.state_mut().name = Some(name.clone());
                Ok(self.push(ask, EntryBody::Renamed { name: name.clone() }))
            }
            Change::SetRole { user, role } => self.set_role(ask, user, *role),
            Change::Erase { user } => self.erase(ask, user),
        }
    }

    fn message(&mut self, ask: &Ask, body: EntryBody) -> Result<usize, Refusal> {
        if self.state.is_none() {
            let peer = ask.peer.clone().ok_or(Refusal::NotFound)?;
            check_reachable(std::slice::from_ref(&peer))?;
            self.state = Some(new_pair(&ask.sender, peer));
        } else if let Some(peer) = &ask.peer {
            self.come_back(ask, peer);
        }
        self.member(ask)?;
        let alone = ask.peer.is_none()
            && self.state.as_ref().is_some_and(|state| {
                let (sender, is_pair) = (&ask.sender, state.kind == ConversationKind::Pair);
                is_pair
                    && state.members.len() == 1
                    && ask.conversation != ConversationId::pair(sender, sender)
            });
        if alone {
            return Err(Refusal::Forbidden("the other user was erased: to begin again, write to a user"));
        }
        Ok(self.push(ask, body))
    }

    /// A message answers an entry that its sender may see.
    fn check_reply(&self, ask: &Ask, seq: u64) -> Result<(), Refusal> {
        let state = self.state.as_ref();
        let seen = state.and_then(|state| Some(state.member(&ask.sender)?.first_seq..=state.head));
        match seen {
            Some(seen) if seen.contains(&seq) => Ok(()),
            None if ask.peer.is_none() => Err(Refusal::NotFound),
            _ => Err(Refusal::Invalid(format!(
                "reply_to names no entry of this log that the sender sees: {seq}"
            ))),
        }
    }

    /// Somebody of a pair was erased and is written to, or writes, under the same id again.
    fn come_back(&mut self, ask: &Ask, peer: &UserId) {
        let Some(state) = self.state.as_mut() else { return };
        let mut users = vec![ask.sender.clone(), peer.clone()];
        users.dedup();
        users.retain(|user| state.member(user).is_none());
        if users.is_empty() || state.kind != ConversationKind::Pair {
            return;
        }
        let first_seq = state.head + 1;
        let member = |user: &UserId| Member { user: user.clone(), role: Role::Owner, first_seq };
        state.members.extend(users.iter().map(member));
        self.members_changed = true;
        self.push_entry(ask, EntryBody::Added { users }, None, [0; 16]);
    }

    /// The sender stands for the user from now on. Also said of who had left before: it tells the
    /// others that entries have changed.
    fn erase(&mut self, ask: &Ask, user: &UserId) -> Result<usize, Refusal> {
        let Some(state) = self.state.as_mut() else { return Err(Refusal::NotFound) };
        state.members.retain(|member| member.user != *user);
        let is_group = state.kind == ConversationKind::Group;
        self.members_changed = true;
        let index = self.push(ask, EntryBody::Left { user: ask.sender.clone() });
        if is_group && let Some(user) = self.promote() {
            let body = EntryBody::RoleChanged { user, role: Role::Owner };
            self.push_entry(ask, body, None, [0; 16]);
        }
        Ok(index)
    }

    fn create(&mut self, ask: &Ask, name: &str, others: &[UserId]) -> Result<usize, Refusal> {
        if let Some(state) = &self.state {
            // The id derives from (creator, temp_id): it exists only if this was committed.
            return Err(Refusal::Conflict { seq: state.head.min(1) });
        }
        let mut users = vec![ask.sender.clone()];
        for user in others {
            if !users.contains(user) {
                users.push(user.clone());
            }
        }
        check_size(users.len())?;
        check_reachable(&users)?;
        let members = users
            .iter()
            .enumerate()
            .map(|(index, user)| Member {
                user: user.clone(),
                role: if index == 0 { Role::Owner } else { Role::Member },
                first_seq: 1,
            })
            .collect();
        self.state = Some(Conversation {
            kind: ConversationKind::Group,
            name: Some(name.to_owned()),
            head: 0,
            messages: 0,
            last_time_ms: 0,
            members,
        });
        Ok(self.push(ask, EntryBody::Created { name: name.to_owned(), members: users }))
    }

    fn add(&mut self, ask: &Ask, users: &[UserId]) -> Result<usize, Refusal> {
        self.group_role(ask, Role::Admin, "only admins and owners add members")?;
        let state = self.state_mut();
        let mut joining: Vec<UserId> = Vec::new();
        for user in users {
            if state.member(user).is_none() && !joining.contains(user) {
                joining.push(user.clone());
            }
        }
        if joining.is_empty() {
            return Err(Refusal::Invalid("all of these users are members already".into()));
        }
        check_size(state.members.len() + joining.len())?;
        check_reachable(&joining)?;
        let first_seq = state.head + 1;
        state.members.extend(joining.iter().map(|user| Member {
            user: user.clone(),
            role: Role::Member,
            first_seq,
        }));
        self.departures.retain(|gone| !joining.contains(&gone.user));
        self.members_changed = true;
        Ok(self.push(ask, EntryBody::Added { users: joining }))
    }

    fn remove(&mut self, ask: &Ask, users: &[UserId]) -> Result<usize, Refusal> {
        let role = self.group_role(ask, Role::Admin, "only admins and owners remove members")?;
        let state = self.state_mut();
        let mut leaving: Vec<UserId> = Vec::new();
        for user in users {
            let Some(member) = state.member(user) else {
                return Err(Refusal::Invalid(format!("{user} is not a member")));
            };
            if *user == ask.sender {
                return Err(Refusal::Invalid("to go yourself, leave the group".into()));
            }
            if role < Role::Owner && member.role > Role::Member {
                return Err(Refusal::Forbidden("only owners remove admins and owners"));
            }
            if !leaving.contains(user) {
                leaving.push(user.clone());
            }
        }
        if leaving.is_empty() {
            return Err(Refusal::Invalid("users is empty".into()));
        }
        let index = self.push(ask, EntryBody::Removed { users: leaving.clone() });
        self.depart(&leaving);
        Ok(index)
    }

    fn leave(&mut self, ask: &Ask) -> Result<usize, Refusal> {
        self.group_role(ask, Role::Member, "")?;
        let index = self.push(ask, EntryBody::Left { user: ask.sender.clone() });
        self.depart(std::slice::from_ref(&ask.sender));
        if let Some(user) = self.promote() {
            let body = EntryBody::RoleChanged { user, role: Role::Owner };
            self.push_entry(ask, body, None, [0; 16]);
        }
        Ok(index)
    }

    /// Without an owner the oldest admin becomes one, else the oldest member.
    fn promote(&mut self) -> Option<UserId> {
        let members = &mut self.state_mut().members;
        if members.iter().any(|member| member.role == Role::Owner) {
            return None;
        }
        let heir = match members.iter().position(|member| member.role == Role::Admin) {
            Some(index) => members.get_mut(index),
            None => members.first_mut(),
        }?;
        heir.role = Role::Owner;
        Some(heir.user.clone())
    }

    fn set_role(&mut self, ask: &Ask, user: &UserId, role: Role) -> Result<usize, Refusal> {
        self.group_role(ask, Role::Owner, "only owners change roles")?;
        let members = &mut self.state_mut().members;
        let owners = members.iter().filter(|member| member.role == Role::Owner).count();
        let Some(member) = members.iter_mut().find(|member| member.user == *user) else {
            return Err(Refusal::Invalid(format!("{user} is not a member")));
        };
        if member.role == role {
            return Err(Refusal::Invalid(format!("{user} has this role already")));
        }
        if member.role == Role::Owner && owners == 1 {
            return Err(Refusal::Forbidden("the last owner cannot step down: make another owner first"));
        }
        member.role = role;
        Ok(self.push(ask, EntryBody::RoleChanged { user: user.clone(), role }))
    }

    fn member(&self, ask: &Ask) -> Result<Role, Refusal> {
        let state = self.state.as_ref().ok_or(Refusal::NotFound)?;
        state.member(&ask.sender).map(|member| member.role).ok_or(Refusal::NotFound)
    }

    /// The sender's role, if this is a group and the role is high enough.
    fn group_role(&self, ask: &Ask, least: Role, why: &'static str) -> Result<Role, Refusal> {
        let role = self.member(ask)?;
        if self.state.as_ref().is_some_and(|state| state.kind == ConversationKind::Pair) {
            return Err(Refusal::Invalid("this is a 1-on-1 conversation, not a group".into()));
        }
        if role < least { Err(Refusal::Forbidden(why)) } else { Ok(role) }
    }

    /// Takes members out, after the entry that says so: they are still to hear of it.
    fn depart(&mut self, users: &[UserId]) {
        let state = self.state.as_mut().expect("a member leaves only a conversation that exists");
        for member in state.members.iter().filter(|member| users.contains(&member.user)) {
            self.departures.push(Departure {
                user: member.user.clone(),
                first_seq: member.first_seq,
                until_seq: state.head,
            });
        }
        state.members.retain(|member| !users.contains(&member.user));
        self.members_changed = true;
    }

    fn set_recipients(&mut self) {
        let from = self.entries.len();
        if !self.members_changed {
            return;
        }
        let users = self.state.iter().flat_map(|state| &state.members).map(|member| member.user.clone());
        self.recipients.push(Recipients { from, users: users.collect() });
        self.members_changed = false;
    }

    fn push(&mut self, ask: &Ask, body: EntryBody) -> usize {
        self.push_entry(ask, body, Some(ask.temp_id), ask.change.digest())
    }

    fn push_entry(&mut self, ask: &Ask, body: EntryBody, temp_id: Option<TempId>, digest: [u8; 16]) -> usize {
        self.set_recipients();
        let id = (self.fresh_id)();
        let time_ms = self.time_ms;
        let state = self.state.as_mut().expect("entries are made in a conversation that exists");
        state.head += 1;
        state.messages += u64::from(body.is_message());
        state.last_time_ms = time_ms;
        let push = body.is_message() && state.members.len() > 1;
        let entry = Entry {
            seq: state.head,
            id,
            time_ms,
            sender: ask.sender.clone(),
            sender_name: ask.sender_name.clone(),
            temp_id,
            messages: state.messages,
            body,
        };
        self.entries.push(NewEntry::new(entry, digest, push, ask.issued_ms));
        self.entries.len() - 1
    }

    fn state_mut(&mut self) -> &mut Conversation {
        self.state.as_mut().expect("the role was checked, so the conversation exists")
    }

    fn finish(
        self,
        conversation: tern_protocol::ConversationId,
        before: Option<&Conversation>,
        verdicts: Vec<Verdict>,
    ) -> Plan {
        let group = match (self.entries.is_empty(), self.state) {
            (false, Some(state)) => Some(Arc::new(AppendGroup {
                conversation,
                expected_head: before.map_or(0, |before| before.head),
                entries: self.entries,
                state: Arc::new(state),
                departures: self.departures,
            })),
            _ => None,
        };
        Plan { group, verdicts, recipients: self.recipients }
    }
}

fn check_reachable(users: &[UserId]) -> Result<(), Refusal> {
    match users.iter().find(|user| user.is_erased()) {
        Some(user) => Err(Refusal::Invalid(format!("{user} was erased and cannot be reached"))),
        None => Ok(()),
    }
}

fn check_size(members: usize) -> Result<(), Refusal> {
    if members > GROUP_MEMBERS_MAX { Err(Refusal::GroupFull(GROUP_MEMBERS_MAX)) } else { Ok(()) }
}

/// The two users of a pair (one, for notes to self), both from the first entry.
fn new_pair(sender: &UserId, peer: UserId) -> Conversation {
    let mut users = vec![sender.clone()];
    if peer != *sender {
        users.push(peer);
    }
    let members = users.into_iter().map(|user| Member { user, role: Role::Owner, first_seq: 1 }).collect();
    Conversation { kind: ConversationKind::Pair, name: None, head: 0, messages: 0, last_time_ms: 0, members }
}
