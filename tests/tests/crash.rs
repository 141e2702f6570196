//! `kill -9` in a loop under load: every acked message is there at its seq, once, and nothing is reordered.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::time::Duration;

use rand::{RngExt, SeedableRng};
use tern_protocol::{ConversationId, Entry, Fetch, Frame, Send, SendAck, Target, TempId};
use tern_tests::{HANG, RawClient, Server, Wire, message, newest, pair, text, user};
use tokio::sync::watch;

/// Crashes.
const ROUNDS: usize = 8;
/// A crash comes after a time from this range.
const ROUND_MS: std::ops::Range<u64> = 200..1200;
/// Unresolved sends of one writer.
const WINDOW: usize = 24;
/// The members of the group, and the wire of each.
const WRITERS: [(&str, Wire); 4] = [
    ("alice", Wire::Quic),
    ("bob", Wire::WebSocketBinary),
    ("carol", Wire::WebSocketJson),
    ("dave", Wire::WebTransport),
];

/// What one user sends, over all crashes.
struct Writer {
    name: &'static str,
    wire: Wire,
    group: ConversationId,
    /// Everything sent so far in its order.
    sent: Vec<Send>,
    acked: HashMap<TempId, SendAck>,
}

impl Writer {
    fn next(&mut self) -> Send {
        let number = self.sent.len();
        // Two thirds to the group, one to a pair.
        let target = if number % 3 == 2 {
            let others: Vec<&str> =
                WRITERS.iter().map(|writer| writer.0).filter(|name| *name != self.name).collect();
            Target::User(user(others[number / 3 % others.len()]))
        } else {
            Target::Conversation(self.group)
        };
        let send = message(target, &format!("{} {number}", self.name));
        self.sent.push(send.clone());
        send
    }

    fn unresolved(&self) -> VecDeque<Send> {
        self.sent.iter().filter(|send| !self.acked.contains_key(&send.temp_id)).cloned().collect()
    }

    fn ack(&mut self, ack: SendAck) {
        if let Some(before) = self.acked.insert(ack.temp_id, ack.clone()) {
            assert_eq!((before.seq, before.id), (ack.seq, ack.id), "an ack was changed");
        }
    }

    /// Sends until the crash, first again what has no ack yet; then waits for all acks if there is none.
    async fn write(mut self, mut client: RawClient, mut crash: watch::Receiver<bool>, last: bool) -> Self {
        let mut open = 0;
        for send in self.unresolved() {
            client.send(Send { age_ms: Some(60_000), ..send }).await;
            open += 1;
        }
        loop {
            while open < WINDOW && !last {
                let send = self.next();
                client.send(send).await;
                open += 1;
            }
            if open == 0 {
                return self;
            }
            let envelope = tokio::select! {
                envelope = client.next() => envelope,
                _ = crash.wait_for(|crashed| *crashed) => return self,
            };
            match envelope.map(|envelope| envelope.frame) {
                Some(Frame::SendAck(ack)) => {
                    self.ack(ack);
                    open -= 1;
                }
                Some(Frame::Error(error)) => panic!("{}: {error:?}", self.name),
                Some(_) => {}
                None => return self,
            }
        }
    }
}

async fn whole_log(client: &mut RawClient, conversation: ConversationId) -> Vec<Entry> {
    let mut log: Vec<Entry> = Vec::new();
    loop {
        let after = log.last().map_or(0, |entry| entry.seq);
        let page = client.fetch(Fetch { after: Some(after), limit: Some(200), ..newest(conversation) }).await;
        if page.entries.is_empty() {
            return log;
        }
        log.extend(page.entries.into_iter().rev());
    }
}

/// The log is dense, every ack is true, nothing is there twice, and each writer's order is kept.
fn check(conversation: ConversationId, log: &[Entry], writers: &[Writer]) {
    let mut seen = HashSet::new();
    for (entry, seq) in log.iter().zip(1..) {
        assert_eq!(entry.seq, seq, "the log has a hole or a repeat");
        let temp_id = entry.temp_id.expect("every entry here has one");
        assert!(seen.insert((entry.sender.clone(), temp_id)), "{entry:?} is there twice");
    }
    for writer in writers {
        let me = user(writer.name);
        let places: BTreeMap<TempId, &Entry> = log
            .iter()
            .filter(|entry| entry.sender == me)
            .map(|entry| (entry.temp_id.expect("it was checked"), entry))
            .collect();
        let mut before = 0;
        for send in writer.sent.iter().filter(|send| send.to.conversation(&me) == conversation) {
            let place = places.get(&send.temp_id);
            if let Some(ack) = writer.acked.get(&send.temp_id) {
                let entry = place.unwrap_or_else(|| panic!("{ack:?} was acked and is lost"));
                assert_eq!((entry.seq, entry.id, entry.time_ms), (ack.seq, ack.id, ack.time_ms));
            }
            if let Some(entry) = place {
                assert_eq!(text(entry), send.text);
                assert!(entry.seq > before, "{}: {} came before its predecessor", writer.name, send.text);
                before = entry.seq;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_acked_message_survives_kill_9_under_load_at_its_seq_once() {
    let seed =
        std::env::var("TERN_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(rand::random);
    println!("TERN_SEED={seed}");
    let mut random = rand::rngs::StdRng::seed_from_u64(seed);
    let mut server = Server::start().await;
    let group =
        RawClient::open(&server, Wire::Quic, "alice").await.group("all", &["bob", "carol", "dave"]).await;
    let mut conversations = vec![group];
    for (index, (name, _)) in WRITERS.iter().enumerate() {
        conversations.extend(WRITERS[..index].iter().map(|(other, _)| pair(name, other)));
    }
    let mut writers: Vec<Writer> = WRITERS
        .map(|(name, wire)| Writer { name, wire, group, sent: Vec::new(), acked: HashMap::new() })
        .into();
    for round in 0..=ROUNDS {
        let last = round == ROUNDS;
        let (crash, crashed) = watch::channel(false);
        let mut tasks = Vec::new();
        for writer in writers.drain(..) {
            let client = RawClient::open_device(&server, writer.wire, writer.name, "device").await;
            tasks.push(tokio::spawn(writer.write(client, crashed.clone(), last)));
        }
        if !last {
            tokio::time::sleep(Duration::from_millis(random.random_range(ROUND_MS))).await;
            server.kill();
            crash.send_replace(true);
        }
        for task in tasks {
            let writer = tokio::time::timeout(2 * HANG, task).await.expect("the writer hangs");
            writers.push(writer.expect("the writer failed"));
        }
        if !last {
            server.restart().await;
        }
        let mut reader = HashMap::new();
        for (name, _) in WRITERS {
            reader.insert(name, RawClient::open(&server, Wire::WebSocketBinary, name).await);
        }
        for &conversation in &conversations {
            for (name, _) in WRITERS {
                let client = reader.get_mut(name).expect("all are there");
                let mine = conversation == group
                    || WRITERS.iter().any(|(other, _)| pair(name, other) == conversation);
                if mine {
                    let log = match client.ask(newest(conversation)).await {
                        Frame::Error(_) => Vec::new(),
                        _ => whole_log(client, conversation).await,
                    };
                    // The group was created by a change that is no writer's message.
                    check(conversation, &log, &writers);
                    break;
                }
            }
        }
    }
    let sent: usize = writers.iter().map(|writer| writer.sent.len()).sum();
    let acked: usize = writers.iter().map(|writer| writer.acked.len()).sum();
    println!("{ROUNDS} crashes, {sent} messages sent, {acked} acked");
    assert_eq!(acked, sent, "after the last round everything is resolved");
    assert!(sent > ROUNDS * WRITERS.len(), "there was load");
}
