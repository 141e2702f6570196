//! The session's rules, one table or story each.

use tern_protocol::{
    Data, Deliver, Entry, EntryBody, EntryId, Erased, Error, Fetch, Gap, HaveRead, Lagged, Page, SyncEnd,
    SyncPage,
};

use super::model_tests::welcome;
use super::sends::RESEND_AGE_MS_MAX;
use super::*;
use crate::persistence::SavedSend;

const NOW: u64 = 1_700_000_000_000;

fn user(name: &str) -> UserId {
    UserId::new(name).unwrap()
}

fn conversation() -> ConversationId {
    ConversationId::from_bytes([9; 16])
}

fn temp_id(byte: u8) -> TempId {
    TempId::from_bytes([byte; 16])
}

fn entry(seq: u64, temp_id: Option<TempId>) -> Entry {
    Entry {
        seq,
        id: EntryId::from_bytes([1; 16]),
        time_ms: NOW,
        sender: user(if temp_id.is_some() { "me" } else { "other" }),
        sender_name: None,
        temp_id,
        messages: seq,
        body: EntryBody::text("x"),
    }
}

fn deliver(seqs: impl IntoIterator<Item = u64>) -> Envelope {
    let entries = seqs.into_iter().map(|seq| entry(seq, None)).collect();
    Deliver { conversation: conversation(), entries }.into()
}

fn ack(byte: u8, seq: u64) -> Envelope {
    SendAck {
        temp_id: temp_id(byte),
        conversation: conversation(),
        seq,
        id: EntryId::from_bytes([1; 16]),
        time_ms: NOW,
        messages: seq,
        duplicate: false,
        recipient_unknown: false,
    }
    .into()
}

fn refusal(code: Code, retry_after_ms: Option<u32>) -> Error {
    let (detail, temporary) = ("why".into(), code.temporary());
    Error { code, temporary, retry_after_ms, detail, temp_id: None, conversation: None }
}

fn message(byte: u8) -> Change {
    Change::Message { to: conversation().into(), draft: format!("{byte}").into() }
}

/// A session that is online and synced, with room for 100 entries.
fn online() -> Session {
    online_from(SavedState::default())
}

fn online_from(saved: SavedState) -> Session {
    let mut session = Session::new(saved);
    session.set_room(100, NOW);
    session.connected(1, &at(NOW, 1), NOW).unwrap();
    session.received(1, SyncEnd { changed: 0 }.into(), NOW);
    session
}

fn at(time_ms: u64, store: u8) -> Welcome {
    Welcome { time_ms, ..welcome(store) }
}

fn effects(session: &mut Session) -> Vec<Effect> {
    std::iter::from_fn(|| session.pop()).collect()
}

fn sent(session: &mut Session) -> Vec<Envelope> {
    let frames = effects(session).into_iter().filter_map(|effect| match effect {
        Effect::Send(envelope) => Some(envelope),
        _ => None,
    });
    frames.collect()
}

fn sends(session: &mut Session) -> Vec<(u64, String, Option<u64>)> {
    let sends = sent(session).into_iter().filter_map(|envelope| match envelope.frame {
        Frame::Send(send) => Some((envelope.request.unwrap(), send.text, send.age_ms)),
        _ => None,
    });
    sends.collect()
}

fn texts(session: &mut Session) -> Vec<String> {
    sends(session).into_iter().map(|(_, text, _)| text).collect()
}

fn events(session: &mut Session) -> Vec<Event> {
    let events = effects(session).into_iter().filter_map(|effect| match effect {
        Effect::Emit(event) => Some(event),
        _ => None,
    });
    events.collect()
}

fn seqs(session: &mut Session) -> Vec<u64> {
    let entries = events(session).into_iter().filter_map(|event| match event {
        Event::Entry { entry, .. } => Some(entry.seq),
        _ => None,
    });
    entries.collect()
}

fn fetches(session: &mut Session) -> Vec<(u64, Fetch)> {
    let fetches = sent(session).into_iter().filter_map(|envelope| match envelope.frame {
        Frame::Fetch(fetch) => Some((envelope.request.unwrap(), fetch)),
        _ => None,
    });
    fetches.collect()
}

fn answer(request: u64, frame: impl Into<Frame>) -> Envelope {
    Envelope { request: Some(request), frame: frame.into() }
}

#[test]
fn after_a_temporary_refusal_the_refused_and_everything_after_it_is_sent_again_in_order() {
    let mut session = online();
    (1..=3).for_each(|byte| session.submit(temp_id(byte), message(byte), true, NOW));
    let first = sends(&mut session);
    assert_eq!(first.iter().map(|send| send.2).collect::<Vec<_>>(), [Some(0); 3]);
    session.received(1, ack(1, 1), NOW);
    session.received(1, answer(first[1].0, refusal(Code::UNAVAILABLE, Some(500))), NOW);
    session.received(1, answer(first[2].0, refusal(Code::OUT_OF_ORDER, None)), NOW + 1);
    assert_eq!(session.wake_at(), Some(NOW + 500), "the hint of the first refusal counts");
    session.tick(NOW + 499);
    assert!(sends(&mut session).is_empty());
    session.tick(NOW + 500);
    // The window is halved by each refusal and opened by acks; the first goes alone at first.
    let mut again = sends(&mut session);
    session.received(1, ack(2, 2), NOW + 501);
    again.extend(sends(&mut session));
    let again: Vec<_> = again.into_iter().map(|(_, text, age_ms)| (text, age_ms)).collect();
    assert_eq!(again, [("2".into(), Some(500)), ("3".into(), Some(500))]);
}

#[test]
fn a_permanent_refusal_resolves_one_send_and_the_next_ones_go_on() {
    let mut session = online();
    (1..=2).for_each(|byte| session.submit(temp_id(byte), message(byte), true, NOW));
    let first = sends(&mut session);
    session.received(1, answer(first[0].0, refusal(Code::FORBIDDEN, None)), NOW);
    let error = SendError::Refused { code: Code::FORBIDDEN, detail: "why".into() };
    let effects = effects(&mut session);
    assert!(effects.contains(&Effect::Resolved { temp_id: temp_id(1), result: Err(error.clone()) }));
    assert!(effects.contains(&Effect::Save(SavedChange::Resolved { temp_id: temp_id(1) })));
    let failed = Event::SendFailed { temp_id: temp_id(1), to: conversation().into(), error };
    assert!(effects.contains(&Effect::Emit(failed)));
    session.received(1, ack(2, 1), NOW);
    assert_eq!(seqs(&mut session), [1]);
}

#[test]
fn an_answer_to_an_attempt_that_was_given_up_changes_nothing() {
    let mut session = online();
    session.submit(temp_id(1), message(1), true, NOW);
    let first = sends(&mut session)[0].0;
    // A new link, while the old one still brings its answers.
    session.connected(2, &at(NOW, 1), NOW).unwrap();
    assert_eq!(texts(&mut session), ["1"]);
    session.received(1, answer(first, refusal(Code::DRAINING, None)), NOW);
    assert_eq!(session.wake_at(), None, "the retry on the new link is in flight and stays so");
    session.received(1, ack(1, 1), NOW);
    assert_eq!(seqs(&mut session), [1], "an ack counts whichever link brings it");
    session.disconnected(1);
    session.submit(temp_id(2), message(2), true, NOW);
    assert_eq!(texts(&mut session), ["2"], "the end of the old link is not the end of the new one");
}

#[test]
fn no_more_than_the_servers_window_is_in_flight_and_lines_take_turns() {
    let mut session = online();
    let other = ConversationId::from_bytes([1; 16]);
    for byte in 1..=7 {
        session.submit(temp_id(byte), message(byte), true, NOW);
    }
    assert_eq!(texts(&mut session), ["1", "2", "3", "4", "5"], "sends_in_flight is 5");
    session.submit(temp_id(8), Change::Message { to: other.into(), draft: "other".into() }, true, NOW);
    session.received(1, ack(1, 1), NOW);
    session.received(1, ack(2, 2), NOW);
    let next = texts(&mut session);
    assert!(next.contains(&"other".to_owned()), "{next:?}");
}

#[test]
fn what_is_not_saved_does_not_leave_and_holds_back_what_comes_after_it() {
    let mut session = online();
    session.submit(temp_id(1), message(1), false, NOW);
    session.submit(temp_id(2), message(2), true, NOW);
    assert!(sends(&mut session).is_empty());
    session.saved(&[temp_id(1)], NOW);
    assert_eq!(texts(&mut session), ["1", "2"]);
}

#[test]
fn what_could_not_be_saved_fails_and_frees_its_line() {
    let mut session = online();
    session.submit(temp_id(1), message(1), false, NOW);
    session.submit(temp_id(2), message(2), true, NOW);
    session.not_saved(temp_id(1), "disk full");
    session.tick(NOW);
    let effects = effects(&mut session);
    let error = SendError::NotSaved("disk full".into());
    assert!(effects.contains(&Effect::Resolved { temp_id: temp_id(1), result: Err(error) }));
    assert!(effects.iter().any(|effect| matches!(effect, Effect::Send(_))));
}

fn old_sends() -> SavedState {
    let save = |byte| SavedSend {
        temp_id: temp_id(byte),
        to: conversation().into(),
        text: format!("{byte}"),
        data: Some(Data::new("[1.50]").unwrap()),
        reply_to: Some(7),
        created_ms: if byte == 3 { NOW - 5_000 } else { NOW - RESEND_AGE_MS_MAX - 1_000 },
    };
    SavedState { sends: vec![save(1), save(2), save(3)], ..SavedState::default() }
}

#[test]
fn sends_older_than_a_day_are_looked_for_and_never_sent_again() {
    let mut session = online_from(old_sends());
    let frames = sent(&mut session);
    assert!(frames.iter().all(|envelope| !matches!(envelope.frame, Frame::Send(_))));
    let Some((request, Frame::Fetch(fetch))) = frames
        .into_iter()
        .find(|envelope| matches!(envelope.frame, Frame::Fetch(_)))
        .map(|envelope| (envelope.request.unwrap(), envelope.frame))
    else {
        panic!("no search")
    };
    assert_eq!((fetch.before, fetch.limit), (None, Some(200)));
    // The first page has one of them, and does not reach back far enough for the other.
    let entries = vec![entry(9, None), entry(8, Some(temp_id(2)))];
    let page = Page { conversation: conversation(), entries, first_seq: 1, head: 9 };
    session.received(1, answer(request, page), NOW);
    let found = effects(&mut session);
    assert!(found.iter().any(|effect| matches!(effect,
        Effect::Resolved { temp_id: id, result: Ok(ack) } if *id == temp_id(2) && ack.seq == 8)));
    let Some(Effect::Send(Envelope { request: Some(request), frame: Frame::Fetch(fetch) })) = found.last()
    else {
        panic!("the search does not go on")
    };
    assert_eq!(fetch.before, Some(8));
    // The next page is from before it was written.
    let old = Entry { time_ms: NOW - 2 * RESEND_AGE_MS_MAX, ..entry(7, None) };
    let page = Page { conversation: conversation(), entries: vec![old], first_seq: 1, head: 9 };
    session.received(1, answer(*request, page), NOW);
    let given_up = effects(&mut session);
    let expired = Effect::Resolved { temp_id: temp_id(1), result: Err(SendError::Expired) };
    assert!(given_up.contains(&expired));
    let abandoned = tern_protocol::Abandon { to: conversation().into(), temp_id: temp_id(1) };
    assert!(given_up.contains(&Effect::Send(abandoned.into())));
    let Some(Effect::Send(Envelope { frame: Frame::Send(send), .. })) = given_up.last() else {
        panic!("what comes after them is not sent")
    };
    assert_eq!((send.text.as_str(), send.age_ms), ("3", Some(5_000)), "a retry of an earlier process");
}

#[test]
fn a_search_in_a_conversation_that_is_gone_gives_up() {
    let mut session = online_from(old_sends());
    let (request, _) = fetches(&mut session)[0];
    session.received(1, answer(request, refusal(Code::NOT_FOUND, None)), NOW);
    let given_up = effects(&mut session);
    for byte in [1, 2] {
        let expired = Effect::Resolved { temp_id: temp_id(byte), result: Err(SendError::Expired) };
        assert!(given_up.contains(&expired));
    }
}

#[test]
fn a_hole_may_close_by_itself_and_is_fetched_when_it_does_not() {
    let mut session = online();
    session.received(1, deliver([1, 3]), NOW);
    assert_eq!(seqs(&mut session), [1]);
    session.received(1, deliver([2]), NOW + 10);
    assert_eq!(seqs(&mut session), [2, 3]);
    session.received(1, deliver([5]), NOW + 20);
    assert!(fetches(&mut session).is_empty());
    session.tick(session.wake_at().unwrap());
    let (request, fetch) = fetches(&mut session)[0].clone();
    assert_eq!(fetch.after, Some(3));
    let page = Page {
        conversation: conversation(),
        entries: vec![entry(5, None), entry(4, None)],
        first_seq: 1,
        head: 5,
    };
    session.received(1, answer(request, page), NOW + 200);
    assert_eq!(seqs(&mut session), [4, 5]);
    assert_eq!(session.wake_at(), None);
}

#[test]
fn lagged_is_fetched_at_once_and_a_long_way_is_a_gap() {
    let mut session = online();
    session.received(1, deliver([1]), NOW);
    session.received(1, Lagged { conversation: conversation(), head: 700 }.into(), NOW);
    let (request, fetch) = fetches(&mut session)[0].clone();
    assert_eq!(fetch.after, Some(1));
    let entries = (2..=100).rev().map(|seq| entry(seq, None)).collect();
    let page = Page { conversation: conversation(), entries, first_seq: 1, head: 700 };
    session.received(1, answer(request, page), NOW);
    let all = effects(&mut session);
    let gap = Event::Gap { conversation: conversation(), from: 2, to: 650 };
    assert!(all.contains(&Effect::Emit(gap)));
    let Some(Effect::Send(Envelope { frame: Frame::Fetch(fetch), .. })) = all.last() else {
        panic!("the tail is not fetched")
    };
    assert_eq!(fetch.after, Some(650));
}

#[test]
fn what_has_aged_out_on_the_server_is_a_gap_also_if_nothing_is_left() {
    for (first_seq, entries) in [(6, vec![7, 6]), (8, vec![])] {
        let mut session = online();
        session.received(1, deliver([1]), NOW);
        session.received(1, Lagged { conversation: conversation(), head: 7 }.into(), NOW);
        let (request, _) = fetches(&mut session)[0].clone();
        let entries: Vec<_> = entries.into_iter().map(|seq| entry(seq, None)).collect();
        let page = Page { conversation: conversation(), entries, first_seq, head: 7 };
        session.received(1, answer(request, page), NOW);
        let all = effects(&mut session);
        let gap = Event::Gap { conversation: conversation(), from: 2, to: first_seq - 1 };
        assert!(all.contains(&Effect::Emit(gap)), "{all:?}");
        assert_eq!(session.wake_at(), None, "there is nothing more to fetch");
    }
}

#[test]
fn an_erasure_is_told_by_its_entry_and_by_the_frame() {
    let mut session = online();
    let erased = Event::Erased { conversation: conversation(), seq: 1 };
    let body = EntryBody::Left { user: UserId::erased([1; 16]) };
    let left = Entry { body, ..entry(1, None) };
    session.received(1, Deliver { conversation: conversation(), entries: vec![left] }.into(), NOW);
    let all = effects(&mut session);
    let place = |wanted: &dyn Fn(&Event) -> bool| {
        all.iter().position(|effect| matches!(effect, Effect::Emit(event) if wanted(event)))
    };
    let told = place(&|event| *event == erased).expect("it is told");
    let handed = place(&|event| matches!(event, Event::Entry { .. })).expect("the entry is handed out");
    assert!(told < handed, "before the entry is, so that a crash between them tells it again");
    session.received(1, Erased { conversation: conversation(), seq: 1 }.into(), NOW);
    assert!(effects(&mut session).contains(&Effect::Emit(erased)));
}

#[test]
fn a_page_that_live_entries_have_overtaken_is_no_resync() {
    let mut session = online();
    session.received(1, deliver([1, 3]), NOW);
    session.tick(NOW + 1_000);
    let (request, _) = fetches(&mut session)[0];
    session.received(1, deliver([2, 3, 4]), NOW + 1_001);
    assert!(seqs(&mut session).ends_with(&[2, 3, 4]));
    let page = Page { conversation: conversation(), entries: vec![entry(2, None)], first_seq: 1, head: 3 };
    session.received(1, answer(request, page), NOW + 1_002);
    assert!(events(&mut session).is_empty());
}

#[test]
fn a_log_that_ends_before_the_cursor_is_handed_out_anew() {
    let cursors = [(conversation(), 50)].into();
    let saved = SavedState {
        user: Some(user("me")),
        store_id: Some(welcome(1).store_id),
        cursors,
        ..SavedState::default()
    };
    let mut session = online_from(saved);
    effects(&mut session);
    session.received(1, deliver([53]), NOW);
    session.tick(NOW + 1_000);
    let (request, _) = fetches(&mut session)[0];
    let page = Page { conversation: conversation(), entries: vec![], first_seq: 1, head: 2 };
    session.received(1, answer(request, page), NOW + 1_000);
    let all = effects(&mut session);
    assert!(all.contains(&Effect::Forget(Some(conversation()))));
    assert!(all.contains(&Effect::Emit(Event::Resync { conversation: Some(conversation()) })));
    let dropped = SavedChange::CursorDropped { conversation: conversation() };
    assert!(all.contains(&Effect::Save(dropped)));
    let refetch = all.iter().any(|effect| {
        matches!(effect, Effect::Send(Envelope { frame: Frame::Fetch(fetch), .. }) if fetch.after == Some(0))
    });
    assert!(refetch);
}

#[test]
fn a_refused_cursor_drops_all_of_them_and_syncs_anew() {
    let mut session =
        Session::new(SavedState { cursors: [(conversation(), 5)].into(), ..Default::default() });
    session.connected(1, &at(NOW, 1), NOW).unwrap();
    let request = sent(&mut session)[0].request.unwrap();
    session.received(1, answer(request, refusal(Code::CURSOR_AHEAD, None)), NOW);
    let all = effects(&mut session);
    assert!(all.contains(&Effect::Emit(Event::Resync { conversation: None })));
    let Some(Effect::Send(Envelope { frame: Frame::Sync(sync), .. })) = all.last() else { panic!() };
    assert!(sync.cursors.is_empty());
}

#[test]
fn another_store_drops_cursors_keeps_pending_sends_and_is_told() {
    let mut session = online();
    session.received(1, deliver([1, 2]), NOW);
    session.submit(temp_id(1), message(1), true, NOW);
    session.disconnected(1);
    effects(&mut session);
    session.connected(2, &at(NOW, 2), NOW).unwrap();
    let all = effects(&mut session);
    let (old, new) = (welcome(1).store_id, welcome(2).store_id);
    assert_eq!(all[0], Effect::Forget(None));
    assert_eq!(all[1], Effect::Emit(Event::StoreChanged { old, new }));
    assert_eq!(all[2], Effect::Save(SavedChange::Store { user: user("me"), store_id: new }));
    let Effect::Send(Envelope { frame: Frame::Sync(sync), .. }) = &all[3] else { panic!("{all:?}") };
    assert!(sync.cursors.is_empty());
    assert!(matches!(&all[4], Effect::Send(Envelope { frame: Frame::Send(_), .. })));
    session.confirm([Position { conversation: conversation(), seq: 2 }]);
    assert!(effects(&mut session).is_empty(), "a confirmation from before does not count here");
}

#[test]
fn a_token_of_another_user_is_refused() {
    let mut session = online();
    let other = Welcome { user: user("eve"), ..welcome(1) };
    let refused = session.connected(2, &other, NOW);
    assert_eq!(refused, Err(WrongUser { expected: user("me"), found: user("eve") }));
}

#[test]
fn sync_carries_every_cursor_in_frames_of_512() {
    let cursors = (0..1_100u128).map(|n| (ConversationId::from_bytes(n.to_be_bytes()), 3)).collect();
    let mut session = Session::new(SavedState { cursors, ..SavedState::default() });
    session.connected(1, &at(NOW, 1), NOW).unwrap();
    let syncs: Vec<_> = sent(&mut session)
        .into_iter()
        .filter_map(|envelope| match envelope.frame {
            Frame::Sync(sync) => Some((sync.cursors.len(), sync.more)),
            _ => None,
        })
        .collect();
    assert_eq!(syncs, [(512, true), (512, true), (76, false)]);
}

#[test]
fn a_new_conversation_starts_where_the_sync_says_it_does() {
    let mut session = Session::new(SavedState::default());
    session.set_room(100, NOW);
    session.connected(1, &at(NOW, 1), NOW).unwrap();
    session.received(1, deliver([42]), NOW);
    assert!(seqs(&mut session).is_empty(), "not known yet whether 42 is the first");
    let row = tern_protocol::ConversationSummary {
        conversation: conversation(),
        kind: tern_protocol::ConversationKind::Group,
        name: None,
        peer: None,
        head: 41,
        head_messages: 41,
        first_seq: 40,
        read_seq: 0,
        read_messages: 41,
        unread: 0,
        last_time_ms: 0,
        role: None,
        added_by: None,
    };
    session.received(1, SyncPage { conversations: vec![row] }.into(), NOW);
    session.received(1, deliver([40, 41]), NOW);
    assert_eq!(seqs(&mut session), [40, 41, 42]);
}

#[test]
fn a_conversation_joined_later_starts_where_a_page_says_it_does() {
    let mut session = online();
    session.received(1, deliver([42]), NOW);
    let (request, fetch) = fetches(&mut session)[0].clone();
    assert_eq!(fetch.after, Some(0), "asked at once: nothing else will say it");
    let page = Page { conversation: conversation(), entries: vec![entry(42, None)], first_seq: 42, head: 42 };
    session.received(1, answer(request, page), NOW);
    assert_eq!(seqs(&mut session), [42]);
}

#[test]
fn a_gap_of_the_server_moves_the_cursor_only_from_where_it_begins() {
    let mut session = online();
    session.received(1, deliver([1]), NOW);
    effects(&mut session);
    session.received(1, Gap { conversation: conversation(), from: 5, to: 600 }.into(), NOW);
    assert!(events(&mut session).is_empty(), "2 to 4 are missing before it");
    session.received(1, deliver([2, 3, 4]), NOW);
    session.received(1, Gap { conversation: conversation(), from: 5, to: 600 }.into(), NOW);
    session.received(1, deliver([601]), NOW);
    let gap = Event::Gap { conversation: conversation(), from: 5, to: 600 };
    let all = events(&mut session);
    assert_eq!(all[3], gap);
    assert!(matches!(&all[4], Event::Entry { entry, .. } if entry.seq == 601));
}

#[test]
fn without_room_nothing_is_handed_out_and_nothing_is_lost() {
    let mut session = online();
    session.set_room(2, NOW);
    session.received(1, deliver(1..=5), NOW);
    assert_eq!(seqs(&mut session), [1, 2]);
    session.set_room(2, NOW + 1);
    assert_eq!(seqs(&mut session), [3, 4]);
    session.set_room(9, NOW + 2);
    assert_eq!(seqs(&mut session), [5]);
}

#[test]
fn confirmed_entries_are_acked_and_saved_and_others_are_not() {
    let mut session = online();
    session.received(1, deliver(1..=3), NOW);
    effects(&mut session);
    let position = Position { conversation: conversation(), seq: 2 };
    session.confirm([position]);
    let ack = tern_protocol::Ack { positions: vec![position] };
    assert_eq!(
        effects(&mut session),
        [Effect::Save(SavedChange::Cursor(position)), Effect::Send(ack.into())]
    );
    session.confirm([Position { seq: 1, ..position }, Position { seq: 4, ..position }]);
    assert!(effects(&mut session).is_empty(), "never back, never beyond what was handed out");
}

#[test]
fn questions_of_an_ended_session_are_answered_so_and_too_many_are_refused() {
    let mut session = online();
    effects(&mut session);
    let ask = |session: &mut Session| {
        session.ask(tern_protocol::ListMembers { conversation: conversation() }.into())
    };
    let number = ask(&mut session).unwrap();
    while ask(&mut session).is_ok() {}
    assert_eq!(ask(&mut session), Err(true));
    session.disconnected(1);
    assert!(effects(&mut session).contains(&Effect::Answer { question: number, answer: None }));
    assert_eq!(ask(&mut session), Err(false));
}

#[test]
fn watches_and_read_positions_are_told_to_a_new_session() {
    let mut session = online();
    session.watch(vec![user("bob")]);
    session.read(Position { conversation: conversation(), seq: 3 });
    session.read(Position { conversation: conversation(), seq: 4 });
    session.disconnected(1);
    effects(&mut session);
    session.connected(2, &at(NOW, 1), NOW).unwrap();
    let frames: Vec<_> = sent(&mut session).into_iter().map(|envelope| envelope.frame).collect();
    assert!(frames.contains(&Watch { users: vec![user("bob")] }.into()));
    let reads = frames.iter().filter(|frame| matches!(frame, Frame::Read(_))).count();
    assert_eq!(reads, 1);
    assert!(frames.contains(&Read { conversation: conversation(), seq: 4 }.into()));
}

#[test]
fn a_read_position_above_what_was_heard_of_is_told_as_that() {
    let mut session = online();
    session.received(1, deliver([1, 2]), NOW);
    effects(&mut session);
    session.read(Position { conversation: conversation(), seq: 9 });
    assert_eq!(sent(&mut session)[0].frame, Read { conversation: conversation(), seq: 2 }.into());
}

#[test]
fn a_sync_refused_for_the_moment_is_asked_for_again() {
    let mut session = Session::new(SavedState::default());
    session.connected(1, &at(NOW, 1), NOW).unwrap();
    let request = sent(&mut session)[0].request.unwrap();
    session.received(1, answer(request, refusal(Code::RATE_LIMITED, Some(700))), NOW);
    assert_eq!(session.wake_at(), Some(NOW + 700));
    session.tick(NOW + 700);
    assert!(matches!(sent(&mut session)[0].frame, Frame::Sync(_)));
}

fn later(seq: u64) -> Entry {
    Entry { body: EntryBody::Opaque { kind: 200, bytes: vec![seq as u8] }, ..entry(seq, None) }
}

#[test]
fn what_a_later_version_wrote_has_its_place_in_the_log() {
    let mut session = online();
    let deliver = |entries| Envelope::from(Deliver { conversation: conversation(), entries });
    session.received(1, deliver(vec![later(1)]), NOW);
    session.received(1, deliver(vec![later(3), later(4)]), NOW);
    session.received(1, deliver(vec![entry(2, None)]), NOW);
    let entries: Vec<Entry> = effects(&mut session)
        .into_iter()
        .filter_map(|effect| match effect {
            Effect::Emit(Event::Entry { entry, .. }) => Some(entry),
            _ => None,
        })
        .collect();
    assert_eq!(entries, [later(1), entry(2, None), later(3), later(4)]);
    // Nothing is missing, and it is confirmed and told like any other.
    session.tick(NOW + 10_000);
    assert_eq!((fetches(&mut session).len(), session.wake_at()), (0, None));
    session.confirm([Position { conversation: conversation(), seq: 4 }]);
    let all = effects(&mut session);
    let position = Position { conversation: conversation(), seq: 4 };
    assert!(all.contains(&Effect::Save(SavedChange::Cursor(position))));
    assert!(all.contains(&Effect::Send(tern_protocol::Ack { positions: vec![position] }.into())));
}

#[test]
fn a_hole_is_filled_by_what_a_later_version_wrote() {
    let mut session = online();
    session.received(1, deliver([1, 4]), NOW);
    session.tick(NOW + 1_000);
    let (request, _) = fetches(&mut session)[0];
    let page =
        Page { conversation: conversation(), entries: vec![later(3), later(2)], first_seq: 1, head: 4 };
    session.received(1, answer(request, page), NOW);
    assert_eq!(seqs(&mut session), [2, 3, 4]);
}

fn reads(session: &mut Session) -> Vec<(u64, u64)> {
    let reads = effects(session).into_iter().filter_map(|effect| match effect {
        Effect::Emit(Event::Read { seq, messages, .. }) => Some((seq, messages)),
        _ => None,
    });
    reads.collect()
}

#[test]
fn an_own_message_moves_the_own_read_position() {
    let mut session = online();
    session.received(1, deliver([1, 2]), NOW);
    session.read(Position { conversation: conversation(), seq: 2 });
    session.submit(temp_id(1), message(1), true, NOW);
    session.received(1, ack(1, 3), NOW);
    assert_eq!(reads(&mut session), [(3, 3)], "by its ack");
    let own = |seq| Entry { messages: seq - 1, ..entry(seq, Some(temp_id(seq as u8))) };
    let left = EntryBody::Left { user: user("me") };
    let entries = vec![entry(4, None), own(5), own(6), Entry { body: left, ..own(7) }];
    session.received(1, Deliver { conversation: conversation(), entries }.into(), NOW);
    assert_eq!(reads(&mut session), [(6, 5)], "by an entry of another session, once for many");
    // It says what was said with it: a new session is not told less.
    session.disconnected(1);
    session.connected(2, &at(NOW, 1), NOW).unwrap();
    assert!(sent(&mut session).iter().all(|envelope| !matches!(envelope.frame, Frame::Read(_))));
}

#[test]
fn a_read_position_of_another_session_is_told_once_and_never_goes_back() {
    let mut session = online();
    session.received(1, deliver([1, 2, 3]), NOW);
    effects(&mut session);
    let have_read = |seq| HaveRead { conversation: conversation(), seq, messages: seq - 1 }.into();
    session.received(1, have_read(2), NOW);
    session.received(1, have_read(1), NOW);
    session.received(1, have_read(2), NOW);
    assert_eq!(reads(&mut session), [(2, 1)]);
    session.read(Position { conversation: conversation(), seq: 3 });
    session.received(1, have_read(3), NOW);
    assert_eq!(reads(&mut session), [], "the application has said so itself");
}

#[test]
fn one_cursor_above_the_head_costs_one_log_and_the_sync_goes_on() {
    let other = ConversationId::from_bytes([8; 16]);
    let saved = SavedState {
        cursors: [(conversation(), 9), (other, 5)].into_iter().collect(),
        ..SavedState::default()
    };
    let mut session = Session::new(saved);
    session.set_room(100, NOW);
    session.connected(1, &at(NOW, 1), NOW).unwrap();
    let request = sent(&mut session)[0].request.unwrap();
    let error = Error { conversation: Some(conversation()), ..refusal(Code::CURSOR_AHEAD, None) };
    session.received(1, answer(request, error), NOW);
    let all = effects(&mut session);
    let dropped = |conversation| Effect::Save(SavedChange::CursorDropped { conversation });
    assert!(all.contains(&dropped(conversation())) && !all.contains(&dropped(other)), "{all:?}");
    assert!(!all.iter().any(|effect| matches!(effect, Effect::Send(_))), "the sync is not asked for again");
    session.received(1, answer(request, SyncEnd { changed: 0 }), NOW);
    assert!(effects(&mut session).contains(&Effect::Synced));
    session.received(1, deliver([1]), NOW);
    assert_eq!(seqs(&mut session), [1], "its log begins anew");
}

#[test]
fn data_and_an_answer_are_in_every_attempt_and_in_the_own_entry() {
    let mut session = online_from(old_sends());
    let frame = |session: &mut Session| {
        let sends = sent(session).into_iter().find_map(|envelope| match envelope.frame {
            Frame::Send(send) => Some((send.data.unwrap().as_str().to_owned(), send.reply_to.unwrap())),
            _ => None,
        });
        sends.unwrap()
    };
    let (request, _) = fetches(&mut session)[0];
    let page = Page { conversation: conversation(), entries: Vec::new(), first_seq: 1, head: 0 };
    session.received(1, answer(request, page), NOW);
    assert_eq!(frame(&mut session), ("[1.50]".into(), 7), "of what was saved");
    session.disconnected(1);
    session.connected(2, &at(NOW, 1), NOW).unwrap();
    session.received(2, SyncEnd { changed: 0 }.into(), NOW);
    assert_eq!(frame(&mut session), ("[1.50]".into(), 7), "again");
    session.received(2, ack(3, 1), NOW);
    let entry = effects(&mut session).into_iter().find_map(|effect| match effect {
        Effect::Emit(Event::Entry { entry, .. }) => Some(entry.body),
        _ => None,
    });
    let data = Some(Data::new("[1.50]").unwrap());
    assert_eq!(entry, Some(EntryBody::Message { text: "3".into(), data, reply_to: Some(7) }));
}
