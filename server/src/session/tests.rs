use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures_util::{FutureExt, SinkExt, StreamExt};
use tern_protocol::{
    Ack, Decoder, Envelope, Frame, Hello, Incoming, Ping, Position, Reauth, RenameGroup, Send, SyncEnd,
    Target, TempId, Token, UserId,
};
use tokio::io::{DuplexStream, duplex};
use tokio::time::{Instant, sleep};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::Role;

use super::active::Active;
use super::step::Step;
use super::*;
use crate::auth::{Algorithm, AuthConfig, JwksConfig, KeyConfig, Mint, SigningKey, ensure_secret_file};
use crate::budget::{Budget, MemoryPart};
use crate::clock::{now, unix_ms};
use crate::conversation::Conversations;
use crate::drain::Leaving;
use crate::presence::PresenceTasks;
use crate::roster::outbox::TakeLimit;
use crate::roster::{Format, Outbox};
use crate::store::Upkeep;
use crate::store::memory::MemoryStore;
use crate::store::shaky::Shaky;
use crate::transport::{Inbound, LinkInfo, Transport, websocket};

/// What the sessions of a test may take.
const BENCH_BYTES: usize = 64 * 1024 * 1024;
const MS: Duration = Duration::from_millis(1);
const HOUR: Duration = Duration::from_secs(3_600);
const ANY: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0);
const ALL: TakeLimit = TakeLimit { frames: usize::MAX, bytes: usize::MAX };

fn user(name: &str) -> UserId {
    UserId::new(name).unwrap()
}

fn pair(a: &str, b: &str) -> ConversationId {
    ConversationId::pair(&user(a), &user(b))
}

/// All that sessions need, on a store that does what a test wants.
struct Bench {
    gateway: Gateway,
    store: Arc<Shaky>,
    roster: Roster,
    key: SigningKey,
    sessions: u64,
    _presence: PresenceTasks,
    _dir: tempfile::TempDir,
}

impl Bench {
    fn new() -> Self {
        Self::with(|_| ())
    }

    fn with(change: impl FnOnce(&mut Settings)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let secret = dir.path().join("secret");
        ensure_secret_file(&secret).unwrap();
        let store = Shaky::new(Arc::new(MemoryStore::new()));
        let (roster, metrics) = (Roster::default(), Metrics::none());
        let memory = Memory::new(BENCH_BYTES);
        let delivery = Delivery::new(roster.clone(), metrics.clone());
        let (log, users) = (store.clone(), store.clone());
        let conversations =
            Conversations::new(&Default::default(), &memory, log, users, delivery.clone(), metrics.clone());
        let (presence, tasks) = Presence::start(&Default::default(), roster.clone(), store.clone());
        let mut settings = Settings {
            session: SessionConfig::default(),
            transport: TransportConfig::default(),
            outbox: OutboxConfig::default(),
            rates: QuotaConfig::default(),
            people: Default::default(),
            node: NodeId::new("here").unwrap(),
            boot: 1,
        };
        change(&mut settings);
        let services = Services {
            auth: Arc::new(Authenticator::new(auth(&secret)).unwrap()),
            quota: Arc::new(Quota::new(&settings.rates, Instant::now().into_std())),
            roster: roster.clone(),
            router: Router::new(conversations),
            delivery,
            history: History::new(store.clone()),
            store: store.clone(),
            presence,
            metrics,
            memory,
        };
        let key = SigningKey::from_secret_file(&secret).unwrap();
        let gateway = Gateway::new(settings, services);
        Self { gateway, store, roster, key, sessions: 100, _presence: tasks, _dir: dir }
    }

    fn hello(&self, name: &str) -> Hello {
        let token = Mint::new(user(name), HOUR).sign(&self.key, SystemTime::now()).unwrap();
        Hello { token: Token(token), device: None, agent: None, features: 0 }
    }

    /// A session without a link: what it is to be told stays in its outbox.
    async fn open(&mut self, name: &str) -> Session {
        let outbox =
            Outbox::new(Format::Binary, self.gateway.inner.settings.outbox.clone(), &Budget::new(usize::MAX));
        let transport = Transport::WebSocket;
        let info = LinkInfo { transport, format: Format::Binary, remote: ANY, established: Instant::now() };
        self.sessions += 1;
        let (gateway, hello) = (&self.gateway.inner, self.hello(name));
        let opened = hello::open(gateway, self.sessions, &info, &outbox, None, hello).await;
        let Ok(active) = opened else { panic!("{name} is refused") };
        Session { active, outbox }
    }

    /// A client on a link, before its Hello.
    async fn connect(&self) -> Client {
        let (near, far) = duplex(64 * 1024);
        let config = &self.gateway.inner.settings.transport;
        let link = websocket::from_upgraded(far, Format::Binary, config, ANY).await;
        tokio::spawn(self.gateway.serve(Box::new(link)));
        let socket = WebSocketStream::from_raw_socket(near, Role::Client, None).await;
        Client { socket, decoder: Decoder::default() }
    }

    async fn join(&self, name: &str) -> Client {
        let mut client = self.connect().await;
        client.send(self.hello(name)).await;
        let first = client.next().await;
        assert!(matches!(first.frame, Frame::Welcome(_)), "{first:?}");
        client
    }
}

fn auth(secret: &std::path::Path) -> AuthConfig {
    let key = KeyConfig {
        kid: None,
        algorithm: Algorithm::HS256,
        public_key_file: None,
        secret_file: Some(secret.to_owned()),
        scopes: None,
    };
    // Its keys are never fetched.
    let issuer = JwksConfig {
        issuer: "https://idp.example".into(),
        url: "http://127.0.0.1:9/jwks".into(),
        audience: None,
        algorithms: vec![Algorithm::ES256],
        refresh_s: 3_600,
        user_prefix: None,
        shares_users: false,
        scopes: Vec::new(),
        ca_file: None,
    };
    AuthConfig { keys: vec![key], jwks: vec![issuer], ..AuthConfig::default() }
}

/// A token of that issuer, whose key is unknown.
fn foreign_token(name: &str) -> Token {
    let part = |text: String| data_encoding::BASE64URL_NOPAD.encode(text.as_bytes());
    let header = part(r#"{"alg":"ES256","typ":"JWT","kid":"new"}"#.into());
    let claims = part(format!(r#"{{"sub":"{name}","iss":"https://idp.example","exp":4102444800}}"#));
    Token(format!("{header}.{claims}.{}", part("x".repeat(64))))
}

fn to(target: &str, text: &str) -> Send {
    let (to, temp_id) = (Target::User(user(target)), TempId::from_uuid(uuid::Uuid::new_v4()));
    Send { to, text: text.into(), temp_id, age_ms: Some(0), data: None, reply_to: None }
}

struct Session {
    active: Active,
    outbox: Arc<Outbox>,
}

impl Session {
    /// What comes of a frame at once; nothing waits for anything.
    fn say(&mut self, frame: impl Into<Frame>) -> Step {
        self.say_at(frame, Instant::now())
    }

    fn say_at(&mut self, frame: impl Into<Frame>, now: Instant) -> Step {
        let envelope = Envelope { request: Some(7), frame: frame.into() };
        self.active.on_inbound(Inbound::Frame(envelope), now.into_std())
    }

    /// What is answered at once.
    fn ask(&mut self, frame: impl Into<Frame>) -> Frame {
        answer(self.say(frame))
    }

    /// Takes and sends everything that waits.
    fn take(&self) -> Vec<Frame> {
        let mut decoder = Decoder::default();
        while let Some(batch) = self.outbox.take_any(ALL) {
            batch.frames.iter().for_each(|bytes| decoder.extend(bytes));
            self.outbox.sent(batch);
        }
        let mut frames = Vec::new();
        while let Some(Incoming::Frame(envelope)) = decoder.next().unwrap() {
            frames.push(envelope.frame);
        }
        frames
    }

    /// The same once everybody has done what they can do now.
    async fn taken(&self) -> Vec<Frame> {
        sleep(MS).await;
        self.take()
    }
}

fn answer(step: Step) -> Frame {
    match step {
        Step::Send(outgoing) => outgoing.envelope().unwrap().frame.clone(),
        Step::Nothing => panic!("nothing was answered"),
        Step::Close(close) => panic!("closed: {close:?}"),
    }
}

fn error(frame: &Frame) -> (Code, Option<TempId>) {
    match frame {
        Frame::Error(error) => (error.code, error.temp_id),
        other => panic!("{other:?}"),
    }
}

struct Client {
    socket: WebSocketStream<DuplexStream>,
    decoder: Decoder,
}

impl Client {
    async fn send(&mut self, frame: impl Into<Frame>) {
        let envelope = Envelope { request: Some(7), frame: frame.into() };
        self.socket.send(Message::Binary(tern_protocol::encode(&envelope).into())).await.unwrap();
    }

    async fn next(&mut self) -> Envelope {
        loop {
            if let Some(Incoming::Frame(envelope)) = self.decoder.next().unwrap() {
                return envelope;
            }
            match self.socket.next().await {
                Some(Ok(message)) => self.decoder.extend(&message.into_data()),
                other => panic!("{other:?}"),
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_only_answers_pings_of_its_websocket_stays() {
    let bench = Bench::new();
    let mut client = bench.join("ida").await;
    let mut pings = 0;
    let reading = async {
        loop {
            match client.socket.next().await {
                // It is answered with the next read.
                Some(Ok(Message::Ping(_))) => pings += 1,
                other => panic!("{other:?}"),
            }
        }
    };
    // Before anything is told of its token.
    let while_good = tokio::time::timeout(HOUR / 2, reading).await;
    assert!(while_good.is_err(), "nothing ends it");
    assert!(pings >= 70, "{pings} pings");
}

#[tokio::test(start_paused = true)]
async fn who_is_erased_while_they_are_greeted_does_not_stay() {
    let bench = Bench::new();
    let mut client = bench.connect().await;
    // The erasure is looked up, the user, and the erasure again once the session has its seat.
    bench.store.slow_reads(100 * MS);
    client.send(bench.hello("mallory")).await;
    sleep(250 * MS).await;
    assert!(bench.roster.is_here(&user("mallory")));
    bench.store.begin_erasure(&user("mallory"), UserId::erased([1; 16]), unix_ms()).await.unwrap();
    let first = client.next().await.frame;
    let Frame::Close(close) = first else { panic!("{first:?}") };
    assert_eq!((close.code, close.reason.as_str()), (Code::TOKEN_INVALID, ERASED));
    sleep(LAST_FRAME).await;
    assert!(!bench.roster.is_here(&user("mallory")));
}

#[tokio::test(start_paused = true)]
async fn who_says_hello_while_the_node_leaves_is_asked_to_leave_after_the_welcome() {
    let bench = Bench::new();
    let mut early = bench.connect().await;
    bench.store.slow_reads(100 * MS);
    early.send(bench.hello("early")).await;
    sleep(250 * MS).await;
    // One has its seat and no welcome yet: it is told with all others.
    let leaving = Leaving::new(Instant::now().into_std(), 30_000 * MS, 10_000 * MS);
    for seat in bench.roster.leave(leaving) {
        let _ = seat.outbox.push_control(&crate::roster::Outgoing::new(leaving.go_away(now())));
    }
    let mut late = bench.connect().await;
    late.send(bench.hello("late")).await;
    for client in [&mut early, &mut late] {
        assert!(matches!(client.next().await.frame, Frame::Welcome(_)));
        let told = tokio::time::timeout(250 * MS, client.next()).await.expect("told at once").frame;
        let Frame::GoAway(told) = told else { panic!("{told:?}") };
        assert!((29_000..=30_000).contains(&told.deadline_ms), "{told:?}");
    }
    bench.roster.shut();
    let mut last = bench.connect().await;
    last.send(bench.hello("last")).await;
    let first = last.next().await.frame;
    assert!(matches!(&first, Frame::Close(close) if close.code == Code::SHUTDOWN), "{first:?}");
}

#[tokio::test(start_paused = true)]
async fn what_is_told_flows_while_a_question_waits_for_the_store() {
    let bench = Bench::new();
    let mut alice = bench.join("alice").await;
    let mut bob = bench.join("bob").await;
    alice.send(to("bob", "before")).await;
    assert!(matches!(bob.next().await.frame, Frame::Deliver(_)));
    assert!(matches!(alice.next().await.frame, Frame::SendAck(_)));
    let start = Instant::now();
    // Bob asks about everything there is, and the store is as slow as can be.
    bench.store.slow_reads(HOUR);
    let conversation = pair("alice", "bob");
    let seq = 1;
    bob.send(tern_protocol::Sync { cursors: Vec::new(), more: false }).await;
    bob.send(tern_protocol::Read { conversation, seq }).await;
    bob.send(Ack { positions: vec![Position { conversation: pair("bob", "nobody"), seq }] }).await;
    bob.send(tern_protocol::Typing { to: Target::User(user("alice")) }).await;
    bob.send(tern_protocol::Watch { users: vec![user("alice")] }).await;
    bob.send(tern_protocol::ListMembers { conversation }).await;
    bob.send(Reauth { token: foreign_token("bob") }).await;
    bob.send(Ping { nonce: 1 }).await;
    assert!(matches!(bob.next().await.frame, Frame::Pong(_)));
    alice.send(to("bob", "meanwhile")).await;
    assert!(matches!(bob.next().await.frame, Frame::Deliver(_)));
    assert!(start.elapsed() < 1_000 * MS, "{:?}", start.elapsed());
    let waited = bob.next().await;
    assert_eq!((error(&waited.frame).0, waited.request), (Code::UNAVAILABLE, Some(7)), "of the token");
    assert!(start.elapsed() < HOUR);
}

#[tokio::test(start_paused = true)]
async fn a_token_whose_key_is_being_fetched_waits_beside_everything_else() {
    let mut bench = Bench::new();
    let mut alice = bench.open("alice").await;
    alice.take();
    assert!(matches!(alice.say(Reauth { token: foreign_token("alice") }), Step::Nothing));
    assert_eq!(alice.active.renewed().now_or_never(), None);
    // One at a time: the second is told to come again.
    let second = alice.ask(Reauth { token: foreign_token("alice") });
    assert_eq!(error(&second).0, Code::UNAVAILABLE);
    assert!(matches!(alice.ask(Ping { nonce: 1 }), Frame::Pong(_)));
    let token = bench.hello("alice").token;
    assert!(
        matches!(alice.ask(Reauth { token }), Frame::Reauthed(_)),
        "one whose key is known does not wait"
    );
    let token = bench.hello("bob").token;
    assert_eq!(error(&alice.ask(Reauth { token })).0, Code::TOKEN_SUBJECT);
    let (request, settled) = alice.active.renewed().await;
    assert_eq!(request, Some(7));
    assert_eq!(error(&answer(alice.active.on_renewed(request, settled, now()))).0, Code::UNAVAILABLE);
    assert_eq!(alice.active.renewed().now_or_never(), None, "nothing is left of it");
}

#[tokio::test(start_paused = true)]
async fn the_end_of_a_session_is_the_end_of_its_questions() {
    let mut bench = Bench::new();
    let mut alice = bench.open("alice").await;
    bench.store.slow_reads(HOUR);
    alice.say(tern_protocol::ListConversations { limit: None, cursor: None });
    alice.say(tern_protocol::ListConversations { limit: None, cursor: None });
    sleep(MS).await;
    let seat = Arc::downgrade(&alice.active.seat);
    drop(alice);
    sleep(MS).await;
    assert!(seat.upgrade().is_none(), "somebody still works for it");
}

#[tokio::test(start_paused = true)]
async fn a_client_that_does_not_take_its_pages_keeps_nobody_from_reading() {
    let mut bench = Bench::with(|settings| {
        settings.session.reads_max = 1;
        settings.outbox.backlog_frames_max = 1;
    });
    let mut lazy = bench.open("lazy").await;
    for friend in ["a", "b", "c"] {
        lazy.say(to(friend, "hi"));
    }
    sleep(MS).await;
    lazy.take();
    lazy.say(tern_protocol::Sync { cursors: Vec::new(), more: false });
    sleep(MS).await;
    // It has read the second piece and waits until the first is taken.
    let mut other = bench.open("other").await;
    other.take();
    other.say(tern_protocol::ListConversations { limit: None, cursor: None });
    let taken = other.taken().await;
    assert!(matches!(taken[..], [Frame::ConversationPage(_)]), "{taken:?}");
}

#[tokio::test(start_paused = true)]
async fn no_more_reads_are_with_the_store_than_it_is_set_to() {
    let mut bench = Bench::with(|settings| settings.session.reads_max = 2);
    let mut sessions = Vec::new();
    for number in 0..6 {
        sessions.push(bench.open(&format!("user{number}")).await);
    }
    bench.store.slow_reads(1_000 * MS);
    for session in &mut sessions {
        session.take();
        session.say(tern_protocol::ListConversations { limit: None, cursor: None });
    }
    let mut answered = Vec::new();
    for _ in 0..3 {
        sleep(1_001 * MS).await;
        answered.push(sessions.iter().map(|session| session.take().len()).sum::<usize>());
    }
    assert_eq!(answered, [2, 2, 2]);
}

#[tokio::test(start_paused = true)]
async fn a_new_sync_takes_the_place_of_what_is_left_of_the_one_before() {
    let mut bench = Bench::with(|settings| settings.outbox.backlog_frames_max = 1);
    let mut alice = bench.open("alice").await;
    for friend in 0..20 {
        alice.say(to(&format!("friend{friend}"), "hi"));
    }
    sleep(MS).await;
    alice.take();
    for _ in 0..50 {
        alice.say(tern_protocol::Sync { cursors: Vec::new(), more: false });
        sleep(MS).await;
    }
    let mut frames = Vec::new();
    loop {
        let more = alice.taken().await;
        if more.is_empty() {
            break;
        }
        frames.extend(more);
    }
    let ends = frames.iter().filter(|frame| matches!(frame, Frame::SyncEnd(_))).count();
    let delivers = frames.iter().filter(|frame| matches!(frame, Frame::Deliver(_))).count();
    assert_eq!(ends, 1, "of the last");
    // What was read already, at most one frame's worth, is sent.
    assert!((20..=40).contains(&delivers), "{delivers} pieces of 20");
}

#[tokio::test(start_paused = true)]
async fn what_was_told_is_acked_without_the_store_and_nothing_above_it() {
    let mut bench = Bench::new();
    let (mut alice, mut bob) = (bench.open("alice").await, bench.open("bob").await);
    let conversation = pair("alice", "bob");
    alice.say(to("bob", "hi"));
    sleep(MS).await;
    let trips = bench.store.round_trips();
    let ack = |seq| Ack { positions: vec![Position { conversation, seq }] };
    let delivery = bench.gateway.inner.delivery.clone();
    let confirmed = |name: &str| delivery.confirmed().seen(conversation, &user(name));
    assert_eq!(confirmed("bob"), 0);
    assert!(matches!(bob.say(ack(1)), Step::Nothing));
    assert_eq!(confirmed("bob"), 1, "at once");
    assert!(matches!(alice.say(ack(1)), Step::Nothing), "the ack of a send is told of it too");
    assert_eq!(confirmed("alice"), 1);
    assert_eq!(bench.store.round_trips(), trips);
    bob.take();
    bob.say(ack(2));
    assert_eq!(confirmed("bob"), 1);
    let taken = bob.taken().await;
    assert_eq!(error(&taken[0]).0, Code::CURSOR_AHEAD);
    assert!(bench.store.round_trips() > trips, "of what it was not told the store is asked");
    // Another session of bob has been told of nothing, and what it acks is there.
    let mut second = bench.open("bob").await;
    second.take();
    second.say(ack(1));
    assert!(second.taken().await.is_empty());
    // A position that does not fit keeps none behind it from counting.
    alice.say(to("bob", "more"));
    sleep(MS).await;
    let mut third = bench.open("bob").await;
    third.take();
    let foreign = Position { conversation: pair("x", "y"), seq: 1 };
    third.say(Ack { positions: vec![foreign, Position { conversation, seq: 2 }] });
    let taken = third.taken().await;
    assert_eq!(error(&taken[0]).0, Code::NOT_FOUND);
    assert_eq!(confirmed("bob"), 2);
}

#[tokio::test(start_paused = true)]
async fn a_change_over_the_limit_of_frames_keeps_its_place() {
    let one = |number| std::num::NonZeroU32::new(number).unwrap();
    let mut bench = Bench::with(|settings| {
        settings.rates.connection_frames_per_second = one(10);
        settings.rates.connection_frames_burst = one(2);
    });
    let mut alice = bench.open("alice").await;
    let conversation = ConversationId::from_bytes([9; 16]);
    let temp_id = TempId::from_bytes([1; 16]);
    for nonce in 0..2 {
        assert!(matches!(alice.ask(Ping { nonce }), Frame::Pong(_)));
    }
    let rename = RenameGroup { conversation, name: "New".into(), temp_id };
    let refused = alice.ask(rename);
    assert_eq!(error(&refused), (Code::RATE_LIMITED, Some(temp_id)));
    assert!(!alice.active.reads(), "nothing is read for a while");
    let resume = alice.active.deadline();
    assert!(resume - now() <= 201 * MS, "{:?}", resume - now());
    tokio::time::sleep_until(resume.into()).await;
    assert!(matches!(alice.active.on_deadline(now()), Step::Nothing));
    assert!(alice.active.reads());
    // Later than the change that was refused, which is to come first.
    let later = Send { to: Target::Conversation(conversation), ..to("x", "later") };
    assert_eq!(error(&alice.ask(later.clone())), (Code::OUT_OF_ORDER, Some(later.temp_id)));
}

#[tokio::test(start_paused = true)]
async fn what_is_refused_for_good_is_named_and_holds_no_place() {
    let one = |number| std::num::NonZeroU32::new(number).unwrap();
    let mut bench = Bench::with(|settings| {
        settings.rates.connection_frames_per_second = one(100);
        settings.rates.connection_frames_burst = one(1);
    });
    let mut alice = bench.open("alice").await;
    // Refused for now before it is looked at, then for good when it is: because it cannot be read, or is too long.
    let long = Send { text: "x".repeat(20_000), ..to("bob", "") };
    for (number, frame) in [(1, to("bob", "hi")), (2, long)] {
        let frame = Send { temp_id: TempId::from_bytes([number; 16]), ..frame };
        sleep(10 * MS).await;
        assert!(matches!(alice.ask(Ping { nonce: 0 }), Frame::Pong(_)));
        assert_eq!(error(&alice.ask(frame.clone())), (Code::RATE_LIMITED, Some(frame.temp_id)));
        sleep(10 * MS).await;
        let refused = if number == 1 {
            let text = format!(r#"{{"to":"bob","text":5,"temp_id":"{}","request_id":7}}"#, frame.temp_id);
            let broken = tern_protocol::from_json(&text, || frame.temp_id).unwrap_err();
            answer(alice.active.on_inbound(Inbound::Bad(broken), now()))
        } else {
            alice.ask(frame.clone())
        };
        let code = if number == 1 { Code::MALFORMED } else { Code::TEXT_TOO_LONG };
        assert_eq!(error(&refused), (code, Some(frame.temp_id)));
        let Frame::Error(refused) = refused else { panic!("an error") };
        assert_eq!(refused.conversation, Some(pair("alice", "bob")));
        sleep(10 * MS).await;
        let later = Send { temp_id: TempId::from_bytes([number + 10; 16]), ..to("bob", "later") };
        assert!(matches!(alice.say(later), Step::Nothing), "it is on its way");
    }
    let acks = alice.taken().await;
    assert_eq!(acks.iter().filter(|frame| matches!(frame, Frame::SendAck(_))).count(), 2, "{acks:?}");
}

#[tokio::test(start_paused = true)]
async fn a_question_that_finds_no_room_is_named() {
    let mut bench = Bench::new();
    let mut alice = bench.open("alice").await;
    let conversation = pair("alice", "bob");
    // Nobody works them off: nothing is awaited.
    let refused = (0..100).find_map(|_| match alice.say(tern_protocol::Read { conversation, seq: 1 }) {
        Step::Nothing => None,
        step => Some(answer(step)),
    });
    let Some(Frame::Error(refused)) = refused else { panic!("{refused:?}") };
    assert_eq!((refused.code, refused.conversation), (Code::RATE_LIMITED, Some(conversation)));
}

#[tokio::test(start_paused = true)]
async fn who_never_slows_down_is_closed() {
    let one = |number| std::num::NonZeroU32::new(number).unwrap();
    let mut bench = Bench::with(|settings| {
        settings.rates.connection_frames_per_second = one(1);
        settings.rates.connection_frames_burst = one(1);
    });
    let mut alice = bench.open("alice").await;
    let start = Instant::now();
    for _ in 0..=strikes::FLOODED_MAX {
        assert!(matches!(alice.say_at(Ping { nonce: 1 }, start), Step::Send(_)));
    }
    let Step::Close(close) = alice.say_at(Ping { nonce: 1 }, start) else { panic!("it goes on") };
    assert_eq!(close.code, Code::RATE_LIMITED);
    assert!(close.retry_after_ms.is_some());
}

#[tokio::test(start_paused = true)]
async fn frames_that_clients_do_not_send_count_as_bad_ones() {
    let mut bench = Bench::new();
    let mut alice = bench.open("alice").await;
    for _ in 1..tern_protocol::BAD_FRAMES_MAX {
        assert_eq!(error(&alice.ask(SyncEnd { changed: 0 })).0, Code::UNEXPECTED_FRAME);
    }
    let Step::Close(close) = alice.say(SyncEnd { changed: 0 }) else { panic!("it goes on") };
    assert_eq!(close.code, Code::TOO_MANY_ERRORS);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_talks_and_does_not_read_is_closed_at_its_time() {
    let bench = Bench::new();
    let mut deaf = bench.join("deaf").await;
    let mut alice = bench.join("alice").await;
    sleep(7_000 * MS).await;
    let start = Instant::now();
    // More than fits on the way to it.
    for number in 0..10 {
        alice.send(to("deaf", &number.to_string().repeat(12_000))).await;
        while !matches!(alice.next().await.frame, Frame::SendAck(_)) {}
    }
    let ended = async {
        while bench.roster.is_here(&user("deaf")) {
            sleep(100 * MS).await;
        }
        start.elapsed()
    };
    let talking = async {
        loop {
            let ping = Envelope::from(Frame::from(Ping { nonce: 1 }));
            let _ = deaf.socket.send(Message::Binary(tern_protocol::encode(&ping).into())).await;
            sleep(1_000 * MS).await;
        }
    };
    let took = tokio::select! { took = ended => took, () = talking => unreachable!() };
    // The last frame has its time as well.
    assert!((29_900 * MS..30_500 * MS + LAST_FRAME).contains(&took), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn what_was_read_counts_as_seen_and_other_sessions_hear_of_it() {
    let mut bench = Bench::new();
    let (mut alice, mut bob) = (bench.open("alice").await, bench.open("bob").await);
    let second = bench.open("bob").await;
    let conversation = pair("alice", "bob");
    alice.say(to("bob", "hi"));
    sleep(MS).await;
    bob.take();
    second.take();
    bob.say(tern_protocol::Read { conversation, seq: 1 });
    assert!(bob.taken().await.is_empty());
    let heard = second.take();
    assert!(matches!(&heard[..], [Frame::HaveRead(read)] if read.seq == 1), "{heard:?}");
    assert_eq!(bench.gateway.inner.delivery.confirmed().seen(conversation, &user("bob")), 1);
    bob.say(tern_protocol::Read { conversation, seq: 2 });
    assert_eq!(error(&bob.taken().await[0]).0, Code::CURSOR_AHEAD, "it is not there");
}

#[tokio::test(start_paused = true)]
async fn typing_reaches_the_others_and_is_dropped_when_it_is_late() {
    let mut bench = Bench::new();
    let (mut alice, bob) = (bench.open("alice").await, bench.open("bob").await);
    alice.say(to("bob", "hi"));
    sleep(MS).await;
    bob.take();
    let typing = || tern_protocol::Typing { to: Target::User(user("bob")) };
    alice.say(typing());
    let heard = bob.taken().await;
    assert!(matches!(&heard[..], [Frame::UserTyping(typing)] if typing.user == user("alice")), "{heard:?}");
    bench.store.slow_reads(4_000 * MS);
    alice.say(tern_protocol::ListMembers { conversation: pair("alice", "bob") });
    sleep(MS).await;
    alice.say(typing());
    bench.store.slow_reads(Duration::ZERO);
    sleep(60_000 * MS).await;
    assert!(bob.take().is_empty(), "4 s later it is not true any more");
}

#[tokio::test(start_paused = true)]
async fn while_memory_is_short_newcomers_hear_when_to_come_again_and_who_is_here_is_served() {
    let mut bench = Bench::new();
    let memory = bench.gateway.inner.memory.clone();
    let mut here = bench.open("here").await;
    let sessions = memory.part(MemoryPart::Sessions);
    assert!(sessions.used() > 0, "a session is counted");
    let filled = memory.part(MemoryPart::Outboxes).charge(memory.whole().limit() / 100 * 95);
    let mut late = bench.connect().await;
    late.send(bench.hello("late")).await;
    let told = late.next().await.frame;
    let Frame::Close(close) = told else { panic!("{told:?}") };
    assert_eq!(close.code, Code::OVER_CAPACITY);
    assert!(close.retry_after_ms.is_some_and(|ms| ms >= 1_000), "{close:?}");
    // A question is new work; a message of who is here is not.
    let Frame::Error(refused) = here.ask(tern_protocol::Sync { cursors: Vec::new(), more: false }) else {
        panic!("it is let in")
    };
    assert_eq!((refused.code, refused.temporary), (Code::OVER_CAPACITY, true));
    assert!(refused.retry_after_ms.is_some(), "{refused:?}");
    assert!(matches!(here.say(to("bob", "still")), Step::Nothing));
    let told = here.taken().await;
    assert!(told.iter().any(|frame| matches!(frame, Frame::SendAck(_))), "{told:?}");
    let full = memory.part(MemoryPart::Outboxes).charge(memory.whole().limit() / 100 * 10);
    assert!(matches!(here.say(to("bob", "too much")), Step::Nothing));
    let told = here.taken().await;
    assert!(told.iter().any(|frame| error(frame).0 == Code::OVER_CAPACITY), "{told:?}");
    drop((filled, full));
    bench.join("late").await;
    drop(here);
    sleep(LAST_FRAME).await;
    assert_eq!(memory.part(MemoryPart::Reads).used(), 0);
}

#[tokio::test(start_paused = true)]
async fn what_a_session_is_counted_for_is_given_back_with_its_end() {
    let mut bench = Bench::new();
    let memory = bench.gateway.inner.memory.clone();
    let mut session = bench.open("alice").await;
    let one = memory.part(MemoryPart::Sessions).used();
    let second = bench.open("bob").await;
    assert_eq!(memory.part(MemoryPart::Sessions).used(), 2 * one);
    // So are the cursors of a sync, for as long as it is not whole.
    let cursor = Position { conversation: pair("alice", "bob"), seq: 0 };
    session.say(tern_protocol::Sync { cursors: vec![cursor; 400], more: true });
    assert!(memory.part(MemoryPart::Sessions).used() > 2 * one + 400 * 16);
    session.say(tern_protocol::Sync { cursors: Vec::new(), more: false });
    assert_eq!(memory.part(MemoryPart::Sessions).used(), 2 * one);
    drop((session, second));
    assert_eq!(memory.whole().used(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_conversation_that_cannot_be_read_is_left_out_of_a_sync_that_goes_on() {
    let mut bench = Bench::new();
    let mut alice = bench.open("alice").await;
    for friend in ["a", "b", "c", "d"] {
        alice.say(to(friend, "hi"));
    }
    sleep(MS).await;
    bench.store.damage(pair("alice", "b"));
    bench.store.damage_entries(pair("alice", "c"));
    let mut again = bench.open("alice").await;
    again.take();
    again.say(tern_protocol::Sync { cursors: Vec::new(), more: false });
    let mut frames = Vec::new();
    while !frames.iter().any(|frame| matches!(frame, Frame::SyncEnd(_))) {
        frames.extend(again.taken().await);
    }
    let (mut left_out, mut delivered) = (Vec::new(), Vec::new());
    for frame in &frames {
        match frame {
            Frame::Error(error) => {
                assert_eq!(error.code, Code::UNAVAILABLE);
                left_out.extend(error.conversation);
            }
            Frame::Deliver(deliver) => delivered.push(deliver.conversation),
            _ => {}
        }
    }
    assert_eq!(left_out, [pair("alice", "b"), pair("alice", "c")], "{frames:?}");
    delivered.sort_unstable();
    let mut expected = [pair("alice", "a"), pair("alice", "d")];
    expected.sort_unstable();
    assert_eq!(delivered, expected);
}
