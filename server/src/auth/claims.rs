//! What header and claims of a token must say, and what they say then. Pure: the time is an argument.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use tern_protocol::{UserId, name_of};

use super::AuthError;
use super::algorithm::Algorithm;
use super::jws::Object;
use crate::store::Right;

/// Clocks of issuer and server may differ by this much: `exp` and `nbf` are stretched by it.
pub const LEEWAY: Duration = Duration::from_secs(30);

/// The latest time that is told, in Unix milliseconds: the largest whole number that every JSON reader keeps.
const TIME_MS_MAX: u64 = (1 << 53) - 1;

/// A word in a token's `scope` that means something here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Scope {
    /// Lets a back end send messages as any user, over HTTP.
    #[serde(rename = "messages:write")]
    SendAs,
    /// Lets an operator see and close sessions and revoke tokens, over HTTP.
    #[serde(rename = "admin")]
    Admin,
}

impl Scope {
    /// All there are.
    pub const ALL: &'static [Self] = &[Self::SendAs, Self::Admin];

    /// As it is written.
    pub fn word(self) -> &'static str {
        match self {
            Self::SendAs => "messages:write",
            Self::Admin => "admin",
        }
    }
}

/// What a verified token says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claims {
    /// Who: `sub`, behind the prefix of its issuer.
    pub user: UserId,
    /// `name`: the display name shown to others, as [`check_name`](tern_protocol::check_name) wants it.
    pub name: Option<String>,
    /// `exp` in Unix milliseconds, without leeway; at most 2^53 - 1.
    pub expires_ms: u64,
    /// `iat` in Unix milliseconds; 0 if the token does not say, or says a time that has not come.
    pub issued_ms: u64,
    /// What `scope` asks for and the token's key may give.
    pub scopes: Vec<Scope>,
}

impl Claims {
    /// The token has this scope.
    pub fn may(&self, scope: Scope) -> bool {
        self.scopes.contains(&scope)
    }

    /// The right that the token gives to its user.
    pub fn right(&self) -> Right {
        Right::own(self.issued_ms)
    }
}

/// What a key or an issuer may say with its tokens.
#[derive(Clone, Copy, Debug)]
pub(super) struct Grants<'a> {
    /// What stands before `sub` in the ids of its users.
    pub(super) user_prefix: &'a str,
    /// Which scopes count.
    pub(super) scopes: &'a [Scope],
}

/// What the claims of a token must say, besides what they must say everywhere.
pub(super) struct Expected<'a> {
    pub(super) issuer: Option<&'a String>,
    pub(super) audience: Option<&'a String>,
    pub(super) lifetime_max: Option<Duration>,
    pub(super) grants: Grants<'a>,
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
        let ms = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX).min(TIME_MS_MAX);
        let Grants { user_prefix, scopes } = self.grants;
        Ok(Claims {
            user: subject(claims, user_prefix)?,
            name: name(claims),
            expires_ms: ms(expires),
            issued_ms: issued(claims, now)?.map_or(0, ms),
            scopes: scopes.iter().copied().filter(|scope| has_word(claims, scope.word())).collect(),
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

/// `iat`, if it can be true: nobody was given this token tomorrow. Until that time has come a revocation takes it
/// for one that was issued long ago, and afterwards for what it says.
fn issued(claims: &Object, now: Duration) -> Result<Option<Duration>, AuthError> {
    Ok(seconds(claims, "iat")?.filter(|issued| *issued <= now + LEEWAY))
}

/// Who it is, behind the prefix of the issuer.
pub(super) fn subject(claims: &Object, prefix: &str) -> Result<UserId, AuthError> {
    let user = text(claims, "sub")?.ok_or(missing("sub"))?;
    if user.is_empty() {
        return Err(refused("sub", "is empty"));
    }
    match UserId::new(&format!("{prefix}{user}")) {
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

/// A time claim: seconds since 1970, with or without a fraction (RFC 7519, NumericDate), and nothing that
/// merely resembles them. What is too late for a clock is the latest time there is.
fn seconds(claims: &Object, claim: &'static str) -> Result<Option<Duration>, AuthError> {
    let Some(value) = claims.get(claim) else { return Ok(None) };
    if let Some(seconds) = value.as_u64() {
        return Ok(Some(Duration::from_secs(seconds)));
    }
    match value.as_f64().filter(|seconds| *seconds >= 0.0) {
        Some(seconds) => Ok(Some(Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX))),
        None => Err(refused(claim, "is not a number of seconds since 1970")),
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
/// a list of strings. Words that mean something elsewhere are left alone; what is neither gives nothing.
fn has_word(claims: &Object, wanted: &str) -> bool {
    match claims.get("scope") {
        Some(Value::String(words)) => words.split(' ').any(|word| word == wanted),
        Some(Value::Array(words)) => words.iter().any(|word| word == wanted),
        _ => false,
    }
}

/// The display name, as far as it can be shown: a name that cannot is no reason to keep somebody out, and what
/// is no text is none.
fn name(claims: &Object) -> Option<String> {
    name_of(claims.get("name")?.as_str()?)
}
