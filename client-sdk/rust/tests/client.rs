//! The client over real transports against a scripted server.

mod loopback;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use loopback::{Peer, Server, temp_id, user, welcome};
use parking_lot::Mutex;
use tern_client::{
    Anchor, Client, CloseCause, Code, Config, ConnectError, ConversationId, Draft, EntryBody, EntryId, Event,
    Events, FilePersistence, RequestError, SendError, State, TokenError, TokenReason, TokenSource, Transport,
    TransportChoice, Trust, WebSocketFormat,
};
use tern_protocol::{
    Deliver, Entry, Frame, GoAway, KIND_NAMED, MemberList, Page, Position, SendAck, StreamKind,
    TokenExpiring, UserTyping,
};
use tokio::time::timeout;

/// A test that hangs has failed.
const HANG: Duration = Duration::from_secs(20);

async fn within<T>(work: impl Future<Output = T>) -> T {
    timeout(HANG, work).await.expect("the test hangs")
}

fn conversation(byte: u8) -> ConversationId {
    ConversationId::from_bytes([byte; 16])
}

fn entry(seq: u64) -> Entry {
    Entry {
        seq,
        id: EntryId::from_bytes([1; 16]),
        time_ms: 1,
        sender: user("bob"),
        sender_name: None,
        temp_id: None,
        messages: seq,
        body: EntryBody::text(format!("entry {seq}")),
    }
}

fn deliver(byte: u8, seqs: impl IntoIterator<Item = u64>) -> Deliver {
    Deliver { conversation: conversation(byte), entries: seqs.into_iter().map(entry).collect() }
}

fn ack(send: &tern_protocol::Send, seq: u64) -> SendAck {
    SendAck {
        temp_id: send.temp_id,
        conversation: send.to.conversation(&user("alice")),
        seq,
        id: EntryId::from_bytes([2; 16]),
        time_ms: 1,
        messages: seq,
        duplicate: false,
        recipient_unknown: false,
    }
}

async fn connected(server: &mut Server, config: Config) -> (Client, Events, Peer) {
    let (client, peer) = tokio::join!(Client::connect(config), server.session());
    let (client, events) = client.unwrap();
    (client, events, peer)
}

async fn next_entry(events: &mut Events) -> (ConversationId, Entry) {
    loop {
        if let Event::Entry { conversation, entry } = events.next().await.expect("the client has stopped") {
            return (conversation, entry);
        }
    }
}

/// A conversation over one transport: own message by its ack, another by delivery, a question,
/// a confirmation, and an ordinary end.
async fn chat(server: &mut Server, config: Config) {
    let (client, mut events, mut peer) = connected(server, config).await;
    let sending = tokio::spawn({
        let client = client.clone();
        async move { client.send(user("bob"), "hi ✓").await }
    });
    let (request, send) = peer.next_send().await;
    assert_eq!((send.text.as_str(), send.age_ms), ("hi ✓", Some(0)));
    peer.answer(request, ack(&send, 1)).await;
    let acked = sending.await.unwrap().unwrap();
    let pair = ConversationId::pair(&user("alice"), &user("bob"));
    assert_eq!((acked.conversation, acked.seq), (pair, 1));
    peer.send(Deliver { conversation: pair, entries: vec![entry(2)] }).await;
    let (_, own) = next_entry(&mut events).await;
    assert_eq!((own.seq, own.temp_id, own.sender_name), (1, Some(send.temp_id), Some("Alice".into())));
    assert_eq!(next_entry(&mut events).await, (pair, entry(2)));
    let (members, ()) = tokio::join!(client.members(pair), async {
        let (request, asked) = peer
            .until_request(|frame| match frame {
                Frame::ListMembers(list) => Some(list.conversation),
                _ => None,
            })
            .await;
        peer.answer(request, MemberList { conversation: asked, members: vec![] }).await;
    });
    assert_eq!(members, Ok(vec![]));
    // Pulling again confirms what was pulled before.
    assert_eq!(timeout(Duration::from_millis(1), events.next()).await.ok(), None);
    let confirmed = until_acked(&mut peer, pair, 2).await;
    assert_eq!(confirmed, 2);
    client.close().await;
    let close = peer.until(|frame| if let Frame::Close(close) = frame { Some(close) } else { None }).await;
    assert_eq!(close.code, Code::NORMAL);
    loop {
        match events.next().await {
            Some(Event::State(State::Closed { cause })) => assert_eq!(cause, CloseCause::Requested),
            Some(_) => {}
            None => break,
        }
    }
}

async fn until_acked(peer: &mut Peer, conversation: ConversationId, seq: u64) -> u64 {
    let at = move |position: &Position| position.conversation == conversation && position.seq >= seq;
    peer.until(|frame| match frame {
        Frame::Ack(ack) => ack.positions.into_iter().find(at).map(|position| position.seq),
        _ => None,
    })
    .await
}

fn websocket(server: &Server, url: &str, format: WebSocketFormat) -> Config {
    let mut config = server.config().websocket(url).transport(TransportChoice::WebSocket);
    config.websocket_format = format;
    config
}

fn webtransport(server: &Server) -> Config {
    server.config().webtransport(&server.webtransport_url).transport(TransportChoice::WebTransport)
}

#[tokio::test]
async fn people_chat_over_webtransport() {
    let mut server = Server::start().await;
    let config = webtransport(&server);
    within(chat(&mut server, config)).await;
}

#[tokio::test]
async fn people_chat_over_quic() {
    let mut server = Server::start().await;
    let config = server.config();
    within(chat(&mut server, config)).await;
}

#[tokio::test]
async fn people_chat_over_websocket_binary() {
    let mut server = Server::start().await;
    let config = websocket(&server, &server.ws_url, WebSocketFormat::Binary);
    within(chat(&mut server, config)).await;
}

#[tokio::test]
async fn people_chat_over_websocket_json() {
    let mut server = Server::start().await;
    let config = websocket(&server, &server.ws_url, WebSocketFormat::Json);
    within(chat(&mut server, config)).await;
}

#[tokio::test]
async fn people_chat_over_websocket_with_tls() {
    let mut server = Server::start().await;
    let config = websocket(&server, &server.wss_url, WebSocketFormat::Binary);
    within(chat(&mut server, config)).await;
}

/// A server that was killed may say nothing at all: what it owes an answer to is waited for, not the silence
/// that the protocol allows, which is ten minutes here.
async fn an_owed_answer_ends_the_link(server: &mut Server, config: Config) {
    let (client, mut peer) = tokio::join!(Client::connect(config), async {
        let mut peer = server.accept().await;
        let mut patient = welcome(1);
        (patient.limits.keepalive_s, patient.limits.dead_after_s) = (300, 600);
        peer.welcome(patient).await;
        peer.sync().await;
        peer
    });
    let (client, _events) = client.unwrap();
    let sending = tokio::spawn(async move { client.send(user("bob"), "hi").await });
    let (_, lost) = peer.next_send().await;
    peer.until(|frame| matches!(frame, Frame::Ping(_)).then_some(())).await;
    // Neither is answered, and the connection stays open.
    let mut next = server.session().await;
    let (request, again) = next.next_send().await;
    assert_eq!(again.temp_id, lost.temp_id);
    next.answer(request, ack(&again, 1)).await;
    assert_eq!(sending.await.unwrap().unwrap().seq, 1);
}

#[tokio::test]
async fn a_server_that_owes_an_answer_is_left_on_every_transport() {
    let work = |make: fn(&Server) -> Config| async move {
        let mut server = Server::start().await;
        let config = make(&server);
        within(an_owed_answer_ends_the_link(&mut server, config)).await;
    };
    tokio::join!(
        work(|server| server.config()),
        work(webtransport),
        work(|server| websocket(server, &server.ws_url, WebSocketFormat::Binary)),
        work(|server| websocket(server, &server.ws_url, WebSocketFormat::Json)),
    );
}

/// Connects in vain, and is told these words; a slow machine gets more time to come to them.
async fn given_up_with(mut config: Config, words: &[&str]) {
    let mut said = String::new();
    for timeout_ms in [300, 3_000, 15_000] {
        config.connect_timeout = Duration::from_millis(timeout_ms);
        let refused = within(Client::connect(config.clone())).await.map(|_| ());
        let Err(ConnectError::Timeout { last, .. }) = refused else { panic!("{refused:?}") };
        if words.iter().all(|word| last.contains(word)) {
            return;
        }
        said = last;
    }
    panic!("{words:?} expected, said was: {said}");
}

#[tokio::test]
async fn a_certificate_is_believed_by_its_issuer_or_its_hash_and_not_otherwise() {
    let mut server = Server::start().await;
    let roots = Trust::Roots(vec![server.certificate.clone()]);
    let config = server.config().trust(roots);
    let (client, _events, _peer) = within(connected(&mut server, config)).await;
    client.close().await;
    for config in
        [server.config(), webtransport(&server), websocket(&server, &server.wss_url, WebSocketFormat::Binary)]
    {
        let config = config.trust(Trust::CertSha256([7; 32]));
        given_up_with(config, &["certificate is another one"]).await;
    }
}

#[tokio::test]
async fn streams_are_merged_and_unknown_ones_are_stopped() {
    let mut server = Server::start().await;
    for config in [server.config(), webtransport(&server)] {
        within(streams_are_merged(&mut server, config)).await;
    }
}

async fn streams_are_merged(server: &mut Server, config: Config) {
    let (_client, mut events, peer) = connected(server, config).await;
    let connection = peer.connection.clone().unwrap();
    let mut unknown = connection.open_uni().await.unwrap();
    unknown.write_all(&[99]).await.unwrap();
    assert!(unknown.stopped().await.unwrap().is_some(), "a stream of an unknown kind is stopped");
    // One stream stops in the middle of a frame; the others go on.
    let mut stuck = connection.open_uni().await.unwrap();
    stuck.write_all(&[StreamKind::Inbox as u8, 200]).await.unwrap();
    for (kind, byte) in [(StreamKind::Conversation, 1), (StreamKind::Inbox, 2), (StreamKind::Backlog, 3)] {
        let mut stream = connection.open_uni().await.unwrap();
        let mut bytes = vec![kind as u8];
        if kind == StreamKind::Conversation {
            bytes.extend(conversation(byte).as_bytes());
        }
        bytes.extend(tern_protocol::encode(&deliver(byte, [1, 2]).into()));
        // In pieces, as the network may bring them.
        for piece in bytes.chunks(5) {
            stream.write_all(piece).await.unwrap();
        }
        for seq in 1..=2 {
            assert_eq!(next_entry(&mut events).await, (conversation(byte), entry(seq)));
        }
    }
}

#[tokio::test]
async fn typing_goes_both_ways() {
    let mut server = Server::start().await;
    for config in
        [server.config(), webtransport(&server), websocket(&server, &server.ws_url, WebSocketFormat::Json)]
    {
        within(async {
            let (client, mut events, mut peer) = connected(&mut server, config).await;
            client.typing(user("bob")).await.unwrap();
            let to = peer.until(|frame| if let Frame::Typing(it) = frame { Some(it.to) } else { None }).await;
            assert_eq!(to, user("bob").into());
            peer.send(UserTyping { conversation: conversation(1), user: user("bob") }).await;
            loop {
                if let Some(Event::Typing { user: who, .. }) = events.next().await {
                    assert_eq!(who, user("bob"));
                    break;
                }
            }
        })
        .await;
    }
}

#[tokio::test]
async fn a_blocked_transport_falls_back_says_why_and_is_remembered() {
    let mut server = Server::start().await;
    let (_silent, address) = Server::quic_port_without_server();
    let directory = tempfile::tempdir().unwrap();
    let mut config = server.config().quic(address.to_string()).websocket(&server.ws_url);
    config.persistence = Some(Arc::new(FilePersistence::new(directory.path().join("state"))));
    config.head_start = Duration::from_millis(10);
    within(async {
        let (client, _events, _peer) = connected(&mut server, config.clone()).await;
        let State::Degraded { transport, cause } = client.state() else { panic!("{:?}", client.state()) };
        assert_eq!(transport, Transport::WebSocket);
        assert!(cause.contains("QUIC"), "{cause}");
        client.close().await;
        // With this head start, QUIC would be waited for if it still were preferred.
        config.head_start = HANG * 2;
        config.persistence = Some(Arc::new(FilePersistence::new(directory.path().join("state"))));
        let (client, _events, _peer) = connected(&mut server, config).await;
        assert_eq!(client.state(), State::Degraded { transport, cause });
    })
    .await;
}

#[tokio::test]
async fn quic_is_used_when_both_transports_work() {
    let mut server = Server::start().await;
    let config = server.config().websocket(&server.ws_url);
    let (client, _events, _peer) = within(connected(&mut server, config)).await;
    assert_eq!(client.state(), State::Online { transport: Transport::Quic });
}

#[tokio::test]
async fn an_unacked_message_survives_a_lost_connection_under_the_same_id() {
    let mut server = Server::start().await;
    let config = server.config();
    within(async {
        let (client, _events, mut peer) = connected(&mut server, config).await;
        let pending = client.submit(user("bob"), "once").unwrap();
        let (_, first) = peer.next_send().await;
        drop(peer);
        let mut peer = server.session().await;
        let (request, again) = peer.next_send().await;
        assert_eq!((again.temp_id, again.text), (first.temp_id, first.text.clone()));
        assert!(again.age_ms > Some(0), "a retry says how old it is");
        peer.answer(request, SendAck { duplicate: true, ..ack(&first, 1) }).await;
        assert!(pending.await.unwrap().duplicate);
    })
    .await;
}

#[tokio::test]
async fn entries_are_handed_out_once_over_a_reconnect_and_cursors_are_told() {
    let mut server = Server::start().await;
    let config = server.config();
    within(async {
        let (_client, mut events, peer) = connected(&mut server, config).await;
        peer.send(deliver(1, 1..=3)).await;
        for seq in 1..=3 {
            assert_eq!(next_entry(&mut events).await.1, entry(seq));
        }
        drop(peer);
        let mut peer = server.accept().await;
        peer.welcome(welcome(1)).await;
        let sync = peer.sync().await;
        assert_eq!(sync.cursors, [Position { conversation: conversation(1), seq: 3 }]);
        peer.send(deliver(1, 2..=4)).await;
        assert_eq!(next_entry(&mut events).await.1, entry(4));
    })
    .await;
}

#[tokio::test]
async fn pending_messages_and_cursors_survive_a_restart() {
    let mut server = Server::start().await;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("state");
    let config = |server: &Server| server.config().persistence(FilePersistence::new(&path));
    within(async {
        let first = config(&server);
        let (client, mut events, mut peer) = connected(&mut server, first).await;
        peer.send(deliver(1, 1..=3)).await;
        for seq in 1..=3 {
            assert_eq!(next_entry(&mut events).await.1, entry(seq));
        }
        let mut pending = client.submit_as(temp_id(5), user("bob"), "later").unwrap();
        pending.accepted().await.unwrap();
        let (_, send) = peer.next_send().await;
        client.close().await;
        assert_eq!(pending.await, Err(SendError::Closed));
        let second = config(&server);
        let (client, peer) = tokio::join!(Client::connect(second), async {
            let mut peer = server.accept().await;
            let hello = peer.welcome(welcome(1)).await;
            assert!(hello.device.is_some());
            (peer.sync().await, peer)
        });
        let (sync, mut peer) = peer;
        // The third was pulled, but nothing was pulled after it.
        assert_eq!(sync.cursors, [Position { conversation: conversation(1), seq: 2 }]);
        let (_, again) = peer.next_send().await;
        assert_eq!((again.temp_id, again.text), (send.temp_id, send.text));
        assert!(again.age_ms > Some(0));
        drop(client);
    })
    .await;
}

#[tokio::test]
async fn state_of_another_user_is_refused_and_nothing_is_sent() {
    let mut server = Server::start().await;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("state");
    within(async {
        let config = server.config().persistence(FilePersistence::new(&path));
        let (client, _events, _peer) = connected(&mut server, config).await;
        client.close().await;
        let config = server.config().persistence(FilePersistence::new(&path));
        let eve = tern_client::Welcome { user: user("eve"), ..welcome(1) };
        let (refused, mut peer) = tokio::join!(Client::connect(config), async {
            let mut peer = server.accept().await;
            peer.welcome(eve).await;
            peer
        });
        let cause = CloseCause::WrongUser { expected: user("alice"), found: user("eve") };
        assert_eq!(refused.map(|_| ()), Err(ConnectError::Stopped(cause)));
        assert!(peer.recv().await.is_none());
    })
    .await;
}

/// A source that remembers why it was asked.
#[derive(Default)]
struct Source {
    reasons: Mutex<Vec<TokenReason>>,
}

#[async_trait]
impl TokenSource for Source {
    async fn token(&self, reason: TokenReason) -> Result<String, TokenError> {
        let mut reasons = self.reasons.lock();
        reasons.push(reason);
        Ok(format!("token {}", reasons.len()))
    }
}

#[tokio::test]
async fn an_expiring_token_is_renewed_on_the_live_session() {
    let mut server = Server::start().await;
    let source = Arc::new(Source::default());
    let config = Config { token: source.clone(), ..server.config() };
    within(async {
        let (_client, _events, mut peer) = connected(&mut server, config).await;
        peer.send(TokenExpiring { token_expires_ms: 1 }).await;
        let token =
            peer.until(|frame| if let Frame::Reauth(it) = frame { Some(it.token) } else { None }).await;
        assert_eq!(token.0, "token 2");
        assert_eq!(*source.reasons.lock(), [TokenReason::Connect, TokenReason::Expiring]);
    })
    .await;
}

#[tokio::test]
async fn an_expired_token_is_replaced_and_a_fixed_one_stops_the_client() {
    let mut server = Server::start().await;
    within(async {
        let source = Arc::new(Source::default());
        let config = Config { token: source.clone(), ..server.config() };
        let (client, _peer) = tokio::join!(Client::connect(config), async {
            let mut peer = server.accept().await;
            peer.recv().await.unwrap();
            peer.close(Code::TOKEN_EXPIRED, "expired").await;
            let mut next = server.accept().await;
            let hello = next.welcome(welcome(1)).await;
            assert_eq!(hello.token.0, "token 2");
            (peer, next)
        });
        client.unwrap();
        assert_eq!(source.reasons.lock()[1], TokenReason::Rejected(Code::TOKEN_EXPIRED));
        let config = server.config();
        let (refused, _peer) = tokio::join!(Client::connect(config), async {
            let mut peer = server.accept().await;
            peer.recv().await.unwrap();
            peer.close(Code::TOKEN_INVALID, "no").await;
            peer
        });
        assert!(matches!(refused.map(|_| ()), Err(ConnectError::Stopped(CloseCause::Token(_)))));
    })
    .await;
}

#[tokio::test]
async fn a_close_code_is_understood_with_and_without_a_last_frame() {
    let mut server = Server::start().await;
    for json in [false, true] {
        for in_band in [true, false] {
            within(async {
                let config = if json {
                    websocket(&server, &server.ws_url, WebSocketFormat::Json)
                } else {
                    server.config()
                };
                let (client, _events, peer) = connected(&mut server, config).await;
                if in_band {
                    peer.close(Code::UNSUPPORTED_VERSION, "too old").await;
                } else {
                    peer.close_transport(Code::UNSUPPORTED_VERSION, "too old").await;
                }
                let mut states = client.states();
                let closed = states.wait_for(|state| matches!(state, State::Closed { .. })).await;
                let cause = CloseCause::Refused { code: Code::UNSUPPORTED_VERSION, detail: "too old".into() };
                assert_eq!(*closed.unwrap(), State::Closed { cause }, "json {json}, in band {in_band}");
                assert_eq!(client.send(user("bob"), "x").await, Err(SendError::Closed));
            })
            .await;
        }
    }
}

#[tokio::test]
async fn a_draining_server_is_left_only_when_the_next_one_has_caught_up() {
    let mut server = Server::start().await;
    let mut other = Server::start().await;
    let mut config =
        server.config().trust(Trust::Roots(vec![server.certificate.clone(), other.certificate.clone()]));
    config.quic = Some(server.quic.to_string());
    within(async {
        let (client, mut events, mut old) = connected(&mut server, config).await;
        let pending = client.submit(user("bob"), "on the way").unwrap();
        let (request, send) = old.next_send().await;
        let target = Some(other.quic.to_string());
        old.send(GoAway { deadline_ms: 10_000, spread_ms: 5, target }).await;
        let mut new = other.accept().await;
        new.welcome(welcome(1)).await;
        // The old session still counts: an ack over it resolves the send.
        old.answer(request, ack(&send, 1)).await;
        pending.await.unwrap();
        assert_eq!(next_entry(&mut events).await.1.seq, 1);
        new.sync().await;
        let close = old.until(|frame| if let Frame::Close(close) = frame { Some(close) } else { None }).await;
        assert_eq!(close.code, Code::NORMAL);
        assert!(client.state().is_online());
        new.send(deliver(1, [1])).await;
        assert_eq!(next_entry(&mut events).await.0, conversation(1));
    })
    .await;
}

#[tokio::test]
async fn a_session_that_ends_while_the_next_is_opened_does_not_count_as_online() {
    let mut server = Server::start().await;
    let config = server.config();
    within(async {
        let (client, _events, old) = connected(&mut server, config).await;
        let mut states = client.states();
        old.send(GoAway { deadline_ms: 0, spread_ms: 0, target: None }).await;
        let mut new = server.accept().await;
        old.close(Code::SHUTDOWN, "bye").await;
        states.wait_for(|state| *state == State::Connecting).await.unwrap();
        new.welcome(welcome(1)).await;
        states.wait_for(State::is_online).await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn an_application_that_does_not_pull_still_gets_its_acks_and_later_every_entry() {
    let mut server = Server::start().await;
    let mut config = server.config();
    config.events_max = 16;
    within(async {
        let (client, mut events, mut peer) = connected(&mut server, config).await;
        for seq in 1..=300 {
            peer.send(deliver(1, [seq])).await;
        }
        let pending = client.submit(user("bob"), "still here").unwrap();
        let (request, send) = peer.next_send().await;
        peer.answer(request, ack(&send, 1)).await;
        pending.await.unwrap();
        let mut seen = Vec::new();
        while seen.len() < 300 {
            let (from, entry) = next_entry(&mut events).await;
            if from == conversation(1) {
                seen.push(entry.seq);
            }
        }
        assert_eq!(seen, (1..=300).collect::<Vec<_>>());
    })
    .await;
}

#[tokio::test]
async fn one_send_too_many_is_full_and_there_is_room_again_after_an_ack() {
    let mut server = Server::start().await;
    let mut config = server.config();
    config.pending_max = 2;
    within(async {
        let (client, _events, mut peer) = connected(&mut server, config).await;
        let first = client.submit(user("bob"), "1").unwrap();
        let _second = client.submit(user("bob"), "2").unwrap();
        assert!(matches!(client.submit(user("bob"), "3"), Err(SendError::Full)));
        let (request, send) = peer.next_send().await;
        peer.answer(request, ack(&send, 1)).await;
        first.await.unwrap();
        client.submit(user("bob"), "3").unwrap();
        let taken = client.submit_as(temp_id(1), user("bob"), "").map(|_| ());
        assert!(matches!(
            taken,
            Err(SendError::Refused { code: Code::TEXT_EMPTY, .. }) | Err(SendError::Full)
        ));
    })
    .await;
}

#[tokio::test]
async fn a_message_that_grows_too_long_in_json_is_refused_and_harms_nothing_else() {
    let mut server = Server::start().await;
    let config = websocket(&server, &server.ws_url, WebSocketFormat::Json);
    within(async {
        let (client, _events, mut peer) = connected(&mut server, config).await;
        let escaped = "\u{1}".repeat(16 * 1024);
        let refused = client.send(user("bob"), escaped).await;
        assert!(
            matches!(refused, Err(SendError::Refused { code: Code::FRAME_TOO_LARGE, .. })),
            "{refused:?}"
        );
        let pending = client.submit(user("bob"), "short").unwrap();
        let (request, send) = peer.next_send().await;
        assert_eq!(send.text, "short");
        peer.answer(request, ack(&send, 1)).await;
        pending.await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn a_question_is_asked_again_after_a_lost_connection_and_ends_in_time() {
    let mut server = Server::start().await;
    let mut config = server.config();
    within(async {
        let (client, _events, mut peer) = connected(&mut server, config.clone()).await;
        let asking = tokio::spawn({
            let client = client.clone();
            async move { client.history(conversation(1), Anchor::Before(9), 10).await }
        });
        let fetch = |frame| if let Frame::Fetch(fetch) = frame { Some(fetch) } else { None };
        peer.until(fetch).await;
        drop(peer);
        let mut peer = server.session().await;
        let (request, asked) = peer.until_request(fetch).await;
        assert_eq!((asked.before, asked.limit), (Some(9), Some(10)));
        let page =
            tern_protocol::Page { conversation: conversation(1), entries: vec![], first_seq: 1, head: 0 };
        peer.answer(request, page.clone()).await;
        assert_eq!(asking.await.unwrap(), Ok(page));
        client.close().await;
        config.request_timeout = Duration::from_millis(50);
        let (client, _events, _peer) = connected(&mut server, config).await;
        let late = client.members(conversation(1)).await;
        assert!(matches!(late, Err(RequestError::Timeout { .. })), "{late:?}");
    })
    .await;
}

#[tokio::test]
async fn a_refusal_of_the_upgrade_is_shown_with_its_words() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let body = "foreign Origin: see transport.allowed_origins";
            let answer = format!("HTTP/1.1 403 Forbidden\r\ncontent-length: {}\r\n\r\n{body}", body.len());
            let _ = tokio::io::AsyncReadExt::read(&mut stream, &mut [0; 4096]).await;
            let _ = tokio::io::AsyncWriteExt::write_all(&mut stream, answer.as_bytes()).await;
        }
    });
    let config = Config::new("token").websocket(format!("ws://{address}"));
    given_up_with(config, &["403", "allowed_origins"]).await;
}

#[tokio::test]
async fn clients_share_one_socket_and_it_outlives_each_of_them() {
    let mut server = Server::start().await;
    within(async {
        let config = server.config();
        let (first, _first_events, first_peer) = connected(&mut server, config.clone()).await;
        let (second, _second_events, second_peer) = connected(&mut server, config).await;
        let address = |peer: &Peer| peer.connection.as_ref().unwrap().remote_address();
        assert_eq!(address(&first_peer), address(&second_peer));
        first.close().await;
        second.typing(user("bob")).await.unwrap();
        let mut second_peer = second_peer;
        second_peer.until(|frame| if let Frame::Typing(_) = frame { Some(()) } else { None }).await;
    })
    .await;
}

#[tokio::test]
async fn dropping_every_handle_ends_the_session() {
    let mut server = Server::start().await;
    within(async {
        let config = server.config();
        let (client, events, mut peer) = connected(&mut server, config).await;
        drop((client, events));
        peer.until(|frame| if let Frame::Close(_) = frame { Some(()) } else { None }).await;
    })
    .await;
}

/// A log as a later version may write it: kinds of its own, some known by number, some by name.
fn later(seq: u64) -> Entry {
    let body = match seq % 3 {
        0 => EntryBody::Opaque { kind: 200 + seq as u32, bytes: vec![seq as u8; 9] },
        1 => {
            let json = format!(r#"{{"kind":"reacted","to":{seq},"with":"\ud83d\udc4d"}}"#);
            EntryBody::Opaque { kind: KIND_NAMED, bytes: json.into_bytes() }
        }
        _ => EntryBody::text("between"),
    };
    Entry { body, ..entry(seq) }
}

#[tokio::test]
async fn a_client_lives_through_a_log_full_of_kinds_it_does_not_know() {
    let mut server = Server::start().await;
    for config in [server.config(), websocket(&server, &server.ws_url, WebSocketFormat::Json)] {
        within(lives_through_later_kinds(&mut server, config)).await;
    }
}

async fn lives_through_later_kinds(server: &mut Server, config: Config) {
    let (client, mut events, mut peer) = connected(server, config).await;
    let log = |seqs: std::ops::RangeInclusive<u64>| seqs.map(later).collect::<Vec<_>>();
    peer.send(Deliver { conversation: conversation(1), entries: log(1..=40) }).await;
    // A hole in the middle, to be fetched.
    peer.send(Deliver { conversation: conversation(1), entries: log(61..=80) }).await;
    let (request, fetch) = peer
        .until_request(|frame| match frame {
            Frame::Fetch(fetch) => Some(fetch),
            _ => None,
        })
        .await;
    assert_eq!(fetch.after, Some(40));
    let mut entries = log(41..=60);
    entries.reverse();
    peer.answer(request, Page { conversation: conversation(1), entries, first_seq: 1, head: 80 }).await;
    for seq in 1..=80 {
        assert_eq!(next_entry(&mut events).await, (conversation(1), later(seq)));
    }
    // The application confirmed them by asking for more: the cursor is behind the last.
    let more = tokio::spawn(async move { next_entry(&mut events).await });
    until_acked(&mut peer, conversation(1), 80).await;
    let sending =
        tokio::spawn(async move { client.send(conversation(1), Draft::new("I go on").reply_to(80)).await });
    let (request, send) = peer.next_send().await;
    assert_eq!(send.reply_to, Some(80));
    peer.answer(request, ack(&send, 81)).await;
    assert_eq!(sending.await.unwrap().unwrap().seq, 81);
    let (_, own) = more.await.unwrap();
    assert_eq!(own.body, EntryBody::Message { text: "I go on".into(), data: None, reply_to: Some(80) });
}
