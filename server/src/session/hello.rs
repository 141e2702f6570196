//! The first frame: who is there, and may they come in.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tern_protocol::{Close, Code, DeviceId, Envelope, Frame, Hello, Welcome};
use tokio::time::timeout_at;

use super::active::Active;
use super::quota::Allowance;
use super::refused::whole_ms;
use super::step::close_for;
use super::{Inner, STOPS};
use crate::auth::Claims;
use crate::budget::MemoryPart;
use crate::clock::{now, unix_ms};
use crate::roster::{Begun, Origin, Outbox, Outgoing, Seat, SeatGuard, Stage};
use crate::store::{Lost, Store, StoreError, UserChange, users_apart};
use crate::transport::{Inbound, LinkError, LinkInfo, LinkReader};
use crate::upkeep::{REVOKED, revoked};

/// What whoever comes with the token of an erased user is told.
pub const ERASED: &str = "the user was erased; a token issued after that opens a new account";

/// About how much an idle session takes, in bytes, besides its connection: its task, its seat, and what it may
/// have unsent before that is counted.
pub(super) const SESSION_BYTES: usize = 12 * 1024;
/// What a client waits that comes while memory is short.
const MEMORY_RETRY: Duration = Duration::from_secs(5);

/// Waits for Hello and opens the session. The error is what to close with, if anybody is there to hear it.
pub(super) async fn greet(
    gateway: &Arc<Inner>,
    number: u64,
    info: &LinkInfo,
    outbox: &Arc<Outbox>,
    reader: &mut LinkReader,
) -> Result<Active, Option<Close>> {
    if let Allowance::Refused { retry_after } = gateway.quota.connect(info.remote.ip(), now()) {
        return Err(Some(back_off(
            Code::RATE_LIMITED,
            "too many connections from this address",
            retry_after,
        )));
    }
    let wait = gateway.settings.transport.hello_timeout();
    let inbound = timeout_at(info.established + wait, first_frame(reader))
        .await
        .map_err(|_| close_for(Code::HELLO_TIMEOUT, format!("no hello within {} ms", wait.as_millis())))?;
    let (request, hello) = match inbound {
        Ok(Inbound::Frame(envelope)) => match envelope.frame {
            Frame::Hello(hello) => (envelope.request, hello),
            other => {
                let reason = format!("the first frame must be hello, not {}", other.name());
                return Err(Some(close_for(Code::UNEXPECTED_FRAME, reason)));
            }
        },
        Ok(Inbound::Bad(error)) => return Err(Some(close_for(error.code(), error.to_string()))),
        Ok(Inbound::Alive) => return Err(None),
        Err(error) => return Err(error.reply()),
    };
    open(gateway, number, info, outbox, request, hello).await.map_err(Some)
}

/// What is no frame does not count.
async fn first_frame(reader: &mut LinkReader) -> Result<Inbound, LinkError> {
    loop {
        match reader.recv().await {
            Ok(Inbound::Alive) => {}
            first => return first,
        }
    }
}

fn back_off(code: Code, reason: &str, after: Duration) -> Close {
    let retry_after_ms = Some(whole_ms(after));
    Close { retry_after_ms, ..close_for(code, reason) }
}

/// Checks the token, gives the session its seat, and answers Welcome.
pub(super) async fn open(
    gateway: &Arc<Inner>,
    number: u64,
    info: &LinkInfo,
    outbox: &Arc<Outbox>,
    request: Option<u64>,
    hello: Hello,
) -> Result<Active, Close> {
    // Before anything is done for it.
    let memory = gateway.memory.part(MemoryPart::Sessions).try_charge(SESSION_BYTES).ok_or_else(|| {
        back_off(Code::OVER_CAPACITY, "this node is short of memory; come back later", MEMORY_RETRY)
    })?;
    let claims = gateway.auth.authenticate(&hello.token.0, SystemTime::now()).await.map_err(|error| {
        match error.retry_after() {
            Some(after) => back_off(error.code(), &error.to_string(), after),
            None => close_for(error.code(), error.to_string()),
        }
    })?;
    let device = hello.device.unwrap_or_else(|| {
        DeviceId::new(&uuid::Uuid::new_v4().to_string()).expect("a UUID is a valid device id")
    });
    not_lost(gateway, &claims).await?;
    remember(&*gateway.store, &claims).await.map_err(unavailable)?;
    let (transport, address) = (info.label(), info.remote.ip().to_canonical());
    let origin = Origin { transport, address, token_issued_ms: claims.issued_ms };
    let outbox_of = Arc::clone(outbox);
    let seat = Seat::new(gateway.refer(number), claims.user.clone(), device.clone(), outbox_of, origin);
    // Live entries are queued from here on; whatever was committed before, sync finds in the store.
    let (guard, stage) = take(gateway, seat)?;
    // Whoever erases this user or revokes their tokens closes the sessions that have a seat: one in between sees it here.
    not_lost(gateway, &claims).await?;
    let agent = hello.agent.as_deref().map(|agent| agent.chars().take(128).collect::<String>());
    tracing::debug!(session = number, agent, transport = info.label(), "hello");
    let welcome = Welcome {
        session: number,
        user: claims.user.clone(),
        name: claims.name.clone(),
        device,
        store_id: gateway.store.store_id(),
        server: concat!("tern/", env!("CARGO_PKG_VERSION")).to_owned(),
        features: 0,
        time_ms: unix_ms(),
        token_expires_ms: claims.expires_ms,
        limits: gateway.limits(),
    };
    let _ = outbox.push_first(&Outgoing::new(Envelope { request, frame: welcome.into() }));
    let now = now();
    if let Stage::Leaving(leaving) = stage {
        let _ = outbox.push_control(&Outgoing::new(leaving.go_away(now)));
    }
    Ok(Active::new(Arc::clone(gateway), guard, claims, memory, now))
}

/// A seat for the session; whoever has to make room for it is told why.
fn take(gateway: &Inner, seat: Seat) -> Result<(SeatGuard, Stage), Close> {
    let most = gateway.settings.session.sessions_per_user;
    let Begun { guard, replaced, stage } = gateway.roster.begin(seat, most as usize);
    if let Some(replaced) = replaced {
        let reason = format!("more than {most} sessions of this user");
        replaced.outbox.close(close_for(Code::SESSION_REPLACED, reason));
    }
    match stage {
        Stage::Over => Err(close_for(Code::SHUTDOWN, STOPS)),
        stage => Ok((guard, stage)),
    }
}

/// A token issued before its user was erased, or before it was revoked, opens nothing.
async fn not_lost(gateway: &Inner, claims: &Claims) -> Result<(), Close> {
    let standing = gateway.store.standing(&claims.user).await.map_err(unavailable)?;
    match standing.lost(claims.issued_ms) {
        None => Ok(()),
        Some(Lost::Erased) => Err(close_for(Code::TOKEN_INVALID, ERASED)),
        Some(Lost::Revoked) => Err(revoked(&standing, unix_ms())),
    }
}

/// Why a token that was verified is not accepted.
pub fn lost_words(lost: Lost) -> (Code, &'static str) {
    match lost {
        Lost::Erased => (Code::TOKEN_INVALID, ERASED),
        Lost::Revoked => (Code::TOKEN_REVOKED, REVOKED),
    }
}

fn unavailable(error: StoreError) -> Close {
    tracing::warn!(%error, "a user could not be read or written");
    back_off(Code::UNAVAILABLE, "the message store does not answer", Duration::from_secs(1))
}

/// Keeps the user's display name, and that they have been here.
pub async fn remember(store: &dyn Store, claims: &Claims) -> Result<(), StoreError> {
    // Who cannot be read is written anew.
    let known = users_apart(store, std::slice::from_ref(&claims.user)).await?.found.pop().flatten();
    if known.is_some_and(|user| user.name == claims.name) {
        return Ok(()); // most connects write nothing
    }
    // Refused to who was erased or lost their token meanwhile: whatever they do next is refused as well.
    let name = UserChange::Name(claims.name.clone());
    store.change_user(&claims.user, name, Some(claims.right())).await.map(drop)
}
