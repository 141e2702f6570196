//! What was taken from whose tokens, in memory: it is asked for with every write, and there are few.

use std::collections::HashMap;

use foldhash::fast::RandomState;
use parking_lot::RwLock;
use tern_protocol::UserId;

use super::keys;
use crate::store::{Erasure, Standing};

/// All erasures and revocations as of the last commit, by the hash of the user.
#[derive(Default)]
pub(super) struct Standings(RwLock<HashMap<[u8; 16], Standing, RandomState>>);

impl Standings {
    /// This was read from disk.
    pub(super) fn load(&self, hash: [u8; 16], read: impl FnOnce(&mut Standing)) {
        read(self.0.write().entry(hash).or_default());
    }

    /// That of a user.
    pub(super) fn get(&self, user: &UserId) -> Standing {
        let standings = self.0.read();
        if standings.is_empty() {
            return Standing::default(); // not worth a hash
        }
        standings.get(&keys::hashed(user)).cloned().unwrap_or_default()
    }

    /// A commit has written this.
    pub(super) fn put(&self, user: &UserId, standing: Standing) {
        self.0.write().insert(keys::hashed(user), standing);
    }

    /// Users whose erasure is open.
    pub(super) fn open_erasures(&self) -> Vec<UserId> {
        let standings = self.0.read();
        let erasures = standings.values().filter_map(|standing| standing.erasure.as_ref());
        let open = erasures.filter_map(|Erasure { open, .. }| open.as_ref());
        open.map(|open| open.user.clone()).collect()
    }
}
