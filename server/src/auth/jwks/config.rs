//! One `[[auth.jwks]]`: an issuer whose keys are fetched.

use std::path::PathBuf;

use http::Uri;
use serde::{Deserialize, Serialize};

use crate::auth::algorithm::Algorithm;
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
    /// PEM file with the certificate authority of the URL, if it is none of this machine's.
    /// Example: `"/etc/tern/idp-ca.pem"`.
    pub ca_file: Option<PathBuf>,
}

fn refresh_s() -> u64 {
    3600
}

impl JwksConfig {
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
        if let Err(problem) = jwks.uri() {
            return Err(AuthConfigError::JwksUrl { url: jwks.url.clone(), problem });
        }
        if jwks.issuer.is_empty() {
            return bad("must not be empty");
        }
        if issuers[..index].iter().any(|other| other.issuer == jwks.issuer) {
            return bad("is there twice");
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
    Ok(())
}
