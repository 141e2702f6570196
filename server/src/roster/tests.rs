use std::collections::BTreeMap;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use proptest::prelude::*;
use tern_protocol::DeviceId;

use super::*;
use crate::budget::Budget;
use crate::cluster::{NodeId, SessionRef};

pub(crate) fn seat(id: u64, user: &str, device: &str) -> Seat {
    let device = DeviceId::new(device).unwrap();
    let outbox = Outbox::new(Format::Binary, OutboxConfig::default(), &Budget::new(usize::MAX));
    let at = SessionRef { node: NodeId::new("here").unwrap(), boot: 1, session: id };
    let origin =
        Origin { transport: "quic", address: std::net::Ipv4Addr::LOCALHOST.into(), token_issued_ms: 0 };
    Seat::new(at, UserId::new(user).unwrap(), device, outbox, origin)
}

fn alice() -> UserId {
    UserId::new("alice").unwrap()
}

fn ids(roster: &Roster, user: &UserId) -> Vec<u64> {
    let mut seats = Vec::new();
    roster.seats_of(user, &mut seats);
    seats.iter().map(|seat| seat.id()).collect()
}

fn leaving() -> Leaving {
    Leaving::new(now(), Duration::from_secs(30), Duration::from_secs(10))
}

#[test]
fn a_dropped_guard_ends_exactly_its_session() {
    let roster = Roster::default();
    let first = roster.begin(seat(1, "alice", "phone"), 20);
    let _second = roster.begin(seat(2, "alice", "phone"), 20);
    assert_eq!(ids(&roster, &alice()), [1, 2]);
    drop(first);
    assert_eq!(ids(&roster, &alice()), [2]);
}

#[test]
fn one_session_too_many_takes_the_place_of_another_at_once() {
    let roster = Roster::default();
    let _first = roster.begin(seat(1, "alice", "a"), 2);
    let second = roster.begin(seat(2, "alice", "b"), 2);
    assert!(second.replaced.is_none());
    // Neither has noticed that it was replaced, and nobody is replaced twice.
    let third = roster.begin(seat(3, "alice", "c"), 2);
    let fourth = roster.begin(seat(4, "alice", "d"), 2);
    assert_eq!(third.replaced.map(|seat| seat.id()), Some(1));
    assert_eq!(fourth.replaced.map(|seat| seat.id()), Some(2));
    assert_eq!(ids(&roster, &alice()), [3, 4]);
    drop(second.guard);
    assert_eq!(ids(&roster, &alice()), [3, 4], "who was replaced takes nobody along");
}

#[test]
fn a_device_that_comes_back_replaces_its_own_sessions() {
    let roster = Roster::default();
    let _laptop = roster.begin(seat(1, "alice", "laptop"), 3);
    let mut phones = Vec::new();
    for id in 2..20 {
        phones.push(roster.begin(seat(id, "alice", "phone"), 3));
    }
    assert_eq!(ids(&roster, &alice()), [1, 18, 19]);
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Begin { user: u8, device: u8 },
    End { place: usize },
}

proptest! {
    /// Whatever sessions begin and end in whatever order, nobody has more than the limit, the same session
    /// never makes room twice, and edges tell who is here.
    #[test]
    fn nobody_has_more_sessions_than_the_limit(steps in prop::collection::vec(prop_oneof![
        3 => (0u8..3, 0u8..3).prop_map(|(user, device)| Step::Begin { user, device }),
        2 => (0usize..16).prop_map(|place| Step::End { place }),
    ], 1..100)) {
        let roster = Roster::default();
        let edges = roster.edges();
        let (mut held, mut next) = (Vec::new(), 1);
        let mut alive: BTreeMap<u64, String> = BTreeMap::new();
        for step in steps {
            match step {
                Step::Begin { user, device } => {
                    let (user, device) = (format!("user{user}"), format!("device{device}"));
                    let begun = roster.begin(seat(next, &user, &device), 2);
                    if let Some(replaced) = &begun.replaced {
                        prop_assert_eq!(alive.remove(&replaced.id()), Some(user.clone()), "replaced twice");
                    }
                    alive.insert(next, user);
                    held.push(begun.guard);
                    next += 1;
                }
                Step::End { place } if !held.is_empty() => {
                    let guard = held.remove(place % held.len());
                    alive.remove(&guard.seat().id());
                }
                Step::End { .. } => {}
            }
            for number in 0..3 {
                let user = format!("user{number}");
                let expected: Vec<u64> =
                    alive.iter().filter(|(_, of)| **of == user).map(|(id, _)| *id).collect();
                let user = UserId::new(&user).unwrap();
                let mut found = ids(&roster, &user);
                found.sort_unstable();
                prop_assert!(found.len() <= 2);
                prop_assert_eq!(&found, &expected);
                prop_assert_eq!(roster.is_here(&user), !expected.is_empty());
            }
        }
        for (user, edge) in edges.take().users {
            prop_assert_eq!(edge.here, roster.is_here(&user));
        }
    }
}

#[test]
fn sessions_that_begin_and_end_at_the_same_time_never_exceed_the_limit() {
    let roster = Roster::default();
    let next = AtomicU64::new(1);
    std::thread::scope(|scope| {
        for device in ["phone", "laptop", "tablet", "watch"] {
            let (roster, next) = (&roster, &next);
            scope.spawn(move || {
                let mut held = Vec::new();
                for round in 0..500 {
                    let id = next.fetch_add(1, Ordering::Relaxed);
                    held.push(roster.begin(seat(id, "alice", device), 5));
                    assert!(ids(roster, &alice()).len() <= 5);
                    if round % 3 == 0 {
                        held.remove(0);
                    }
                }
            });
        }
    });
    assert!(!roster.is_here(&alice()), "all guards are dropped");
}

#[test]
fn edges_tell_the_first_and_the_last_session_of_a_user_and_are_one_row_each() {
    let roster = Roster::default();
    let early = roster.begin(seat(1, "alice", "a"), 20);
    let edges = roster.edges();
    assert!(edges.take().users[&alice()].here, "who was here before is told too");
    let second = roster.begin(seat(2, "alice", "b"), 20);
    drop(early);
    assert!(edges.take().users.is_empty(), "they were here all the time");
    drop(second);
    for id in 3..10 {
        drop(roster.begin(seat(id, "alice", "a"), 20));
    }
    assert!(edges.concern([&alice()]));
    let changes = edges.take();
    assert_eq!(changes.users.len(), 1);
    assert!(!changes.users[&alice()].here);
    assert!(!edges.concern([&alice()]));
}

#[test]
fn the_end_of_a_marked_session_is_told_and_an_ended_one_cannot_be_marked() {
    let roster = Roster::default();
    let edges = roster.edges();
    let marked = roster.begin(seat(1, "alice", "a"), 2);
    let _unmarked = roster.begin(seat(2, "alice", "b"), 2);
    assert!(roster.mark(marked.guard.seat()));
    // It makes room, which is its end: its own guard comes too late to be one.
    let third = roster.begin(seat(3, "alice", "c"), 2);
    assert_eq!(third.replaced.map(|seat| seat.id()), Some(1));
    assert_eq!(edges.take().ended, [1]);
    assert!(!roster.mark(marked.guard.seat()));
    drop(marked);
    drop(third.guard);
    assert_eq!(edges.take().ended, [0; 0]);
}

/// Somebody is either told with all others, or told when they begin.
#[test]
fn nobody_begins_unseen_while_the_node_leaves() {
    let roster = Roster::default();
    let (leaving, next) = (leaving(), AtomicU64::new(1));
    let (mut late, mut told) = (Vec::new(), Vec::new());
    std::thread::scope(|scope| {
        let newcomers: Vec<_> = (0..3)
            .map(|_| {
                scope.spawn(|| {
                    let begin = |user: u64| {
                        let id = next.fetch_add(1, Ordering::Relaxed);
                        roster.begin(seat(id, &format!("user{user}"), "phone"), 20)
                    };
                    (0..500).map(begin).collect::<Vec<_>>()
                })
            })
            .collect();
        while next.load(Ordering::Relaxed) < 200 {
            std::hint::spin_loop();
        }
        told.extend(roster.leave(leaving).iter().map(|seat| seat.id()));
        late.extend(newcomers.into_iter().flat_map(|thread| thread.join().unwrap()));
    });
    for begun in &late {
        let in_list = told.contains(&begun.guard.seat().id());
        assert_eq!(begun.stage == Stage::Leaving(leaving), !in_list, "{}", begun.guard.seat().id());
    }
    assert!(!told.is_empty());
    assert_eq!(roster.shut().len(), late.len());
    assert_eq!(roster.begin(seat(9_999, "bob", "phone"), 20).stage, Stage::Over);
}
