//! The `[auth]` section: which keys make a token good, and what else it must say.

use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::jwks::{ISSUERS_MAX, JwksConfig};
use super::key::SECRET_BYTES_MIN;

/// Most keys: each may be tried on a token without `kid`.
pub const KEYS_MAX: usize = 16;

/// How a token is signed. Each key is for exactly one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Algorithm {
    /// HMAC with SHA-256 and a shared secret. For development: whoever verifies can also mint.
    HS256,
    /// ECDSA on P-256 with SHA-256.
    ES256,
    /// Ed25519.
    EdDSA,
    /// RSA PKCS#1 v1.5 with SHA-256, at least 2048 bits.
    RS256,
}

impl Algorithm {
    const ALL: [Self; 4] = [Self::HS256, Self::ES256, Self::EdDSA, Self::RS256];

    /// Its name in a token's `alg` and in the configuration.
    pub fn name(self) -> &'static str {
        match self {
            Self::HS256 => "HS256",
            Self::ES256 => "ES256",
            Self::EdDSA => "EdDSA",
            Self::RS256 => "RS256",
        }
    }

    /// The algorithm of exactly this name; `none` and all others are `None`.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|algorithm| algorithm.name() == name)
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

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

/// One `[[auth.keys]]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyConfig {
    /// Name of the key in a token's `kid`. A key without one verifies tokens of any unknown `kid`.
    /// Example: `"2026-11"`.
    pub kid: Option<String>,
    /// How the tokens of this key are signed: ES256, EdDSA or RS256; HS256 only where whoever verifies
    /// may also mint. Example: `"ES256"`.
    pub algorithm: Algorithm,
    /// PEM file with the public key, for ES256, EdDSA and RS256.
    /// Example: `"/etc/tern/jwt-public.pem"`.
    pub public_key_file: Option<PathBuf>,
    /// File with the shared secret, for HS256: its bytes without line breaks at the end.
    /// Example: `"/etc/tern/jwt-secret"`.
    pub secret_file: Option<PathBuf>,
}

/// Why the `[auth]` section cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum AuthConfigError {
    /// No key: no token could be accepted.
    #[error(
        "auth.keys is empty; add a [[auth.keys]] with algorithm and public_key_file (or secret_file), or an [[auth.jwks]]"
    )]
    NoKeys,
    /// More than [`KEYS_MAX`].
    #[error("auth.keys has {0} keys, at most {KEYS_MAX} are allowed")]
    TooManyKeys(usize),
    /// More than [`ISSUERS_MAX`].
    #[error("auth.jwks has {0} issuers, at most {ISSUERS_MAX} are allowed")]
    TooManyIssuers(usize),
    /// A URL that will not be asked.
    #[error("auth.jwks: url = {url:?} {problem}")]
    JwksUrl {
        /// The URL.
        url: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// An issuer with a setting that cannot work.
    #[error("auth.jwks: the issuer {issuer:?} {problem}")]
    Issuer {
        /// The issuer.
        issuer: String,
        /// What is wrong.
        problem: &'static str,
    },
    /// Two keys for one name and algorithm.
    #[error("auth.keys has two {algorithm} keys with kid {kid:?}")]
    DuplicateKid {
        /// The name.
        kid: String,
        /// The algorithm.
        algorithm: Algorithm,
    },
    /// The key needs the other kind of file.
    #[error("auth.keys: an {algorithm} key needs {needs} and nothing else")]
    WrongFile {
        /// The algorithm.
        algorithm: Algorithm,
        /// The setting it needs.
        needs: &'static str,
    },
    /// A file cannot be read or written.
    #[error("{path}: {source}", path = path.display())]
    File {
        /// Which file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// Everybody on the machine may read the secret.
    #[error("{path} can be read by every user of this machine; run: chmod 600 {path}", path = .0.display())]
    WorldReadable(PathBuf),
    /// The secret can be guessed.
    #[error("{path} holds {bytes} bytes; an HS256 secret needs at least {SECRET_BYTES_MIN}", path = path.display())]
    SecretTooShort {
        /// Which file.
        path: PathBuf,
        /// Bytes in it, line breaks at the end not counted.
        bytes: usize,
    },
    /// The file does not hold a key of the right kind.
    #[error("{path} is not {expected}", path = path.display())]
    BadKey {
        /// Which file.
        path: PathBuf,
        /// What should be in it.
        expected: &'static str,
    },
}

impl AuthConfig {
    /// What can be checked without reading a file.
    pub(super) fn check(&self) -> Result<(), AuthConfigError> {
        super::jwks::check(&self.jwks)?;
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
