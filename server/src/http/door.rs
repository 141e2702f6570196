//! Who asks: tokens, rates, addresses. Extractors that every route but the open ones begins with.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use axum::extract::{FromRequestParts, RawPathParams};
use http::request::Parts as Head;
use http::{HeaderMap, header};
use tern_protocol::{Code, ConversationId, IdError, UserId};

use super::submit::unavailable;
use super::{Api, Problem};
use crate::auth::{Authenticator, Claims, Scope};
use crate::budget::Budget;
use crate::session::quota::{Allowance, Quota};
use crate::session::{Refused, lost_words};
use crate::store::Store;
use crate::transport::TrustedProxies;
use crate::transport::websocket::token_in_query;

/// An answer to a read has about so many bytes.
const ANSWER_BYTES: usize = 16 * 1024;

/// What who asks is known by. Cheap to clone.
#[derive(Clone)]
pub(super) struct Door {
    pub(super) auth: Arc<Authenticator>,
    pub(super) quota: Arc<Quota>,
    pub(super) store: Arc<dyn Store>,
    pub(super) proxies: Arc<TrustedProxies>,
    pub(super) answers: Budget,
}

/// Somebody with a good token.
pub(super) struct Caller(pub(super) Claims);

/// Somebody with a good token who may read now.
pub(super) struct Reader(pub(super) UserId);

/// Somebody with a good token whose scope has `admin`.
pub(super) struct Administrator(pub(super) Claims);

/// Somebody who shows no token, at a route that wants none.
pub(super) struct Stranger;

/// The conversation that the path names. What is no id names none.
pub(super) struct Named(pub(super) ConversationId);

/// The member that the path names, after the conversation.
pub(super) struct NamedMember(pub(super) ConversationId, pub(super) UserId);

/// The user that the path names.
pub(super) struct NamedUser(pub(super) UserId);

impl FromRequestParts<Api> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(head: &mut Head, api: &Api) -> Result<Self, Problem> {
        refuse_token_in_url(head)?;
        let door = &api.0.door;
        let address = door.address(head);
        if let Allowance::Refused { retry_after } = door.quota.may_request(address, Instant::now()) {
            return Err(Problem::too_often(retry_after, "requests without a good token from this address"));
        }
        let authenticated = door.authenticate(&head.headers).await;
        if authenticated.is_err() {
            let _ = door.quota.request(address, Instant::now());
        }
        authenticated.map(Self)
    }
}

impl Door {
    async fn authenticate(&self, headers: &HeaderMap) -> Result<Claims, Problem> {
        let claims = self.auth.authenticate(bearer(headers)?, SystemTime::now()).await?;
        let standing = self.store.standing(&claims.user).await.map_err(unavailable)?;
        match standing.lost(claims.issued_ms) {
            None => Ok(claims),
            Some(lost) => {
                let (code, detail) = lost_words(lost);
                Err(Problem::bad_token(code, detail))
            }
        }
    }

    /// The client's address; behind a trusted proxy, whom that names.
    fn address(&self, head: &Head) -> IpAddr {
        self.proxies.client(peer(head), &head.headers)
    }
}

impl FromRequestParts<Api> for Reader {
    type Rejection = Problem;

    async fn from_request_parts(head: &mut Head, api: &Api) -> Result<Self, Problem> {
        let Caller(claims) = Caller::from_request_parts(head, api).await?;
        // Before it is done: changes are taken while memory is short, reads wait.
        if api.0.door.answers.try_charge(ANSWER_BYTES).is_none() {
            return Err(Refused::short_of_memory().into());
        }
        match api.0.door.quota.fetch(&claims.user, Instant::now()) {
            Allowance::Allowed => Ok(Self(claims.user)),
            Allowance::Refused { retry_after } => Err(Problem::too_often(retry_after, "reads of this user")),
        }
    }
}

impl FromRequestParts<Api> for Administrator {
    type Rejection = Problem;

    async fn from_request_parts(head: &mut Head, api: &Api) -> Result<Self, Problem> {
        let Caller(claims) = Caller::from_request_parts(head, api).await?;
        if !claims.may(Scope::Admin) {
            return Err(Problem::no_scope(Scope::Admin));
        }
        match api.0.door.quota.fetch(&claims.user, Instant::now()) {
            Allowance::Allowed => Ok(Self(claims)),
            Allowance::Refused { retry_after } => {
                Err(Problem::too_often(retry_after, "requests of this administrator"))
            }
        }
    }
}

impl FromRequestParts<Api> for Stranger {
    type Rejection = Problem;

    async fn from_request_parts(head: &mut Head, api: &Api) -> Result<Self, Problem> {
        refuse_token_in_url(head)?;
        let door = &api.0.door;
        match door.quota.request(door.address(head), Instant::now()) {
            Allowance::Allowed => Ok(Self),
            Allowance::Refused { retry_after } => {
                Err(Problem::too_often(retry_after, "requests from this address"))
            }
        }
    }
}

impl FromRequestParts<Api> for Named {
    type Rejection = Problem;

    async fn from_request_parts(head: &mut Head, api: &Api) -> Result<Self, Problem> {
        let parameters = parameters(head, api).await?;
        parse(&parameters, 0).map(Self).ok_or_else(Problem::absent)
    }
}

impl FromRequestParts<Api> for NamedMember {
    type Rejection = Problem;

    async fn from_request_parts(head: &mut Head, api: &Api) -> Result<Self, Problem> {
        let parameters = parameters(head, api).await?;
        let conversation = parse(&parameters, 0).ok_or_else(Problem::absent)?;
        let user = parse(&parameters, 1).ok_or_else(Problem::absent)?;
        Ok(Self(conversation, user))
    }
}

impl FromRequestParts<Api> for NamedUser {
    type Rejection = Problem;

    async fn from_request_parts(head: &mut Head, api: &Api) -> Result<Self, Problem> {
        let parameters = parameters(head, api).await?;
        let named = parameters.iter().next().map(|(_, value)| value.parse()).ok_or_else(Problem::absent)?;
        named.map(Self).map_err(|error: IdError| Problem::of(Code::INVALID_ARGUMENT, error.to_string()))
    }
}

/// Text that is not UTF-8 names nothing either.
async fn parameters(head: &mut Head, api: &Api) -> Result<RawPathParams, Problem> {
    RawPathParams::from_request_parts(head, api).await.map_err(|_| Problem::absent())
}

fn parse<T: std::str::FromStr>(parameters: &RawPathParams, place: usize) -> Option<T> {
    parameters.iter().nth(place).and_then(|(_, value)| value.parse().ok())
}

/// Address of the other end of the connection: the transport puts it on every request.
pub(super) fn peer(head: &Head) -> IpAddr {
    let peer = head.extensions.get::<SocketAddr>().expect("every transport says who asks");
    peer.ip().to_canonical()
}

fn refuse_token_in_url(head: &Head) -> Result<(), Problem> {
    if token_in_query(&head.uri) {
        let detail = "a token in a URL ends up in logs: send it as `Authorization: Bearer …`";
        return Err(Problem::parameter(detail));
    }
    Ok(())
}

fn bearer(headers: &HeaderMap) -> Result<&str, Problem> {
    let mut values = headers.get_all(header::AUTHORIZATION).into_iter();
    let (Some(value), None) = (values.next(), values.next()) else {
        return Err(Problem::no_token("send the token as one header, `Authorization: Bearer …`"));
    };
    value
        .to_str()
        .ok()
        .and_then(|text| text.split_once(' '))
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
        .map(|(_, token)| token.trim())
        .ok_or_else(|| Problem::no_token("the Authorization header is not `Bearer …`"))
}
