//! The rules of a log: who may change what, what each change writes, and who is told. Pure.

use std::sync::Arc;

use tern_protocol::{
    ConversationId, ConversationKind, Entry, EntryBody, EntryId, GROUP_MEMBERS_MAX, Role, TempId, UserId,
};

use super::answer::Refusal;
use super::ask::{Ask, Change};
use super::plan::{Plan, Recipients, Snapshot, Verdict};
use crate::store::{AppendGroup, Conversation, Departure, GROUP_ENTRIES_MAX, Member, NewEntry};

/// Most entries that one change makes.
const ENTRIES_PER_CHANGE_MAX: usize = 2;

/// A conversation while a batch is applied to it.
pub(super) struct Work<'a> {
    before: Option<&'a Snapshot>,
    state: Option<Arc<Conversation>>,
    /// The change that is being made: its place in the batch.
    by: usize,
    drafts: Vec<Draft>,
    departures: Vec<Departure>,
    recipients: Vec<Recipients>,
    /// The member list differs from the last recipients.
    members_changed: bool,
    /// Who came, went or wrote for the first time: others may see them from now on, or not any more.
    moved: Vec<UserId>,
    time_ms: u64,
    fresh_id: &'a mut dyn FnMut() -> EntryId,
}

/// An entry before the text of its message has moved into it.
struct Draft {
    /// The change of the batch that it comes of.
    by: usize,
    seq: u64,
    messages: u64,
    id: EntryId,
    temp_id: Option<TempId>,
    /// `None`: the message of the change.
    body: Option<EntryBody>,
    push: bool,
}

impl<'a> Work<'a> {
    pub(super) fn new(
        before: Option<&'a Snapshot>,
        now_ms: u64,
        fresh_id: &'a mut dyn FnMut() -> EntryId,
    ) -> Self {
        Self {
            before,
            state: before.map(|before| Arc::clone(&before.state)),
            by: 0,
            drafts: Vec::new(),
            departures: Vec::new(),
            recipients: Vec::new(),
            members_changed: false,
            moved: Vec::new(),
            time_ms: now_ms.max(before.map_or(0, |before| before.state.last_time_ms)),
            fresh_id,
        }
    }

    /// One more change fits into the group.
    pub(super) fn has_room(&self) -> bool {
        self.drafts.len() + ENTRIES_PER_CHANGE_MAX <= GROUP_ENTRIES_MAX
    }

    /// Ends the work: moves the messages out of the batch into the group.
    pub(super) fn finish(mut self, batch: &mut [Ask], verdicts: Vec<Verdict>) -> Plan {
        let Some(state) = self.state.take().filter(|_| !self.drafts.is_empty()) else {
            return Plan {
                group: None,
                verdicts,
                made_by: Vec::new(),
                recipients: Vec::new(),
                moved: Vec::new(),
                after: self.before.cloned(),
            };
        };
        let members = match self.recipients.last() {
            Some(last) if !self.members_changed => Arc::clone(&last.users),
            _ => ids(&state),
        };
        let made_by = self.drafts.iter().map(|draft| draft.by).collect();
        let time_ms = self.time_ms;
        let entries = self.drafts.into_iter().map(|draft| draft.finish(time_ms, batch)).collect();
        let group = AppendGroup {
            conversation: batch[0].conversation,
            expected_head: self.before.map_or(0, |before| before.state.head),
            entries,
            state: Arc::clone(&state),
            departures: self.departures,
        };
        Plan {
            group: Some(Arc::new(group)),
            verdicts,
            made_by,
            recipients: self.recipients,
            moved: self.moved,
            after: Some(Snapshot { state, members }),
        }
    }

    /// Makes the change in the working state, or says why not and leaves it untouched.
    pub(super) fn apply(&mut self, by: usize, ask: &Ask) -> Result<usize, Refusal> {
        self.by = by;
        let is_erasure = matches!(ask.change, Change::Erase { .. });
        if !is_erasure {
            check_reachable(&ask.sender)?;
        }
        match &ask.change {
            Change::Message { reply_to, .. } => self.message(ask, *reply_to),
            Change::Create { name, members } => self.create(ask, name, members),
            Change::Add { users } => self.add(ask, users),
            Change::Remove { users } => self.remove(ask, users),
            Change::Leave => self.leave(ask),
            Change::Rename { name } => {
                self.group_role(ask, Role::Admin, "only admins and owners rename a group")?;
                if self.state_mut().name.as_deref() == Some(name.as_str()) {
                    return Err(Refusal::Invalid("the group has this name already".into()));
                }
                self.state_mut().name = Some(name.clone());
                Ok(self.push(ask, Some(EntryBody::Renamed { name: name.clone() })))
            }
            Change::SetRole { user, role } => self.set_role(ask, user, *role),
            Change::Erase { user } => self.erase(ask, user),
        }
    }

    fn message(&mut self, ask: &Ask, reply_to: Option<u64>) -> Result<usize, Refusal> {
        if let Some(seq) = reply_to {
            self.check_reply(ask, seq)?;
        }
        if self.state.is_none() {
            let peer = ask.peer.clone().ok_or(Refusal::NotFound)?;
            check_reachable(&peer)?;
            self.moved.extend([ask.sender.clone(), peer.clone()]);
            self.state = Some(Arc::new(new_pair(&ask.sender, peer)));
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
            return Err(Refusal::Unreachable);
        }
        self.accept(&ask.sender);
        Ok(self.push(ask, None))
    }

    /// Who writes in it has accepted that others brought them in.
    fn accept(&mut self, user: &UserId) {
        let waits = |member: &Member| member.user == *user && member.added_by.is_some();
        let waiting = self.state.as_ref().and_then(|state| state.members.iter().position(waits));
        if let Some(at) = waiting {
            self.state_mut().members[at].added_by = None;
            self.moved.push(user.clone());
        }
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
        let member = |user: &UserId| Member {
            user: user.clone(),
            role: Role::Owner,
            first_seq,
            added_by: brought(&ask.sender, user),
        };
        Arc::make_mut(state).members.extend(users.iter().map(member));
        self.moved.extend(users.iter().cloned());
        self.members_changed = true;
        self.push_besides(EntryBody::Added { users });
    }

    /// The sender stands for the user from now on. Also said of who had left before: it tells the
    /// others that entries have changed.
    fn erase(&mut self, ask: &Ask, user: &UserId) -> Result<usize, Refusal> {
        let Some(state) = self.state.as_mut() else { return Err(Refusal::NotFound) };
        let is_group = state.kind == ConversationKind::Group;
        let members = &mut Arc::make_mut(state).members;
        members.retain(|member| member.user != *user);
        let by_them = members.iter_mut().filter(|member| member.added_by.as_ref() == Some(user));
        by_them.for_each(|member| member.added_by = Some(ask.sender.clone()));
        self.moved.push(user.clone());
        self.members_changed = true;
        let index = self.push(ask, Some(EntryBody::Left { user: ask.sender.clone() }));
        if is_group && let Some(user) = self.promote() {
            self.push_besides(EntryBody::RoleChanged { user, role: Role::Owner });
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
        check_addable(&users)?;
        let members = users
            .iter()
            .enumerate()
            .map(|(index, user)| Member {
                user: user.clone(),
                role: if index == 0 { Role::Owner } else { Role::Member },
                first_seq: 1,
                added_by: brought(&ask.sender, user),
            })
            .collect();
        self.moved.extend(users.iter().cloned());
        self.state = Some(Arc::new(Conversation {
            kind: ConversationKind::Group,
            name: Some(name.to_owned()),
            head: 0,
            messages: 0,
            last_time_ms: 0,
            members,
            blocked_by: Vec::new(),
        }));
        Ok(self.push(ask, Some(EntryBody::Created { name: name.to_owned(), members: users })))
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
        check_addable(&joining)?;
        let first_seq = state.head + 1;
        state.members.extend(joining.iter().map(|user| Member {
            user: user.clone(),
            role: Role::Member,
            first_seq,
            added_by: Some(ask.sender.clone()),
        }));
        self.moved.extend(joining.iter().cloned());
        self.departures.retain(|gone| !joining.contains(&gone.user));
        self.members_changed = true;
        Ok(self.push(ask, Some(EntryBody::Added { users: joining })))
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
        let index = self.push(ask, Some(EntryBody::Removed { users: leaving.clone() }));
        self.depart(&leaving);
        Ok(index)
    }

    fn leave(&mut self, ask: &Ask) -> Result<usize, Refusal> {
        self.group_role(ask, Role::Member, "")?;
        let index = self.push(ask, Some(EntryBody::Left { user: ask.sender.clone() }));
        self.depart(std::slice::from_ref(&ask.sender));
        if let Some(user) = self.promote() {
            self.push_besides(EntryBody::RoleChanged { user, role: Role::Owner });
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
        Ok(self.push(ask, Some(EntryBody::RoleChanged { user: user.clone(), role })))
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
        let state = Arc::make_mut(self.state.as_mut().expect("who leaves is a member of it"));
        for member in state.members.iter().filter(|member| users.contains(&member.user)) {
            self.departures.push(Departure {
                user: member.user.clone(),
                first_seq: member.first_seq,
                until_seq: state.head,
            });
        }
        state.members.retain(|member| !users.contains(&member.user));
        self.moved.extend(users.iter().cloned());
        self.members_changed = true;
    }

    fn set_recipients(&mut self) {
        if !self.recipients.is_empty() && !self.members_changed {
            return;
        }
        let users = match (self.before, &self.state) {
            (Some(before), _) if !self.members_changed => Arc::clone(&before.members),
            (_, state) => state.as_ref().map_or_else(|| Arc::from([]), |state| ids(state)),
        };
        self.recipients.push(Recipients { from: self.drafts.len(), users });
        self.members_changed = false;
    }

    /// Writes the entry of the change; without a body it is its message.
    fn push(&mut self, ask: &Ask, body: Option<EntryBody>) -> usize {
        self.draft(Some(ask.temp_id), body)
    }

    /// Writes an entry that comes along with a change. It has no marker: that of the change stands for both.
    fn push_besides(&mut self, body: EntryBody) {
        self.draft(None, Some(body));
    }

    fn draft(&mut self, temp_id: Option<TempId>, body: Option<EntryBody>) -> usize {
        self.set_recipients();
        let (by, id, time_ms) = (self.by, (self.fresh_id)(), self.time_ms);
        let state = self.state_mut();
        state.head += 1;
        state.last_time_ms = time_ms;
        state.messages += u64::from(body.is_none());
        let (seq, messages) = (state.head, state.messages);
        let push = body.is_none() && state.members.len() > 1;
        self.drafts.push(Draft { by, seq, messages, id, temp_id, body, push });
        self.drafts.len() - 1
    }

    /// Copied once: the snapshot keeps what it is.
    fn state_mut(&mut self) -> &mut Conversation {
        Arc::make_mut(self.state.as_mut().expect("who may change it is a member of it"))
    }
}

impl Draft {
    fn finish(self, time_ms: u64, batch: &mut [Ask]) -> NewEntry {
        let ask = &mut batch[self.by];
        let digest = if self.temp_id.is_some() { ask.change.digest() } else { [0; 16] };
        let (body, sender_name) = match (self.body, &mut ask.change) {
            (None, Change::Message { text, data, reply_to }) => {
                let (text, data, reply_to) = (std::mem::take(text), data.take(), *reply_to);
                (EntryBody::Message { text, data, reply_to }, ask.sender_name.take())
            }
            (body, _) => (body.expect("only messages come without"), ask.sender_name.clone()),
        };
        let entry = Entry {
            seq: self.seq,
            id: self.id,
            time_ms,
            sender: ask.sender.clone(),
            sender_name,
            temp_id: self.temp_id,
            messages: self.messages,
            body,
        };
        NewEntry::new(entry, digest, self.push, ask.right.clone()).aged(ask.age_ms)
    }
}

fn ids(state: &Conversation) -> Arc<[UserId]> {
    state.members.iter().map(|member| member.user.clone()).collect()
}

fn check_reachable(user: &UserId) -> Result<(), Refusal> {
    if user.is_erased() { Err(Refusal::Unreachable) } else { Ok(()) }
}

fn check_addable(users: &[UserId]) -> Result<(), Refusal> {
    let gone = users.iter().find(|user| user.is_erased());
    gone.map_or(Ok(()), |user| Err(Refusal::NotAddable(user.clone())))
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
    let member = |user: UserId| {
        let added_by = brought(sender, &user);
        Member { user, role: Role::Owner, first_seq: 1, added_by }
    };
    Conversation {
        kind: ConversationKind::Pair,
        name: None,
        head: 0,
        messages: 0,
        last_time_ms: 0,
        members: users.into_iter().map(member).collect(),
        blocked_by: Vec::new(),
    }
}

/// Who brings a user in, if it is not themselves.
fn brought(sender: &UserId, user: &UserId) -> Option<UserId> {
    (user != sender).then(|| sender.clone())
}
