//! Who was erased, in memory: it is asked for with every write, and there are few.

use std::collections::HashMap;

use foldhash::fast::RandomState;
use parking_lot::RwLock;
use tern_protocol::UserId;

use super::keys;
use crate::store::Erasure;

/// All erasures as of the last commit, by the hash of the user.
#[derive(Default)]
pub(super) struct Erasures(RwLock<HashMap<[u8; 16], Erasure, RandomState>>);

impl Erasures {
    /// These were read from disk.
    pub(super) fn load(&self, erasures: Vec<([u8; 16], Erasure)>) {
        self.0.write().extend(erasures);
    }

    /// The last erasure of a user.
    pub(super) fn get(&self, user: &UserId) -> Option<Erasure> {
        let erasures = self.0.read();
        if erasures.is_empty() {
            return None; // not worth a hash
        }
        erasures.get(&keys::erased(user)).cloned()
    }

    /// A commit has written this.
    pub(super) fn put(&self, user: &UserId, erasure: Erasure) {
        self.0.write().insert(keys::erased(user), erasure);
    }

    /// Users whose erasure is open.
    pub(super) fn open(&self) -> Vec<UserId> {
        let erasures = self.0.read();
        let open = erasures.values().filter_map(|erasure| erasure.open.as_ref());
        open.map(|open| open.user.clone()).collect()
    }
}
