//! Making tokens: for development, tests and operators. A server only verifies.

use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use jsonwebtoken::{EncodingKey, Header};
use secrecy::ExposeSecret;
use serde::Serialize;
use tern_protocol::{NAME_BYTES_MAX, TOKEN_BYTES_MAX, UserId, check_name};

use super::algorithm::Algorithm;
use super::key::{read_private, read_secret};
use super::unusable::{AuthConfigError, SECRET_BYTES_MIN};

/// A key that signs. It never shows itself.
pub struct SigningKey {
    algorithm: Algorithm,
    key: EncodingKey,
}

impl SigningKey {
    /// An HS256 key from a file with a shared secret.
    pub fn from_secret_file(path: &Path) -> Result<Self, AuthConfigError> {
        let key = EncodingKey::from_secret(read_secret(path)?.expose_secret());
        Ok(Self { algorithm: Algorithm::HS256, key })
    }

    /// An HS256 key from bytes; `None` if they are fewer than [`SECRET_BYTES_MIN`].
    pub fn from_secret(secret: &[u8]) -> Option<Self> {
        let long_enough = secret.len() >= SECRET_BYTES_MIN;
        long_enough.then(|| Self { algorithm: Algorithm::HS256, key: EncodingKey::from_secret(secret) })
    }

    /// A private key from a PEM file (PKCS#8), for the algorithms with a key pair.
    pub fn from_private_key_file(path: &Path, algorithm: Algorithm) -> Result<Self, AuthConfigError> {
        let pem = secrecy::SecretSlice::from(read_private(path)?);
        let (key, expected) = match algorithm {
            Algorithm::HS256 => {
                return Err(AuthConfigError::WrongFile { algorithm, needs: "a secret file" });
            }
            Algorithm::ES256 => {
                (EncodingKey::from_ec_pem(pem.expose_secret()), "a P-256 private key in PKCS#8 PEM")
            }
            Algorithm::EdDSA => {
                (EncodingKey::from_ed_pem(pem.expose_secret()), "an Ed25519 private key in PKCS#8 PEM")
            }
            Algorithm::RS256 => {
                (EncodingKey::from_rsa_pem(pem.expose_secret()), "an RSA private key in PKCS#8 PEM")
            }
        };
        let bad = || AuthConfigError::BadKey { path: path.into(), expected };
        let key = Self { algorithm, key: key.map_err(|_| bad())? };
        // The library looks at curve and size only when it signs.
        key.sign(&Header::new(algorithm.into()), &()).map_err(|_| bad())?;
        Ok(key)
    }

    fn sign(&self, header: &Header, claims: &impl Serialize) -> Result<String, MintError> {
        jsonwebtoken::encode(header, claims, &self.key).map_err(|_| MintError::Key)
    }
}

/// What a token shall say.
#[derive(Clone, Debug)]
pub struct Mint {
    /// `sub`.
    pub user: UserId,
    /// `name`: 1 to 128 bytes without control characters.
    pub name: Option<String>,
    /// How long it is good for, from now.
    pub ttl: Duration,
    /// `kid` in the header.
    pub kid: Option<String>,
    /// `iss`.
    pub issuer: Option<String>,
    /// `aud`.
    pub audience: Option<String>,
    /// `scope`: words with a space between them.
    pub scope: Option<String>,
}

impl Mint {
    /// A token that only says who, for `ttl` from now.
    pub fn new(user: UserId, ttl: Duration) -> Self {
        Self { user, name: None, ttl, kid: None, issuer: None, audience: None, scope: None }
    }

    /// The signed token.
    pub fn sign(&self, key: &SigningKey, now: SystemTime) -> Result<String, MintError> {
        if self.name.as_deref().is_some_and(|name| check_name(name).is_err()) {
            return Err(MintError::Name);
        }
        let now = now.duration_since(UNIX_EPOCH).unwrap_or_default();
        let claims = Payload {
            sub: &self.user,
            name: self.name.as_deref(),
            iat: now.as_secs(),
            exp: now.saturating_add(self.ttl).as_secs(),
            iss: self.issuer.as_deref(),
            aud: self.audience.as_deref(),
            scope: self.scope.as_deref(),
        };
        let mut header = Header::new(key.algorithm.into());
        header.kid.clone_from(&self.kid);
        let token = key.sign(&header, &claims)?;
        if token.len() > TOKEN_BYTES_MAX { Err(MintError::TooLong(token.len())) } else { Ok(token) }
    }
}

#[derive(Serialize)]
struct Payload<'a> {
    sub: &'a UserId,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
    iat: u64,
    exp: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    iss: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    aud: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    scope: Option<&'a str>,
}

/// Why no token was made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MintError {
    /// The display name breaks its rule.
    #[error(
        "name must be 1 to {NAME_BYTES_MAX} bytes, without control characters, invisible ones and spaces at an edge"
    )]
    Name,
    /// The token would be refused for its length.
    #[error("the token has {0} bytes, at most {TOKEN_BYTES_MAX} are accepted")]
    TooLong(usize),
    /// The key does not sign.
    #[error("the key cannot sign with its algorithm")]
    Key,
}
