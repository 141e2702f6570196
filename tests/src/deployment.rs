//! The files of a node that is run for real: configuration, certificate, keys of tokens.

use std::fs;
use std::path::{Path, PathBuf};

use jsonwebtoken::{Algorithm, EncodingKey, Header};
use rcgen::{CertificateParams, KeyPair};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tempfile::TempDir;

use crate::token;

/// A directory with everything that `tern serve` needs.
#[derive(Debug)]
pub struct Deployment {
    dir: TempDir,
}

impl Default for Deployment {
    fn default() -> Self {
        Self::new()
    }
}

impl Deployment {
    /// A certificate, and a configuration without keys for tokens.
    pub fn new() -> Self {
        let dir = tempfile::Builder::new().prefix("tern-deployment-").tempdir().expect("a directory");
        let deployment = Self { dir };
        deployment.put_certificate();
        deployment.configure("");
        deployment
    }

    /// A file of this name in it.
    pub fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The configuration.
    pub fn config(&self) -> PathBuf {
        self.file("tern.toml")
    }

    /// Writes the configuration: the certificate, fast reloads, and `more`.
    pub fn configure(&self, more: &str) {
        let (cert, key) = (self.file("cert.pem"), self.file("key.pem"));
        let tls = format!("[tls]\ncert_file = {cert:?}\nkey_file = {key:?}\nreload_every_s = 1\n");
        let drain = "[drain]\ndeadline_ms = 5000\nspread_ms = 0\n";
        replace(&self.config(), &format!("{tls}{drain}{more}"));
    }

    /// Puts a new certificate and its key in place, and gives its SHA-256.
    pub fn put_certificate(&self) -> [u8; 32] {
        let key = KeyPair::generate().expect("a key");
        let names = ["localhost", "127.0.0.1"].map(str::to_owned);
        let params = CertificateParams::new(names).expect("names");
        let cert = params.self_signed(&key).expect("a certificate");
        replace(&self.file("key.pem"), &key.serialize_pem());
        replace(&self.file("cert.pem"), &cert.pem());
        Sha256::digest(cert.der()).into()
    }

    /// Puts the public half of a key in place, under a name.
    pub fn put_public_key(&self, name: &str, key: &TokenKey) -> PathBuf {
        let path = self.file(name);
        replace(&path, &key.pair.public_key_pem());
        path
    }
}

/// Replaces a file at once, as renewals do.
fn replace(path: &Path, text: &str) {
    let aside = path.with_extension("new");
    fs::write(&aside, text).expect("a file");
    fs::rename(aside, path).expect("a file");
}

/// A key pair that signs tokens by ES256.
#[derive(Debug)]
pub struct TokenKey {
    kid: String,
    pair: KeyPair,
}

impl TokenKey {
    /// A fresh one of this name.
    pub fn new(kid: &str) -> Self {
        Self { kid: kid.into(), pair: KeyPair::generate().expect("a key") }
    }

    /// A token with these claims.
    pub fn sign(&self, claims: &Value) -> String {
        let header = Header { kid: Some(self.kid.clone()), ..Header::new(Algorithm::ES256) };
        let key = EncodingKey::from_ec_der(self.pair.serialized_der());
        jsonwebtoken::encode(&header, claims, &key).expect("claims can be signed")
    }

    /// A token of this user that outlives the test.
    pub fn token(&self, user: &str) -> String {
        self.sign(&token::claims(user))
    }

    /// The public half as an issuer publishes it.
    pub fn jwk(&self) -> Value {
        let point = self.pair.public_key_raw();
        let part = |bytes: &[u8]| data_encoding::BASE64URL_NOPAD.encode(bytes);
        json!({
            "kty": "EC", "crv": "P-256", "use": "sig", "alg": "ES256", "kid": self.kid,
            "x": part(&point[1..33]), "y": part(&point[33..65]),
        })
    }
}
