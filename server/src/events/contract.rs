//! What every way out for events must do, as one suite. An implementation gives a [`Fixture`] and
//! runs `contract::suite!(fixture expression)` in a test module.
//!
//! Recipients are fresh in every test, so a broker may be shared.

use std::sync::Arc;

use async_trait::async_trait;
use tern_protocol::{ConversationId, Data, EntryId, UserId};
use uuid::Uuid;

use super::{Events, PushEvent};

/// A way out under test, and its other end.
#[async_trait]
pub(crate) trait Fixture: Send {
    /// The way out as it is now.
    fn events(&self) -> Arc<dyn Events>;
    /// Ends it and opens it again on the same target. No test holds it across this.
    async fn reopen(&mut self);
    /// What has arrived outside; in the order of publishing for each recipient.
    async fn published(&self) -> Vec<PushEvent>;
}

macro_rules! suite {
    ($fixture:expr) => {
        $crate::events::contract::suite! {
            $fixture;
            what_publish_returned_for_is_outside_whole_and_in_order
            nothing_to_publish_is_fine
            text_of_any_kind_arrives_unchanged
            concurrent_publishers_lose_nothing
        }
    };
    ($fixture:expr; $($promise:ident)*) => {
        $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $promise() {
            $crate::events::contract::$promise(&mut $fixture).await;
        })*
    };
}
pub(crate) use suite;

pub(crate) fn event(recipient: &UserId, seq: u64, preview: &str) -> PushEvent {
    let entry_id = EntryId::from_uuid(Uuid::now_v7());
    PushEvent {
        event_id: format!("{entry_id}:{recipient}"),
        recipient_id: recipient.clone(),
        conversation: ConversationId::from_bytes([7; 16]),
        seq,
        entry_id,
        sender_id: UserId::new("sender").unwrap(),
        sender_name: Some("Sender".into()),
        group_name: None,
        preview: preview.into(),
        data: Data::new(r#"{"z":[1.50,"\n"],"a":9007199254740993}"#).ok().filter(|_| seq.is_multiple_of(2)),
        reply_to: (seq.is_multiple_of(2)).then_some(seq),
        time_ms: 1_700_000_000_000 + seq,
    }
}

pub(crate) fn fresh_user() -> UserId {
    UserId::new(&format!("recipient-{}", Uuid::new_v4())).unwrap()
}

async fn of(fixture: &impl Fixture, recipient: &UserId) -> Vec<PushEvent> {
    let all = fixture.published().await;
    all.into_iter().filter(|event| event.recipient_id == *recipient).collect()
}

pub(crate) async fn what_publish_returned_for_is_outside_whole_and_in_order(fixture: &mut impl Fixture) {
    let bob = fresh_user();
    let events: Vec<_> = (1..=9).map(|seq| event(&bob, seq, "hello")).collect();
    for batch in [&events[..1], &events[1..5]] {
        fixture.events().publish(batch).await.unwrap();
    }
    assert_eq!(of(fixture, &bob).await, events[..5]);
    fixture.reopen().await;
    fixture.events().publish(&events[5..]).await.unwrap();
    assert_eq!(of(fixture, &bob).await, events);
}

pub(crate) async fn nothing_to_publish_is_fine(fixture: &mut impl Fixture) {
    fixture.events().publish(&[]).await.unwrap();
}

pub(crate) async fn text_of_any_kind_arrives_unchanged(fixture: &mut impl Fixture) {
    let bob = fresh_user();
    let texts = ["", "two\nlines\r\n", "\"quoted\" \\ \u{0} \u{1f}", "\u{2028}añ🐦", "{\"json\":1}\n"];
    let events: Vec<_> = texts.iter().zip(1..).map(|(text, seq)| event(&bob, seq, text)).collect();
    fixture.events().publish(&events).await.unwrap();
    assert_eq!(of(fixture, &bob).await, events);
}

pub(crate) async fn concurrent_publishers_lose_nothing(fixture: &mut impl Fixture) {
    let recipients: Vec<_> = (0..8).map(|_| fresh_user()).collect();
    let publish = recipients.iter().cloned().map(|recipient| {
        let events = fixture.events();
        tokio::spawn(async move {
            for seq in 1..=5 {
                events.publish(&[event(&recipient, seq, "hi")]).await.unwrap();
            }
        })
    });
    let tasks: Vec<_> = publish.collect();
    for task in tasks {
        task.await.unwrap();
    }
    for recipient in &recipients {
        let seqs: Vec<_> = of(fixture, recipient).await.iter().map(|event| event.seq).collect();
        assert_eq!(seqs, [1, 2, 3, 4, 5]);
    }
}
