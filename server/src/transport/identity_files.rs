//! A certificate and its key in files that somebody renews while the node runs.

use std::path::PathBuf;
use std::time::SystemTime;

use sha2::{Digest, Sha256};

use super::tls::{Identity, TlsError};

/// The two files, and what was in them when they were looked at last.
#[derive(Debug)]
pub struct IdentityFiles {
    chain: PathBuf,
    key: PathBuf,
    /// What is presented, or was found bad and told.
    settled: Contents,
    /// Found bad once: it may be half of a renewal, so it is told only if it is still there next time.
    doubtful: Option<Contents>,
}

/// Fingerprint of both files; files that cannot be read have one too.
type Contents = [u8; 32];

/// What was found in the files.
#[derive(Debug)]
pub enum Look {
    /// Nothing new.
    Same,
    /// Something new that is good.
    Renewed(Identity),
    /// Something new that cannot be presented.
    Bad(TlsError),
}

impl IdentityFiles {
    /// The files as they are now; what is in them counts as presented.
    pub fn new(chain: PathBuf, key: PathBuf) -> Self {
        let mut files = Self { chain, key, settled: Contents::default(), doubtful: None };
        files.settled = files.contents();
        files
    }

    /// Whatever is in the files counts as new.
    pub fn forget(&mut self) {
        self.settled = Contents::default();
    }

    /// Looks again. A pair that does not belong together or cannot be read is told when it is found
    /// for the second time in a row, or at once if `insist`; and not again until it changes.
    pub fn look(&mut self, now: SystemTime, insist: bool) -> Look {
        let contents = self.contents();
        if contents == self.settled && !insist {
            self.doubtful = None;
            return Look::Same;
        }
        let identity = Identity::from_pem_files(&self.chain, &self.key);
        // Read twice: what was loaded is what the fingerprint says only if nothing changed meanwhile.
        if contents != self.contents() {
            return Look::Same;
        }
        match identity.and_then(|identity| identity.valid_at(now)) {
            Ok(_) if contents == self.settled => Look::Same,
            Ok(identity) => {
                self.settled = contents;
                self.doubtful = None;
                Look::Renewed(identity)
            }
            Err(error) if insist || self.doubtful == Some(contents) => {
                self.settled = contents;
                self.doubtful = None;
                Look::Bad(error)
            }
            Err(_) => {
                self.doubtful = Some(contents);
                Look::Same
            }
        }
    }

    fn contents(&self) -> Contents {
        let mut hash = Sha256::new();
        for path in [&self.chain, &self.key] {
            match std::fs::read(path) {
                Ok(bytes) => {
                    hash.update((bytes.len() as u64).to_be_bytes());
                    hash.update(&bytes);
                }
                Err(error) => hash.update(error.to_string()),
            }
        }
        hash.finalize().into()
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;
    use std::time::Duration;

    use super::*;
    use tern_certs::DevCert;

    /// Makes a certificate and gives the text of its chain and key.
    fn pair() -> (Vec<u8>, Vec<u8>) {
        let dir = tempfile::tempdir().unwrap();
        let cert = DevCert::load_or_create(dir.path()).unwrap();
        (fs::read(cert.cert_path).unwrap(), fs::read(dir.path().join("dev-cert-and-key.pem")).unwrap())
    }

    fn write(dir: &Path, (chain, key): &(Vec<u8>, Vec<u8>)) -> IdentityFiles {
        let (chain_path, key_path) = (dir.join("chain"), dir.join("key"));
        fs::write(&chain_path, chain).unwrap();
        fs::write(&key_path, key).unwrap();
        IdentityFiles::new(chain_path, key_path)
    }

    #[test]
    fn a_renewed_pair_is_found_once() {
        let (old, new) = (pair(), pair());
        let dir = tempfile::tempdir().unwrap();
        let mut files = write(dir.path(), &old);
        let now = SystemTime::now();
        assert!(matches!(files.look(now, false), Look::Same));
        write(dir.path(), &new);
        let Look::Renewed(identity) = files.look(now, false) else { panic!("not found") };
        let expected = Identity::from_pem_files(&dir.path().join("chain"), &dir.path().join("key")).unwrap();
        assert_eq!(identity.sha256_hex(), expected.sha256_hex());
        assert!(matches!(files.look(now, false), Look::Same));
    }

    #[test]
    fn half_a_renewal_is_waited_for_and_told_only_if_it_stays() {
        let (old, new) = (pair(), pair());
        let dir = tempfile::tempdir().unwrap();
        let mut files = write(dir.path(), &old);
        let now = SystemTime::now();
        fs::write(dir.path().join("chain"), &new.0).unwrap();
        assert!(matches!(files.look(now, false), Look::Same), "the key may be on its way");
        assert!(matches!(files.look(now, false), Look::Bad(TlsError::Mismatch)));
        assert!(matches!(files.look(now, false), Look::Same), "it is told once");
        assert!(matches!(files.look(now, true), Look::Bad(TlsError::Mismatch)), "unless somebody asks");
        fs::write(dir.path().join("key"), &new.1).unwrap();
        assert!(matches!(files.look(now, false), Look::Renewed(_)));
    }

    #[test]
    fn a_pair_that_is_not_valid_now_is_not_taken() {
        let (old, new) = (pair(), pair());
        let dir = tempfile::tempdir().unwrap();
        let mut files = write(dir.path(), &old);
        write(dir.path(), &new);
        let later = SystemTime::now() + Duration::from_secs(20 * 24 * 3600);
        let Look::Bad(error) = files.look(later, true) else { panic!("it has run out") };
        assert!(error.to_string().contains("it ended at"), "{error}");
    }
}
