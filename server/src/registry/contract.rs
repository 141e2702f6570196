//! What every registry must do, as one suite. An implementation runs
//! `contract::suite!(expression of Arc<impl Registry>)` in a test module.
//!
//! Every test uses users and nodes of its own, so a backend may be shared.

use std::sync::Arc;
use std::time::Duration;

use tern_protocol::UserId;
use uuid::Uuid;

use super::{Held, Lease, Registry};
use crate::cluster::NodeId;

/// A lease that lasts longer than a test.
const LONG: Duration = Duration::from_secs(30);
/// One that runs out in a test.
const SHORT: Duration = Duration::from_millis(200);

macro_rules! suite {
    ($registry:expr) => {
        $crate::registry::contract::suite! {
            $registry;
            a_user_is_found_on_every_node_with_a_session
            telling_again_is_the_same
            a_lease_begins_anew_only_once
            what_a_node_told_ends_with_its_lease
            a_later_start_makes_what_an_earlier_one_told_void
            a_late_word_of_an_earlier_start_takes_nothing_from_the_later_one
            taking_away_what_is_not_there_is_fine
            answers_come_in_the_order_of_the_questions
            nodes_that_tell_at_the_same_time_do_not_disturb_each_other
        }
    };
    ($registry:expr; $($promise:ident)*) => {
        $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $promise() {
            $crate::registry::contract::$promise($registry).await;
        })*
    };
}
pub(crate) use suite;

pub(crate) fn lease(node: &str, boot: u64, lasts: Duration) -> Lease {
    Lease { node: NodeId::new(node).unwrap(), boot, lasts }
}

/// A node that no other test knows.
fn fresh(node: &str, boot: u64) -> Lease {
    lease(&format!("{node}-{}", Uuid::new_v4()), boot, LONG)
}

fn fresh_user(name: &str) -> UserId {
    UserId::new(&format!("{name}-{}", Uuid::new_v4())).unwrap()
}

/// The nodes of a user in a fixed order: a registry promises none.
async fn nodes(registry: &impl Registry, user: &UserId) -> Vec<NodeId> {
    let mut found = registry.locate(std::slice::from_ref(user)).await.unwrap().remove(0);
    found.sort();
    found.into_vec()
}

pub(crate) async fn a_user_is_found_on_every_node_with_a_session(registry: Arc<impl Registry>) {
    let (alice, a, b) = ([fresh_user("alice")], fresh("a", 1), fresh("b", 1));
    registry.keep(&a, &alice, &[]).await.unwrap();
    registry.keep(&b, &alice, &[]).await.unwrap();
    assert_eq!(nodes(&*registry, &alice[0]).await, [a.node.clone(), b.node.clone()]);
    registry.keep(&a, &[], &alice).await.unwrap();
    assert_eq!(nodes(&*registry, &alice[0]).await, std::slice::from_ref(&b.node));
}

pub(crate) async fn telling_again_is_the_same(registry: Arc<impl Registry>) {
    let (alice, a) = ([fresh_user("alice")], fresh("a", 1));
    for _ in 0..3 {
        registry.keep(&a, &alice, &[]).await.unwrap();
    }
    assert_eq!(nodes(&*registry, &alice[0]).await, std::slice::from_ref(&a.node));
    for _ in 0..2 {
        registry.keep(&a, &[], &alice).await.unwrap();
        assert_eq!(nodes(&*registry, &alice[0]).await, []);
    }
}

pub(crate) async fn a_lease_begins_anew_only_once(registry: Arc<impl Registry>) {
    let a = fresh("a", 1);
    assert_eq!(registry.keep(&a, &[], &[]).await.unwrap(), Held::Anew);
    assert_eq!(registry.keep(&a, &[], &[]).await.unwrap(), Held::Still);
    assert_eq!(registry.keep(&Lease { boot: 2, ..a.clone() }, &[], &[]).await.unwrap(), Held::Anew);
}

pub(crate) async fn what_a_node_told_ends_with_its_lease(registry: Arc<impl Registry>) {
    let (alice, bob) = (fresh_user("alice"), fresh_user("bob"));
    let a = Lease { lasts: SHORT, ..fresh("a", 1) };
    registry.keep(&a, std::slice::from_ref(&alice), &[]).await.unwrap();
    tokio::time::sleep(2 * SHORT).await;
    assert_eq!(nodes(&*registry, &alice).await, []);
    // It is back, and has to tell everybody again.
    let held = registry.keep(&Lease { lasts: LONG, ..a.clone() }, std::slice::from_ref(&bob), &[]).await;
    assert_eq!(held.unwrap(), Held::Anew);
    assert_eq!(nodes(&*registry, &bob).await, std::slice::from_ref(&a.node));
}

pub(crate) async fn a_later_start_makes_what_an_earlier_one_told_void(registry: Arc<impl Registry>) {
    let (alice, bob) = (fresh_user("alice"), fresh_user("bob"));
    let before = fresh("a", 1);
    registry.keep(&before, &[alice.clone(), bob.clone()], &[]).await.unwrap();
    let after = Lease { boot: 2, ..before };
    registry.keep(&after, std::slice::from_ref(&bob), &[]).await.unwrap();
    assert_eq!(nodes(&*registry, &alice).await, []);
    assert_eq!(nodes(&*registry, &bob).await, std::slice::from_ref(&after.node));
}

pub(crate) async fn a_late_word_of_an_earlier_start_takes_nothing_from_the_later_one(
    registry: Arc<impl Registry>,
) {
    let (alice, before) = ([fresh_user("alice")], fresh("a", 1));
    let after = Lease { boot: 2, ..before.clone() };
    registry.keep(&before, &alice, &[]).await.unwrap();
    registry.keep(&after, &alice, &[]).await.unwrap();
    assert!(registry.keep(&before, &[], &alice).await.is_err());
    assert_eq!(nodes(&*registry, &alice[0]).await, std::slice::from_ref(&after.node));
    assert_eq!(registry.keep(&after, &[], &[]).await.unwrap(), Held::Still);
}

pub(crate) async fn taking_away_what_is_not_there_is_fine(registry: Arc<impl Registry>) {
    let (alice, bob, a) = ([fresh_user("alice")], [fresh_user("bob")], fresh("a", 1));
    registry.keep(&a, &alice, &bob).await.unwrap();
    assert_eq!(nodes(&*registry, &alice[0]).await, std::slice::from_ref(&a.node));
    assert_eq!(nodes(&*registry, &bob[0]).await, []);
}

pub(crate) async fn answers_come_in_the_order_of_the_questions(registry: Arc<impl Registry>) {
    let users: Vec<_> = ["a", "b", "c"].iter().map(|name| fresh_user(name)).collect();
    let (a, b) = (fresh("a", 1), fresh("b", 1));
    registry.keep(&a, &users[1..2], &[]).await.unwrap();
    registry.keep(&b, &users[2..], &[]).await.unwrap();
    let asked = [users[2].clone(), users[0].clone(), users[1].clone(), users[2].clone()];
    let found = registry.locate(&asked).await.unwrap();
    let found: Vec<Vec<NodeId>> = found.into_iter().map(|nodes| nodes.into_vec()).collect();
    assert_eq!(found, [vec![b.node.clone()], vec![], vec![a.node], vec![b.node]]);
    assert!(registry.locate(&[]).await.unwrap().is_empty());
}

pub(crate) async fn nodes_that_tell_at_the_same_time_do_not_disturb_each_other(
    registry: Arc<impl Registry + 'static>,
) {
    let (alice, gone) = (fresh_user("alice"), fresh_user("gone"));
    let leases: Vec<Lease> = (0..16).map(|number| fresh(&format!("n{number:02}"), 1)).collect();
    let tasks: Vec<_> = leases
        .iter()
        .cloned()
        .map(|lease| {
            let (registry, alice, gone) = (registry.clone(), [alice.clone()], [gone.clone()]);
            tokio::spawn(async move {
                registry.keep(&lease, &gone, &[]).await.unwrap();
                registry.keep(&lease, &alice, &gone).await.unwrap();
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    let expected: Vec<NodeId> = leases.into_iter().map(|lease| lease.node).collect();
    assert_eq!(nodes(&*registry, &alice).await, expected);
    assert_eq!(nodes(&*registry, &gone).await, []);
}
