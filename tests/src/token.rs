//! Tokens, good and bad ones.

use std::time::{SystemTime, UNIX_EPOCH};

use data_encoding::BASE64URL_NOPAD;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};

/// Seconds of a token that outlives every test.
const TTL_S: i64 = 3600;

/// Now in seconds since 1970.
pub fn now_s() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs() as i64
}

/// Claims of a token that is good for an hour.
pub fn claims(user: &str) -> Value {
    json!({ "sub": user, "iat": now_s(), "exp": now_s() + TTL_S })
}

/// A token with these claims, signed by HS256.
pub fn sign(claims: &Value, secret: &[u8]) -> String {
    sign_as(Algorithm::HS256, claims, secret)
}

/// A token with these claims, signed by an algorithm with a secret.
pub fn sign_as(algorithm: Algorithm, claims: &Value, secret: &[u8]) -> String {
    let key = EncodingKey::from_secret(secret);
    jsonwebtoken::encode(&Header::new(algorithm), claims, &key).expect("claims can be signed")
}

/// A token of three given parts; the signature as it is.
pub fn raw(header: &Value, claims: &Value, signature: &[u8]) -> String {
    let part = |value: &Value| BASE64URL_NOPAD.encode(value.to_string().as_bytes());
    format!("{}.{}.{}", part(header), part(claims), BASE64URL_NOPAD.encode(signature))
}
