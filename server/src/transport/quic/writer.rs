//! Writing a link over QUIC: which stream each queue of the outbox goes to, and never waiting for one
//! of them while another could go on.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::FutureExt;
use futures_util::stream::{FuturesUnordered, StreamExt};
use quinn::{SendDatagramError, SendStream, WriteError};
use smallvec::SmallVec;
use tern_protocol::{Close, ConversationId, Envelope, StreamKind};
use tokio::time::{Instant, Sleep, sleep_until, timeout};

use super::super::carrier::{Carrier, var_int};
use super::super::error::clean_reason;
use super::super::webtransport::SessionClose;
use super::super::{LinkError, TransportConfig};
use crate::roster::outbox::{Batch, Outbox, Queue, TakeLimit};

/// How much goes to one stream at a time. Small, because what a blocked stream holds still counts
/// against the outbox.
const TAKE: TakeLimit = TakeLimit { frames: 16, bytes: 16 * 1024 };
/// A conversation stream that was used within this time is not closed to make room for another:
/// with more busy conversations than streams, the later ones share the inbox stream instead.
const SETTLED: Duration = Duration::from_secs(1);

/// Streams that must be had whatever the conversations take: inbox and backlog.
const SHARED_STREAMS: usize = 2;

/// Stream priorities: quinn sends the higher ones first.
const PRIORITY_CONTROL: i32 = 2;
const PRIORITY_ENTRIES: i32 = 1;
const PRIORITY_BACKLOG: i32 = 0;

/// The writing half of a link over QUIC, native or WebTransport.
#[derive(Debug)]
pub struct QuicWriter {
    carrier: Carrier,
    /// Where a session is closed, until it is.
    close: Option<SessionClose>,
    control: Slot,
    inbox: Option<Slot>,
    backlog: Option<Slot>,
    /// At most `streams_max`, which falls when the client turns out to allow fewer.
    conversations: Vec<(ConversationId, Slot)>,
    streams_max: usize,
    idle: Duration,
    close_flush: Duration,
    /// Writes that wait for their stream: at most one for each stream.
    blocked: FuturesUnordered<Write>,
    /// When to look for idle streams next, while there are any streams.
    sweep: Option<Pin<Box<Sleep>>>,
}

type Write = Pin<Box<dyn Future<Output = Written> + Send>>;

/// A stream and what is still to be written before its first frame. The stream is away while a
/// write waits.
#[derive(Debug)]
struct Slot {
    stream: Option<SendStream>,
    header: Option<Bytes>,
    used: Instant,
}

impl Slot {
    fn new(stream: SendStream, priority: i32, header: Option<Bytes>, now: Instant) -> Self {
        let _ = stream.set_priority(priority);
        Self { stream: Some(stream), header, used: now }
    }

    fn free(&self) -> bool {
        self.stream.is_some()
    }

    fn idle_since(&self, since: Instant) -> bool {
        self.free() && self.used <= since
    }
}

/// Where a batch goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Route {
    Control,
    Datagram,
    Conversation(ConversationId),
    Inbox,
    Backlog,
}

/// A write that is over.
struct Written {
    route: Route,
    stream: SendStream,
    batch: Batch,
    result: Result<(), WriteError>,
}

impl QuicWriter {
    pub(in crate::transport) fn new(
        carrier: Carrier,
        control: SendStream,
        close: Option<SessionClose>,
        config: &TransportConfig,
    ) -> Self {
        Self {
            carrier,
            close,
            control: Slot::new(control, PRIORITY_CONTROL, None, Instant::now()),
            inbox: None,
            backlog: None,
            conversations: Vec::new(),
            streams_max: config.quic_conversation_streams_max,
            idle: config.quic_stream_idle(),
            close_flush: config.close_flush(),
            blocked: FuturesUnordered::new(),
            sweep: None,
        }
    }

    /// See [`LinkWriter::drive`](crate::transport::LinkWriter::drive).
    pub(in crate::transport) async fn drive(&mut self, outbox: &Outbox) -> Result<(), LinkError> {
        loop {
            if let Some(close) = outbox.closing() {
                // Boxed, so that it takes no room before the end.
                return Box::pin(self.finish(close, outbox)).await;
            }
            self.fill(outbox)?;
            tokio::select! {
                Some(written) = self.blocked.next() => self.settle(written, outbox)?,
                () = outbox.work() => {}
                () = elapsed(&mut self.sweep) => self.finish_idle(Instant::now()),
            }
        }
    }

    /// Starts whatever can be started.
    fn fill(&mut self, outbox: &Outbox) -> Result<(), LinkError> {
        let now = Instant::now();
        loop {
            let mut route = None;
            let batch = outbox.take_from(TAKE, &mut |queue| {
                route = self.route(queue, now);
                route.is_some()
            });
            match (route, batch) {
                (Some(Route::Datagram), Some(batch)) => self.send_datagrams(batch, outbox)?,
                (Some(route), Some(batch)) => self.write(route, batch, outbox)?,
                _ => return Ok(()),
            }
        }
    }

    /// Where frames of a queue can go now, opening a stream if one can be had at once; `None` if
    /// they have to wait. Stream credit is never waited for.
    fn route(&mut self, queue: Queue, now: Instant) -> Option<Route> {
        let slot = match queue {
            Queue::Control => return self.control.free().then_some(Route::Control),
            Queue::Datagram if self.carrier.has_datagrams() => return Some(Route::Datagram),
            Queue::Datagram => return self.control.free().then_some(Route::Control),
            Queue::Conversation(id) => {
                self.conversation_slot(id, now).map(|slot| (Route::Conversation(id), slot))
            }
            Queue::Backlog => {
                if self.backlog.is_none() {
                    self.backlog = self.open(StreamKind::Backlog, None, PRIORITY_BACKLOG, now);
                }
                self.backlog.as_ref().map(|slot| (Route::Backlog, slot))
            }
        };
        match slot {
            Some((route, slot)) => slot.free().then_some(route),
            None => self.shared(now),
        }
    }

    /// The stream of a conversation, an open one or a new one; `None` if it has to share.
    fn conversation_slot(&mut self, id: ConversationId, now: Instant) -> Option<&Slot> {
        let index = match self.conversations.iter().position(|(open, _)| *open == id) {
            Some(index) => index,
            None => {
                self.make_room(now)?;
                let slot = self.open(StreamKind::Conversation, Some(id), PRIORITY_ENTRIES, now)?;
                self.conversations.push((id, slot));
                self.conversations.len() - 1
            }
        };
        Some(&self.conversations[index].1)
    }

    /// Makes room for one more conversation stream by closing the one unused for longest.
    fn make_room(&mut self, now: Instant) -> Option<()> {
        if self.conversations.len() < self.streams_max {
            return Some(());
        }
        let (oldest, used) = self.least_used()?;
        (used + SETTLED <= now).then(|| self.conversations.swap_remove(oldest).1.end())
    }

    /// The stream shared by conversations without their own; with a client that allows no streams
    /// at all, the control stream.
    fn shared(&mut self, now: Instant) -> Option<Route> {
        if self.inbox.is_none() {
            self.inbox = self.open(StreamKind::Inbox, None, PRIORITY_ENTRIES, now);
        }
        match &self.inbox {
            Some(slot) => slot.free().then_some(Route::Inbox),
            None => self.control.free().then_some(Route::Control),
        }
    }

    fn open(
        &mut self,
        kind: StreamKind,
        id: Option<ConversationId>,
        priority: i32,
        now: Instant,
    ) -> Option<Slot> {
        let Some(opened) = self.carrier.open_uni() else {
            self.yield_streams();
            return None;
        };
        let (stream, mut header) = opened.ok()?;
        header.push(kind as u8);
        header.extend(id.iter().flat_map(|id| id.as_bytes()));
        if self.sweep.is_none() {
            self.sweep = Some(Box::pin(sleep_until(now + self.idle)));
        }
        Some(Slot::new(stream, priority, Some(header.into()), now))
    }

    /// The client allows no further stream: from now on conversations leave enough of them for the
    /// shared ones.
    fn yield_streams(&mut self) {
        let shared = usize::from(self.inbox.is_some()) + usize::from(self.backlog.is_some());
        let open = self.conversations.len() + shared;
        self.streams_max = self.streams_max.min(open.saturating_sub(SHARED_STREAMS));
        while self.conversations.len() > self.streams_max {
            let Some((oldest, _)) = self.least_used() else { break };
            self.conversations.swap_remove(oldest).1.end();
        }
    }

    /// The free conversation stream unused for longest, and since when.
    fn least_used(&self) -> Option<(usize, Instant)> {
        let slots = self.conversations.iter().enumerate().filter(|(_, (_, slot))| slot.free());
        slots.map(|(index, (_, slot))| (index, slot.used)).min_by_key(|(_, used)| *used)
    }

    fn slot(&mut self, route: Route) -> Option<&mut Slot> {
        match route {
            Route::Control | Route::Datagram => Some(&mut self.control),
            Route::Inbox => self.inbox.as_mut(),
            Route::Backlog => self.backlog.as_mut(),
            Route::Conversation(id) => {
                self.conversations.iter_mut().find(|(open, _)| *open == id).map(|(_, slot)| slot)
            }
        }
    }

    /// Writes a batch at once if its stream has room, else leaves it to wait by itself.
    fn write(&mut self, route: Route, batch: Batch, outbox: &Outbox) -> Result<(), LinkError> {
        let Some((mut stream, header)) =
            self.slot(route).and_then(|slot| Some((slot.stream.take()?, slot.header.take())))
        else {
            outbox.lost(batch);
            return Ok(());
        };
        let mut chunks: SmallVec<[Bytes; 5]> =
            header.into_iter().chain(batch.frames.iter().cloned()).collect();
        match stream.write_all_chunks(&mut chunks).now_or_never() {
            Some(result) => self.settle(Written { route, stream, batch, result }, outbox),
            None => {
                // What was written already is gone from the chunks.
                self.blocked.push(Box::pin(async move {
                    let result = stream.write_all_chunks(&mut chunks).await;
                    Written { route, stream, batch, result }
                }));
                Ok(())
            }
        }
    }

    fn settle(&mut self, written: Written, outbox: &Outbox) -> Result<(), LinkError> {
        let Written { route, stream, batch, result } = written;
        match result {
            Ok(()) => {
                outbox.sent(batch);
                if let Some(slot) = self.slot(route) {
                    slot.stream = Some(stream);
                    slot.used = Instant::now();
                }
                Ok(())
            }
            Err(WriteError::ConnectionLost(error)) => Err(self.carrier.lost(error)),
            Err(WriteError::Stopped(code)) if route == Route::Control => Err(LinkError::Closed {
                code: self.carrier.code_of(code),
                reason: "the control stream was stopped".into(),
            }),
            Err(_) if route == Route::Control => Err(LinkError::Reset),
            // The client does not want this stream. The next entries get a new one, and the
            // client is told what it missed.
            Err(_) => {
                self.forget(route);
                outbox.lost(batch);
                Ok(())
            }
        }
    }

    fn forget(&mut self, route: Route) {
        match route {
            Route::Control | Route::Datagram => {}
            Route::Inbox => self.inbox = None,
            Route::Backlog => self.backlog = None,
            Route::Conversation(id) => self.conversations.retain(|(open, _)| *open != id),
        }
    }

    fn send_datagrams(&mut self, batch: Batch, outbox: &Outbox) -> Result<(), LinkError> {
        for frame in &batch.frames {
            // May be lost: one that is too large for the path is.
            let sent = self.carrier.send_datagram(frame.clone());
            if let Err(SendDatagramError::ConnectionLost(error)) = sent {
                return Err(self.carrier.lost(error));
            }
        }
        outbox.sent(batch);
        Ok(())
    }

    /// Ends the streams without traffic for `idle`, and looks again when the next one is due.
    fn finish_idle(&mut self, now: Instant) {
        let idle = self.idle;
        let due = |slot: &Slot| now.checked_sub(idle).is_some_and(|since| slot.idle_since(since));
        for shared in [&mut self.inbox, &mut self.backlog] {
            if let Some(slot) = shared.take_if(|slot| due(slot)) {
                slot.end();
            }
        }
        for (_, slot) in self.conversations.extract_if(.., |(_, slot)| due(slot)) {
            slot.end();
        }
        let slots = self.conversations.iter().map(|(_, slot)| slot).chain(&self.inbox).chain(&self.backlog);
        // A stream with a blocked write is looked at again after a whole period.
        let next = slots.map(|slot| if slot.free() { slot.used + idle } else { now + idle }).min();
        self.sweep = next.map(|next| Box::pin(sleep_until(next)));
    }

    /// Sends the replies still queued and the Close frame and waits until the client has them, within
    /// `close_flush`; then closes the connection, or the session within as much again.
    async fn finish(&mut self, close: Close, outbox: &Outbox) -> Result<(), LinkError> {
        let close = Close { reason: clean_reason(&close.reason), ..close };
        let (code, reason) = (close.code, close.reason.clone());
        let flushed = timeout(self.close_flush, self.send_last(close, outbox)).await;
        match (&self.carrier, self.close.take()) {
            (Carrier::Whole(connection), _) => connection.close(var_int(code), reason.as_bytes()),
            (Carrier::Session(_), Some(close)) => close.close(code, &reason, self.close_flush).await,
            (Carrier::Session(_), None) => {}
        }
        // A client that does not read has the code of the connection's own close.
        flushed.unwrap_or(Ok(()))
    }

    async fn send_last(&mut self, close: Close, outbox: &Outbox) -> Result<(), LinkError> {
        loop {
            self.fill(outbox)?;
            if self.control.free() && outbox.last().is_some() {
                break;
            }
            let Some(written) = self.blocked.next().await else { break };
            self.settle(written, outbox)?;
        }
        let Some(mut control) = self.control.stream.take() else { return Ok(()) };
        let frame = tern_protocol::encode(&Envelope::from(close));
        if let Err(WriteError::ConnectionLost(error)) = control.write_all(&frame).await {
            return Err(self.carrier.lost(error));
        }
        let _ = control.finish();
        // Resolves when the client's transport has confirmed every byte; if the client closes
        // first, it has read the frame.
        let _ = control.stopped().await;
        Ok(())
    }
}

impl Slot {
    fn end(self) {
        if let Some(mut stream) = self.stream {
            let _ = stream.finish();
        }
    }
}

async fn elapsed(sweep: &mut Option<Pin<Box<Sleep>>>) {
    match sweep {
        Some(sleep) => sleep.await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::loopback::conversation;
    use super::super::super::{LinkWriter, TransportConfig};
    use super::super::tests::Server;
    use super::*;

    #[tokio::test]
    async fn the_stream_unused_for_longest_makes_room_once_it_has_settled() {
        let config = TransportConfig { quic_conversation_streams_max: 2, ..TransportConfig::default() };
        let server = Server::start(&config);
        let (_client, link) = server.link(quinn::TransportConfig::default()).await;
        let LinkWriter::Quic(mut writer) = link.split().1 else { panic!("not QUIC") };
        let queue = |number| Queue::Conversation(conversation(number));
        let own = |number| Some(Route::Conversation(conversation(number)));
        let start = Instant::now();
        assert_eq!(writer.route(queue(1), start), own(1));
        assert_eq!(writer.route(queue(2), start + Duration::from_millis(1)), own(2));
        assert_eq!(writer.route(queue(3), start + SETTLED / 2), Some(Route::Inbox), "both are in use");
        assert_eq!(writer.route(queue(3), start + SETTLED), own(3));
        let open: Vec<_> = writer.conversations.iter().map(|(id, _)| *id).collect();
        assert_eq!(open, [conversation(2), conversation(3)]);
    }
}
