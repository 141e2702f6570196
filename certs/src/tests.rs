use super::*;

const NOW_S: i64 = 1_800_000_000;

fn cert_at(dir: &Path, names: &[&str], now_s: i64) -> DevCert {
    DevCert::load_or_create_at(dir, names, now_s).unwrap()
}

#[test]
fn the_same_certificate_is_used_until_two_days_before_its_end() {
    let dir = tempfile::tempdir().unwrap();
    let first = cert_at(dir.path(), &[], NOW_S);
    assert_eq!(first.not_after_s, NOW_S - BACKDATED_S + VALIDITY_S);
    let last_use_s = first.not_after_s - RENEW_BEFORE_S;
    assert_eq!(cert_at(dir.path(), &[], last_use_s).sha256, first.sha256);
    let renewed = cert_at(dir.path(), &[], last_use_s + 1);
    assert_ne!(renewed.sha256, first.sha256);
    assert_eq!(cert_at(dir.path(), &[], last_use_s + 2).sha256, renewed.sha256);
}

#[test]
fn browsers_accept_it_by_hash_because_it_is_p256_and_lives_less_than_14_days() {
    const { assert!(VALIDITY_S < 14 * 24 * 3600) };
    let dir = tempfile::tempdir().unwrap();
    let cert = cert_at(dir.path(), &[], NOW_S);
    // id-ecPublicKey with prime256v1, as DER object identifiers.
    let p256 = [0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
    assert!(cert.cert.windows(p256.len()).any(|window| window == p256));
    let digest: [u8; 32] = Sha256::digest(&cert.cert).into();
    assert_eq!(cert.sha256, digest);
    assert_eq!(cert.sha256_hex().len(), 64);
    assert!(cert.sha256_hex().starts_with(&format!("{:02x}{:02x}", digest[0], digest[1])));
}

#[test]
fn a_loaded_certificate_and_key_are_the_ones_that_were_made() {
    let dir = tempfile::tempdir().unwrap();
    let made = cert_at(dir.path(), &[], NOW_S);
    let loaded = cert_at(dir.path(), &[], NOW_S + 1);
    assert_eq!(loaded.cert, made.cert);
    assert_eq!(loaded.key.secret_der(), made.key.secret_der());
    let public = fs::read(&loaded.cert_path).unwrap();
    assert_eq!(CertificateDer::from_pem_slice(&public).unwrap(), made.cert);
    assert!(!String::from_utf8(public).unwrap().contains("PRIVATE"));
}

#[test]
fn other_names_make_another_certificate_that_has_them() {
    let dir = tempfile::tempdir().unwrap();
    let plain = cert_at(dir.path(), &[], NOW_S);
    let named = cert_at(dir.path(), &["chat.example", "10.1.2.3"], NOW_S);
    assert_ne!(plain.sha256, named.sha256);
    assert!(named.cert.windows(12).any(|window| window == b"chat.example"));
    assert!(named.cert.windows(9).any(|window| window == b"localhost"));
    assert!(named.cert.windows(4).any(|window| window == [10, 1, 2, 3]));
    assert_eq!(cert_at(dir.path(), &["chat.example", "10.1.2.3"], NOW_S).sha256, named.sha256);
    let bad = DevCert::load_or_create_at(dir.path(), &["not a name ü"], NOW_S);
    assert!(matches!(bad, Err(CertError::Make { .. })));
}

#[test]
fn a_damaged_file_is_replaced_and_a_clock_set_back_does_not_keep_one_from_the_future() {
    let dir = tempfile::tempdir().unwrap();
    let first = cert_at(dir.path(), &[], NOW_S);
    let path = dir.path().join(PAIR_FILE);
    let half = fs::read(&path).unwrap();
    fs::write(&path, &half[..half.len() / 2]).unwrap();
    let second = cert_at(dir.path(), &[], NOW_S);
    assert_ne!(first.sha256, second.sha256);
    fs::write(&path, [0xff, 0xfe]).unwrap();
    let third = cert_at(dir.path(), &[], NOW_S);
    assert_ne!(second.sha256, third.sha256);
    assert_ne!(cert_at(dir.path(), &[], NOW_S - 40 * 24 * 3600).sha256, third.sha256);
}

#[cfg(unix)]
#[test]
fn only_the_owner_can_read_the_key() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    cert_at(dir.path(), &[], NOW_S);
    let mode = fs::metadata(dir.path().join(PAIR_FILE)).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn a_directory_that_is_a_file_is_named_in_the_error() {
    let dir = tempfile::tempdir().unwrap();
    let blocked = dir.path().join("blocked");
    fs::write(&blocked, "").unwrap();
    let error = DevCert::load_or_create(&blocked).err().unwrap();
    assert!(error.to_string().contains("blocked"), "{error}");
}
