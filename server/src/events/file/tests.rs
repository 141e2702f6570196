use tempfile::TempDir;

use tern_protocol::UserId;

use super::*;
use crate::events::contract::{self, Fixture, event, fresh_user};
use crate::ops::metrics::Exporter;

struct InFiles {
    dir: TempDir,
    events: Arc<FileEvents>,
}

fn config(dir: &TempDir) -> FileEventsConfig {
    FileEventsConfig { dir: dir.path().into(), file_bytes_max: LINE_BYTES_MAX, files_max: 3 }
}

impl InFiles {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let events = Arc::new(FileEvents::open(config(&dir), Metrics::none()).unwrap());
        Self { dir, events }
    }
}

#[async_trait]
impl Fixture for InFiles {
    fn events(&self) -> Arc<dyn Events> {
        self.events.clone()
    }

    async fn reopen(&mut self) {
        self.events = Arc::new(FileEvents::open(config(&self.dir), Metrics::none()).unwrap());
    }

    async fn published(&self) -> Vec<PushEvent> {
        lines(&self.dir).iter().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

fn lines(dir: &TempDir) -> Vec<String> {
    let numbers = numbers(dir.path()).unwrap();
    let read = |number| fs::read_to_string(dir.path().join(format!("events-{number:012}.jsonl"))).unwrap();
    numbers
        .into_iter()
        .map(read)
        .flat_map(|text| text.lines().map(String::from).collect::<Vec<_>>())
        .collect()
}

contract::suite!(InFiles::new());

#[tokio::test]
async fn a_line_torn_by_a_crash_is_removed_at_open() {
    let mut fixture = InFiles::new();
    let bob = fresh_user();
    let (first, second) = (event(&bob, 1, "one"), event(&bob, 2, "two"));
    fixture.events.publish(std::slice::from_ref(&first)).await.unwrap();
    let path = fixture.dir.path().join("events-000000000001.jsonl");
    let half = &serde_json::to_vec(&second).unwrap()[..40];
    OpenOptions::new().append(true).open(&path).unwrap().write_all(half).unwrap();
    fixture.reopen().await;
    fixture.events.publish(std::slice::from_ref(&second)).await.unwrap();
    assert_eq!(fixture.published().await, [first, second]);
    // A file that is nothing but half a line is emptied.
    fs::write(&path, half).unwrap();
    fixture.reopen().await;
    assert_eq!(fs::read(&path).unwrap(), b"");
}

#[tokio::test]
async fn files_stay_within_their_size_and_number_and_the_newest_events_are_kept() {
    let fixture = InFiles::new();
    let bob = fresh_user();
    // Both as one large batch and one by one.
    // Of many senders: one alone has only its share.
    let by = |seq| PushEvent { sender_id: fresh_user(), ..event(&bob, seq, &"x".repeat(120)) };
    let events: Vec<_> = (1..=400).map(by).collect();
    fixture.events.publish(&events[..200]).await.unwrap();
    for event in &events[200..] {
        fixture.events.publish(std::slice::from_ref(event)).await.unwrap();
    }
    let numbers = numbers(fixture.dir.path()).unwrap();
    assert_eq!(numbers.len(), 3);
    assert!(numbers[0] > 1, "older ones are gone");
    for entry in fs::read_dir(fixture.dir.path()).unwrap() {
        assert!(entry.unwrap().metadata().unwrap().len() <= LINE_BYTES_MAX);
    }
    let kept = fixture.published().await;
    assert!(kept.len() > 60);
    assert_eq!(kept, events[400 - kept.len()..]);
}

#[tokio::test]
async fn after_a_failed_write_the_next_goes_to_a_new_file() {
    let fixture = InFiles::new();
    let bob = fresh_user();
    let (first, second) = (event(&bob, 1, "one"), event(&bob, 2, "two"));
    // A file that cannot be written to: open for reading only.
    let path = fixture.dir.path().join("events-000000000001.jsonl");
    let read_only = File::open(&path).unwrap();
    fixture.events.files.lock().current = Some(Current { file: read_only, bytes: 0 });
    assert!(fixture.events.publish(std::slice::from_ref(&first)).await.is_err());
    fs::write(&path, "{\"half").unwrap();
    fixture.events.publish(&[first.clone(), second.clone()]).await.unwrap();
    assert_eq!(fixture.published().await, [first, second]);
    assert_eq!(numbers(fixture.dir.path()).unwrap(), [1, 2]);
}

#[tokio::test]
async fn what_could_not_be_written_takes_nothing_from_its_senders_share() {
    let fixture = InFiles::new();
    let (sender, bob) = (fresh_user(), fresh_user());
    let by = |seq| PushEvent { sender_id: sender.clone(), ..event(&bob, seq, &"x".repeat(120)) };
    let events: Vec<_> = (1..=20).map(by).collect();
    for _ in 0..50 {
        let path = fixture.dir.path().join("events-000000000001.jsonl");
        let read_only = File::open(&path).unwrap();
        fixture.events.files.lock().current = Some(Current { file: read_only, bytes: 0 });
        assert!(fixture.events.publish(&events).await.is_err());
    }
    fixture.events.publish(&events).await.unwrap();
    assert_eq!(fixture.published().await, events);
}

#[test]
fn bad_settings_and_directories_are_refused_with_the_reason() {
    let dir = tempfile::tempdir().unwrap();
    let open = |config| FileEvents::open(config, Metrics::none()).err().unwrap().to_string();
    let one = open(FileEventsConfig { files_max: 1, ..config(&dir) });
    assert!(one.contains("files_max must be at least 2"), "{one}");
    let small = open(FileEventsConfig { file_bytes_max: 100, ..config(&dir) });
    assert!(small.contains("file_bytes_max must be at least 32768"), "{small}");
    fs::write(dir.path().join("file"), "").unwrap();
    let no_dir = open(FileEventsConfig { dir: dir.path().join("file"), ..config(&dir) });
    assert!(no_dir.contains("cannot use the event directory"), "{no_dir}");
}

/// Files and metrics of a busy node.
struct Busy {
    dir: TempDir,
    events: FileEvents,
    exporter: Exporter,
    seq: u64,
}

impl Busy {
    fn new() -> Self {
        let (dir, exporter) = (tempfile::tempdir().unwrap(), Exporter::new());
        let events = FileEvents::open(config(&dir), exporter.metrics()).unwrap();
        Self { dir, events, exporter, seq: 0 }
    }

    async fn fill(&mut self, count: u64, sender: impl Fn() -> UserId) {
        let bob = fresh_user();
        for _ in 0..count {
            self.seq += 1;
            let event = PushEvent { sender_id: sender(), ..event(&bob, self.seq, &"x".repeat(120)) };
            self.events.publish(&[event]).await.unwrap();
        }
    }

    fn metric(&self, series: &str) -> f64 {
        let text = self.exporter.render();
        let line = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("no {series} in {text}")).parse().unwrap()
    }
}

#[tokio::test]
async fn files_that_go_unread_are_counted_and_those_behind_the_mark_are_not() {
    let mut busy = Busy::new();
    let (unread, read) = (
        r#"tern_event_files_removed_total{state="unread"}"#,
        r#"tern_event_files_removed_total{state="read"}"#,
    );
    assert_eq!(busy.metric("tern_event_files_unread"), 1.0);
    busy.fill(400, fresh_user).await;
    let first = numbers(busy.dir.path()).unwrap()[0];
    assert!(first > 1);
    assert_eq!((busy.metric(unread), busy.metric(read)), ((first - 1) as f64, 0.0));
    assert_eq!(busy.metric("tern_event_files_unread"), 3.0);
    // The reader is one file behind.
    fs::write(busy.dir.path().join(MARK_FILE), format!("{}\n", first + 1)).unwrap();
    busy.events.health().await.unwrap();
    assert_eq!(busy.metric("tern_event_files_unread"), 1.0);
    busy.fill(100, fresh_user).await;
    let removed = numbers(busy.dir.path()).unwrap()[0] - first;
    assert!(removed > 0);
    assert_eq!(busy.metric(read), removed.min(2) as f64);
    assert_eq!(busy.metric(unread), (first - 1 + removed.saturating_sub(2)) as f64);
}

#[tokio::test]
async fn a_flood_of_one_sender_leaves_the_events_of_everybody_else() {
    let mut busy = Busy::new();
    let (quiet, loud) = (fresh_user(), fresh_user());
    busy.fill(3, || quiet.clone()).await;
    busy.fill(1_000, || loud.clone()).await;
    let there: Vec<PushEvent> =
        lines(&busy.dir).iter().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(there.iter().filter(|event| event.sender_id == quiet).count(), 3);
    let loud = there.iter().filter(|event| event.sender_id == loud).count();
    assert!(loud > 10, "it has its share: {loud}");
    assert_eq!(busy.metric("tern_events_dropped_total"), 1_000.0 - loud as f64);
}

#[cfg(unix)]
#[tokio::test]
async fn nobody_else_may_read_what_is_in_the_files() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let config = FileEventsConfig { dir: dir.path().join("a/events"), ..config(&dir) };
    let events = FileEvents::open(config.clone(), Metrics::none()).unwrap();
    events.publish(&[event(&fresh_user(), 1, "secret")]).await.unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&config.dir), 0o700);
    for entry in fs::read_dir(&config.dir).unwrap() {
        assert_eq!(mode(&entry.unwrap().path()), 0o600);
    }
}
