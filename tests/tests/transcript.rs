//! The conversation in `docs/protocol.md` happens as it is written there, line by line, against a
//! real node: whoever writes a client from the page meets what the page says.

use std::collections::HashMap;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use serde_json::Value;
use tern_tests::Options;
use tern_tests::token::claims;
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

const PAGE: &str = include_str!("../../docs/protocol.md");
/// A line that does not come within this time is missing.
const PATIENCE: Duration = Duration::from_secs(10);

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// Who speaks, and the lines of the block.
fn blocks() -> Vec<(&'static str, Vec<&'static str>)> {
    let blocks: Vec<_> = PAGE
        .split("\n```transcript ")
        .skip(1)
        .map(|block| {
            let (who, rest) = block.split_once('\n').expect("a name and lines");
            let body = rest.split("\n```").next().unwrap_or(rest);
            (who, body.lines().collect())
        })
        .collect();
    assert!(blocks.len() >= 8, "the page has a transcript");
    blocks
}

/// What came is what the page says, values that differ each time apart.
fn fits(page: &Value, got: &Value) -> bool {
    match (page, got) {
        (Value::String(page), _) if page == "<number>" => got.is_u64(),
        (Value::String(page), Value::String(got)) if page == "<uuid>" => uuid::Uuid::parse_str(got).is_ok(),
        (Value::String(page), _) if page == "<string>" => got.is_string(),
        (Value::Array(page), Value::Array(got)) => {
            page.len() == got.len() && page.iter().zip(got).all(|(page, got)| fits(page, got))
        }
        (Value::Object(page), Value::Object(got)) => {
            page.len() == got.len()
                && page.iter().all(|(name, page)| got.get(name).is_some_and(|got| fits(page, got)))
        }
        _ => page == got,
    }
}

/// Reads as many frames as there are lines; they may come in any order.
async fn expect(who: &str, socket: &mut Socket, lines: &[&str]) {
    let mut missing: Vec<Value> =
        lines.iter().map(|line| serde_json::from_str(line).expect("a line of JSON")).collect();
    while !missing.is_empty() {
        let message = tokio::time::timeout(PATIENCE, socket.next()).await;
        let message = message.unwrap_or_else(|_| panic!("{who} still waits for {missing:#?}"));
        let Some(Ok(Message::Text(text))) = message else {
            panic!("{who} got {message:?} instead of {missing:#?}");
        };
        let got: Value = serde_json::from_str(&text).expect("the server writes JSON");
        let place = missing.iter().position(|page| fits(page, &got));
        missing.remove(place.unwrap_or_else(|| panic!("{who} got {got:#} instead of {missing:#?}")));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_transcript_of_the_page_happens_as_written() {
    // With the limits that the page tells.
    let server = Options::default().start().await;
    let url = server.ready().websocket_url.clone();
    let token = |user: &str| {
        let mut claims = claims(user);
        claims["name"] = format!("{}{}", user[..1].to_uppercase(), &user[1..]).into();
        server.sign(&claims)
    };

    let mut sockets: HashMap<&str, Socket> = HashMap::new();
    for (who, lines) in blocks() {
        let mut lines = &lines[..];
        while let Some((line, rest)) = lines.split_first() {
            if *line == "---" {
                let mut socket = sockets.remove(who).expect("an open connection");
                socket.close(None).await.unwrap();
                // Until the server has closed too: only then is the session over.
                while let Some(Ok(_)) = socket.next().await {}
                lines = rest;
            } else if let Some(text) = line.strip_prefix("C: ") {
                if text.contains(r#""type":"hello""#) {
                    sockets.insert(who, connect_async(&url).await.unwrap().0);
                }
                let text = text.replace(&format!("<token of {who}>"), &token(who));
                sockets.get_mut(who).expect("hello first").send(Message::text(text)).await.unwrap();
                lines = rest;
            } else {
                let count = lines.iter().take_while(|line| line.starts_with("S: ")).count();
                assert!(count > 0, "{line:?} is neither of the client nor of the server");
                let (expected, rest) = lines.split_at(count);
                let expected: Vec<_> = expected.iter().map(|line| &line[3..]).collect();
                expect(who, sockets.get_mut(who).expect("hello first"), &expected).await;
                lines = rest;
            }
        }
    }
    drop(sockets);
}

#[test]
fn a_line_that_differs_is_noticed() {
    let fits = |page: &str, got: &str| {
        fits(&serde_json::from_str(page).unwrap(), &serde_json::from_str(got).unwrap())
    };
    assert!(fits(r#"{"a":"<number>","b":["<string>"]}"#, r#"{"b":["x"],"a":1}"#));
    for got in [r#"{"a":"1","b":["x"]}"#, r#"{"a":1,"b":[]}"#, r#"{"a":1}"#, r#"{"a":1,"b":["x"],"c":1}"#] {
        assert!(!fits(r#"{"a":"<number>","b":["<string>"]}"#, got), "{got}");
    }
    assert!(!fits(r#"{"seq":1}"#, r#"{"seq":2}"#));
    assert!(!fits(r#"{"id":"<uuid>"}"#, r#"{"id":"x"}"#));
}
