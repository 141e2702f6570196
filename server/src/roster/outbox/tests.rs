use std::collections::BTreeMap;

use bytes::Bytes;
use futures_util::FutureExt;
use proptest::prelude::*;
use tern_protocol::{Code, Decoder, Envelope, Error, Frame, Incoming, Lagged, Ping};

use super::*;

const SOME: TakeLimit = TakeLimit { frames: 4, bytes: 300 };
const ALL: TakeLimit = TakeLimit { frames: usize::MAX, bytes: usize::MAX };

fn conversation(number: u8) -> ConversationId {
    ConversationId::from_bytes([number; 16])
}

fn ping(nonce: u64) -> Outgoing {
    Outgoing::new(Ping { nonce })
}

/// A frame whose binary form has exactly this many bytes.
fn sized(bytes: usize) -> Outgoing {
    let with = |detail: usize| {
        let detail = "x".repeat(detail);
        Outgoing::new(Error {
            code: Code::MALFORMED,
            temporary: false,
            retry_after_ms: None,
            detail,
            temp_id: None,
            conversation: None,
        })
    };
    let detail = (0..=bytes).rev().find(|detail| with(*detail).bytes(Format::Binary).unwrap().len() == bytes);
    with(detail.unwrap_or_else(|| panic!("no frame has {bytes} bytes")))
}

fn outbox(config: OutboxConfig) -> Arc<Outbox> {
    Outbox::new(Format::Binary, config, &Budget::new(usize::MAX))
}

fn small() -> OutboxConfig {
    OutboxConfig { bytes_max: 1000, frames_max: 40, backlog_bytes_max: 500, ..OutboxConfig::default() }
}

fn close(code: Code) -> Close {
    Close { code, reason: String::new(), retry_after_ms: None, target: None }
}

fn frames(batch: &Batch) -> Vec<Frame> {
    let mut decoder = Decoder::default();
    batch.frames.iter().for_each(|bytes| decoder.extend(bytes));
    let mut frames = Vec::new();
    while let Some(Incoming::Frame(envelope)) = decoder.next().unwrap() {
        frames.push(envelope.frame);
    }
    frames
}

/// Takes and sends everything.
fn drain(outbox: &Outbox) -> Vec<Frame> {
    let mut all = Vec::new();
    while let Some(batch) = outbox.take_any(ALL) {
        all.extend(frames(&batch));
        outbox.sent(batch);
    }
    all
}

fn nonces(frames: &[Frame]) -> Vec<u64> {
    frames
        .iter()
        .map(|frame| match frame {
            Frame::Ping(ping) => ping.nonce,
            other => panic!("{}", other.name()),
        })
        .collect()
}

fn only_lagged(frames: &[Frame]) -> Vec<Lagged> {
    let lagged = |frame: &Frame| match frame {
        Frame::Lagged(lagged) => Some(lagged.clone()),
        _ => None,
    };
    frames.iter().filter_map(lagged).collect()
}

#[test]
fn a_frame_is_encoded_once_per_format_and_shared() {
    let frame = ping(7);
    let at = |frame: &Outgoing, format| frame.bytes(format).unwrap().as_ptr();
    assert_eq!(at(&frame, Format::Binary), at(&frame.clone(), Format::Binary));
    assert_eq!(frame.bytes(Format::Json).unwrap(), tern_protocol::to_json(frame.envelope().unwrap()));
    assert_eq!(at(&frame, Format::Json), at(&frame, Format::Json));
}

#[tokio::test]
async fn replies_go_before_datagrams_entries_and_backlog() {
    let outbox = outbox(OutboxConfig::default());
    outbox.push_backlog(&ping(4)).await.unwrap();
    assert_eq!(outbox.push_entry(conversation(1), 1, &ping(3)), Pushed::Queued);
    assert_eq!(outbox.push_datagram(&ping(2)), Pushed::Queued);
    assert_eq!(outbox.push_control(&ping(1)), Pushed::Queued);
    let live = outbox.take_any(ALL).unwrap();
    assert_eq!(nonces(&frames(&live)), [1, 2, 3], "backlog does not ride with live frames");
    outbox.sent(live);
    assert_eq!(nonces(&drain(&outbox)), [4]);
}

#[test]
fn the_first_frame_stands_before_what_was_queued_earlier() {
    let outbox = outbox(OutboxConfig::default());
    for nonce in 2..5 {
        let _ = outbox.push_control(&ping(nonce));
    }
    assert_eq!(outbox.push_first(&ping(1)), Pushed::Queued);
    assert_eq!(nonces(&drain(&outbox)), [1, 2, 3, 4]);
}

#[tokio::test]
async fn queues_are_taken_by_priority_leaving_out_the_ones_that_are_not_free() {
    let outbox = outbox(OutboxConfig::default());
    outbox.push_backlog(&ping(4)).await.unwrap();
    let _ = outbox.push_entry(conversation(1), 1, &ping(1));
    let _ = outbox.push_entry(conversation(2), 1, &ping(2));
    let _ = outbox.push_control(&ping(0));
    let blocked = [Queue::Control, Queue::Conversation(conversation(1))];
    let mut order = Vec::new();
    while let Some(batch) = outbox.take_from(ALL, &mut |queue| !blocked.contains(&queue)) {
        order.push(batch.queue);
        outbox.sent(batch);
    }
    assert_eq!(order, [Queue::Conversation(conversation(2)), Queue::Backlog]);
    let control = outbox.take_from(ALL, &mut |_| true).unwrap();
    assert_eq!(control.queue, Queue::Control);
    let rest = outbox.take_from(ALL, &mut |_| true).unwrap();
    assert_eq!(rest.queue, Queue::Conversation(conversation(1)));
    assert_eq!(nonces(&frames(&rest)), [1]);
}

#[test]
fn bulk_in_one_conversation_never_queues_ahead_of_another() {
    let outbox = outbox(OutboxConfig::default());
    for seq in 1..=5 {
        let _ = outbox.push_entry(conversation(1), seq, &ping(10 + seq));
    }
    let _ = outbox.push_entry(conversation(2), 1, &ping(21));
    let _ = outbox.push_entry(conversation(2), 2, &ping(22));
    assert_eq!(nonces(&drain(&outbox)), [11, 21, 12, 22, 13, 14, 15]);
}

#[test]
fn a_take_ends_at_its_frames_and_bytes_but_never_before_the_first_frame() {
    let outbox = outbox(OutboxConfig::default());
    for _ in 0..20 {
        let _ = outbox.push_control(&sized(100));
    }
    let limit = TakeLimit { frames: 16, bytes: 1000 };
    let by_bytes = outbox.take_any(limit).unwrap();
    assert_eq!(by_bytes.frames.len(), 10);
    let by_frames = outbox.take_any(TakeLimit { frames: 4, bytes: 1000 }).unwrap();
    assert_eq!(by_frames.frames.len(), 4);
    let one = outbox.take_from(TakeLimit { frames: 16, bytes: 10 }, &mut |_| true).unwrap();
    assert_eq!(one.frames.len(), 1, "a larger frame is taken alone");
    assert_eq!(outbox.take_from(limit, &mut |_| true).unwrap().frames.len(), 5);
    assert!(outbox.take_any(limit).is_none());
}

#[test]
fn entries_fill_three_quarters_of_the_bytes_exactly_and_one_more_lags() {
    let outbox = outbox(small());
    assert_eq!(outbox.push_entry(conversation(1), 1, &sized(400)), Pushed::Queued);
    assert_eq!(outbox.push_entry(conversation(1), 2, &sized(350)), Pushed::Queued);
    assert_eq!(outbox.unsent_bytes(), 750);
    assert_eq!(outbox.push_entry(conversation(1), 3, &sized(20)), Pushed::Lagged);
    assert_eq!(outbox.unsent_bytes(), 0, "the whole queue of the conversation is dropped");
    assert_eq!(only_lagged(&drain(&outbox)), [Lagged { conversation: conversation(1), head: 3 }]);
}

#[test]
fn entries_fill_three_quarters_of_the_frames_exactly_and_one_more_lags() {
    let outbox = outbox(small());
    for seq in 1..=30 {
        assert_eq!(outbox.push_entry(conversation(1), seq, &ping(seq)), Pushed::Queued, "{seq}");
    }
    assert_eq!(outbox.push_entry(conversation(1), 31, &ping(31)), Pushed::Lagged);
    assert_eq!(only_lagged(&drain(&outbox)).len(), 1);
}

#[test]
fn one_lagged_frame_tells_the_newest_seq_and_then_entries_flow_again() {
    let outbox = outbox(small());
    let _ = outbox.push_entry(conversation(1), 1, &sized(700));
    assert_eq!(outbox.push_entry(conversation(1), 2, &sized(100)), Pushed::Lagged);
    assert_eq!(outbox.push_entry(conversation(1), 4, &ping(4)), Pushed::Lagged);
    assert_eq!(outbox.push_entry(conversation(1), 3, &ping(3)), Pushed::Lagged);
    assert_eq!(outbox.unsent_bytes(), 0, "a lagged conversation holds nothing");
    assert_eq!(drain(&outbox), [Lagged { conversation: conversation(1), head: 4 }.into()]);
    assert_eq!(outbox.push_entry(conversation(1), 5, &ping(5)), Pushed::Queued);
    assert_eq!(nonces(&drain(&outbox)), [5]);
}

#[test]
fn the_conversation_with_most_bytes_waiting_yields_not_the_one_that_came_last() {
    let outbox = outbox(small());
    let _ = outbox.push_entry(conversation(1), 1, &sized(600));
    let _ = outbox.push_entry(conversation(2), 7, &sized(100));
    assert_eq!(outbox.push_entry(conversation(2), 8, &sized(100)), Pushed::Queued);
    let sent = drain(&outbox);
    assert_eq!(only_lagged(&sent), [Lagged { conversation: conversation(1), head: 1 }]);
    assert_eq!(sent.len(), 3);
}

#[test]
fn what_was_taken_counts_no_more_when_one_has_to_yield() {
    for (other, yields) in [(350, 2), (250, 1)] {
        let outbox = outbox(small());
        let _ = outbox.push_entry(conversation(1), 1, &sized(300));
        let _ = outbox.push_entry(conversation(1), 2, &sized(300));
        let taken = outbox.take_from(TakeLimit { frames: 1, bytes: 1000 }, &mut |_| true).unwrap();
        outbox.sent(taken);
        let _ = outbox.push_entry(conversation(2), 1, &sized(other));
        assert_eq!(outbox.push_entry(conversation(3), 1, &sized(240)), Pushed::Queued);
        let lagged = only_lagged(&drain(&outbox));
        assert_eq!(lagged.len(), 1, "{lagged:?}");
        assert_eq!(lagged[0].conversation, conversation(yields));
    }
}

#[test]
fn a_smaller_conversation_never_yields_to_a_larger_one() {
    let outbox = outbox(small());
    let _ = outbox.push_entry(conversation(1), 1, &sized(250));
    let _ = outbox.push_entry(conversation(2), 7, &sized(300));
    // With this one it is the largest.
    assert_eq!(outbox.push_entry(conversation(1), 2, &sized(250)), Pushed::Lagged);
    assert_eq!(outbox.unsent_bytes(), 300);
    assert_eq!(only_lagged(&drain(&outbox)), [Lagged { conversation: conversation(1), head: 2 }]);
}

#[test]
fn what_the_link_holds_still_counts_until_it_is_sent() {
    let outbox = outbox(small());
    let _ = outbox.push_entry(conversation(1), 1, &sized(700));
    let held = outbox.take_any(ALL).unwrap();
    assert_eq!(outbox.unsent_bytes(), 700);
    assert_eq!(outbox.push_entry(conversation(2), 1, &sized(100)), Pushed::Lagged);
    assert_eq!(only_lagged(&drain(&outbox)).len(), 1);
    outbox.sent(held);
    assert_eq!(outbox.unsent_bytes(), 0);
    assert_eq!(outbox.push_entry(conversation(2), 2, &sized(700)), Pushed::Queued);
}

#[test]
fn a_batch_whose_stream_was_stopped_is_told_as_lagged() {
    let outbox = outbox(small());
    let _ = outbox.push_entry(conversation(1), 1, &ping(1));
    let held = outbox.take_from(ALL, &mut |_| true).unwrap();
    let _ = outbox.push_entry(conversation(1), 2, &ping(2));
    outbox.lost(held);
    assert_eq!(drain(&outbox), [Lagged { conversation: conversation(1), head: 2 }.into()]);
    assert_eq!(outbox.unsent_bytes(), 0);
}

#[test]
fn replies_take_the_room_of_entries_before_they_end_the_session() {
    let outbox = outbox(small());
    let _ = outbox.push_entry(conversation(1), 9, &sized(700));
    assert_eq!(outbox.push_control(&sized(300)), Pushed::Queued);
    assert_eq!(outbox.unsent_bytes(), 1000);
    assert_eq!(outbox.push_control(&sized(700)), Pushed::Queued);
    assert_eq!(outbox.unsent_bytes(), 1000);
    assert_eq!(outbox.push_control(&ping(1)), Pushed::Closed);
    assert_eq!(outbox.closing().unwrap().code, Code::SLOW_CONSUMER);
    assert_eq!(outbox.unsent_bytes(), 0);
    assert_eq!(outbox.last().unwrap().code, Code::SLOW_CONSUMER, "nothing else goes out before it");
}

#[test]
fn a_client_that_reads_no_replies_is_closed_at_the_limit_of_frames() {
    let outbox = outbox(small());
    for nonce in 0..40 {
        assert_eq!(outbox.push_control(&ping(nonce)), Pushed::Queued, "{nonce}");
    }
    assert_eq!(outbox.push_control(&ping(40)), Pushed::Closed);
    assert_eq!(outbox.closing().unwrap().code, Code::SLOW_CONSUMER);
}

#[test]
fn a_single_reply_or_entry_larger_than_the_limit_goes_out_alone() {
    let outbox = outbox(small());
    assert_eq!(outbox.push_control(&sized(1500)), Pushed::Queued);
    assert_eq!(drain(&outbox).len(), 1);
    assert_eq!(outbox.push_entry(conversation(1), 1, &sized(1500)), Pushed::Queued);
    assert_eq!(drain(&outbox).len(), 1);
    assert!(outbox.closing().is_none());
}

#[test]
fn more_lagged_conversations_than_allowed_close_the_session() {
    let outbox = outbox(OutboxConfig { lagged_max: 3, ..small() });
    let _ = outbox.push_entry(conversation(200), 1, &sized(750));
    let held = outbox.take_any(ALL).unwrap();
    for number in 1..=3 {
        assert_eq!(outbox.push_entry(conversation(number), 1, &ping(1)), Pushed::Lagged);
    }
    assert_eq!(outbox.push_entry(conversation(3), 2, &ping(1)), Pushed::Lagged, "known already");
    assert_eq!(outbox.push_entry(conversation(4), 1, &ping(1)), Pushed::Closed);
    assert_eq!(outbox.closing().unwrap().code, Code::SLOW_CONSUMER);
    outbox.sent(held);
    assert!(outbox.take_any(ALL).is_none(), "only the close is left");
}

#[test]
fn the_newest_sixteen_datagrams_are_kept() {
    let outbox = outbox(OutboxConfig::default());
    for nonce in 0..20 {
        assert_eq!(outbox.push_datagram(&ping(nonce)), Pushed::Queued);
    }
    assert_eq!(nonces(&drain(&outbox)), (4..20).collect::<Vec<_>>());
}

/// Whether a push of backlog is done at once.
fn fits(outbox: &Outbox, frame: &Outgoing) -> bool {
    outbox.push_backlog(frame).now_or_never().is_some_and(|pushed| pushed.is_ok())
}

#[test]
fn backlog_fills_its_bytes_and_frames_exactly_and_then_waits() {
    let outbox = outbox(small());
    assert!(fits(&outbox, &sized(300)));
    assert!(fits(&outbox, &sized(200)));
    assert!(!fits(&outbox, &ping(0)), "500 bytes are taken");
    let held = outbox.take_any(ALL).unwrap();
    assert!(!fits(&outbox, &ping(0)), "what the link holds still counts");
    outbox.sent(held);
    for nonce in 0..4 {
        assert!(fits(&outbox, &ping(nonce)));
    }
    assert!(!fits(&outbox, &ping(4)), "4 frames are taken");
    assert_eq!(nonces(&drain(&outbox)), [0, 1, 2, 3], "a cancelled push was not queued");
    assert!(fits(&outbox, &sized(900)), "a larger frame goes alone");
    assert!(!fits(&outbox, &ping(0)));
    assert_eq!(
        outbox.push_entry(conversation(1), 1, &sized(700)),
        Pushed::Queued,
        "backlog takes no room of entries"
    );
}

#[tokio::test]
async fn a_waiting_push_of_backlog_goes_on_with_room_and_ends_with_the_outbox() {
    let outbox = outbox(small());
    assert!(fits(&outbox, &sized(500)));
    let push = |nonce| {
        let outbox = outbox.clone();
        tokio::spawn(async move { outbox.push_backlog(&ping(nonce)).await })
    };
    let waiting = push(1);
    tokio::task::yield_now().await;
    assert_eq!(drain(&outbox).len(), 1);
    assert_eq!(waiting.await.unwrap(), Ok(()));
    assert_eq!(nonces(&drain(&outbox)), [1]);

    assert!(fits(&outbox, &sized(500)));
    let waiting = push(2);
    tokio::task::yield_now().await;
    outbox.close(close(Code::NORMAL));
    assert_eq!(waiting.await.unwrap(), Err(Closed));
}

#[tokio::test]
async fn closing_keeps_replies_drops_the_rest_and_refuses_more() {
    let outbox = outbox(OutboxConfig::default());
    let _ = outbox.push_control(&ping(1));
    let _ = outbox.push_entry(conversation(1), 1, &ping(2));
    let _ = outbox.push_datagram(&ping(3));
    outbox.push_backlog(&ping(4)).await.unwrap();
    outbox.close(close(Code::DRAINING));
    outbox.close(close(Code::NORMAL));
    assert_eq!(outbox.push_control(&ping(5)), Pushed::Closed);
    assert_eq!(outbox.push_entry(conversation(1), 2, &ping(5)), Pushed::Closed);
    assert_eq!(outbox.push_datagram(&ping(5)), Pushed::Closed);
    assert_eq!(outbox.push_backlog(&ping(5)).await, Err(Closed));
    assert_eq!(outbox.last(), None, "a reply is still queued");
    assert_eq!(nonces(&drain(&outbox)), [1]);
    assert_eq!(outbox.last().unwrap().code, Code::DRAINING, "the first close counts");
    assert_eq!(outbox.unsent_bytes(), 0);
}

#[tokio::test]
async fn the_session_hears_of_the_first_that_waits_and_not_of_the_next() {
    let outbox = outbox(OutboxConfig::default());
    let _ = outbox.push_control(&ping(1));
    outbox.filled().await;
    let _ = outbox.push_control(&ping(2));
    assert!(outbox.filled().now_or_never().is_none(), "the first waits still");
    drain(&outbox);
    let _ = outbox.push_control(&ping(3));
    outbox.filled().await;
}

#[tokio::test]
async fn work_is_never_missed_by_the_one_who_waits_for_it() {
    let outbox = outbox(OutboxConfig::default());
    let _ = outbox.push_control(&ping(1));
    outbox.work().await;
    assert_eq!(drain(&outbox).len(), 1);
    outbox.close(close(Code::NORMAL));
    outbox.work().await;
    assert!(outbox.last().is_some());
}

#[test]
fn an_outbox_is_stalled_since_something_last_left_and_only_while_something_waits() {
    let outbox = outbox(OutboxConfig::default());
    assert_eq!(outbox.stalled_since(), None);
    let before = Instant::now();
    let _ = outbox.push_control(&ping(1));
    assert!(outbox.stalled_since().unwrap() >= before, "counted from the push");
    let held = outbox.take_any(ALL).unwrap();
    assert!(outbox.stalled_since().is_some(), "the socket has not taken it");
    outbox.sent(held);
    assert_eq!(outbox.stalled_since(), None);
}

#[test]
fn an_idle_outbox_is_small() {
    let bytes = size_of::<Outbox>();
    assert!(bytes <= 640, "{bytes} bytes");
}

#[derive(Clone, Debug)]
enum Step {
    Entry(u8, usize),
    Control(usize),
    Take(bool),
    Send,
    Lose,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        8 => (1u8..5, 20usize..400).prop_map(|(id, bytes)| Step::Entry(id, bytes)),
        1 => (20usize..100).prop_map(Step::Control),
        3 => any::<bool>().prop_map(Step::Take),
        3 => Just(Step::Send),
        1 => Just(Step::Lose),
    ];
    prop::collection::vec(step, 1..200)
}

/// The Deliver-like frame of a conversation and seq, padded: its request id is the seq.
fn entry(id: u8, seq: u64, bytes: usize) -> Outgoing {
    let frame = Error {
        code: Code(id.into()),
        temporary: false,
        retry_after_ms: None,
        detail: "x".repeat(bytes),
        temp_id: None,
        conversation: None,
    };
    Outgoing::new(Envelope { request: Some(seq), frame: frame.into() })
}

/// What a client knows of each conversation: the newest seq it got or was told of.
#[derive(Default)]
struct Told {
    got: BTreeMap<u8, u64>,
    head: BTreeMap<u8, u64>,
}

impl Told {
    fn read(&mut self, batch: &Batch) {
        let mut decoder = Decoder::default();
        batch.frames.iter().for_each(|bytes| decoder.extend(bytes));
        while let Some(Incoming::Frame(envelope)) = decoder.next().unwrap() {
            match envelope.frame {
                Frame::Error(Error { code, .. }) if code.0 > 0 => {
                    let (id, seq) = (code.0 as u8, envelope.request.unwrap());
                    let last = self.got.insert(id, seq);
                    assert!(last.is_none_or(|last| last < seq), "{id}: {seq} after {last:?}");
                    self.tell(id, seq);
                }
                Frame::Lagged(lagged) => self.tell(lagged.conversation.as_bytes()[0], lagged.head),
                _ => {}
            }
        }
    }

    fn send(&mut self, outbox: &Outbox, batch: Batch) {
        self.read(&batch);
        outbox.sent(batch);
    }

    fn tell(&mut self, id: u8, seq: u64) {
        let head = self.head.entry(id).or_default();
        *head = seq.max(*head);
    }
}

proptest! {
    /// Whatever happens, the limits hold, entries of a conversation keep their order, and in the
    /// end the client knows of the newest entry of every conversation.
    #[test]
    fn nothing_is_lost_without_being_named(steps in steps()) {
        let outbox = outbox(small());
        let (mut told, mut pushed) = (Told::default(), BTreeMap::<u8, u64>::new());
        let mut held: Vec<Batch> = Vec::new();
        for step in steps {
            match step {
                Step::Entry(id, bytes) => {
                    let seq = pushed.entry(id).or_default();
                    *seq += 1;
                    let frame = entry(id, *seq, bytes);
                    prop_assert_ne!(outbox.push_entry(conversation(id), *seq, &frame), Pushed::Closed);
                }
                Step::Control(bytes) => {
                    if outbox.push_control(&entry(0, 0, bytes)) == Pushed::Closed {
                        return Ok(());
                    }
                }
                Step::Take(true) => held.extend(outbox.take_any(SOME)),
                Step::Take(false) => held.extend(outbox.take_from(SOME, &mut |_| true)),
                Step::Send => held.drain(..).for_each(|batch| told.send(&outbox, batch)),
                Step::Lose => {
                    for batch in held.drain(..) {
                        told.send(&outbox, batch);
                    }
                    let entries = |queue| matches!(queue, Queue::Conversation(_));
                    if let Some(batch) = outbox.take_from(SOME, &mut |queue| entries(queue)) {
                        outbox.lost(batch);
                    }
                }
            }
            // 4 conversations can have a Lagged frame of some 20 bytes each on top, and one for each on its way.
            let on_its_way: usize = held.iter().map(|batch| only_lagged(&frames(batch)).len()).sum();
            let most = 1000 + 32 * (4 + on_its_way);
            prop_assert!(outbox.unsent_bytes() <= most, "{} of {most}", outbox.unsent_bytes());
        }
        held.drain(..).for_each(|batch| told.send(&outbox, batch));
        while let Some(batch) = outbox.take_any(ALL) {
            told.send(&outbox, batch);
        }
        prop_assert_eq!(outbox.unsent_bytes(), 0);
        prop_assert_eq!(told.head, pushed);
    }
}

#[test]
fn a_frame_that_was_encoded_elsewhere_reaches_sessions_of_either_format() {
    let here = Outgoing::new(Lagged { conversation: conversation(1), head: 9 });
    let bytes = here.bytes(Format::Binary).unwrap();
    let copy = Outgoing::from_binary(bytes.clone());
    assert_eq!(copy.bytes(Format::Binary), Some(bytes));
    assert_eq!(copy.bytes(Format::Json), here.bytes(Format::Json));
    assert!(copy.bytes(Format::Json).unwrap().starts_with(b"{"));
}

#[test]
fn an_entry_that_a_link_cannot_be_told_is_named_in_lagged() {
    let outbox = Outbox::new(Format::Json, OutboxConfig::default(), &Budget::new(usize::MAX));
    let strange = Outgoing::from_binary(Bytes::from_static(&[2, 0xff, 0x7f]));
    assert_eq!(outbox.push_control(&strange), Pushed::Skipped);
    assert_eq!(outbox.push_entry(conversation(1), 7, &strange), Pushed::Lagged);
    let batch = outbox.take_any(ALL).unwrap();
    let lagged = Format::Json.encode(&Lagged { conversation: conversation(1), head: 7 }.into());
    assert_eq!(batch.frames[..], [lagged]);
}

#[test]
fn whoever_waits_for_the_outbox_to_fill_is_woken_once_for_each_time() {
    let outbox = outbox(OutboxConfig::default());
    let filled = || outbox.filled().now_or_never().is_some();
    assert!(!filled());
    let _ = outbox.push_control(&ping(1));
    let _ = outbox.push_entry(conversation(1), 1, &ping(2));
    assert!(filled());
    assert!(!filled(), "it was full already");
    drain(&outbox);
    assert!(fits(&outbox, &ping(3)));
    assert!(filled());
}

#[test]
fn what_was_queued_or_named_as_lagged_was_told_and_nothing_above() {
    let outbox = outbox(small());
    let here = conversation(1);
    let _ = outbox.push_entry(here, 7, &ping(7));
    assert!(outbox.has_told(here, 7) && outbox.has_told(here, 1));
    assert!(!outbox.has_told(here, 8) && !outbox.has_told(conversation(2), 1));
    assert_eq!(outbox.push_entry(here, 8, &sized(999)), Pushed::Lagged);
    assert!(outbox.has_told(here, 8));
    outbox.note_told(conversation(2), 3);
    assert!(outbox.has_told(conversation(2), 3) && !outbox.has_told(conversation(2), 4));
}

#[test]
fn what_waits_is_charged_until_it_is_sent_and_without_memory_entries_lag() {
    const KIB: usize = 1024;
    let memory = Budget::new(64 * KIB);
    let outbox = Outbox::new(Format::Binary, OutboxConfig::default(), &memory);
    assert_eq!(outbox.push_entry(conversation(1), 1, &sized(KIB)), Pushed::Queued);
    assert_eq!(memory.used(), 0, "a little is free");
    for seq in 2..=20 {
        assert_eq!(outbox.push_entry(conversation(1), seq, &sized(KIB)), Pushed::Queued);
    }
    assert_eq!(memory.used(), 16 * KIB);
    let others = memory.try_charge(48 * KIB).unwrap();
    assert_eq!(outbox.push_entry(conversation(2), 1, &sized(KIB)), Pushed::Lagged);
    assert_eq!(outbox.push_control(&sized(2 * KIB)), Pushed::Queued, "a reply has to leave");
    drop(others);
    let batch = outbox.take_any(ALL).unwrap();
    assert!(memory.used() >= 16 * KIB, "the link has it, and not yet the socket");
    outbox.sent(batch);
    drain(&outbox);
    assert_eq!(memory.used(), 0);
    for seq in 21..=40 {
        let _ = outbox.push_entry(conversation(1), seq, &sized(KIB));
    }
    assert!(memory.used() > 0);
    outbox.close(Close { code: Code::SHUTDOWN, reason: String::new(), retry_after_ms: None, target: None });
    assert_eq!(memory.used(), 0, "what is dropped is given back");
}

#[test]
fn entries_have_three_quarters_of_the_frames() {
    let outbox = outbox(OutboxConfig { frames_max: 8, ..OutboxConfig::default() });
    let pushed: Vec<_> = (1..=7).map(|seq| outbox.push_entry(conversation(1), seq, &ping(seq))).collect();
    assert_eq!(pushed[..6], [Pushed::Queued; 6]);
    assert_eq!(pushed[6], Pushed::Lagged);
}
