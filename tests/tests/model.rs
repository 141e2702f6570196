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
use tempfile::TempDir;
use tern_client::{
    Ack, Anchor, Code, ConversationId, Entry, RequestError, Role, SendError, Target, TempId, UserId,
};
use tern_tests::{Server, Wire, binary, fresh, loose, until, user, within};

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
/// The server's clock is so far behind at first that days can go by during a run.
const DAYS_BEHIND: u32 = 300;
/// Days that go by at once: more than anything is kept.
const DAYS_A_STEP: u32 = 10;
/// Longest time of one operation: a dead QUIC connection is noticed after 7 s here.
const OPERATION: Duration = Duration::from_secs(60);

/// An acked message: who, under which id, where, what, and where it is.
type Sent = (UserId, TempId, Target, String, Ack);

/// What was true when a backup was taken.
struct Saved {
    dir: TempDir,
    logs: BTreeMap<ConversationId, Log>,
    sent: Vec<Sent>,
    days_behind: u32,
}

struct World {
    server: Server,
    random: StdRng,
    devices: Vec<Device>,
    logs: BTreeMap<ConversationId, Log>,
    /// Acked messages, to be retried.
    sent: Vec<Sent>,
    /// The server's clock is so many days behind.
    days_behind: u32,
    saved: Option<Saved>,
    restores: usize,
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
        self.settle_pair(&sender, &to).await;
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
                (Ok(ack), _) if is_pair(&to) || log.refusal(&sender, &change).is_none() => {
                    assert_eq!((ack.conversation, ack.temp_id), (id, temp_id));
                    assert!(ack.seq > before, "a later send of a device was acked at a lower place");
                    before = ack.seq;
                    if let Target::User(other) = &to {
                        log.come_back(ack.seq, &sender, other);
                    }
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
                log.floating.insert(temp_id, (sender.clone(), text, other.clone()));
            }
        }
        self.devices[device].stop().await;
        self.devices[device].start(&self.server).await;
    }

    /// Messages whose ack nobody waited for are in the log once their client was there again.
    async fn settle(&mut self) {
        let floating: Vec<_> = self.logs.values_mut().flat_map(|log| log.floating.drain()).collect();
        let mut acked = Vec::new();
        for (temp_id, (sender, text, to)) in floating {
            let of_sender = self.devices.iter().find(|device| device.user == sender);
            let client = of_sender.expect("every user has devices").client().clone();
            let ack = bounded(async {
                loop {
                    let pending = client.submit_as(temp_id, to.clone(), &text).expect("room");
                    match pending.await {
                        Ok(ack) => return ack,
                        // The client is at it by itself.
                        Err(SendError::InUse) => tokio::time::sleep(Duration::from_millis(20)).await,
                        Err(error) => panic!("a message that was accepted is lost: {error}"),
                    }
                }
            })
            .await;
            acked.push((ack.seq, temp_id, sender, text, to));
        }
        acked.sort();
        for (seq, temp_id, sender, text, to) in acked {
            let (_, log) = self.log(&sender, &Target::User(to.clone()));
            log.come_back(seq, &sender, &to);
            log.apply(seq, &sender, Some(temp_id), &Change::Message(text));
        }
    }

    /// Who brings an erased user back into a pair must be known: nothing may be on its way unnoticed.
    async fn settle_pair(&mut self, sender: &UserId, to: &Target) {
        let Target::User(other) = to else { return };
        let (_, log) = self.log(sender, to);
        if log.lacks(sender) || log.lacks(other) {
            self.settle().await;
        }
    }

    /// Days go by: whatever there is becomes too old and goes. Devices are away meanwhile.
    async fn age(&mut self) {
        if self.days_behind <= DAYS_A_STEP {
            return;
        }
        self.settle().await;
        for device in &mut self.devices {
            device.stop().await;
        }
        self.days_behind -= DAYS_A_STEP;
        let days = self.days_behind;
        self.server.change(|options| options.days_behind(days));
        self.server.restart().await;
        for device in &mut self.devices {
            device.start(&self.server).await;
        }
        self.aged().await;
    }

    /// All there is was too old when the server started.
    async fn aged(&mut self) {
        self.sent.clear(); // their markers have gone too
        for (id, log) in &mut self.logs {
            log.age();
            let Some((member, _)) = log.members.first() else { continue };
            let device =
                self.devices.iter().find(|device| device.user == *member).expect("a device of theirs");
            let first = async || bounded(device.client().history(*id, Anchor::Latest, 1)).await;
            within("old entries to go", async {
                while first().await.expect("a member reads").first_seq < log.floor {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            })
            .await;
        }
    }

    /// A user is erased, and comes back as a new one, on new devices.
    async fn erase(&mut self) {
        self.settle().await;
        let user = self.a_user();
        for device in self.devices.iter_mut().filter(|device| device.user == user) {
            device.stop().await;
        }
        let said = self.tern(&["erase", user.as_str(), "--yes", "--data-dir"]).await;
        let became = said.split_whitespace().find(|word| word.len() > 7 && word.starts_with("erased:"));
        let became: UserId = became.expect("who stands in their place").parse().expect("a user id");
        self.logs.values_mut().for_each(|log| log.erase(&user, &became));
        self.sent.retain(|sent| sent.0 != user);
        for device in self.devices.iter_mut().filter(|device| device.user == user) {
            self.numbers += 1;
            *device = device.replaced(self.numbers, self.restores);
            device.start(&self.server).await;
        }
    }

    async fn back_up(&mut self) {
        self.settle().await;
        let dir = tempfile::tempdir().expect("a directory");
        let backup = dir.path().join("backup");
        self.tern(&["backup", backup.to_str().expect("a path in text"), "--data-dir"]).await;
        let (logs, sent) = (self.logs.clone(), self.sent.clone());
        self.saved = Some(Saved { dir, logs, sent, days_behind: self.days_behind });
    }

    /// The disk is lost, and the last backup takes its place: what came after it has never been.
    async fn restore(&mut self) {
        let Some(saved) = self.saved.take() else { return };
        self.settle().await;
        self.server.kill();
        let path = |name: &str| saved.dir.path().join(name).to_str().expect("a path in text").to_owned();
        run(&["verify", &path("backup")]).await;
        run(&["restore", &path("backup"), "--to", &path("restored")]).await;
        let store = self.server.data_dir().join("store");
        std::fs::remove_dir_all(&store).expect("the store");
        std::fs::rename(saved.dir.path().join("restored/store"), &store).expect("the restored store");
        self.server.restart().await;
        self.restores += 1;
        (self.logs, self.sent) = (saved.logs, saved.sent);
        for device in &self.devices {
            let told = || (device.stores() >= self.restores_of(device)).then_some(());
            until("a device to hear of the other store", told).await;
        }
        if saved.days_behind > self.days_behind {
            self.aged().await;
        }
    }

    /// Restores that this device has lived through.
    fn restores_of(&self, device: &Device) -> usize {
        self.restores - device.born
    }

    /// Runs `tern store` on the data directory of the server.
    async fn tern(&self, words: &[&str]) -> String {
        let data = self.server.data_dir().to_str().expect("a path in text");
        run(&[words, &[data]].concat()).await
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
            182..193 => "restart a device",
            193 => "age",
            194 => "erase",
            195 => "back up",
            196 => "restore",
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
            "age" => self.age().await,
            "erase" => self.erase().await,
            "back up" => self.back_up().await,
            "restore" => self.restore().await,
            other => self.restart_the_server(other == "crash the server").await,
        }
        self.devices.iter().for_each(Device::check);
    }

    /// In the end the server's logs are the model's, and every device has handed out all of them.
    async fn check(&mut self) {
        // A floating message is sent soon after its client is back.
        self.settle().await;
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
    let head = readable.last_key_value().map_or(0, |(seq, _)| *seq).max(log.head());
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
        if !log.told_of_erasures_after(*seq, stays) {
            continue; // what they have of an earlier stay may be as it was
        }
        match (readable.get(seq), log.known.get(seq)) {
            (Some(there), _) => assert_eq!(entry, there, "{}: {id} at {seq}", device.name),
            // Of an earlier stay, which nobody may read any more, or aged out.
            (None, Some(known)) => assert!(known.is(entry), "{entry:?}, known as {known:?}"),
            (None, None) => panic!("{}: nobody asked for {entry:?}", device.name),
        }
    }
}

fn is_pair(to: &Target) -> bool {
    matches!(to, Target::User(_))
}

/// Runs `tern store` with these words.
async fn run(words: &[&str]) -> String {
    let mut command = std::process::Command::new(binary());
    command.arg("store").args(words);
    let output = bounded(tokio::task::spawn_blocking(move || command.output())).await;
    let output = output.expect("the command was run").expect("tern runs");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "tern store {words:?}: {stderr}");
    String::from_utf8(output.stdout).expect("text")
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
    let options = loose().set("TRANSPORT__KEEPALIVE_S", "1").set("DRAIN__DEADLINE_MS", "500");
    let options = options.set("RETENTION__DAYS", "8").set("RETENTION__SWEEP_S", "1");
    let server = options.days_behind(DAYS_BEHIND).start().await;
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
        days_behind: DAYS_BEHIND,
        saved: None,
        restores: 0,
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
