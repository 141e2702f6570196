//! A JWK Set (RFC 7517) as keys that verify: each bound to the one algorithm that its type allows.

use data_encoding::BASE64URL_NOPAD;
use jsonwebtoken::DecodingKey;
use serde_json::Value;

use super::config::JwksConfig;
use super::fetch::FetchError;
use crate::auth::algorithm::Algorithm;
use crate::auth::key::VerifyingKey;

/// Most keys of one issuer: each may be tried on a token without `kid`.
const KEYS_MAX: usize = 64;
/// Bytes of a coordinate on P-256 and of an Ed25519 key.
const COORDINATE_BYTES: usize = 32;
/// RSA moduli that are accepted, in bytes: 2048 to 8192 bits.
const MODULUS_BYTES: std::ops::RangeInclusive<usize> = 256..=1024;

/// The keys of a set that can be used; others are left out, since an issuer may have keys for others.
pub(super) fn parse(text: &[u8], config: &JwksConfig) -> Result<Vec<VerifyingKey>, FetchError> {
    let set: Value = serde_json::from_slice(text).map_err(|error| FetchError::NoSet(error.to_string()))?;
    let keys = set.get("keys").and_then(Value::as_array);
    let keys = keys.ok_or_else(|| FetchError::NoSet("it has no list `keys`".into()))?;
    let usable = keys.iter().filter_map(key).filter(|key| config.algorithms.contains(&key.algorithm));
    let keys: Vec<VerifyingKey> = usable.take(KEYS_MAX).collect();
    if keys.is_empty() { Err(FetchError::NoKey) } else { Ok(keys) }
}

fn key(jwk: &Value) -> Option<VerifyingKey> {
    let text = |name: &str| jwk.get(name).and_then(Value::as_str);
    // A private key that is published is nobody's key any more.
    if jwk.get("d").is_some() || text("use").is_some_and(|purpose| purpose != "sig") {
        return None;
    }
    let verifies = |list: &Value| list.as_array().is_some_and(|list| list.iter().any(|op| op == "verify"));
    if !jwk.get("key_ops").is_none_or(verifies) {
        return None;
    }
    let part = |name: &str| BASE64URL_NOPAD.decode(text(name)?.as_bytes()).ok();
    let coordinate = |name: &str| part(name).filter(|bytes| bytes.len() == COORDINATE_BYTES).and(text(name));
    let (algorithm, key) = match (text("kty")?, text("crv")) {
        ("EC", Some("P-256")) => {
            let key = DecodingKey::from_ec_components(coordinate("x")?, coordinate("y")?).ok()?;
            (Algorithm::ES256, key)
        }
        ("OKP", Some("Ed25519")) => {
            (Algorithm::EdDSA, DecodingKey::from_ed_components(coordinate("x")?).ok()?)
        }
        ("RSA", _) => {
            let modulus = part("n").filter(|bytes| MODULUS_BYTES.contains(&bytes.len()))?;
            let exponent = part("e").filter(|bytes| (1..=8).contains(&bytes.len()))?;
            (Algorithm::RS256, DecodingKey::from_rsa_raw_components(&modulus, &exponent))
        }
        _ => return None,
    };
    if text("alg").is_some_and(|name| name != algorithm.name()) {
        return None;
    }
    Some(VerifyingKey::new(text("kid").map(str::to_owned), algorithm, key))
}
