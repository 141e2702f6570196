//! Random operations of several users and devices, through the real client and the real server,
//! against a model that is too simple to be wrong.
//!
//! `TERN_SEED` chooses another run, repeatable as far as threads allow; `TERN_MODEL_STEPS` makes it longer.

#[path = "model/device.rs"]
mod device;
#[path = "model/reference.rs"]
mod reference;

use std::collections::BTreeMap;
use std::time::Duration;

use device::Device;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};
use reference::{Change, Log};
use tern_client::{
    Ack, Anchor, Code, ConversationId, Entry, RequestError, Role, SendError, Target, TempId, UserId,
};
use tern_tests::{Server, Wire, fresh, loose, user, within};

/// Steps of a run that is short enough for every change.
const STEPS: usize = 300;
/// Seed of a run that is not told one: the same every time, so that green stays green.
const SEED: u64 = 3_109_745_512_185_648_197;
/// The users; the last one starts in no group.
const USERS: [&str; 4] = ["alice", "bob", "carol", "dave"];
/// Devices of each user.
const DEVICES: usize = 2;
/// Messages that are sent at once.
const BURST: usize = 12;
/// A crash comes so long after the sends were submitted: before they arrive, and up to all acked.
const CRASH_MS: std::ops::Range<u64> = 0..40;
/// Longest time of one operation: a dead QUIC connection is noticed after 7 s here.
const OPERATION: Duration = Duration::from_secs(60);

struct World {
    server: Server,
    random: StdRng,
    devices: Vec<Device>,
    logs: BTreeMap<ConversationId, Log>,
    /// Acked messages, to be retried: who, where, what, and where it is.
    sent: Vec<(UserId, TempId, Target, String, Ack)>,
    numbers: u64,
    done: BTreeMap<&'static str, usize>,
}

async fn bounded<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(OPERATION, future).await.expect("an operation hangs")
}

impl World {
    fn count(&mut self, what: &'static str) {
        *self.done.entry(what).or_default() += 1;
    }

    fn text(&mut self) -> String {
        self.numbers += 1;
        format!("text {}", self.numbers)
    }

    fn a_user(&mut self) -> UserId {
        user(USERS.choose(&mut self.random).expect("there are users"))
    }

    fn a_device(&mut self) -> usize {
        self.random.random_range(0..self.devices.len())
    }

    fn a_group(&mut self) -> Option<ConversationId> {
        let groups: Vec<_> = self.logs.iter().filter(|(_, log)| log.is_group).map(|(id, _)| *id).collect();
        groups.choose(&mut self.random).copied()
    }

    fn a_target(&mut self) -> Target {
        match self.a_group() {
            Some(group) if self.random.random_bool(0.6) => Target::Conversation(group),
            _ => Target::User(self.a_user()),
        }
    }

    /// The log a message goes to; the first message makes a pair.
    fn log(&mut self, sender: &UserId, to: &Target) -> (ConversationId, &mut Log) {
        let id = to.conversation(sender);
        let log = match to {
            Target::User(other) => self.logs.entry(id).or_insert_with(|| Log::pair(sender, other)),
            Target::Conversation(_) => self.logs.get_mut(&id).expect("only known groups are used"),
        };
        (id, log)
    }

    /// One message, or several of one device and conversation at once, in their order.
    async fn send(&mut self, count: usize) {
        let device = self.a_device();
        let sender = self.devices[device].user.clone();
        let to = self.a_target();
        let texts: Vec<String> = (0..count).map(|_| self.text()).collect();
        let client = self.devices[device].client().clone();
        let pending: Vec<_> =
            texts.iter().map(|text| client.submit(to.clone(), text).expect("room")).collect();
        let mut before = 0;
        for (pending, text) in pending.into_iter().zip(texts) {
            let temp_id = pending.temp_id;
            let outcome = bounded(pending).await;
            let (id, log) = self.log(&sender, &to);
            let change = Change::Message(text.clone());
            match (outcome, log.refusal(&sender, &change)) {
                (Ok(ack), None) => {
                    assert_eq!((ack.conversation, ack.temp_id), (id, temp_id));
                    assert!(ack.seq > before, "a later send of a device was acked at a lower place");
                    before = ack.seq;
                    log.apply(ack.seq, &sender, Some(temp_id), &change);
                    self.sent.push((sender.clone(), temp_id, to.clone(), text, ack));
                }
                (outcome, refusal) => refused(outcome, refusal, &change),
            }
        }
    }

    /// All devices send to the same group at the same time; the server may crash meanwhile.
    async fn race(&mut self, crash: bool) {
        let group = self.a_group().expect("the first group never goes away");
        let to = Target::Conversation(group);
        let mut pending = Vec::new();
        for device in 0..self.devices.len() {
            for _ in 0..BURST / 4 {
                let text = self.text();
                let submitted = self.devices[device].client().submit(to.clone(), &text).expect("room");
                pending.push((device, text, submitted));
            }
        }
        if crash {
            tokio::time::sleep(Duration::from_millis(self.random.random_range(CRASH_MS))).await;
            self.restart_the_server(true).await;
        }
        let mut before = BTreeMap::new();
        for (device, text, pending) in pending {
            let sender = self.devices[device].user.clone();
            let temp_id = pending.temp_id;
            let outcome = bounded(pending).await;
            let change = Change::Message(text.clone());
            let (_, log) = self.log(&sender, &to);
            match (outcome, log.refusal(&sender, &change)) {
                (Ok(ack), None) => {
                    let earlier = before.insert(device, ack.seq);
                    assert!(earlier < Some(ack.seq), "a later send of a device was acked at a lower place");
                    log.apply(ack.seq, &sender, Some(temp_id), &change);
                    self.sent.push((sender, temp_id, to.clone(), text, ack));
                }
                (outcome, refusal) => refused(outcome, refusal, &change),
            }
        }
    }

    /// A message that was acked is sent again, by any device of its sender.
    async fn retry(&mut self) {
        let Some((sender, temp_id, to, text, first)) = self.sent.choose(&mut self.random).cloned() else {
            return;
        };
        let of_sender: Vec<usize> =
            (0..self.devices.len()).filter(|index| self.devices[*index].user == sender).collect();
        let device = *of_sender.choose(&mut self.random).expect("every user has devices");
        let pending = self.devices[device].client().submit_as(temp_id, to, text).expect("room");
        let again = bounded(pending).await.expect("a retry is acked, also by somebody who has left");
        assert!(again.duplicate);
        assert_eq!((again.conversation, again.seq, again.id), (first.conversation, first.seq, first.id));
    }

    async fn change_a_group(&mut self) {
        let device = self.a_device();
        let sender = self.devices[device].user.clone();
        let client = self.devices[device].client().clone();
        let Some(id) = self.a_group() else { return self.create_a_group().await };
        let other = self.a_user();
        let roles = [Role::Member, Role::Admin, Role::Owner];
        let change = match self.random.random_range(0..6) {
            0 | 1 => Change::Add(vec![other]),
            2 => Change::Remove(vec![other]),
            3 => Change::Leave,
            4 => Change::Rename(self.text()),
            _ => Change::SetRole(other, *roles.choose(&mut self.random).expect("roles")),
        };
        let outcome = bounded(async {
            match change.clone() {
                Change::Add(users) => client.add_members(id, users).await,
                Change::Remove(users) => client.remove_members(id, users).await,
                Change::Leave => client.leave(id).await,
                Change::Rename(name) => client.rename(id, name).await,
                Change::SetRole(user, role) => client.set_role(id, user, role).await,
                Change::Message(_) | Change::Create { .. } => unreachable!("not chosen"),
            }
        })
        .await;
        let log = self.logs.get_mut(&id).expect("a known group");
        match (outcome, log.refusal(&sender, &change)) {
            (Ok(ack), None) => log.apply(ack.seq, &sender, Some(ack.temp_id), &change),
            (outcome, refusal) => refused(outcome, refusal, &change),
        }
    }

    async fn create_a_group(&mut self) {
        let device = self.a_device();
        let sender = self.devices[device].user.clone();
        let name = self.text();
        let mut members = vec![self.a_user(), self.a_user()];
        members.retain(|member| *member != sender);
        members.dedup();
        let client = self.devices[device].client().clone();
        let ack = bounded(client.create_group(&name, members.clone())).await.expect("anybody makes groups");
        assert_eq!(ack.seq, 1);
        let mut log = Log::default();
        log.apply(1, &sender, Some(ack.temp_id), &Change::Create { name, members });
        assert!(self.logs.insert(ack.conversation, log).is_none(), "the group existed");
    }

    /// The application ends and starts again; it may have messages that were accepted and not sent.
    async fn restart_a_device(&mut self) {
        let device = self.a_device();
        let sender = self.devices[device].user.clone();
        if self.random.random_bool(0.5) {
            let other = self.a_user();
            for _ in 0..self.random.random_range(1..4) {
                let (temp_id, text) = (fresh(), self.text());
                let client = self.devices[device].client();
                let mut pending = client.submit_as(temp_id, other.clone(), &text).expect("room");
                bounded(pending.accepted()).await.expect("it can be saved");
                let (_, log) = self.log(&sender, &Target::User(other.clone()));
                log.floating.insert(temp_id, (sender.clone(), text));
            }
        }
        self.devices[device].stop().await;
        self.devices[device].start(&self.server).await;
    }

    async fn restart_the_server(&mut self, crash: bool) {
        if !crash {
            self.server.signal("TERM");
            assert_eq!(self.server.exit().await.code(), Some(0));
        }
        self.server.restart().await;
    }

    async fn step(&mut self) {
        let what = match self.random.random_range(0..200) {
            0..90 => "send",
            90..115 => "burst",
            115..125 => "race",
            125..145 => "retry",
            145..177 => "change a group",
            177..182 => "create a group",
            182..197 => "restart a device",
            197 => "race through a crash",
            198 => "crash the server",
            _ => "restart the server",
        };
        self.count(what);
        match what {
            "send" => self.send(1).await,
            "burst" => {
                let count = self.random.random_range(2..BURST);
                self.send(count).await;
            }
            "race" => self.race(false).await,
            "race through a crash" => self.race(true).await,
            "retry" => self.retry().await,
            "change a group" => self.change_a_group().await,
            "create a group" => self.create_a_group().await,
            "restart a device" => self.restart_a_device().await,
            other => self.restart_the_server(other == "crash the server").await,
        }
        self.devices.iter().for_each(Device::check);
    }

    /// In the end the server's logs are the model's, and every device has handed out all of them.
    async fn check(&mut self) {
        // A floating message is sent soon after its client is back.
        let floating =
            self.logs.iter().flat_map(|(id, log)| log.floating.iter().map(move |float| (*id, float)));
        let floating: Vec<_> = floating
            .map(|(id, (temp_id, (sender, text)))| (id, *temp_id, sender.clone(), text.clone()))
            .collect();
        for (id, temp_id, sender, text) in floating {
            let other =
                self.logs[&id].members.iter().map(|member| &member.0).find(|member| **member != sender);
            let to = other.unwrap_or(&sender).clone();
            let device =
                self.devices.iter().find(|device| device.user == sender).expect("a device of theirs");
            // The same message under the same id: whoever comes first, it is in the log once.
            let pending = device.client().submit_as(temp_id, to, text).expect("room");
            match bounded(pending).await {
                Ok(_) | Err(SendError::InUse) => {}
                Err(error) => panic!("a message that was accepted is lost: {error}"),
            }
        }
        let ids: Vec<ConversationId> = self.logs.keys().copied().collect();
        for id in ids {
            let entries = self.readable(id).await;
            self.logs.get_mut(&id).expect("it is known").check(&entries);
            for device in &self.devices {
                check_device(device, id, &self.logs[&id], &entries).await;
            }
        }
        self.devices.iter().for_each(Device::check);
    }

    /// What all users together may read of a log.
    async fn readable(&self, id: ConversationId) -> BTreeMap<u64, Entry> {
        let mut log: BTreeMap<u64, Entry> = BTreeMap::new();
        for device in self.devices.iter().step_by(DEVICES) {
            let mut after = 0;
            loop {
                let page = match bounded(device.client().history(id, Anchor::After(after), 200)).await {
                    Ok(page) => page,
                    Err(RequestError::Refused { code: Code::NOT_FOUND, .. }) => break,
                    Err(error) => panic!("{error}"),
                };
                let Some(newest) = page.entries.first() else { break };
                after = newest.seq;
                for entry in page.entries {
                    if let Some(before) = log.insert(entry.seq, entry.clone()) {
                        assert_eq!(before, entry, "two members see different logs");
                    }
                }
            }
        }
        log
    }
}

/// A device of this user has handed out all that it must, and nothing else.
async fn check_device(device: &Device, id: ConversationId, log: &Log, readable: &BTreeMap<u64, Entry>) {
    let stays = log.stays.get(&device.user).map_or(&[][..], Vec::as_slice);
    let Some(last) = stays.last() else {
        assert!(device.had(id).is_none(), "{} is told of a conversation of others", device.name);
        return;
    };
    let head = readable.last_key_value().map_or(0, |(seq, _)| *seq);
    let end = last.until.unwrap_or(head);
    let what =
        format!("{} to have {id} up to {end}: {:?}", device.name, device.had(id).map(|had| had.position));
    within(&what, async {
        loop {
            match device.had(id) {
                Some(had) if had.position >= end => return,
                // Whoever went before this device heard of the conversation never hears of it.
                None if last.until.is_some() => return,
                _ => tokio::time::sleep(Duration::from_millis(20)).await,
            }
            device.check();
        }
    })
    .await;
    let Some(had) = device.had(id) else { return };
    assert_eq!(had.position, end, "{}: too much of {id}", device.name);
    for (seq, entry) in &had.entries {
        let visible =
            stays.iter().any(|stay| stay.from <= *seq && stay.until.is_none_or(|until| *seq <= until));
        assert!(visible, "{} was not in {id} at {seq}", device.name);
        match (readable.get(seq), log.known.get(seq)) {
            (Some(there), _) => assert_eq!(entry, there, "{}: {id} at {seq}", device.name),
            // Of an earlier stay, which nobody may read any more.
            (None, Some(known)) => assert_eq!((&entry.body, entry.temp_id), (&known.body, known.temp_id)),
            (None, None) => panic!("{}: nobody asked for {entry:?}", device.name),
        }
    }
}

fn refused(outcome: Result<Ack, SendError>, refusal: Option<Code>, change: &Change) {
    match (outcome, refusal) {
        (Err(SendError::Refused { code, .. }), Some(expected)) => assert_eq!(code, expected, "{change:?}"),
        (outcome, expected) => panic!("{change:?}: {outcome:?}, the model says {expected:?}"),
    }
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_happens_every_device_hands_out_the_log_of_the_model() {
    let seed = number("TERN_SEED").unwrap_or(SEED);
    let steps = number("TERN_MODEL_STEPS").map_or(STEPS, |steps| steps as usize);
    println!("TERN_SEED={seed} TERN_MODEL_STEPS={steps}");
    let dir = tempfile::tempdir().unwrap();
    let server = loose().set("TRANSPORT__KEEPALIVE_S", "1").set("DRAIN__DEADLINE_MS", "500").start().await;
    let mut devices = Vec::new();
    for (index, name) in USERS.iter().flat_map(|name| [name; DEVICES]).enumerate() {
        let device = format!("{name}-{}", index % DEVICES);
        let wire = Wire::ALL[index % Wire::ALL.len()];
        let mut device = Device::new(user(name), device.clone(), wire, dir.path().join(device));
        device.start(&server).await;
        devices.push(device);
    }
    let mut world = World {
        server,
        random: StdRng::seed_from_u64(seed),
        devices,
        logs: BTreeMap::new(),
        sent: Vec::new(),
        numbers: 0,
        done: BTreeMap::new(),
    };
    world.create_a_group().await;
    for _ in 0..steps {
        world.step().await;
    }
    // Whatever the dice said: both kinds of restart, with devices in the middle of it.
    world.race(true).await;
    world.send(BURST).await;
    world.restart_the_server(false).await;
    world.race(false).await;
    world.check().await;
    let entries: usize = world.logs.values().map(|log| log.known.len()).sum();
    println!("{:?}; {} conversations, {entries} entries", world.done, world.logs.len());
    for device in &mut world.devices {
        device.stop().await;
    }
}
