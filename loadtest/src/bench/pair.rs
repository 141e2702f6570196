//! One sender and its receiver, each with a connection of its own. The sender has one message in
//! flight: it sends the next once the last is acked.

use std::time::Duration;

use tern_protocol::{
    Ack, Code, ConversationId, Entry, Error, Frame, Position, SendAck, Target, TempId, UserId,
};
use tokio::sync::{oneshot, watch};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use uuid::Uuid;

use super::ledger::Ledger;
use crate::faults::Faults;
use crate::light::{self, Light, LightError};
use crate::stamp::Stamp;

/// A receiver acks to the server at most this often, as the client library does.
const ACK_EVERY: Duration = Duration::from_millis(50);
/// Pause before a retry where the server names none.
const RETRY_PAUSE: Duration = Duration::from_millis(100);
/// After the end of the measurement, what is still under way has this long to arrive.
pub(super) const SETTLE_TIMEOUT: Duration = Duration::from_secs(30);

/// When the pairs of a run send, and what.
#[derive(Clone, Copy, Debug)]
pub(super) struct Schedule {
    /// Times in messages are counted from here.
    pub(super) base: Instant,
    /// The measurement begins.
    pub(super) start: Instant,
    /// No message is sent any more.
    pub(super) end: Instant,
    /// Length of a text.
    pub(super) text_bytes: usize,
}

/// A sender and a receiver that are connected and have exchanged message 1, which made their
/// conversation.
pub(super) struct Pair {
    sender: Sender,
    receiver: Receiver,
}

struct Sender {
    name: UserId,
    peer: UserId,
    light: Light,
    acks: Ledger,
    /// Number of the last message sent.
    sent: u64,
    conversation: Option<ConversationId>,
    found: Found,
}

struct Receiver {
    name: UserId,
    light: Light,
    entries: Ledger,
    found: Found,
}

/// What one side has measured and found.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// Microseconds per message, those of the measurement only.
    pub(super) latencies_us: Vec<u32>,
    /// Messages acked before the end of the measurement.
    pub(super) in_time: u64,
    /// Sends that the server asked to repeat later.
    pub(super) put_off: u64,
    /// What is wrong.
    pub(super) faults: Faults,
}

/// What came of one pair.
pub(super) struct PairOutcome {
    /// Messages acked.
    pub(super) acked: u64,
    /// From the first attempt to the ack, and what was found on that side.
    pub(super) sender: Found,
    /// From the first attempt to the receipt.
    pub(super) receiver: Found,
    /// Their sessions, still open.
    pub(super) lights: [Light; 2],
}

impl Pair {
    /// Exchanges message 1.
    pub(super) async fn warm_up(
        sender: (UserId, Light),
        receiver: (UserId, Light),
        schedule: Schedule,
    ) -> Result<Self, LightError> {
        let peer = receiver.0.clone();
        let mut pair = Self {
            sender: Sender {
                name: sender.0,
                peer,
                light: sender.1,
                acks: Ledger::default(),
                sent: 0,
                conversation: None,
                found: Found::default(),
            },
            receiver: Receiver {
                name: receiver.0,
                light: receiver.1,
                entries: Ledger::default(),
                found: Found::default(),
            },
        };
        let exchange = async {
            pair.sender.send_one(schedule).await?;
            while pair.receiver.entries.last() < 1 {
                let frame = pair.receiver.light.recv().await?;
                pair.receiver.hear(frame, schedule);
            }
            Ok::<(), LightError>(())
        };
        timeout(SETTLE_TIMEOUT, exchange).await.map_err(|_| LightError::Timeout)??;
        pair.sender.found.in_time = 0;
        pair.sender.found.latencies_us.clear();
        pair.receiver.found.latencies_us.clear();
        Ok(pair)
    }

    /// Sends until the end of the schedule, then waits until everything has arrived.
    pub(super) async fn run(self, schedule: Schedule) -> PairOutcome {
        let Self { mut sender, mut receiver } = self;
        let (total, totals) = watch::channel(None);
        let (done, received) = oneshot::channel();
        let receiving = tokio::spawn(async move {
            let limit = schedule.end + 2 * SETTLE_TIMEOUT;
            let left = limit.saturating_duration_since(Instant::now());
            match timeout(left, receiver.receive_all(totals, schedule)).await {
                Ok(Ok(())) | Err(_) => {}
                Ok(Err(error)) => receiver.found.faults.add(&receiver.name, error),
            }
            // Refused if the sender has failed.
            let _ = done.send(());
            receiver
        });
        let left = (schedule.end + SETTLE_TIMEOUT).saturating_duration_since(Instant::now());
        match timeout(left, sender.send_all(schedule)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => sender.found.faults.add(&sender.name, error),
            Err(_) => {
                sender.found.faults.add(&sender.name, format_args!("message {} was not acked", sender.sent))
            }
        }
        let acked = sender.acks.last();
        // The receiver holds the other end until it has ended.
        let _ = total.send(Some(acked));
        sender.listen_until(received).await;
        // A panic of the task is one of this program.
        let receiver = receiving.await.expect("a receiver does not panic");
        conclude(sender, receiver)
    }
}

fn conclude(sender: Sender, mut receiver: Receiver) -> PairOutcome {
    let acked = sender.acks.last();
    if let Err(fault) = receiver.entries.complete(acked) {
        receiver.found.faults.add(&receiver.name, fault);
    }
    if let Err(fault) = sender.acks.agrees(&receiver.entries) {
        receiver.found.faults.add(&receiver.name, fault);
    }
    let lights = [sender.light, receiver.light];
    PairOutcome { acked, sender: sender.found, receiver: receiver.found, lights }
}

impl Sender {
    async fn send_all(&mut self, schedule: Schedule) -> Result<(), LightError> {
        sleep_until(schedule.start).await;
        while Instant::now() < schedule.end {
            self.send_one(schedule).await?;
        }
        Ok(())
    }

    /// Sends the next message and waits for its ack, over refusals that pass.
    async fn send_one(&mut self, schedule: Schedule) -> Result<(), LightError> {
        self.sent += 1;
        let number = self.sent;
        let temp_id = TempId::from_uuid(Uuid::new_v4());
        let first = Instant::now();
        let sent_ns = first.duration_since(schedule.base).as_nanos() as u64;
        let text = Stamp { number, sent_ns }.text(schedule.text_bytes);
        let mut age_ms = None;
        loop {
            let to = Target::User(self.peer.clone());
            self.light.send(light::message(to, text.clone(), temp_id, age_ms)).await?;
            match self.answer(temp_id).await? {
                SendOutcome::Acked(ack) => {
                    let now = Instant::now();
                    self.found.latencies_us.push(micros(now.duration_since(first)));
                    self.found.in_time += u64::from(now < schedule.end);
                    self.on_ack(number, &ack);
                    return Ok(());
                }
                SendOutcome::Later(pause) => {
                    self.found.put_off += 1;
                    sleep(pause).await;
                    age_ms = Some(first.elapsed().as_millis() as u64);
                }
                SendOutcome::Refused { code, detail } => {
                    return Err(LightError::Connection(format!(
                        "message {number} was refused: {code} {detail}"
                    )));
                }
            }
        }
    }

    fn on_ack(&mut self, number: u64, ack: &SendAck) {
        if let Err(fault) = self.acks.take(number, ack.seq) {
            self.found.faults.add(&self.name, fault);
        }
        if *self.conversation.get_or_insert(ack.conversation) != ack.conversation {
            self.found.faults.add(&self.name, format_args!("message {number} went to another conversation"));
        }
    }

    async fn answer(&mut self, temp_id: TempId) -> Result<SendOutcome, LightError> {
        loop {
            match self.light.recv().await? {
                Frame::SendAck(ack) if ack.temp_id == temp_id => return Ok(SendOutcome::Acked(ack)),
                Frame::Error(error) if error.temp_id == Some(temp_id) => return Ok(error.into()),
                frame => self.hear(frame),
            }
        }
    }

    /// Frames that nothing was asked for.
    fn hear(&mut self, frame: Frame) {
        match frame {
            Frame::SendAck(ack) => {
                let what = format_args!("an ack came that nobody waits for, at seq {}", ack.seq);
                self.found.faults.add(&self.name, what);
            }
            Frame::Error(error) => {
                self.found.faults.add(&self.name, format_args!("{} {}", error.code, error.detail));
            }
            _ => {}
        }
    }

    /// Until the receiver is done nothing more may come: a second ack would.
    async fn listen_until(&mut self, mut done: oneshot::Receiver<()>) {
        loop {
            tokio::select! {
                _ = &mut done => return,
                frame = self.light.recv() => match frame {
                    Ok(frame) => self.hear(frame),
                    Err(error) => return self.found.faults.add(&self.name, error),
                },
            }
        }
    }
}

/// What the server says to a send.
enum SendOutcome {
    Acked(SendAck),
    Later(Duration),
    Refused { code: Code, detail: String },
}

impl From<Error> for SendOutcome {
    fn from(error: Error) -> Self {
        match (error.temporary, error.retry_after_ms) {
            (true, Some(pause_ms)) => Self::Later(Duration::from_millis(pause_ms.into())),
            (true, None) => Self::Later(RETRY_PAUSE),
            (false, _) => Self::Refused { code: error.code, detail: error.detail },
        }
    }
}

impl Receiver {
    /// Takes entries until all that were acked to the sender are here.
    async fn receive_all(
        &mut self,
        mut totals: watch::Receiver<Option<u64>>,
        schedule: Schedule,
    ) -> Result<(), LightError> {
        let mut position: Option<Position> = None;
        let mut ack_at = Instant::now();
        let mut total = None;
        while total.is_none_or(|total| self.entries.last() < total) {
            tokio::select! {
                frame = self.light.recv() => {
                    if let Some(heard) = self.hear(frame?, schedule) {
                        if position.is_none() {
                            ack_at = Instant::now() + ACK_EVERY;
                        }
                        position = Some(heard);
                    }
                }
                () = sleep_until(ack_at), if position.is_some() => {
                    self.light.send(Ack { positions: position.take().into_iter().collect() }).await?;
                }
                // An error means that the sender is gone; it has said how much there is before.
                changed = totals.changed(), if total.is_none() => {
                    total = *totals.borrow_and_update();
                    if changed.is_err() && total.is_none() {
                        return Ok(());
                    }
                }
            }
        }
        if let Some(position) = position {
            self.light.send(Ack { positions: vec![position] }).await?;
        }
        Ok(())
    }

    /// Looks at a frame; a position if it brought entries.
    fn hear(&mut self, frame: Frame, schedule: Schedule) -> Option<Position> {
        match frame {
            Frame::Deliver(deliver) => {
                let now = Instant::now();
                for entry in &deliver.entries {
                    self.take(entry, now, schedule);
                }
                let seq = deliver.entries.last()?.seq;
                Some(Position { conversation: deliver.conversation, seq })
            }
            Frame::Lagged(lagged) => {
                let what = format_args!("entries up to {} were dropped from the queue", lagged.head);
                self.found.faults.add(&self.name, what);
                None
            }
            Frame::Error(error) => {
                self.found.faults.add(&self.name, format_args!("{} {}", error.code, error.detail));
                None
            }
            _ => None,
        }
    }

    fn take(&mut self, entry: &Entry, now: Instant, schedule: Schedule) {
        let stamp = light::text_of(entry).and_then(|text| Stamp::read(text, schedule.text_bytes));
        let Some(stamp) = stamp else {
            let what = format_args!("the entry at seq {} is not what was sent", entry.seq);
            return self.found.faults.add(&self.name, what);
        };
        if let Err(fault) = self.entries.take(stamp.number, entry.seq) {
            self.found.faults.add(&self.name, fault);
        }
        let sent = schedule.base + Duration::from_nanos(stamp.sent_ns);
        self.found.latencies_us.push(micros(now.saturating_duration_since(sent)));
    }
}

fn micros(time: Duration) -> u32 {
    u32::try_from(time.as_micros()).unwrap_or(u32::MAX)
}
