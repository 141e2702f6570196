//! Key files: reading, checking and (for development) making them.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use data_encoding::BASE64URL_NOPAD;
use jsonwebtoken::DecodingKey;
use jsonwebtoken::crypto::aws_lc::DEFAULT_PROVIDER as CRYPTO;
use secrecy::{ExposeSecret, SecretSlice};
use serde::{Deserialize, Serialize};

use super::algorithm::Algorithm;
use super::claims::Scope;
use super::jws::Jws;
use super::unusable::{AuthConfigError, SECRET_BYTES_MIN};

/// Longest key file that is read, in bytes: a 16,384-bit RSA key in PEM has a fifth of it.
const KEY_FILE_BYTES_MAX: u64 = 16 * 1024;
/// Shortest RSA modulus in bytes (2048 bits); the crypto library verifies with none shorter.
const RSA_MODULUS_BYTES_MIN: usize = 256;
/// An uncompressed point on P-256: a tag and two coordinates.
const P256_POINT_BYTES: usize = 65;
/// A public key of Ed25519.
const ED25519_KEY_BYTES: usize = 32;

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
    /// Which words of `scope` count in its tokens: `messages:write` (send as any user), `admin` (see and
    /// close sessions, revoke tokens). Absent: both. Example: `["messages:write"]`.
    pub scopes: Option<Vec<Scope>>,
}

/// A key that verifies, bound to one algorithm.
pub(super) struct VerifyingKey {
    pub(super) kid: Option<String>,
    pub(super) algorithm: Algorithm,
    /// What its tokens may be allowed; of a key of an issuer the issuer's word counts instead.
    pub(super) scopes: Vec<Scope>,
    key: DecodingKey,
}

impl VerifyingKey {
    /// A key for one algorithm, which its kind must be of.
    pub(super) fn new(kid: Option<String>, algorithm: Algorithm, key: DecodingKey) -> Self {
        Self { kid, algorithm, scopes: Vec::new(), key }
    }

    pub(super) fn load(config: &KeyConfig) -> Result<Self, AuthConfigError> {
        let algorithm = config.algorithm;
        let key = match (algorithm, &config.secret_file, &config.public_key_file) {
            (Algorithm::HS256, Some(path), None) => {
                DecodingKey::from_secret(read_secret(path)?.expose_secret())
            }
            (Algorithm::HS256, _, _) => {
                return Err(AuthConfigError::WrongFile { algorithm, needs: "secret_file" });
            }
            (_, None, Some(path)) => read_public_key(path, algorithm)?,
            (_, _, _) => return Err(AuthConfigError::WrongFile { algorithm, needs: "public_key_file" }),
        };
        let scopes = config.scopes.clone().unwrap_or_else(|| Scope::ALL.to_vec());
        Ok(Self { kid: config.kid.clone(), algorithm, scopes, key })
    }

    /// The signature is this key's. An error of the library (a signature that is not base64) is a no.
    pub(super) fn verifies(&self, token: &Jws<'_>) -> bool {
        let algorithm = self.algorithm.into();
        jsonwebtoken::crypto::verify(token.signature, token.signed.as_bytes(), &self.key, algorithm)
            .unwrap_or(false)
    }
}

/// Reads a secret: the bytes of the file without line breaks at its end.
pub(super) fn read_secret(path: &Path) -> Result<SecretSlice<u8>, AuthConfigError> {
    let mut bytes = read_private(path)?;
    while bytes.last().is_some_and(|byte| matches!(byte, b'\n' | b'\r')) {
        bytes.pop();
    }
    if bytes.len() < SECRET_BYTES_MIN {
        return Err(AuthConfigError::SecretTooShort { path: path.into(), bytes: bytes.len() });
    }
    Ok(bytes.into())
}

/// Reads a file that must not be open to every user of the machine.
pub(super) fn read_private(path: &Path) -> Result<Vec<u8>, AuthConfigError> {
    let file = File::open(path).map_err(at(path))?;
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let mode = file.metadata().map_err(at(path))?.permissions().mode();
        if mode & 0o004 != 0 {
            return Err(AuthConfigError::WorldReadable(path.into()));
        }
    }
    read_bounded(file).map_err(at(path))
}

fn read_public_key(path: &Path, algorithm: Algorithm) -> Result<DecodingKey, AuthConfigError> {
    let pem = File::open(path).and_then(read_bounded).map_err(at(path))?;
    let expected = match algorithm {
        Algorithm::ES256 => "the public key of a P-256 pair in PEM (openssl pkey -in KEY -pubout)",
        Algorithm::EdDSA => "the public key of an Ed25519 pair in PEM (openssl pkey -in KEY -pubout)",
        _ => "an RSA public key of at least 2048 bits in PEM (openssl pkey -in KEY -pubout)",
    };
    public_key(&pem, algorithm).ok_or(AuthConfigError::BadKey { path: path.into(), expected })
}

/// The library takes anything of the right family here and fails at the first token instead, so
/// kind, curve and size are checked now.
fn public_key(pem: &[u8], algorithm: Algorithm) -> Option<DecodingKey> {
    if !contains(pem, b"-----BEGIN PUBLIC KEY-----") && !contains(pem, b"-----BEGIN RSA PUBLIC KEY-----") {
        return None;
    }
    let key = match algorithm {
        Algorithm::HS256 => return None,
        Algorithm::ES256 => DecodingKey::from_ec_pem(pem),
        Algorithm::EdDSA => DecodingKey::from_ed_pem(pem),
        Algorithm::RS256 => DecodingKey::from_rsa_pem(pem),
    }
    .ok()?;
    let bytes = key.try_get_as_bytes().ok()?;
    let right = match algorithm {
        Algorithm::HS256 => false,
        Algorithm::ES256 => bytes.len() == P256_POINT_BYTES && bytes[0] == 4,
        Algorithm::EdDSA => bytes.len() == ED25519_KEY_BYTES,
        Algorithm::RS256 => (CRYPTO.key_utils.rsa_pub_components_from_public_key)(bytes)
            .is_ok_and(|(modulus, _)| modulus.len() >= RSA_MODULUS_BYTES_MIN),
    };
    right.then_some(key)
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

fn read_bounded(file: File) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.take(KEY_FILE_BYTES_MAX + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > KEY_FILE_BYTES_MAX {
        return Err(io::Error::other(format!("larger than {KEY_FILE_BYTES_MAX} bytes: not a key")));
    }
    Ok(bytes)
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> AuthConfigError {
    let path = path.to_path_buf();
    move |source| AuthConfigError::File { path, source }
}

/// Makes a file with a random secret, readable by its owner only, unless the file is there already.
/// Several processes may do this at once: all end up with the same secret.
pub fn ensure_secret_file(path: &Path) -> Result<(), AuthConfigError> {
    if path.try_exists().map_err(at(path))? {
        return Ok(());
    }
    let mut text = BASE64URL_NOPAD.encode(&rand::random::<[u8; SECRET_BYTES_MIN]>());
    text.push('\n');
    // Written aside and then linked: nobody can ever read half a secret.
    let aside = aside(path);
    let written = create_private(&aside).and_then(|mut file| {
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        match fs::hard_link(&aside, path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            linked => linked,
        }
    });
    let _ = fs::remove_file(&aside);
    written.map_err(at(path))
}

/// The secret in a file, which is made if it is not there.
pub fn ensure_secret(path: &Path) -> Result<SecretSlice<u8>, AuthConfigError> {
    ensure_secret_file(path)?;
    read_secret(path)
}

fn aside(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{:016x}", rand::random::<u64>()));
    name.into()
}

fn create_private(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}
