//! One member of a group with a connection of its own: receives, confirms, and writes if it is a writer.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tern_protocol::{Ack, ConversationId, Deliver, Frame, Position, SendAck, Target, TempId, UserId};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};
use uuid::Uuid;

use super::account::{Account, Wrong};
use crate::faults::Faults;
use crate::light::{self, Light, LightError};
use crate::stamp::Stamp;

/// A member acks to the server at most this often, as the client library does.
const ACK_EVERY: Duration = Duration::from_millis(50);
/// After the end of the measurement, what is still under way has this long to arrive.
pub(super) const SETTLE_TIMEOUT: Duration = Duration::from_secs(30);

/// When the writers write, and what.
#[derive(Clone, Copy, Debug)]
pub(super) struct Schedule {
    /// The measurement begins; times in messages are counted from here.
    pub(super) start: Instant,
    /// No message is written any more.
    pub(super) end: Instant,
    /// Between two messages of all writers.
    pub(super) between: Duration,
    /// Between two messages of one.
    pub(super) pause: Duration,
    /// Length of a text.
    pub(super) text_bytes: usize,
}

/// Messages acked in each group, once known.
pub(super) type Totals = Option<Arc<[u64]>>;

/// What a writer writes and has not heard of.
pub(super) struct Writing {
    /// Which of all writers it is.
    turn: usize,
    written: u64,
    /// Not answered yet, in the order in which they were sent.
    waiting: VecDeque<TempId>,
    /// Absent: said.
    told: Option<mpsc::Sender<(usize, u64)>>,
}

impl Writing {
    /// The writer of this turn; says at its end how many of its messages were acked in its group.
    pub(super) fn new(turn: usize, told: mpsc::Sender<(usize, u64)>) -> Self {
        Self { turn, written: 0, waiting: VecDeque::new(), told: Some(told) }
    }

    /// When the next message is due.
    fn due(&self, schedule: Schedule) -> Instant {
        schedule.start + schedule.between * self.turn as u32 + schedule.pause * self.written as u32
    }
}

/// A member that is connected.
pub(super) struct Member {
    name: UserId,
    light: Light,
    group: usize,
    conversation: ConversationId,
    writing: Option<Writing>,
    account: Account,
    position: Option<Position>,
    ack_at: Instant,
    found: Found,
}

/// What one member has measured and found.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// Microseconds from the moment at which a message was due to its receipt.
    pub(super) latencies_us: Vec<u32>,
    /// Deliveries before the end of the measurement.
    pub(super) in_time: u64,
    /// Messages that the server did not take.
    pub(super) refused: u64,
    pub(super) wrong: Wrong,
    pub(super) faults: Faults,
}

/// What came of one member.
pub(super) struct MemberOutcome {
    /// Deliveries, those after the end included.
    pub(super) delivered: u64,
    /// Own messages that were acked.
    pub(super) acked: u64,
    pub(super) found: Found,
    /// Its session, still open.
    pub(super) light: Light,
}

impl Member {
    /// Of a group by its number.
    pub(super) fn new(
        name: UserId,
        light: Light,
        group: usize,
        conversation: ConversationId,
        writing: Option<Writing>,
    ) -> Self {
        Self {
            name,
            light,
            group,
            conversation,
            writing,
            account: Account::default(),
            position: None,
            ack_at: Instant::now(),
            found: Found::default(),
        }
    }

    /// Takes part until everything that was acked in its group is here.
    pub(super) async fn run(
        mut self,
        schedule: Schedule,
        mut totals: watch::Receiver<Totals>,
    ) -> MemberOutcome {
        if let Err(error) = self.take_part(schedule, &mut totals).await {
            self.found.faults.add(&self.name, error);
        }
        // A writer that failed has said nothing yet.
        self.tell();
        let known = totals.wait_for(Option::is_some).await;
        let total = known.ok().and_then(|totals| totals.as_ref().map(|totals| totals[self.group]));
        self.found.wrong = self.account.close(total.unwrap_or_default());
        MemberOutcome {
            delivered: self.account.heard(),
            acked: self.account.own(),
            found: self.found,
            light: self.light,
        }
    }

    async fn take_part(
        &mut self,
        schedule: Schedule,
        totals: &mut watch::Receiver<Totals>,
    ) -> Result<(), LightError> {
        let mut total = None;
        let (writing_ends, ends) = (schedule.end + SETTLE_TIMEOUT, schedule.end + 3 * SETTLE_TIMEOUT);
        while total.is_none_or(|total| !self.account.has_all(total)) {
            let due = self.writing.as_ref().map(|writing| writing.due(schedule));
            let due = due.filter(|due| *due < schedule.end);
            if due.is_none() && self.writing.as_ref().is_some_and(|writing| writing.waiting.is_empty()) {
                self.tell();
            }
            tokio::select! {
                frame = self.light.recv() => self.on_frame(frame?, schedule),
                () = sleep_until(due.unwrap_or(ends)), if due.is_some() => self.write(schedule).await?,
                () = sleep_until(self.ack_at), if self.position.is_some() => self.confirm().await?,
                () = sleep_until(writing_ends), if self.is_writing() && due.is_none() => {
                    let waiting = self.writing.as_ref().map_or(0, |writing| writing.waiting.len());
                    self.found.faults.add(&self.name, format_args!("{waiting} messages were not answered"));
                    self.tell();
                }
                () = sleep_until(ends) => return Ok(()),
                changed = totals.changed(), if total.is_none() => {
                    total = totals.borrow_and_update().as_ref().map(|totals| totals[self.group]);
                    if changed.is_err() && total.is_none() {
                        return Ok(());
                    }
                }
            }
        }
        self.confirm().await
    }

    /// It has not yet said how many of its messages were acked.
    fn is_writing(&self) -> bool {
        self.writing.as_ref().is_some_and(|writing| writing.told.is_some())
    }

    /// Says how many of its messages were acked; once.
    fn tell(&mut self) {
        if let Some(told) = self.writing.as_mut().and_then(|writing| writing.told.take()) {
            // There is room for one of each writer. Refused if the run was given up.
            let _ = told.try_send((self.group, self.account.own()));
        }
    }

    async fn write(&mut self, schedule: Schedule) -> Result<(), LightError> {
        let Some(writing) = &mut self.writing else { return Ok(()) };
        let sent_ns = writing.due(schedule).duration_since(schedule.start).as_nanos() as u64;
        writing.written += 1;
        let text = Stamp { number: writing.written, sent_ns }.text(schedule.text_bytes);
        let temp_id = TempId::from_uuid(Uuid::new_v4());
        writing.waiting.push_back(temp_id);
        self.light.send(light::message(Target::Conversation(self.conversation), text, temp_id, None)).await
    }

    async fn confirm(&mut self) -> Result<(), LightError> {
        match self.position.take() {
            Some(position) => self.light.send(Ack { positions: vec![position] }).await,
            None => Ok(()),
        }
    }

    fn on_frame(&mut self, frame: Frame, schedule: Schedule) {
        match frame {
            Frame::Deliver(deliver) => self.on_deliver(&deliver, schedule),
            Frame::SendAck(ack) => self.on_ack(&ack),
            Frame::Error(error) => {
                if let (Some(temp_id), Some(writing)) = (error.temp_id, &mut self.writing) {
                    writing.waiting.retain(|waiting| *waiting != temp_id);
                    self.found.refused += 1;
                }
                self.found.faults.add(&self.name, format_args!("{} {}", error.code, error.detail));
            }
            Frame::Lagged(lagged) => {
                let what = format_args!("entries up to {} were dropped from the queue", lagged.head);
                self.found.faults.add(&self.name, what);
            }
            _ => {}
        }
    }

    fn on_ack(&mut self, ack: &SendAck) {
        let next = self.writing.as_mut().and_then(|writing| writing.waiting.pop_front());
        if next != Some(ack.temp_id) {
            self.found.faults.add(&self.name, format_args!("the ack at seq {} is not the next one", ack.seq));
        }
        self.account.acked(ack.seq);
    }

    fn on_deliver(&mut self, deliver: &Deliver, schedule: Schedule) {
        let now = Instant::now();
        if deliver.conversation != self.conversation {
            return;
        }
        for entry in &deliver.entries {
            // The first entries are those of the group's creation.
            let Some(text) = light::text_of(entry) else { continue };
            let Some(stamp) = Stamp::read(text, schedule.text_bytes) else {
                self.account.cannot_read();
                continue;
            };
            self.account.hear(entry.seq);
            self.found.in_time += u64::from(now < schedule.end);
            let due = schedule.start + Duration::from_nanos(stamp.sent_ns);
            let took = now.saturating_duration_since(due).as_micros();
            self.found.latencies_us.push(u32::try_from(took).unwrap_or(u32::MAX));
        }
        if let Some(last) = deliver.entries.last() {
            if self.position.is_none() {
                self.ack_at = now + ACK_EVERY;
            }
            self.position = Some(Position { conversation: deliver.conversation, seq: last.seq });
        }
    }
}
