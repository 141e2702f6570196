//! WebTransport: a CONNECT request becomes a session, and the session a link.

mod capsule;
mod negotiate;
mod session;

use bytes::Bytes;
use http::Response;
use tern_protocol::Code;
use tokio::time::{Instant, timeout};

use super::carrier::Carrier;
use super::http3::{Arrival, ConnectRequest, NoPlace};
use super::quic::{QuicReader, QuicWriter};
use super::{EstablishError, Link, LinkInfo, LinkReader, LinkWriter, Transport, TransportConfig};
use crate::roster::Format;

pub use negotiate::SessionRefused;
pub(super) use session::{SessionClose, SessionEnd, WebTransportSession};

/// Answers the request. If a session was opened, waits for its control stream within
/// `hello_timeout_ms`, and makes a link of it.
pub async fn establish(asked: ConnectRequest, config: &TransportConfig) -> Result<Link, EstablishError> {
    let response = negotiate::negotiate(&asked.request.head, config).and_then(|response| {
        let place = asked.place(config).map_err(|none| match none {
            NoPlace::Draining => SessionRefused::Draining,
            NoPlace::TooMany => SessionRefused::TooMany,
        })?;
        Ok((response, place))
    });
    let (response, place) = match response {
        Ok(accepted) => accepted,
        Err(refused) => {
            refuse(asked, refused).await;
            return Err(EstablishError::Session(refused));
        }
    };
    let connected = asked.accept(response, place).await;
    let connected = connected.map_err(|error| EstablishError::Handshake(error.to_string()))?;
    let info = LinkInfo {
        transport: Transport::WebTransport,
        format: Format::Binary,
        remote: connected.connection.remote_address(),
        established: Instant::now(),
    };
    let (session, mut end, close) = session::split(connected);
    let arrival = tokio::select! {
        arrival = timeout(config.hello_timeout(), control_stream(&session)) => arrival,
        end = end.wait() => return Err(end.into()),
    };
    let Ok((send, recv)) = arrival else {
        close.close(Code::HELLO_TIMEOUT, "no control stream in time", config.close_flush()).await;
        return Err(EstablishError::NoControlStream);
    };
    let carrier = Carrier::session(session);
    let reader = QuicReader::new(carrier.clone(), recv, Some(end), None);
    let writer = QuicWriter::new(carrier, send, Some(close), config);
    Ok(Link::new(info, LinkReader::Quic(reader), LinkWriter::Quic(writer)))
}

async fn control_stream(session: &WebTransportSession) -> (quinn::SendStream, quinn::RecvStream) {
    loop {
        // Datagrams before Hello say nothing; further streams cannot come before the first.
        if let Arrival::Control(send, recv) = session.next().await {
            return (send, recv);
        }
    }
}

async fn refuse(asked: ConnectRequest, refused: SessionRefused) {
    let mut response = Response::new(());
    *response.status_mut() = refused.status();
    let mut writer = asked.request.response;
    let text = Bytes::from(format!("{refused}\n"));
    // A client that does not want to know is gone.
    if writer.head(response).await.is_ok() && writer.data(text).await.is_ok() {
        let _ = writer.finish().await;
    }
}
