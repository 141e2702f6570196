use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::*;

#[test]
fn clients_are_asked_to_leave_before_they_are_closed() {
    DrainConfig::default().check().unwrap();
    DrainConfig { deadline_ms: 8_000, spread_ms: 6_000 }.check().unwrap();
    let wrong = DrainConfig { deadline_ms: 8_000, spread_ms: 6_001 }.check().unwrap_err();
    assert_eq!(wrong.spread_ms_max, 6_000);
    DrainConfig { deadline_ms: 0, spread_ms: 0 }.check().unwrap();
}

#[tokio::test]
async fn phases_only_go_forward() {
    let shutdown = Shutdown::new();
    assert_eq!(shutdown.phase(), Phase::Running);
    shutdown.drain();
    assert_eq!(shutdown.phase(), Phase::Draining);
    shutdown.draining().await;
    shutdown.stop();
    shutdown.drain();
    assert_eq!(shutdown.phase(), Phase::Stopped);
    shutdown.stopped().await;
    shutdown.draining().await;
}

#[tokio::test]
async fn a_drain_ends_as_soon_as_the_last_task_does() {
    let shutdown = Shutdown::new();
    let session = shutdown.clone();
    let finished = tokio::spawn({
        let shutdown = shutdown.clone();
        async move { shutdown.finished().await }
    });
    shutdown.spawn(async move {
        session.draining().await;
        assert_ne!(session.phase(), Phase::Stopped, "tasks may finish their work first");
    });
    assert_eq!(shutdown.tasks(), 1);
    shutdown.drain();
    assert!(finished.await.unwrap());
    assert_eq!(shutdown.phase(), Phase::Stopped);
}

#[tokio::test(start_paused = true)]
async fn what_is_left_ends_when_it_is_stopped() {
    let shutdown = Shutdown::new();
    let told = Arc::new(AtomicBool::new(false));
    let (session, seen) = (shutdown.clone(), told.clone());
    shutdown.spawn(async move {
        session.stopped().await;
        seen.store(true, Ordering::SeqCst);
    });
    shutdown.drain();
    let stopping = shutdown.clone();
    tokio::spawn(async move { stopping.stop() });
    assert!(shutdown.finished().await);
    assert!(told.load(Ordering::SeqCst));
}

#[tokio::test(start_paused = true)]
async fn a_task_that_does_not_end_is_left_behind() {
    let shutdown = Shutdown::new();
    let stuck = shutdown.spawn(std::future::pending::<()>());
    shutdown.stop();
    assert!(!shutdown.finished().await);
    stuck.abort();
}

#[tokio::test]
async fn the_first_signal_drains_and_the_second_exits_at_once() {
    let shutdown = Shutdown::new();
    let (send, mut signals) = tokio::sync::mpsc::channel(1);
    let (exited, exit) = tokio::sync::oneshot::channel();
    let obeying = tokio::spawn(obey(
        async move || assert_eq!(signals.recv().await, Some(())),
        shutdown.clone(),
        move |code| exited.send(code).unwrap(),
    ));
    assert_eq!(shutdown.phase(), Phase::Running);
    send.send(()).await.unwrap();
    shutdown.draining().await;
    assert!(!obeying.is_finished());
    send.send(()).await.unwrap();
    assert_eq!(exit.await, Ok(EXIT_INTERRUPTED));
    obeying.await.unwrap();
}
