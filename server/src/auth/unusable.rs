//! Why the `[auth]` section cannot be used, with the limits that it may not leave.

use std::path::PathBuf;

use super::algorithm::Algorithm;

/// Most keys: each may be tried on a token without `kid`.
pub const KEYS_MAX: usize = 16;
/// Most issuers.
pub(super) const ISSUERS_MAX: usize = 16;
/// Shortest HS256 secret in bytes: as long as the hash (RFC 7518, 3.2).
pub const SECRET_BYTES_MIN: usize = 32;

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
    #[error("{path} holds {bytes} bytes; a secret needs at least {SECRET_BYTES_MIN}", path = path.display())]
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
