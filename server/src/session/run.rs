//! The life of one session: greet, loop, clean up. Behaviour is in the `on_*` files.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tern_protocol::{Close, Code};
use tokio::time::{sleep_until, timeout};

use super::Inner;
use super::active::Active;
use super::hello;
use super::step::Step;
use crate::budget::MemoryPart;
use crate::clock::now;
use crate::ops::metrics::{OpenConnection, TransportLabel};
use crate::ops::turned_away;
use crate::roster::Outbox;
use crate::transport::{Link, LinkReader, LinkWriter, Transport};

/// Time for the last frames to leave once a session is closed.
pub const LAST_FRAME: Duration = Duration::from_secs(2);

/// A session that was welcomed, with what it holds until its end.
struct Open {
    active: Active,
    outbox: Arc<Outbox>,
    reader: LinkReader,
    writer: LinkWriter,
    _counted: [OpenConnection; 2],
}

/// Runs one session. What only the beginning or the end needs is boxed, so that an idle session, as most
/// are, does not hold it.
pub(super) async fn serve(gateway: Arc<Inner>, number: u64, link: Box<Link>) {
    let Some(mut open) = Box::pin(open(gateway, number, link)).await else { return };
    let end = run(&mut open).await;
    // Whoever closed it: the session itself, another one that takes its place, or the node.
    if let Some(close) = open.outbox.closing() {
        open.active.count_close(close.code);
    }
    tracing::debug!(session = number, %end, "session closed");
}

/// Greets the client. `None` if it was refused and told why, or has gone.
async fn open(gateway: Arc<Inner>, number: u64, link: Box<Link>) -> Option<Box<Open>> {
    let info = link.info().clone();
    let outbox =
        Outbox::new(info.format, gateway.settings.outbox.clone(), gateway.memory.part(MemoryPart::Outboxes));
    let connected = gateway.metrics.connections.opened(match info.transport {
        Transport::Quic => TransportLabel::Quic,
        Transport::WebSocket => TransportLabel::WebSocket,
        Transport::WebTransport => TransportLabel::WebTransport,
    });
    let (mut reader, mut writer) = link.split();
    // Nothing is written yet: entries may be queued before Welcome is, and Welcome comes first.
    match hello::greet(&gateway, number, &info, &outbox, &mut reader).await {
        Ok(active) => {
            tracing::debug!(session = number, transport = info.label(), "session open");
            let _counted = [connected, gateway.metrics.connections.welcomed()];
            return Some(Box::new(Open { active, outbox, reader, writer, _counted }));
        }
        Err(Some(close)) => {
            gateway.refused(close.code);
            turned_away(close.code.name(), info.remote.ip(), &in_our_words(&close));
            outbox.close(close);
            let _ = timeout(LAST_FRAME, writer.drive(&outbox)).await;
        }
        Err(None) => {}
    }
    None
}

/// The loop, until the link is gone or everything up to the Close frame has left. Nothing in it waits but
/// the loop itself, so that what is to be told always flows.
async fn run(open: &mut Open) -> String {
    let Open { active, outbox, reader, writer, .. } = open;
    let mut write = pin!(writer.drive(outbox));
    let mut alarm = pin!(sleep_until(active.deadline().into()));
    let close = loop {
        let (reads, wants_filled) = (active.reads(), active.wants_filled());
        let step = tokio::select! {
            written = &mut write => return written.map_or_else(|error| error.to_string(), |()| "closed".into()),
            inbound = reader.recv(), if reads => match inbound {
                Ok(inbound) => active.on_inbound(inbound, now()),
                Err(error) => match error.reply() {
                    Some(close) => Step::Close(close),
                    None => return error.to_string(),
                },
            },
            (request, settled) = active.renewed() => active.on_renewed(request, settled, now()),
            () = outbox.filled(), if wants_filled => active.on_filled(now()),
            () = &mut alarm => active.on_deadline(now()),
        };
        match step {
            Step::Send(outgoing) => {
                let _ = outbox.push_control(&outgoing);
            }
            Step::Nothing => {}
            Step::Close(close) => break close,
        }
        // One that was put off is found when the alarm rings.
        let deadline = active.deadline().into();
        if alarm.is_elapsed() || deadline < alarm.deadline() {
            alarm.as_mut().reset(deadline);
        }
    };
    let end = close.code.to_string();
    outbox.close(close);
    let _ = timeout(LAST_FRAME, &mut write).await;
    end
}

/// Why a session is closed, for the log: an error of a decoder quotes what it could not read, and that may be
/// a token or a text.
fn in_our_words(close: &Close) -> &str {
    let ours = |code: Code| Code::TABLE.iter().find(|row| row.0 == code).map_or("", |row| row.2);
    match close.code {
        Code::MALFORMED | Code::UNKNOWN_CRITICAL | Code::TOO_MANY_ERRORS => ours(close.code),
        _ => &close.reason,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size_of_future<A, B, C, F>(_: impl FnOnce(A, B, C) -> F) -> usize {
        size_of::<F>()
    }

    /// A node of a million idle sessions holds a million of these.
    #[test]
    fn an_idle_session_is_a_small_task() {
        let bytes = size_of_future(serve);
        assert!(bytes <= 2048, "{bytes} bytes");
    }
}
