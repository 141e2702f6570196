//! One `[[auth.jwks]]`: an issuer whose keys are fetched.

use std::path::PathBuf;

use http::Uri;
use serde::{Deserialize, Serialize};
use tern_protocol::{USER_ID_BYTES_MAX, UserId};

use crate::auth::algorithm::Algorithm;
use crate::auth::claims::Scope;
use crate::auth::unusable::{AuthConfigError, ISSUERS_MAX};

/// One `[[auth.jwks]]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JwksConfig {
    /// What `iss` of its tokens is. Example: `"https://login.example"`.
    pub issuer: String,
    /// Where its keys are (a JWK Set): https, or http on loopback.
    /// Example: `"https://login.example/.well-known/jwks.json"`.
    pub url: String,
    /// What `aud` of its tokens must be or contain. Absent: a token with an `aud` is refused.
    /// Example: `"chat"`.
    pub audience: Option<String>,
    /// How its tokens may be signed: ES256, EdDSA, RS256. Example: `["ES256", "RS256"]`.
    pub algorithms: Vec<Algorithm>,
    /// The keys are fetched this often, in seconds; besides, a token of an unknown key asks for them, at
    /// most every 30 s. Example: `3600`.
    #[serde(default = "refresh_s")]
    pub refresh_s: u64,
    /// What stands before the `sub` of its tokens in the ids of its users, so that they are nobody else's.
    /// Absent: nothing. Example: `"partner:"`.
    pub user_prefix: Option<String>,
    /// Its tokens may name users of other issuers as well. Must be set where that could happen: where the
    /// prefix of another issuer begins with its own, or both have none. Absent: false. Example: `true`.
    #[serde(default)]
    pub shares_users: bool,
    /// Which words of `scope` count in its tokens: `messages:write` (send as any user), `admin` (see and
    /// close sessions, revoke tokens). Absent: none. Example: `["messages:write"]`.
    #[serde(default)]
    pub scopes: Vec<Scope>,
    /// PEM file with the certificate authority of the URL, if it is none of this machine's.
    /// Example: `"/etc/tern/idp-ca.pem"`.
    pub ca_file: Option<PathBuf>,
}

fn refresh_s() -> u64 {
    3600
}

/// Longest prefix in bytes: half of an id.
const PREFIX_BYTES_MAX: usize = USER_ID_BYTES_MAX / 2;

fn is_prefix(prefix: &str) -> bool {
    let user = UserId::new(&format!("{prefix}x"));
    (1..=PREFIX_BYTES_MAX).contains(&prefix.len()) && user.is_ok_and(|user| !user.is_erased())
}

impl JwksConfig {
    /// Its tokens can say that they are of a user of the other one.
    fn names_users_of(&self, other: &Self) -> bool {
        let prefix = |jwks: &Self| jwks.user_prefix.clone().unwrap_or_default();
        prefix(other).starts_with(&prefix(self))
    }

    /// The URL in its parts, if it is one that may be asked: scheme https, or http on loopback.
    pub(super) fn uri(&self) -> Result<Uri, &'static str> {
        let uri: Uri = self.url.parse().map_err(|_| "is not a URL")?;
        let host = uri.host().ok_or("names no host")?;
        if uri.authority().is_some_and(|authority| authority.as_str().contains('@')) {
            return Err("must not hold a user or password");
        }
        let address = host.trim_start_matches('[').trim_end_matches(']').parse::<std::net::IpAddr>();
        let loopback = host == "localhost" || address.is_ok_and(|address| address.is_loopback());
        match uri.scheme_str() {
            Some("https") => Ok(uri),
            Some("http") if loopback => Ok(uri),
            Some("http") => Err("must be https: whoever changes the answer can sign any token"),
            _ => Err("must begin with https://"),
        }
    }
}

/// What can be checked without asking anybody.
pub(in crate::auth) fn check(issuers: &[JwksConfig]) -> Result<(), AuthConfigError> {
    if issuers.len() > ISSUERS_MAX {
        return Err(AuthConfigError::TooManyIssuers(issuers.len()));
    }
    for (index, jwks) in issuers.iter().enumerate() {
        let bad = |problem| Err(AuthConfigError::Issuer { issuer: jwks.issuer.clone(), problem });
        if issuers[..index].iter().any(|other| other.issuer == jwks.issuer) {
            return bad("is there twice");
        }
        if jwks.user_prefix.as_ref().is_some_and(|prefix| !is_prefix(prefix)) {
            return bad(
                "needs a user_prefix of 1 to 64 bytes that users' ids may begin with, such as \"partner:\"",
            );
        }
        if let Err(problem) = jwks.uri() {
            return Err(AuthConfigError::JwksUrl { url: jwks.url.clone(), problem });
        }
        if jwks.issuer.is_empty() {
            return bad("must not be empty");
        }
        if jwks.algorithms.is_empty() {
            return bad("needs algorithms, such as [\"ES256\"]");
        }
        if jwks.algorithms.contains(&Algorithm::HS256) {
            return bad("cannot use HS256: a published secret is none");
        }
        if !(30..=24 * 3600).contains(&jwks.refresh_s) {
            return bad("needs a refresh_s of 30 to 86400");
        }
    }
    for (index, jwks) in issuers.iter().enumerate() {
        let mut others = issuers.iter().enumerate().filter(|(other, _)| *other != index);
        if !jwks.shares_users && others.any(|(_, other)| jwks.names_users_of(other)) {
            return Err(AuthConfigError::Issuer {
                issuer: jwks.issuer.clone(),
                problem: "could name the users of another issuer: give it a user_prefix, or say shares_users = true if that is meant",
            });
        }
    }
    Ok(())
}
