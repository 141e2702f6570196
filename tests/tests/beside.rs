//! What stands beside a text: data of the application and the entry that is answered, wherever a message
//! is told; and errors that name what they are about.

use serde_json::json;
use tern_protocol::{
    Ack, Code, ConversationId, Data, EntryBody, Error, Fetch, Frame, LeaveGroup, ListMembers, Position, Read,
    Send, Sync,
};
use tern_tests::http::{Ask, Http};
use tern_tests::{
    RawClient, Server, Subprotocol, WebSocketLink, Wire, for_each_wire, fresh, newest, on_a_wire, pair, text,
    to, until,
};

/// All sorts of values, in an order and with digits that nobody may change.
const DATA: &str = r#"{"z":[1.50,-0,1E2,true,null],"a":{"é":"\u00e9\n"},"n":9007199254740993}"#;

fn data() -> Data {
    Data::new(DATA).unwrap()
}

fn nowhere() -> ConversationId {
    ConversationId::from_bytes([9; 16])
}

for_each_wire! {
    async fn data_and_an_answer_are_wherever_the_message_is(wire: Wire) {
        let mut server = Server::start().await;
        let mut alice = RawClient::open(&server, wire, "alice").await;
        let mut bob = RawClient::open(&server, wire, "bob").await;
        let id = pair("alice", "bob");
        alice.say("bob", "look").await;
        let send = Send { data: Some(data()), reply_to: Some(1), ..to("bob", "here") };
        let ack = alice.acked(send.clone()).await;
        let body = EntryBody::Message { text: "here".into(), data: Some(data()), reply_to: Some(1) };
        assert_eq!(text(&bob.entry(id).await), "look");
        assert_eq!(bob.entry(id).await.body, body);
        assert_eq!(bob.acked(Send { data: Some(data()), ..to("alice", "") }).await.seq, 3, "data is enough");
        server.restart().await;
        let mut bob = RawClient::open(&server, wire, "bob").await;
        assert_eq!(bob.fetch(newest(id)).await.entries[1].body, body);
        assert_eq!(bob.sync(&[]).await.entries[&id][1].body, body);
        // Beside the text they are part of the message: the same temp_id with others is another one.
        let mut alice = RawClient::open(&server, wire, "alice").await;
        let again = alice.acked(send.clone()).await;
        assert_eq!((again.seq, again.id, again.duplicate), (ack.seq, ack.id, true));
        for other in [
            Send { data: None, ..send.clone() },
            Send { reply_to: None, ..send.clone() },
            Send { data: Some(Data::new("1").unwrap()), ..send },
        ] {
            assert_eq!(alice.refused(other).await.code, Code::CONFLICT);
        }
    }
}

on_a_wire! {
    async fn what_may_not_stand_beside_a_text_is_refused(wire: Wire) {
        let server = Server::start().await;
        let mut alice = RawClient::open(&server, wire, "alice").await;
        let group = alice.group("team", &["bob"]).await;
        let in_group = |send: Send| Send { to: group.into(), ..send };
        for (text, data, reply_to, code) in [
            ("", None, None, Code::TEXT_EMPTY),
            ("x", Some("x".repeat(16_382)), None, Code::TEXT_TOO_LONG),
            ("", Some("x".repeat(40_000)), None, Code::TEXT_TOO_LONG),
            ("x", None, Some(2), Code::INVALID_ARGUMENT),
            ("x", None, Some(0), Code::INVALID_ARGUMENT),
            ("x", None, Some(u64::MAX), Code::INVALID_ARGUMENT),
        ] {
            let data = data.map(|data| Data::from_value(&data).unwrap());
            let send = in_group(Send { data, reply_to, ..to("bob", text) });
            let temp_id = Some(send.temp_id);
            let error = alice.refused(send).await;
            assert_eq!((error.code, error.temp_id, error.conversation), (code, temp_id, Some(group)), "{error:?}");
        }
        let full = Data::from_value(&"x".repeat(16_381)).unwrap();
        assert_eq!(alice.acked(in_group(Send { data: Some(full), ..to("bob", "x") })).await.seq, 2);
        // Who came later answers nothing that was before them.
        let users = vec![tern_tests::user("carol")];
        alice.acked(tern_protocol::AddMembers { conversation: group, users, temp_id: fresh() }).await;
        let mut carol = RawClient::open(&server, wire, "carol").await;
        let error = carol.refused(in_group(Send { reply_to: Some(2), ..to("bob", "x") })).await;
        assert_eq!(error.code, Code::INVALID_ARGUMENT);
        assert_eq!(carol.acked(in_group(Send { reply_to: Some(3), ..to("bob", "x") })).await.seq, 4);
    }
}

for_each_wire! {
    async fn an_error_names_the_conversation_it_is_about(wire: Wire) {
        let server = Server::start().await;
        let mut alice = RawClient::open(&server, wire, "alice").await;
        alice.say("bob", "hi").await;
        let id = pair("alice", "bob");
        let position = |conversation, seq| Position { conversation, seq };
        let asks: [(Frame, ConversationId); 6] = [
            (Fetch { conversation: nowhere(), ..newest(id) }.into(), nowhere()),
            (ListMembers { conversation: nowhere() }.into(), nowhere()),
            (Read { conversation: nowhere(), seq: 1 }.into(), nowhere()),
            (Read { conversation: id, seq: 9 }.into(), id),
            (Ack { positions: vec![position(id, 1), position(nowhere(), 1)] }.into(), nowhere()),
            (LeaveGroup { conversation: nowhere(), temp_id: fresh() }.into(), nowhere()),
        ];
        for (ask, conversation) in asks {
            let name = ask.name();
            assert_eq!(alice.refused(ask).await.conversation, Some(conversation), "{name}");
        }
        let other = alice.refused(tern_protocol::Watch { users: vec![tern_tests::user("x"); 201] }).await;
        assert_eq!((other.code, other.conversation), (Code::LIMIT_EXCEEDED, None));
        // One cursor that does not hold: it is named, and the sync goes on to its end.
        let request = alice.request(Sync { cursors: vec![position(id, 9)], more: false }).await;
        let error = alice.find("the error", |envelope| match &envelope.frame {
            Frame::Error(error) if envelope.request == Some(request) => Some(error.clone()),
            _ => None,
        });
        let Error { code, conversation, .. } = error.await;
        assert_eq!((code, conversation), (Code::CURSOR_AHEAD, Some(id)));
        let end = alice.find("the end", |envelope| match &envelope.frame {
            Frame::SyncEnd(end) => Some(end.changed),
            _ => None,
        });
        assert_eq!(end.await, 1);
    }
}

#[tokio::test]
async fn json_is_told_as_it_was_written() {
    let server = Server::start().await;
    let mut alice = RawClient::open(&server, Wire::Quic, "alice").await;
    let answer = Send { data: Some(data()), reply_to: Some(1), ..to("bob", "here") };
    alice.say("bob", "look").await;
    alice.acked(answer).await;
    let token = server.token("bob");
    let body = format!(r#""body":{{"kind":"message","text":"here","data":{DATA},"reply_to":1}}"#);
    let first = r#""body":{"kind":"message","text":"look"}"#;
    let history = format!("/v1/history/{}", pair("alice", "bob"));
    for path in [history.as_str(), "/v1/conversations"] {
        let answer = server.get(Http::Two, path, Some(&token)).await;
        assert!(answer.bytes().contains(&body), "{path}: {}", answer.bytes());
    }
    assert!(server.get(Http::One, &history, Some(&token)).await.bytes().contains(first));
    // On a WebSocket, in a text that was written by hand.
    let mut bob = WebSocketLink::connect(&server, Subprotocol::None).await;
    bob.send_bytes(format!(r#"{{"type":"hello","token":"{token}"}}"#).as_bytes()).await;
    bob.send_bytes(br#"{"type":"sync"}"#).await;
    loop {
        let told = bob.next_text().await;
        if told.contains(r#""type":"deliver""#) {
            assert!(told.contains(&body) && told.contains(first), "{told}");
            break;
        }
    }
    let spaced = DATA.replace(',', " , ");
    bob.send_bytes(format!(r#"{{"to":"alice","data": {spaced} }}"#).as_bytes()).await;
    let said = alice.entry(pair("alice", "bob")).await;
    assert_eq!(said.body, EntryBody::Message { text: String::new(), data: Some(data()), reply_to: None });
}

#[tokio::test]
async fn a_back_end_sends_data_and_an_answer() {
    let server = Server::start().await;
    let mut bob = RawClient::open(&server, Wire::WebSocketJson, "bob").await;
    let token = server.token("alice");
    let id = pair("alice", "bob");
    let post = |body: String| {
        let (server, token) = (&server, &token);
        async move {
            let ask =
                Ask::new("POST", "/v1/messages").token(token).header("content-type", "application/json");
            server.ask(Http::One, ask.bytes(body.as_bytes())).await
        }
    };
    assert_eq!(post(r#"{"to":"bob","text":"look"}"#.into()).await.status, 200);
    let ack = post(format!(r#"{{"to":"bob","text":"here","data":{DATA},"reply_to":1}}"#)).await.json();
    assert_eq!((&ack["seq"], &ack["messages"]), (&json!(2), &json!(2)));
    bob.entry(id).await;
    let body = EntryBody::Message { text: "here".into(), data: Some(data()), reply_to: Some(1) };
    assert_eq!(bob.entry(id).await.body, body);
    for (body, code) in [
        (r#"{"to":"bob"}"#, "text_empty"),
        (r#"{"to":"bob","data":null}"#, "text_empty"),
        (r#"{"to":"bob","text":"x","reply_to":9}"#, "invalid_argument"),
        (r#"{"to":"bob","data":[1e999]}"#, "invalid_argument"),
    ] {
        assert_eq!(post(body.into()).await.json()["code"], code, "{body}");
    }
}

#[tokio::test]
async fn a_push_event_has_what_stands_beside_the_text() {
    let server = tern_tests::loose().set("PUSH__DELAY_MS", "50").start().await;
    let mut alice = RawClient::open(&server, Wire::Quic, "alice").await;
    alice.say("bob", "look").await;
    alice.acked(Send { data: Some(data()), reply_to: Some(1), ..to("bob", "here") }).await;
    let lines = until("the events", || {
        let files = std::fs::read_dir(server.data_dir().join("events")).ok()?;
        let texts = files.filter_map(|file| std::fs::read_to_string(file.ok()?.path()).ok());
        let lines: Vec<String> =
            texts.flat_map(|text| text.lines().map(str::to_owned).collect::<Vec<_>>()).collect();
        (lines.len() >= 2).then_some(lines)
    })
    .await;
    let with = lines.iter().find(|line| line.contains(r#""preview":"here""#)).expect("the second");
    assert!(with.contains(&format!(r#""data":{DATA},"reply_to":1"#)), "{with}");
    let without = lines.iter().find(|line| line.contains(r#""preview":"look""#)).expect("the first");
    assert!(without.contains(r#""data":null,"reply_to":null"#), "{without}");
}
