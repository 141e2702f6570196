//! What survives a crash, a damaged file and a second client.

use tern_protocol::{ConversationId, Data, DeviceId, StoreId, TempId, UserId};

use super::*;
use crate::persistence::{SavedSend, SavedTransport, Transport};

fn conversation(byte: u8) -> ConversationId {
    ConversationId::from_bytes([byte; 16])
}

fn cursor(byte: u8, seq: u64) -> SavedChange {
    SavedChange::Cursor(Position { conversation: conversation(byte), seq })
}

fn send(byte: u8) -> SavedChange {
    SavedChange::Send(SavedSend {
        temp_id: temp_id(byte),
        to: UserId::new("bob").unwrap().into(),
        text: format!("line\n{byte} ✓"),
        data: (byte > 1).then(|| Data::new(r#"{"z":1.50,"a":["\n"]}"#).unwrap()),
        reply_to: Some(u64::from(byte)),
        created_ms: u64::from(byte),
    })
}

fn temp_id(byte: u8) -> TempId {
    TempId::from_bytes([byte; 16])
}

fn store(byte: u8) -> SavedChange {
    SavedChange::Store { user: UserId::new("alice").unwrap(), store_id: StoreId::from_bytes([byte; 16]) }
}

fn all() -> Vec<SavedChange> {
    vec![
        SavedChange::Device { device: DeviceId::new("d").unwrap() },
        store(1),
        cursor(1, 5),
        cursor(2, 7),
        send(1),
        send(2),
        cursor(1, 9),
        SavedChange::Resolved { temp_id: temp_id(1) },
        SavedChange::Transport(SavedTransport {
            transport: Transport::WebSocket,
            cause: Some("UDP".into()),
            time_ms: 3,
        }),
    ]
}

fn applied(changes: Vec<SavedChange>) -> SavedState {
    let mut state = SavedState::default();
    changes.into_iter().for_each(|change| state.apply(change));
    state
}

async fn load(path: &Path) -> Result<SavedState, PersistenceError> {
    FilePersistence::new(path).load().await
}

async fn fill(path: &Path) {
    let file = FilePersistence::new(path);
    file.load().await.unwrap();
    for change in all() {
        file.save(&[change]).await.unwrap();
    }
}

#[tokio::test]
async fn what_was_saved_is_there_after_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("state");
    assert_eq!(load(&path).await.unwrap(), SavedState::default());
    fill(&path).await;
    let expected = applied(all());
    assert_eq!(expected.cursors[&conversation(1)], 9);
    assert_eq!(load(&path).await.unwrap(), expected);
    assert_eq!(load(&path).await.unwrap(), expected, "loading changes nothing");
}

#[tokio::test]
async fn cursors_of_another_store_are_dropped_and_pending_messages_are_kept() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("state");
    fill(&path).await;
    let file = FilePersistence::new(&path);
    file.load().await.unwrap();
    file.save(&[store(2)]).await.unwrap();
    drop(file);
    let state = load(&path).await.unwrap();
    assert!(state.cursors.is_empty());
    assert_eq!(state.sends.len(), 1);
}

/// The bytes of a file with all these changes.
async fn bytes() -> Vec<u8> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("state");
    fill(&path).await;
    fs::read(&path).unwrap()
}

#[tokio::test]
async fn a_file_cut_at_any_byte_loses_only_unfinished_lines_and_is_no_damage() {
    let bytes = bytes().await;
    for length in HEADER.len() + 1..bytes.len() {
        let content = parse(&bytes[..length]).unwrap();
        assert_eq!(content.damaged, 0, "cut at {length}");
        let whole_lines = bytes[..length].iter().filter(|byte| **byte == b'\n').count() - 1;
        let least = applied(all().into_iter().take(whole_lines).collect());
        let most = applied(all().into_iter().take(whole_lines + 1).collect());
        assert!(content.state == least || content.state == most, "cut at {length}");
    }
}

#[tokio::test]
async fn every_flipped_byte_is_noticed() {
    let good = bytes().await;
    // Without its last line feed a file looks cut, not damaged.
    for position in 0..good.len() - 1 {
        let mut bad = good.clone();
        bad[position] ^= 0x15;
        let content = parse(&bad).unwrap();
        assert!(content.damaged > 0, "byte {position}");
    }
}

#[tokio::test]
async fn a_damaged_file_is_reported_moved_aside_and_read_as_far_as_it_can_be() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("state");
    let mut bad = bytes().await;
    let line = bad.iter().position(|byte| *byte == b'\n').unwrap() + 20;
    bad[line] ^= 1;
    fs::write(&path, &bad).unwrap();
    let state = load(&path).await.unwrap();
    let damage = state.damage.clone().unwrap();
    assert_eq!(fs::read(damage.rsplit(' ').next().unwrap()).unwrap(), bad, "the original is kept");
    let rest = SavedState { damage: None, ..state };
    assert_eq!(rest, applied(all().into_iter().skip(1).collect()), "only the first record is lost");
    assert_eq!(load(&path).await.unwrap(), rest, "what was read is written anew");
}

#[tokio::test]
async fn a_file_of_a_later_version_is_refused_and_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("state");
    fs::write(&path, "tern-client state 2\nwhatever\n").unwrap();
    assert!(load(&path).await.unwrap_err().0.contains("version 2"));
    assert_eq!(fs::read(&path).unwrap(), b"tern-client state 2\nwhatever\n");
}

#[tokio::test]
async fn two_clients_on_one_file_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("state");
    let first = FilePersistence::new(&path);
    first.load().await.unwrap();
    assert!(load(&path).await.unwrap_err().0.contains("in use"));
    drop(first);
    load(&path).await.unwrap();
}

#[tokio::test]
async fn the_file_does_not_grow_with_the_number_of_changes() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("state");
    let file = FilePersistence::new(&path);
    file.load().await.unwrap();
    file.save(&all()).await.unwrap();
    for round in 0..30 {
        let changes: Vec<_> = (0..500).map(|n| cursor(1, round * 500 + n)).collect();
        file.save(&changes).await.unwrap();
    }
    let lines = fs::read_to_string(&path).unwrap().lines().count();
    assert!(lines <= 1 + 2 * SLACK_LINES, "{lines} lines");
    drop(file);
    assert_eq!(load(&path).await.unwrap().cursors[&conversation(1)], 14_999);
}

#[tokio::test]
async fn a_failed_save_is_an_error_and_the_next_one_makes_up_for_it() {
    let directory = tempfile::tempdir().unwrap();
    let inside = directory.path().join("inside");
    fs::create_dir(&inside).unwrap();
    let path = inside.join("state");
    let file = FilePersistence::new(&path);
    file.load().await.unwrap();
    file.inner.lock().file = None;
    fs::rename(&inside, directory.path().join("away")).unwrap();
    assert!(file.save(&all()).await.is_err());
    fs::rename(directory.path().join("away"), &inside).unwrap();
    file.save(&[cursor(3, 1)]).await.unwrap();
    drop(file);
    let mut expected = applied(all());
    expected.apply(cursor(3, 1));
    assert_eq!(load(&path).await.unwrap(), expected);
}
