//! What every registry must do, as one suite. An implementation runs
//! `contract::suite!(expression of Arc<impl Registry>)` in a test module.
//!
//! Every test uses users of its own, so a backend may be shared.

use std::sync::Arc;

use tern_protocol::{DeviceId, UserId};
use uuid::Uuid;

use super::{Registry, SessionAddress};
use crate::cluster::NodeId;

macro_rules! suite {
    ($registry:expr) => {
        $crate::registry::contract::suite! {
            $registry;
            sessions_of_one_device_coexist
            registering_again_is_a_refresh
            a_late_unregister_leaves_newer_sessions_alone
            unregistering_what_is_not_there_is_fine
            answers_come_in_the_order_of_the_questions
            concurrent_sessions_of_one_user_are_all_kept
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

pub(crate) fn address(node: &str, boot: u64, session: u64, device: &str) -> SessionAddress {
    SessionAddress { node: NodeId::new(node).unwrap(), boot, session, device: DeviceId::new(device).unwrap() }
}

fn fresh_user(name: &str) -> UserId {
    UserId::new(&format!("{name}-{}", Uuid::new_v4())).unwrap()
}

/// The sessions of a user in a fixed order: a registry promises none.
async fn sessions(registry: &impl Registry, user: &UserId) -> Vec<SessionAddress> {
    let mut found = registry.locate(std::slice::from_ref(user)).await.unwrap().remove(0);
    found.sort_by_key(|address| (address.node.clone(), address.boot, address.session));
    found
}

pub(crate) async fn sessions_of_one_device_coexist(registry: Arc<impl Registry>) {
    let alice = fresh_user("alice");
    let two = [address("a", 1, 1, "laptop"), address("a", 1, 2, "laptop")];
    for session in &two {
        registry.register(&alice, session).await.unwrap();
    }
    assert_eq!(sessions(&*registry, &alice).await, two);
}

pub(crate) async fn registering_again_is_a_refresh(registry: Arc<impl Registry>) {
    let alice = fresh_user("alice");
    let session = address("a", 1, 1, "laptop");
    for _ in 0..3 {
        registry.register(&alice, &session).await.unwrap();
    }
    assert_eq!(sessions(&*registry, &alice).await, [session]);
}

pub(crate) async fn a_late_unregister_leaves_newer_sessions_alone(registry: Arc<impl Registry>) {
    let alice = fresh_user("alice");
    let old = address("a", 1, 7, "phone");
    // The same number on the same node after a restart, on another node, and the next session.
    let newer = [address("a", 1, 8, "phone"), address("a", 2, 7, "phone"), address("b", 1, 7, "phone")];
    for session in newer.iter().chain([&old]) {
        registry.register(&alice, session).await.unwrap();
    }
    for _ in 0..2 {
        registry.unregister(&alice, &old).await.unwrap();
        assert_eq!(sessions(&*registry, &alice).await, newer);
    }
}

pub(crate) async fn unregistering_what_is_not_there_is_fine(registry: Arc<impl Registry>) {
    let (alice, bob) = (fresh_user("alice"), fresh_user("bob"));
    let session = address("a", 1, 1, "phone");
    registry.register(&alice, &session).await.unwrap();
    registry.unregister(&bob, &session).await.unwrap();
    assert_eq!(sessions(&*registry, &alice).await, std::slice::from_ref(&session));
    registry.unregister(&alice, &session).await.unwrap();
    assert_eq!(sessions(&*registry, &alice).await, []);
}

pub(crate) async fn answers_come_in_the_order_of_the_questions(registry: Arc<impl Registry>) {
    let users: Vec<_> = ["a", "b", "c", "d"].iter().map(|name| fresh_user(name)).collect();
    for (number, user) in users.iter().enumerate().skip(1) {
        registry.register(user, &address("a", 1, number as u64, "phone")).await.unwrap();
    }
    let asked = [users[3].clone(), users[0].clone(), users[1].clone(), users[3].clone()];
    let found = registry.locate(&asked).await.unwrap();
    let numbers: Vec<Vec<u64>> =
        found.iter().map(|of_user| of_user.iter().map(|address| address.session).collect()).collect();
    assert_eq!(numbers, [vec![3], vec![], vec![1], vec![3]]);
    assert_eq!(registry.locate(&[]).await.unwrap(), Vec::<Vec<SessionAddress>>::new());
}

pub(crate) async fn concurrent_sessions_of_one_user_are_all_kept(registry: Arc<impl Registry + 'static>) {
    let alice = fresh_user("alice");
    let tasks: Vec<_> = (0..16)
        .map(|session| {
            let (registry, alice) = (registry.clone(), alice.clone());
            tokio::spawn(async move {
                let (own, gone) = (address("a", 1, session, "phone"), address("a", 2, session, "phone"));
                registry.register(&alice, &gone).await.unwrap();
                registry.register(&alice, &own).await.unwrap();
                registry.unregister(&alice, &gone).await.unwrap();
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    let numbers =
        sessions(&*registry, &alice).await.iter().map(|address| address.session).collect::<Vec<_>>();
    assert!(numbers.iter().copied().eq(0..16), "{numbers:?}");
}
