//! The keys by which a restarted node recognises the connections of its earlier run and ends them at once: a
//! client whose node was killed hears so with its next packet, not after the idle timeout.

use std::sync::Arc;

use aws_lc_rs::{hkdf, hmac};
use quinn::EndpointConfig;
use quinn_proto::{ConnectionId, ConnectionIdGenerator, InvalidCid};

/// Bytes of a connection id that differ from one connection to the next. They must not come twice, in no run
/// with the same key: whoever had one before would know how to end the other's connection.
const NONCE_BYTES: usize = 8;
/// Bytes by which a node knows its own ids, so that it answers nothing to packets that are not meant for it.
const TAG_BYTES: usize = 4;
/// Resets leave at most this often. After a crash everybody needs one; only who knows an id of ours gets one,
/// and it is shorter than what asked for it.
const RESET_INTERVAL: std::time::Duration = std::time::Duration::from_micros(50);

/// Keys of a QUIC endpoint that outlive the process.
pub struct EndpointKeys {
    reset: Arc<hmac::Key>,
    token: hkdf::Prk,
    id: Arc<hmac::Key>,
}

impl EndpointKeys {
    /// The keys of the node of this name. Its name goes in, so that nodes may share a secret: a node with the
    /// keys of another one that runs would end connections of that one for whoever sends it a packet.
    pub fn new(secret: &[u8], node: &str) -> Self {
        let root = hmac::Key::new(hmac::HMAC_SHA256, secret);
        let derive = |purpose: &str| hmac::sign(&root, format!("tern quic {purpose} of {node}").as_bytes());
        let key = |purpose| Arc::new(hmac::Key::new(hmac::HMAC_SHA256, derive(purpose).as_ref()));
        Self {
            reset: key("reset"),
            token: hkdf::Salt::new(hkdf::HKDF_SHA256, &[]).extract(derive("token").as_ref()),
            id: key("id"),
        }
    }

    /// The endpoint that resets connections of earlier runs.
    pub(super) fn endpoint(&self) -> EndpointConfig {
        let mut config = EndpointConfig::new(self.reset.clone());
        let key = self.id.clone();
        config
            .cid_generator(move || Box::new(OwnIds { key: key.clone() }))
            .min_reset_interval(RESET_INTERVAL);
        config
    }

    /// Proofs of an address that an earlier run gave still hold.
    pub(super) fn token(&self) -> Arc<dyn quinn::crypto::HandshakeTokenKey> {
        // A copy: the type has no other way to be shared.
        Arc::new(self.token.clone())
    }
}

impl std::fmt::Debug for EndpointKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("EndpointKeys")
    }
}

/// Makes connection ids that every run with the same key knows as its own.
struct OwnIds {
    key: Arc<hmac::Key>,
}

impl OwnIds {
    fn tag(&self, nonce: &[u8]) -> [u8; TAG_BYTES] {
        let mut tag = [0; TAG_BYTES];
        tag.copy_from_slice(&hmac::sign(&self.key, nonce).as_ref()[..TAG_BYTES]);
        tag
    }
}

impl ConnectionIdGenerator for OwnIds {
    fn generate_cid(&mut self) -> ConnectionId {
        let nonce: [u8; NONCE_BYTES] = rand::random();
        ConnectionId::new(&[&nonce[..], &self.tag(&nonce)].concat())
    }

    fn validate(&self, id: &ConnectionId) -> Result<(), InvalidCid> {
        match id.split_at_checked(NONCE_BYTES) {
            Some((nonce, tag)) if *tag == self.tag(nonce) => Ok(()),
            _ => Err(InvalidCid),
        }
    }

    fn cid_len(&self) -> usize {
        NONCE_BYTES + TAG_BYTES
    }

    fn cid_lifetime(&self) -> Option<std::time::Duration> {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(secret: &[u8], node: &str) -> OwnIds {
        OwnIds { key: EndpointKeys::new(secret, node).id }
    }

    fn reset(secret: &[u8], node: &str) -> Vec<u8> {
        hmac::sign(&EndpointKeys::new(secret, node).reset, b"id").as_ref().to_vec()
    }

    #[test]
    fn a_node_knows_the_ids_of_its_earlier_run_and_of_no_other_node() {
        let id = ids(&[7; 32], "one").generate_cid();
        assert_eq!(id.len(), ids(&[7; 32], "one").cid_len());
        assert!(ids(&[7; 32], "one").validate(&id).is_ok());
        assert!(ids(&[7; 32], "two").validate(&id).is_err());
        assert!(ids(&[8; 32], "one").validate(&id).is_err());
        assert!(ids(&[7; 32], "one").validate(&ConnectionId::new(&[1, 2, 3])).is_err());
    }

    #[test]
    fn resets_are_those_of_the_node_by_its_secret_and_name() {
        assert_eq!(reset(&[7; 32], "one"), reset(&[7; 32], "one"));
        assert_ne!(reset(&[7; 32], "one"), reset(&[7; 32], "two"));
        assert_ne!(reset(&[7; 32], "one"), reset(&[8; 32], "one"));
    }
}
