//! What header and claims of a token must say, and what they say then. Pure: the time is an argument.

use std::time::Duration;

use serde_json::Value;
use tern_protocol::{NAME_BYTES_MAX, UserId};

use super::AuthError;
use super::algorithm::Algorithm;
use super::jws::Object;

/// Clocks of issuer and server may differ by this much: `exp` and `nbf` are stretched by it.
pub const LEEWAY: Duration = Duration::from_secs(30);

/// The word in a token's `scope` that lets a back end send messages as any user, over HTTP.
pub const SCOPE_SEND_AS: &str = "messages:write";

/// What a verified token says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claims {
    /// `sub`: who.
    pub user: UserId,
    /// `name`: the display name shown to others, 1 to 128 bytes without control characters.
    pub name: Option<String>,
    /// `exp` in Unix milliseconds, without leeway.
    pub expires_ms: u64,
    /// `iat` in Unix milliseconds.
    pub issued_ms: Option<u64>,
    /// `scope` has [`SCOPE_SEND_AS`].
    pub send_as: bool,
}

/// What the claims of a token must say, besides what they must say everywhere.
pub(super) struct Expected<'a> {
    pub(super) issuer: Option<&'a String>,
    pub(super) audience: Option<&'a String>,
    pub(super) lifetime_max: Option<Duration>,
}

impl Expected<'_> {
    /// Takes verified claims for true if they are good now (since 1970).
    pub(super) fn check(&self, claims: &Object, now: Duration) -> Result<Claims, AuthError> {
        let expires = check_times(claims, now)?;
        if self.lifetime_max.is_some_and(|max| expires > (now + LEEWAY).saturating_add(max)) {
            return Err(refused("exp", "is further away than auth.lifetime_s_max"));
        }
        check_issuer(claims, self.issuer)?;
        check_audience(claims, self.audience)?;
        let ms = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        Ok(Claims {
            user: subject(claims)?,
            name: name(claims)?,
            expires_ms: ms(expires),
            issued_ms: seconds(claims, "iat")?.map(ms),
            send_as: has_scope(claims, SCOPE_SEND_AS)?,
        })
    }
}

fn check_issuer(claims: &Object, expected: Option<&String>) -> Result<(), AuthError> {
    let Some(expected) = expected else { return Ok(()) };
    match text(claims, "iss")? {
        None => Err(missing("iss")),
        Some(issuer) if issuer == expected => Ok(()),
        Some(_) => Err(refused("iss", "is not auth.issuer")),
    }
}

/// A token made for somebody else must not work here (RFC 7519, 4.1.3), so one with an audience
/// needs a server that knows its own.
fn check_audience(claims: &Object, expected: Option<&String>) -> Result<(), AuthError> {
    let is_for = |expected: &str, value: &Value| match value {
        Value::String(audience) => audience == expected,
        Value::Array(list) => list.iter().any(|audience| audience.as_str() == Some(expected)),
        _ => false,
    };
    match (expected, claims.get("aud")) {
        (None, None) => Ok(()),
        (None, Some(_)) => Err(refused("aud", "is set, but this server has no auth.audience")),
        (Some(_), None) => Err(missing("aud")),
        (Some(expected), Some(value)) if is_for(expected, value) => Ok(()),
        (Some(_), Some(_)) => Err(refused("aud", "does not name auth.audience")),
    }
}

/// The header's `alg` and `kid`. Refuses fields that would let a token bring its own key or rules.
pub(super) fn check_header(header: &Object) -> Result<(Algorithm, Option<&str>), AuthError> {
    if header.contains_key("crit") {
        return Err(AuthError::Header("crit names extensions, and none is understood here"));
    }
    if ["jwk", "jku", "x5c", "x5u"].iter().any(|field| header.contains_key(*field)) {
        return Err(AuthError::Header("a token cannot bring its own key (jwk, jku, x5c, x5u)"));
    }
    let is_token = |typ: &str| ["jwt", "at+jwt"].iter().any(|known| typ.eq_ignore_ascii_case(known));
    if !header.get("typ").is_none_or(|typ| typ.as_str().is_some_and(is_token)) {
        return Err(AuthError::Header("typ is not JWT"));
    }
    let kid = match header.get("kid") {
        None => None,
        Some(Value::String(kid)) => Some(kid.as_str()),
        Some(_) => return Err(AuthError::Header("kid is not a string")),
    };
    let algorithm = header.get("alg").and_then(Value::as_str).and_then(Algorithm::from_name);
    Ok((algorithm.ok_or(AuthError::Header("alg is not HS256, ES256, EdDSA or RS256"))?, kid))
}

/// `exp` (since 1970), if the token is good now.
pub(super) fn check_times(claims: &Object, now: Duration) -> Result<Duration, AuthError> {
    let expires = seconds(claims, "exp")?.ok_or(missing("exp"))?;
    seconds(claims, "iat")?;
    if now >= expires.saturating_add(LEEWAY) {
        return Err(AuthError::Expired { ago_s: (now - expires).as_secs() });
    }
    if seconds(claims, "nbf")?.is_some_and(|start| start > now + LEEWAY) {
        return Err(refused("nbf", "is in the future"));
    }
    Ok(expires)
}

pub(super) fn subject(claims: &Object) -> Result<UserId, AuthError> {
    let user = text(claims, "sub")?.ok_or(missing("sub"))?;
    match UserId::new(user) {
        Ok(user) if !user.is_erased() => Ok(user),
        _ => Err(refused("sub", "is not a valid user id")),
    }
}

fn missing(claim: &'static str) -> AuthError {
    AuthError::Claim { claim, problem: "is missing" }
}

fn refused(claim: &'static str, problem: &'static str) -> AuthError {
    AuthError::Claim { claim, problem }
}

/// A time claim: whole seconds since 1970, and nothing that merely resembles them.
fn seconds(claims: &Object, claim: &'static str) -> Result<Option<Duration>, AuthError> {
    match claims.get(claim) {
        None => Ok(None),
        Some(value) => match value.as_u64() {
            Some(seconds) => Ok(Some(Duration::from_secs(seconds))),
            None => Err(refused(claim, "is not a whole number of seconds since 1970")),
        },
    }
}

fn text<'a>(claims: &'a Object, claim: &'static str) -> Result<Option<&'a str>, AuthError> {
    match claims.get(claim) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(refused(claim, "is not a string")),
    }
}

/// Whether `scope` has this word: words in one string (RFC 8693, 4.2), or, as some issuers write it,
/// a list of strings. Words that mean something elsewhere are left alone.
pub(super) fn has_scope(claims: &Object, wanted: &str) -> Result<bool, AuthError> {
    match claims.get("scope") {
        None => Ok(false),
        Some(Value::String(words)) => Ok(words.split(' ').any(|word| word == wanted)),
        Some(Value::Array(words)) if words.iter().all(Value::is_string) => {
            Ok(words.iter().any(|word| word == wanted))
        }
        Some(_) => Err(refused("scope", "is neither a string nor a list of strings")),
    }
}

/// The display name; an empty one is none.
pub(super) fn name(claims: &Object) -> Result<Option<String>, AuthError> {
    match text(claims, "name")? {
        None | Some("") => Ok(None),
        Some(name) if name.len() > NAME_BYTES_MAX => Err(refused("name", "is longer than name_bytes")),
        Some(name) if name.chars().any(char::is_control) => Err(refused("name", "has a control character")),
        Some(name) => Ok(Some(name.to_owned())),
    }
}
