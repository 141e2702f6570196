//! The life of one session: greet, loop, clean up. Behaviour is in the `on_*` files.

use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tern_protocol::{Close, Code};
use tokio::time::{sleep_until, timeout};

use super::Inner;
use super::active::{Active, Step};
use super::hello;
use crate::ops::metrics::{OpenConnection, TransportLabel};
use crate::roster::Outbox;
use crate::transport::{Link, LinkReader, LinkWriter, Transport};

/// Time for the last frames to leave once a session is closed.
const FLUSH: Duration = Duration::from_secs(2);

/// A session that was welcomed, with what it holds until its end.
struct Open {
    active: Active,
    outbox: Arc<Outbox>,
    reader: LinkReader,
    writer: LinkWriter,
    _counted: OpenConnection,
}

/// Runs one session. What only the beginning, the end or one frame needs is boxed, so that an idle
/// session, as most are, does not hold it.
pub(super) async fn serve(gateway: Arc<Inner>, number: u64, link: Box<Link>) {
    let Some(mut open) = Box::pin(open(gateway, number, link)).await else { return };
    let end = run(&mut open).await;
    Box::pin(open.active.finish()).await;
    tracing::debug!(session = number, %end, "session closed");
}

/// Greets the client. `None` if it was refused and told why, or has gone.
async fn open(gateway: Arc<Inner>, number: u64, link: Box<Link>) -> Option<Box<Open>> {
    let info = link.info().clone();
    let outbox = Outbox::new(info.format, gateway.parts.outbox.clone());
    let _counted = gateway.parts.metrics.connections.opened(match info.transport {
        Transport::Quic => TransportLabel::Quic,
        Transport::WebSocket => TransportLabel::WebSocket,
        Transport::WebTransport => TransportLabel::WebTransport,
    });
    let (mut reader, mut writer) = link.split();
    // Nothing is written yet: entries may be queued before Welcome is, and Welcome comes first.
    match hello::greet(&gateway, number, &info, &outbox, &mut reader).await {
        Ok(active) => {
            tracing::debug!(session = number, transport = info.label(), "session open");
            return Some(Box::new(Open { active, outbox, reader, writer, _counted }));
        }
        Err(Some(close)) => {
            gateway.refused(close.code);
            tracing::debug!(session = number, code = %close.code, reason = close.reason, "session refused");
            outbox.close(close);
            let _ = timeout(FLUSH, writer.drive(&outbox)).await;
        }
        Err(None) => {}
    }
    None
}

/// The loop, until the link is gone or everything up to the Close frame has left.
async fn run(open: &mut Open) -> String {
    let Open { active, outbox, reader, writer, .. } = open;
    let mut write = pin!(writer.drive(outbox));
    let mut alarm = pin!(sleep_until(active.deadline().into()));
    loop {
        let close = tokio::select! {
            written = &mut write => return written.map_or_else(|error| error.to_string(), |()| "closed".into()),
            inbound = reader.recv() => match inbound {
                Ok(inbound) => match Box::pin(active.on_inbound(inbound, Instant::now())).await {
                    Step::Send(outgoing) => {
                        let _ = outbox.push_control(&outgoing);
                        hasten(alarm.as_mut(), active);
                        continue;
                    }
                    Step::Nothing => continue,
                    Step::Close(close) => close,
                },
                Err(error) => match error.reply() {
                    Some(close) => close,
                    None => return error.to_string(),
                },
            },
            () = &mut alarm => match active.on_deadline(Instant::now()) {
                Step::Send(outgoing) => {
                    let _ = outbox.push_control(&outgoing);
                    alarm.as_mut().reset(active.deadline().into());
                    continue;
                }
                Step::Nothing => {
                    alarm.as_mut().reset(active.deadline().into());
                    continue;
                }
                Step::Close(close) => close,
            },
        };
        let end = close.code.to_string();
        active.count_close(close.code);
        outbox.close(close);
        let _ = timeout(FLUSH, &mut write).await;
        return end;
    }
}

/// A renewed token can bring the next deadline forward; later ones are found when the alarm rings.
fn hasten(alarm: std::pin::Pin<&mut tokio::time::Sleep>, active: &Active) {
    if active.deadline() < alarm.deadline().into_std() {
        alarm.reset(active.deadline().into());
    }
}

/// A Close for a reason.
pub(super) fn close_for(code: Code, reason: impl Into<String>) -> Close {
    let mut reason: String = reason.into();
    let mut end = reason.len().min(tern_protocol::CLOSE_REASON_BYTES_MAX);
    while !reason.is_char_boundary(end) {
        end -= 1;
    }
    reason.truncate(end);
    Close { code, reason, retry_after_ms: None, target: None }
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
