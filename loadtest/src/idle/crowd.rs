//! Many idle sessions at a time: after Welcome they only say, as often as the server wants to hear
//! it, that they are there.

use futures_util::stream::{self, StreamExt};
use tern_protocol::{Ping, UserId};
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::light::{Dialer, Light, LightError, Transport};

/// Sessions opened at a time.
const OPENING_MAX: usize = 64;

/// Sessions that are held. Dropping it cuts them off.
pub(super) struct Crowd<'a> {
    dialer: Dialer<'a>,
    transport: Transport,
    /// Each ends with the reason why its session did.
    sessions: JoinSet<LightError>,
    opened: usize,
}

impl<'a> Crowd<'a> {
    pub(super) fn new(dialer: Dialer<'a>, transport: Transport) -> Self {
        Self { dialer, transport, sessions: JoinSet::new(), opened: 0 }
    }

    /// Opens sessions until there are so many.
    pub(super) async fn grow(&mut self, sessions: usize, opened: impl Fn()) -> Result<(), LightError> {
        let (dialer, transport) = (&self.dialer, self.transport);
        let mut opening = stream::iter(self.opened..sessions)
            .map(|number| async move {
                let user = UserId::new(&format!("idle-{number}")).expect("a short name is a user id");
                dialer.open(&user, transport).await
            })
            .buffer_unordered(OPENING_MAX);
        while let Some(light) = opening.next().await {
            self.sessions.spawn(hold(light?));
            self.opened += 1;
            opened();
        }
        Ok(())
    }

    /// Why sessions have ended, as far as they have. All of them should still be there.
    pub(super) fn ended(&mut self) -> Vec<LightError> {
        // A panic of a session is one of this program.
        std::iter::from_fn(|| self.sessions.try_join_next())
            .map(|ended| ended.expect("a session does not panic"))
            .collect()
    }
}

async fn hold(mut light: Light) -> LightError {
    loop {
        let silence = sleep(light.keepalive());
        tokio::pin!(silence);
        loop {
            tokio::select! {
                frame = light.recv() => match frame {
                    Ok(_) => {}
                    Err(error) => return error,
                },
                () = &mut silence => break,
            }
        }
        if let Err(error) = light.send(Ping { nonce: 0 }).await {
            return error;
        }
    }
}
