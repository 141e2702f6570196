//! Tokens: who a user is. Verifies a JWT against configured keys and turns its claims into [`Claims`].

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use parking_lot::RwLock;
use serde_json::Value;
use tern_protocol::{Code, NAME_BYTES_MAX, TOKEN_BYTES_MAX, UserId};

mod config;
mod inspect;
mod jwks;
mod jws;
mod key;
mod mint;
#[cfg(test)]
mod tests;

pub use config::{Algorithm, AuthConfig, AuthConfigError, KEYS_MAX, KeyConfig};
pub use inspect::{Inspection, inspect};
pub use jwks::{JwksConfig, KeepFresh};
pub use jws::{JwsError, Object};
pub use key::{SECRET_BYTES_MIN, ensure_secret_file};
pub use mint::{Mint, MintError, SigningKey};

use crate::ops::Check;
use crate::ops::metrics::Metrics;
use jwks::{Found, Issuer, fits};
use jws::Parts;
use key::VerifyingKey;

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

/// Why a token is refused. No variant holds anything of the token, so it can be shown and logged.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AuthError {
    /// Longer than [`TOKEN_BYTES_MAX`].
    #[error("the token has {0} bytes, at most {TOKEN_BYTES_MAX} are allowed")]
    TooLong(usize),
    /// Not three base64url parts with a JSON object in the first two.
    #[error("the token is not a JWT: {0}")]
    Malformed(#[from] JwsError),
    /// A header field that this server does not accept.
    #[error("the token's header is refused: {0}")]
    Header(&'static str),
    /// No configured key has the token's `kid` and algorithm.
    #[error("no configured key fits the token's kid and alg")]
    NoKey,
    /// The signature is not of any key that fits.
    #[error("the token's signature is wrong")]
    Signature,
    /// A claim is missing or has a value that is not accepted.
    #[error("the token's {claim} {problem}")]
    Claim {
        /// Which claim.
        claim: &'static str,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// `exp` is more than the leeway ago.
    #[error("the token expired {ago_s} s ago")]
    Expired {
        /// Seconds since `exp`.
        ago_s: u64,
    },
    /// The issuer's keys are not known now, or this one is not among them yet.
    #[error("the key of this token is not known yet; try again later")]
    KeysUnavailable {
        /// When to try again.
        retry_after: Duration,
    },
}

impl AuthError {
    /// The code to refuse the session with.
    pub fn code(&self) -> Code {
        match self {
            Self::Expired { .. } => Code::TOKEN_EXPIRED,
            Self::KeysUnavailable { .. } => Code::UNAVAILABLE,
            _ => Code::TOKEN_INVALID,
        }
    }

    /// When the same token may be good, for the one error that time may cure.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::KeysUnavailable { retry_after } => Some(*retry_after),
            _ => None,
        }
    }
}

/// Verifies tokens. A token never makes it read a file.
pub struct Authenticator {
    rules: RwLock<Arc<Rules>>,
}

/// What makes a token good. Replaced as a whole.
struct Rules {
    keys: Vec<VerifyingKey>,
    issuers: Vec<Arc<Issuer>>,
    issuer: Option<String>,
    audience: Option<String>,
    lifetime_max: Option<Duration>,
}

impl Authenticator {
    /// Reads the key files. Errors name the key or file and what to do.
    pub fn new(config: AuthConfig) -> Result<Self, AuthConfigError> {
        Ok(Self { rules: RwLock::new(Arc::new(Rules::load(config, &[])?)) })
    }

    /// Reads the key files again, and goes by this configuration from now on; after an error by the
    /// old one. Sessions keep what they were allowed by the old keys until their tokens expire.
    pub fn reload(&self, config: AuthConfig) -> Result<(), AuthConfigError> {
        let rules = Arc::new(Rules::load(config, &self.rules().issuers)?);
        *self.rules.write() = rules;
        Ok(())
    }

    /// Verifies a token as it came from a client, by the keys that are known now.
    pub fn verify(&self, token: &str, now: SystemTime) -> Result<Claims, AuthError> {
        self.rules().verify(token, now).map_err(AuthError::from)
    }

    /// The same; if the token's key is not known but its issuer is just being asked, waits for that,
    /// for at most two seconds.
    pub async fn authenticate(&self, token: &str, now: SystemTime) -> Result<Claims, AuthError> {
        match self.rules().verify(token, now) {
            Err(Refusal::NoKeyYet { issuer, seen, soon: true, .. }) if issuer.fetched_since(seen).await => {
                match self.verify(token, now) {
                    // The newest set does not have it either.
                    Err(AuthError::KeysUnavailable { .. }) => Err(AuthError::NoKey),
                    settled => settled,
                }
            }
            settled => settled.map_err(AuthError::from),
        }
    }

    /// Fetches the keys of all issuers and keeps them fresh until the guard is dropped. `check` says
    /// whether every issuer's keys are known.
    pub fn keep_fresh(&self, metrics: &Metrics, check: Arc<Check>) -> KeepFresh {
        KeepFresh::start(self.rules().issuers.clone(), metrics, check)
    }

    /// Fetches the keys of all issuers once; an error names the URL.
    pub async fn fetch_keys(&self) -> Result<(), String> {
        for issuer in &self.rules().issuers {
            issuer.fetch().await.map_err(|error| format!("{}: {error}", issuer.config.url))?;
        }
        Ok(())
    }

    /// There are issuers whose keys are fetched.
    pub fn fetches(&self) -> bool {
        !self.rules().issuers.is_empty()
    }

    fn rules(&self) -> Arc<Rules> {
        Arc::clone(&self.rules.read())
    }
}

/// Why the rules do not accept a token.
enum Refusal {
    /// It is not good.
    For(AuthError),
    /// Its issuer is known, its key is not.
    NoKeyYet {
        issuer: Arc<Issuer>,
        /// Fetches that had ended when the key was looked for.
        seen: u64,
        after: Duration,
        soon: bool,
    },
}

impl From<AuthError> for Refusal {
    fn from(error: AuthError) -> Self {
        Self::For(error)
    }
}

impl From<JwsError> for Refusal {
    fn from(error: JwsError) -> Self {
        Self::For(error.into())
    }
}

impl From<Refusal> for AuthError {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::For(error) => error,
            Refusal::NoKeyYet { after, .. } => Self::KeysUnavailable { retry_after: after },
        }
    }
}

impl Rules {
    /// Issuers of `known` that are configured as before keep what is known of their keys.
    fn load(config: AuthConfig, known: &[Arc<Issuer>]) -> Result<Self, AuthConfigError> {
        config.check()?;
        let issuer = |jwks: JwksConfig| {
            let same = known.iter().find(|issuer| issuer.config == jwks);
            same.cloned().unwrap_or_else(|| Issuer::new(jwks))
        };
        Ok(Self {
            keys: config.keys.iter().map(VerifyingKey::load).collect::<Result<_, _>>()?,
            issuers: config.jwks.into_iter().map(issuer).collect(),
            issuer: config.issuer,
            audience: config.audience,
            lifetime_max: config.lifetime_s_max.map(Duration::from_secs),
        })
    }

    fn verify(&self, token: &str, now: SystemTime) -> Result<Claims, Refusal> {
        if token.len() > TOKEN_BYTES_MAX {
            return Err(AuthError::TooLong(token.len()).into());
        }
        let parts = Parts::split(token)?;
        let header = parts.header()?;
        let (algorithm, kid) = check_header(&header)?;
        let now = now.duration_since(UNIX_EPOCH).unwrap_or_default();
        // Of the claims only `iss` is looked at before the signature is known to be right, and only to
        // choose whose keys must have made it.
        if let Some(issuer) = self.issuer_of(&parts)? {
            verify_by_issuer(issuer, &parts, algorithm, kid)?;
            let (iss, aud) = (Some(&issuer.config.issuer), issuer.config.audience.as_ref());
            return Ok(self.check_claims(&parts.claims()?, now, iss, aud)?);
        }
        let mut fitting = self.fitting(kid, algorithm).peekable();
        if fitting.peek().is_none() {
            return Err(AuthError::NoKey.into());
        }
        if !fitting.any(|key| key.verifies(&parts)) {
            return Err(AuthError::Signature.into());
        }
        Ok(self.check_claims(&parts.claims()?, now, self.issuer.as_ref(), self.audience.as_ref())?)
    }

    /// The issuer that the token says it is from, if its keys are fetched.
    fn issuer_of(&self, parts: &Parts<'_>) -> Result<Option<&Arc<Issuer>>, AuthError> {
        if self.issuers.is_empty() {
            return Ok(None);
        }
        let claims = parts.claims()?;
        let named = claims.get("iss").and_then(Value::as_str);
        Ok(self.issuers.iter().find(|issuer| named == Some(&issuer.config.issuer)))
    }

    /// The keys to try: those with the token's `kid`, else those configured without one. A token
    /// without `kid` may be of any key. The algorithm is the key's own; the header must agree with it.
    fn fitting<'a>(
        &'a self,
        kid: Option<&'a str>,
        algorithm: Algorithm,
    ) -> impl Iterator<Item = &'a VerifyingKey> {
        let named = kid.is_some() && self.keys.iter().any(|key| key.kid.as_deref() == kid);
        self.keys.iter().filter(move |key| {
            let fits = if named { key.kid.as_deref() == kid } else { kid.is_none() || key.kid.is_none() };
            fits && key.algorithm == algorithm
        })
    }

    fn check_claims(
        &self,
        claims: &Object,
        now: Duration,
        issuer: Option<&String>,
        audience: Option<&String>,
    ) -> Result<Claims, AuthError> {
        let expires = check_times(claims, now)?;
        if self.lifetime_max.is_some_and(|max| expires > (now + LEEWAY).saturating_add(max)) {
            return Err(refused("exp", "is further away than auth.lifetime_s_max"));
        }
        check_issuer(claims, issuer)?;
        check_audience(claims, audience)?;
        let ms = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let issued_ms = seconds(claims, "iat")?.map(ms);
        let send_as = has_scope(claims, SCOPE_SEND_AS)?;
        Ok(Claims {
            user: subject(claims)?,
            name: name(claims)?,
            expires_ms: ms(expires),
            issued_ms,
            send_as,
        })
    }
}

/// One of the issuer's keys has made the signature.
fn verify_by_issuer(
    issuer: &Arc<Issuer>,
    parts: &Parts<'_>,
    algorithm: Algorithm,
    kid: Option<&str>,
) -> Result<(), Refusal> {
    if !issuer.config.algorithms.contains(&algorithm) {
        return Err(AuthError::NoKey.into());
    }
    // Before the look, so that no fetch can end in between unseen.
    let seen = issuer.ended();
    match issuer.find(kid, algorithm, Instant::now()) {
        Found::Keys(keys) => {
            let mut fitting = keys.iter().filter(|key| fits(key, kid, algorithm));
            if fitting.any(|key| key.verifies(parts)) { Ok(()) } else { Err(AuthError::Signature.into()) }
        }
        Found::Later { after, soon } => Err(Refusal::NoKeyYet { issuer: issuer.clone(), seen, after, soon }),
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
fn check_header(header: &Object) -> Result<(Algorithm, Option<&str>), AuthError> {
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
fn check_times(claims: &Object, now: Duration) -> Result<Duration, AuthError> {
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

fn subject(claims: &Object) -> Result<UserId, AuthError> {
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
fn has_scope(claims: &Object, wanted: &str) -> Result<bool, AuthError> {
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
fn name(claims: &Object) -> Result<Option<String>, AuthError> {
    match text(claims, "name")? {
        None | Some("") => Ok(None),
        Some(name) if name.len() > NAME_BYTES_MAX => Err(refused("name", "is longer than name_bytes")),
        Some(name) if name.chars().any(char::is_control) => Err(refused("name", "has a control character")),
        Some(name) => Ok(Some(name.to_owned())),
    }
}
