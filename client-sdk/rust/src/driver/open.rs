//! Opening a session: token, link, Hello, Welcome.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tern_protocol::{Close, DeviceId, Envelope, Frame, Hello, Token, Welcome};
use tokio::time::timeout;

use super::plan::Ending;
use crate::config::Config;
use crate::link::{Addresses, Dialed, Dialer, Inbound, Link, LinkEnd};
use crate::persistence::Transport;
use crate::token::TokenReason;

/// One attempt.
pub(super) struct Attempt {
    pub(super) config: Arc<Config>,
    pub(super) dialer: Arc<Dialer>,
    pub(super) addresses: Addresses,
    /// The transport with the head start.
    pub(super) first: Transport,
    pub(super) device: DeviceId,
    pub(super) reason: TokenReason,
}

/// An open session.
pub(super) struct Opened {
    pub(super) link: Link,
    pub(super) welcome: Arc<Welcome>,
    /// Why a transport tried before was not used.
    pub(super) fallback: Option<String>,
}

impl Attempt {
    pub(super) async fn run(self) -> Result<Opened, Ending> {
        let limit = self.config.attempt_timeout;
        timeout(limit, self.open()).await.unwrap_or_else(|_| Err(Ending::Lost(late(limit))))
    }

    async fn open(self) -> Result<Opened, Ending> {
        let token = self.config.token.token(self.reason).await.map_err(Ending::NoToken)?;
        let dialed = self.dialer.dial(&self.addresses, self.first).await;
        let Dialed { mut link, fallback } = dialed.map_err(Ending::Lost)?;
        let hello = Hello {
            token: Token(token),
            device: Some(self.device),
            agent: Some(self.config.agent.clone()),
            features: 0,
        };
        let hello = link
            .encode(&Envelope::from(hello))
            .map_err(|_| Ending::Lost("the token is too long for a frame".into()))?;
        let mut queue = VecDeque::from([hello]);
        let welcome = match link.exchange(&mut queue).await {
            Inbound::Frame(envelope) => welcome(envelope.frame)?,
            Inbound::Bad(error) => return Err(Ending::Lost(format!("the server's first frame: {error}"))),
            Inbound::End(end) => return Err(end.into()),
        };
        let welcome = Arc::new(welcome);
        Ok(Opened { link, welcome, fallback })
    }
}

fn welcome(frame: Frame) -> Result<Welcome, Ending> {
    match frame {
        Frame::Welcome(welcome) => Ok(welcome),
        Frame::Close(close) => Err(Ending::Closed(close)),
        Frame::Error(error) => Err(Ending::Closed(Close {
            code: error.code,
            reason: error.detail,
            retry_after_ms: error.retry_after_ms,
            target: None,
        })),
        other => Err(Ending::Lost(format!("the server began with {} instead of welcome", other.name()))),
    }
}

fn late(limit: Duration) -> String {
    format!("no session within {} s", limit.as_secs_f32())
}

impl From<LinkEnd> for Ending {
    fn from(end: LinkEnd) -> Self {
        match end.code {
            // A code of the transport itself, such as 1006 of a WebSocket, says nothing of ours.
            Some(code) if code.0 >= 4000 => {
                Self::Closed(Close { code, reason: end.reason, retry_after_ms: None, target: None })
            }
            _ => Self::Lost(end.to_string()),
        }
    }
}
