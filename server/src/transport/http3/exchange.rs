//! One request: its header by h3, its body from the stream, its answer by h3.

use bytes::Bytes;
use h3::error::{Code, StreamError};
use h3::ext::Protocol;
use http::{Method, Request, Response};
use quinn::{Connection, SendStream};
use tokio::time::timeout;

use super::adapter::{Lent, Quic, RequestStream};
use super::frames::BodyReader;
use super::halves::var_int;
use super::shared::{Exchanging, NoPlace, SessionPlace};
use crate::transport::TransportConfig;

type ResponseStream = h3::server::RequestStream<RequestStream, Bytes>;

/// A request whose header is still to be read.
pub struct Exchange {
    resolver: h3::server::RequestResolver<Quic, Bytes>,
    lent: Lent,
    connection: Connection,
    exchanging: Exchanging,
}

/// A request whose header was read: what its client wants.
pub enum Resolved {
    /// An answer.
    Request(HttpRequest),
    /// A session.
    Session(ConnectRequest),
}

impl Exchange {
    pub(super) fn new(
        resolver: h3::server::RequestResolver<Quic, Bytes>,
        lent: Lent,
        connection: Connection,
        exchanging: Exchanging,
    ) -> Self {
        Self { resolver, lent, connection, exchanging }
    }

    /// Reads the header, within `hello_timeout_ms`; `None` if there is none worth an answer.
    pub async fn resolve(self, config: &TransportConfig) -> Option<Resolved> {
        let Self { resolver, lent, connection, exchanging } = self;
        let resolved = timeout(config.hello_timeout(), resolver.resolve_request()).await;
        let (head, stream) = match resolved {
            Ok(Ok(resolved)) => resolved,
            Ok(Err(error)) => {
                tracing::debug!(%error, "no HTTP/3 request");
                return None;
            }
            Err(_) => {
                lent.give_up(Code::H3_REQUEST_INCOMPLETE.value());
                return None;
            }
        };
        let body = BodyReader::new(lent.take_recv()?);
        let session = head.method() == Method::CONNECT
            && head.extensions().get::<Protocol>() == Some(&Protocol::WEB_TRANSPORT);
        let request =
            HttpRequest { head, body, response: ResponseWriter { stream, exchanging, is_over: false } };
        Some(if session {
            Resolved::Session(ConnectRequest { request, lent, connection })
        } else {
            Resolved::Request(request)
        })
    }
}

/// An ordinary request.
pub struct HttpRequest {
    /// Everything but its body.
    pub head: Request<()>,
    /// Its body.
    pub body: BodyReader,
    /// To answer it.
    pub response: ResponseWriter,
}

/// Sends the answer to one request.
pub struct ResponseWriter {
    stream: ResponseStream,
    exchanging: Exchanging,
    is_over: bool,
}

impl ResponseWriter {
    /// Sends status and headers, once, first.
    pub async fn head(&mut self, response: Response<()>) -> Result<(), StreamError> {
        self.stream.send_response(response).await
    }

    /// Sends a part of the body.
    pub async fn data(&mut self, bytes: Bytes) -> Result<(), StreamError> {
        self.stream.send_data(bytes).await
    }

    /// Ends the answer.
    pub async fn finish(mut self) -> Result<(), StreamError> {
        self.stream.finish().await?;
        self.done();
        Ok(())
    }

    fn done(&mut self) {
        self.exchanging.done();
        self.is_over = true;
    }

    /// Gives the answer up, so that the client does not take it for complete.
    pub fn abort(mut self) {
        self.stream.stop_stream(Code::H3_INTERNAL_ERROR);
        self.is_over = true;
    }
}

impl Drop for ResponseWriter {
    /// What is given up is not kept until the client takes it.
    fn drop(&mut self) {
        if !self.is_over {
            self.stream.stop_stream(Code::H3_REQUEST_CANCELLED);
        }
    }
}

/// A request for a WebTransport session.
pub struct ConnectRequest {
    /// The request.
    pub request: HttpRequest,
    lent: Lent,
    connection: Connection,
}

/// The CONNECT stream of a session, no longer h3's, and its place on the connection.
pub(in crate::transport) struct Connected {
    pub(in crate::transport) connection: Connection,
    pub(in crate::transport) send: SendStream,
    pub(in crate::transport) body: BodyReader,
    pub(in crate::transport) place: SessionPlace,
}

impl ConnectRequest {
    /// Asks for a place on the connection.
    pub(in crate::transport) fn place(&self, config: &TransportConfig) -> Result<SessionPlace, NoPlace> {
        let id = self.request.response.stream.send_id().into_inner();
        self.request.response.exchanging.open_session(id, config.webtransport_sessions_max)
    }

    /// Answers with success. From then on the stream belongs to the session.
    pub(in crate::transport) async fn accept(
        self,
        response: Response<()>,
        place: SessionPlace,
    ) -> Result<Connected, StreamError> {
        let Self { request, lent, connection } = self;
        let HttpRequest { body, response: mut writer, .. } = request;
        writer.head(response).await?;
        writer.done();
        let send = lent.take_send().expect("it is taken here only");
        Ok(Connected { connection, send, body, place })
    }
}

impl Lent {
    fn give_up(&self, code: u64) {
        if let Some(mut send) = self.take_send() {
            let _ = send.reset(var_int(code));
        }
        if let Some(mut recv) = self.take_recv() {
            recv.stop(code);
        }
    }
}
