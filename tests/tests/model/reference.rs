//! What must be true, as simply as it can be said: logs, members, and who may do what.

use std::collections::{BTreeMap, HashMap};

use tern_client::{Code, Entry, EntryBody, Role, TempId, UserId};

/// A change that somebody asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    Message(String),
    Create { name: String, members: Vec<UserId> },
    Add(Vec<UserId>),
    Remove(Vec<UserId>),
    Leave,
    Rename(String),
    SetRole(UserId, Role),
}

/// An entry that must be in the log.
#[derive(Clone, Debug)]
pub(crate) struct Known {
    pub(crate) sender: UserId,
    pub(crate) temp_id: Option<TempId>,
    pub(crate) body: EntryBody,
}

impl Known {
    pub(crate) fn is(&self, entry: &Entry) -> bool {
        // The server makes up the temp_id of the entry that says that somebody was erased.
        let is_erasure = matches!(&self.body, EntryBody::Left { user } if user.is_erased());
        (&self.sender, &self.body) == (&entry.sender, &entry.body)
            && (is_erasure || self.temp_id == entry.temp_id)
    }
}

/// A stay in a conversation: from the entry that added the member to the one that removed them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stay {
    pub(crate) from: u64,
    pub(crate) until: Option<u64>,
}

/// One conversation.
#[derive(Clone, Debug, Default)]
pub(crate) struct Log {
    pub(crate) is_group: bool,
    /// In the order they joined.
    pub(crate) members: Vec<(UserId, Role)>,
    pub(crate) stays: HashMap<UserId, Vec<Stay>>,
    /// What was acked, by seq. Holes are filled by messages whose ack nobody waited for.
    pub(crate) known: BTreeMap<u64, Known>,
    /// Entries before this one have aged out.
    pub(crate) floor: u64,
    /// Messages that were accepted for sending when their client ended.
    pub(crate) floating: HashMap<TempId, (UserId, String, UserId)>,
}

impl Log {
    fn role(&self, user: &UserId) -> Option<Role> {
        self.members.iter().find(|member| member.0 == *user).map(|member| member.1)
    }

    /// The code with which the change must be refused, if it must.
    pub(crate) fn refusal(&self, sender: &UserId, change: &Change) -> Option<Code> {
        let Some(role) = self.role(sender) else { return Some(Code::NOT_FOUND) };
        if matches!(change, Change::Message(_)) {
            return None;
        }
        if !self.is_group {
            return Some(Code::INVALID_ARGUMENT);
        }
        let least = match change {
            Change::Message(_) | Change::Create { .. } | Change::Leave => Role::Member,
            Change::Add(_) | Change::Remove(_) | Change::Rename(_) => Role::Admin,
            Change::SetRole(..) => Role::Owner,
        };
        if role < least {
            return Some(Code::FORBIDDEN);
        }
        match change {
            Change::Add(users) => {
                users.iter().all(|user| self.role(user).is_some()).then_some(Code::INVALID_ARGUMENT)
            }
            Change::Remove(users) => self.removal_refusal(sender, role, users),
            Change::SetRole(user, new) => {
                let owners = self.members.iter().filter(|member| member.1 == Role::Owner).count();
                match self.role(user) {
                    None => Some(Code::INVALID_ARGUMENT),
                    Some(old) if old == *new => Some(Code::INVALID_ARGUMENT),
                    Some(Role::Owner) if owners == 1 => Some(Code::FORBIDDEN),
                    Some(_) => None,
                }
            }
            Change::Message(_) | Change::Create { .. } | Change::Leave | Change::Rename(_) => None,
        }
    }

    fn removal_refusal(&self, sender: &UserId, role: Role, users: &[UserId]) -> Option<Code> {
        for user in users {
            match self.role(user) {
                None => return Some(Code::INVALID_ARGUMENT),
                Some(_) if user == sender => return Some(Code::INVALID_ARGUMENT),
                Some(other) if role < Role::Owner && other > Role::Member => return Some(Code::FORBIDDEN),
                Some(_) => {}
            }
        }
        None
    }

    /// The change was acked at `seq`.
    pub(crate) fn apply(&mut self, seq: u64, sender: &UserId, temp_id: Option<TempId>, change: &Change) {
        let body = match change {
            Change::Message(text) => EntryBody::text(text.clone()),
            Change::Create { name, members } => {
                self.is_group = true;
                let mut users = vec![sender.clone()];
                users.extend(members.iter().cloned());
                for user in &users {
                    let role = if user == sender { Role::Owner } else { Role::Member };
                    self.join(user, role, seq);
                }
                EntryBody::Created { name: name.clone(), members: users }
            }
            Change::Add(users) => {
                let new: Vec<UserId> =
                    users.iter().filter(|user| self.role(user).is_none()).cloned().collect();
                for user in &new {
                    self.join(user, Role::Member, seq);
                }
                EntryBody::Added { users: new }
            }
            Change::Remove(users) => {
                users.iter().for_each(|user| self.part(user, seq));
                EntryBody::Removed { users: users.clone() }
            }
            Change::Leave => {
                self.part(sender, seq);
                EntryBody::Left { user: sender.clone() }
            }
            Change::Rename(name) => EntryBody::Renamed { name: name.clone() },
            Change::SetRole(user, role) => {
                self.set_role(user, *role);
                EntryBody::RoleChanged { user: user.clone(), role: *role }
            }
        };
        self.record(seq, Known { sender: sender.clone(), temp_id, body });
        let orphaned = self.is_group && !self.members.iter().any(|member| member.1 == Role::Owner);
        if let (Change::Leave, true) = (change, orphaned) {
            self.promote(seq + 1, sender);
        }
    }

    /// The oldest admin becomes the owner, else the oldest member.
    fn promote(&mut self, seq: u64, sender: &UserId) {
        let admin = self.members.iter().position(|member| member.1 == Role::Admin);
        let Some((heir, role)) = self.members.get_mut(admin.unwrap_or(0)) else { return };
        *role = Role::Owner;
        let body = EntryBody::RoleChanged { user: heir.clone(), role: Role::Owner };
        self.record(seq, Known { sender: sender.clone(), temp_id: None, body });
    }

    fn record(&mut self, seq: u64, known: Known) {
        if let Some(before) = self.known.insert(seq, known.clone()) {
            panic!("seq {seq} was given twice: to {before:?} and to {known:?}");
        }
    }

    fn join(&mut self, user: &UserId, role: Role, seq: u64) {
        self.members.push((user.clone(), role));
        self.stays.entry(user.clone()).or_default().push(Stay { from: seq, until: None });
    }

    fn part(&mut self, user: &UserId, seq: u64) {
        self.members.retain(|member| member.0 != *user);
        let stay = self.stays.get_mut(user).and_then(|stays| stays.last_mut());
        stay.expect("a member has a stay").until = Some(seq);
    }

    fn set_role(&mut self, user: &UserId, role: Role) {
        for member in self.members.iter_mut().filter(|member| member.0 == *user) {
            member.1 = role;
        }
    }

    /// A pair: both are in it from the first entry.
    pub(crate) fn pair(a: &UserId, b: &UserId) -> Self {
        let mut log = Self::default();
        log.join(a, Role::Owner, 1);
        if a != b {
            log.join(b, Role::Owner, 1);
        }
        log
    }

    /// Newest entry that is known.
    pub(crate) fn head(&self) -> u64 {
        self.known.last_key_value().map_or(0, |(seq, _)| *seq)
    }

    /// Who was in it for these stays has heard of everybody who was erased after this entry.
    pub(crate) fn told_of_erasures_after(&self, seq: u64, stays: &[Stay]) -> bool {
        let is_erasure = |known: &Known| matches!(&known.body, EntryBody::Left { user } if user.is_erased());
        let mut later = self.known.range(seq + 1..).filter(|(_, known)| is_erasure(known));
        later.all(|(at, _)| {
            stays.iter().any(|stay| stay.from <= *at && stay.until.is_none_or(|until| *at <= until))
        })
    }

    pub(crate) fn lacks(&self, user: &UserId) -> bool {
        self.role(user).is_none()
    }

    /// Everything there is has aged out.
    pub(crate) fn age(&mut self) {
        self.floor = self.head() + 1;
    }

    /// A message was acked at `seq` in a pair of which somebody had been erased: they are added first.
    pub(crate) fn come_back(&mut self, seq: u64, sender: &UserId, peer: &UserId) {
        let mut users = vec![sender.clone(), peer.clone()];
        users.dedup();
        users.retain(|user| self.role(user).is_none());
        if users.is_empty() {
            return;
        }
        users.iter().for_each(|user| self.join(user, Role::Owner, seq - 1));
        self.record(
            seq - 1,
            Known { sender: sender.clone(), temp_id: None, body: EntryBody::Added { users } },
        );
    }

    /// The user was erased; `became` stands in their place.
    pub(crate) fn erase(&mut self, user: &UserId, became: &UserId) {
        if self.stays.remove(user).is_none() {
            return; // never in it
        }
        let swap = |id: &mut UserId| {
            if id == user {
                id.clone_from(became);
            }
        };
        for known in self.known.values_mut() {
            if known.sender == *user {
                known.temp_id = None;
                if known.body.is_message() {
                    known.body = EntryBody::Erased;
                }
            }
            swap(&mut known.sender);
            match &mut known.body {
                EntryBody::Created { members: users, .. }
                | EntryBody::Added { users }
                | EntryBody::Removed { users } => users.iter_mut().for_each(swap),
                EntryBody::Left { user } | EntryBody::RoleChanged { user, .. } => swap(user),
                EntryBody::Message { .. }
                | EntryBody::Renamed { .. }
                | EntryBody::Erased
                | EntryBody::Opaque { .. } => {}
            }
        }
        self.members.retain(|member| member.0 != *user);
        let seq = self.head() + 1;
        let body = EntryBody::Left { user: became.clone() };
        self.record(seq, Known { sender: became.clone(), temp_id: None, body });
        if self.is_group && !self.members.iter().any(|member| member.1 == Role::Owner) {
            self.promote(seq + 1, became);
        }
    }

    /// Somebody may read this entry now: it lies in the last stay of a user.
    fn is_readable(&self, seq: u64) -> bool {
        if seq < self.floor {
            return false;
        }
        let mut last = self.stays.values().filter_map(|stays| stays.last());
        last.any(|stay| stay.from <= seq && stay.until.is_none_or(|until| seq <= until))
    }

    /// What can be read is what was acked, with the floating messages in the holes, once each.
    pub(crate) fn check(&mut self, entries: &BTreeMap<u64, Entry>) {
        let acked = self.known.last_key_value().map_or(0, |(seq, _)| *seq);
        let read = entries.last_key_value().map_or(0, |(seq, _)| *seq);
        for seq in 1..=acked.max(read) {
            let known = self.known.get(&seq);
            match (entries.get(&seq), known) {
                (Some(entry), _) if seq < self.floor => panic!("{entry:?} had aged out"),
                (Some(entry), Some(known)) => {
                    assert!(known.is(entry), "at {seq}: {entry:?}, known as {known:?}");
                }
                (Some(entry), None) => {
                    let floating = entry.temp_id.and_then(|temp_id| self.floating.remove(&temp_id));
                    let (sender, text, _) = floating.unwrap_or_else(|| panic!("nobody asked for {entry:?}"));
                    assert_eq!((&entry.sender, &entry.body), (&sender, &EntryBody::text(text)));
                }
                (None, _) => assert!(!self.is_readable(seq), "the log has a hole at {seq}: {known:?}"),
            }
        }
        assert!(self.floating.is_empty(), "accepted and never sent: {:?}", self.floating);
    }
}
