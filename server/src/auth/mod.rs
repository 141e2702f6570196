//! Tokens: who a user is. Verifies a JWT against configured keys and turns its claims into [`Claims`].

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use parking_lot::RwLock;
use serde_json::Value;
use tern_protocol::{Code, TOKEN_BYTES_MAX};

mod algorithm;
mod claims;
mod config;
mod inspect;
mod jwks;
mod jws;
mod key;
mod mint;
#[cfg(test)]
mod tests;
mod unusable;

pub use algorithm::Algorithm;
pub use claims::{Claims, LEEWAY, Scope};
pub use config::AuthConfig;
pub use inspect::{Inspection, inspect};
pub use jwks::{JwksConfig, KeepFresh};
pub use jws::{JwsError, Object};
pub use key::{KeyConfig, ensure_secret, ensure_secret_file};
pub use mint::{Mint, MintError, SigningKey};
pub use unusable::{AuthConfigError, KEYS_MAX, SECRET_BYTES_MIN};

use crate::ops::Check;
use crate::ops::metrics::Metrics;
use claims::{Expected, Grants, check_header, check_times};
use jwks::{Found, Issuer, fits};
use jws::Jws;
use key::VerifyingKey;

/// Why a token is refused. No variant holds anything of the token, so it can be shown and logged.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AuthError {
    /// Longer than [`TOKEN_BYTES_MAX`].
    #[error("the token has {0} bytes, at most {TOKEN_BYTES_MAX} are allowed")]
    TooLong(usize),
    /// Not three base64url jws with a JSON object in the first two.
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
                self.verify(token, now)
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
        let jws = Jws::split(token)?;
        let header = jws.header()?;
        let (algorithm, kid) = check_header(&header)?;
        let now = now.duration_since(UNIX_EPOCH).unwrap_or_default();
        // Of the claims only `iss` is looked at before the signature is known to be right, and only to
        // choose whose keys must have made it.
        if let Some(issuer) = self.issuer_of(&jws)? {
            verify_by_issuer(issuer, &jws, algorithm, kid, now)?;
            let JwksConfig { issuer, audience, user_prefix, scopes, .. } = &issuer.config;
            let grants = Grants { user_prefix: user_prefix.as_deref().unwrap_or(""), scopes };
            let (issuer, audience) = (Some(issuer), audience.as_ref());
            let expected = Expected { issuer, audience, lifetime_max: self.lifetime_max, grants };
            return Ok(expected.check(&jws.claims()?, now)?);
        }
        let mut fitting = self.fitting(kid, algorithm).peekable();
        if fitting.peek().is_none() {
            return Err(AuthError::NoKey.into());
        }
        let key = fitting.find(|key| key.verifies(&jws)).ok_or(AuthError::Signature)?;
        let (issuer, audience) = (self.issuer.as_ref(), self.audience.as_ref());
        let grants = Grants { user_prefix: "", scopes: &key.scopes };
        let expected = Expected { issuer, audience, lifetime_max: self.lifetime_max, grants };
        Ok(expected.check(&jws.claims()?, now)?)
    }

    /// The issuer that the token says it is from, if its keys are fetched.
    fn issuer_of(&self, jws: &Jws<'_>) -> Result<Option<&Arc<Issuer>>, AuthError> {
        if self.issuers.is_empty() {
            return Ok(None);
        }
        let claims = jws.claims()?;
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
}

/// One of the issuer's keys has made the signature.
fn verify_by_issuer(
    issuer: &Arc<Issuer>,
    jws: &Jws<'_>,
    algorithm: Algorithm,
    kid: Option<&str>,
    now: Duration,
) -> Result<(), Refusal> {
    if !issuer.config.algorithms.contains(&algorithm) {
        return Err(AuthError::NoKey.into());
    }
    // Before the look, so that no fetch can end in between unseen.
    let seen = issuer.ended();
    match issuer.find(kid, algorithm, Instant::now()) {
        Found::Keys(keys) => {
            let mut fitting = keys.iter().filter(|key| fits(key, kid, algorithm));
            if fitting.any(|key| key.verifies(jws)) { Ok(()) } else { Err(AuthError::Signature.into()) }
        }
        Found::Nowhere => Err(AuthError::NoKey.into()),
        Found::Later { after, soon } => {
            // No key will make a token good that says itself that it is over.
            check_times(&jws.claims()?, now)?;
            Err(Refusal::NoKeyYet { issuer: issuer.clone(), seen, after, soon })
        }
    }
}
