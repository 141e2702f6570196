//! The `[auth]` section: which keys make a token good, and what else it must say.

use serde::{Deserialize, Serialize};

use super::jwks::{self, JwksConfig};
use super::key::KeyConfig;
use super::unusable::{AuthConfigError, KEYS_MAX};

/// The `[auth]` section.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AuthConfig {
    /// The keys that tokens are verified with, at most 16.
    pub keys: Vec<KeyConfig>,
    /// What `iss` must be. Absent: it is not looked at. Example: `"https://login.example"`.
    pub issuer: Option<String>,
    /// What `aud` must be or contain. Absent: a token with an `aud` is refused. Example: `"chat"`.
    pub audience: Option<String>,
    /// Tokens that expire further away than this many seconds are refused. Absent: no limit.
    /// Example: `86400`.
    pub lifetime_s_max: Option<u64>,
    /// Issuers whose keys are fetched from a URL, at most 16. A token whose `iss` is one of them is
    /// verified by that issuer's keys alone.
    pub jwks: Vec<JwksConfig>,
}

impl AuthConfig {
    /// What can be checked without reading a file.
    pub(super) fn check(&self) -> Result<(), AuthConfigError> {
        jwks::check(&self.jwks)?;
        if self.keys.is_empty() && self.jwks.is_empty() {
            return Err(AuthConfigError::NoKeys);
        }
        if self.keys.len() > KEYS_MAX {
            return Err(AuthConfigError::TooManyKeys(self.keys.len()));
        }
        for (index, key) in self.keys.iter().enumerate() {
            let twin = |other: &KeyConfig| other.kid == key.kid && other.algorithm == key.algorithm;
            if let (Some(kid), true) = (&key.kid, self.keys[..index].iter().any(twin)) {
                return Err(AuthConfigError::DuplicateKid { kid: kid.clone(), algorithm: key.algorithm });
            }
        }
        Ok(())
    }
}
