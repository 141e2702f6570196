//! Adds to the SETTINGS frame what h3 0.0.8 has no setting for: pure.

use super::varint;

/// Start of a control stream: its type, then a frame of type SETTINGS.
const START: [u8; 2] = [0x00, 0x04];
/// `SETTINGS_WEBTRANSPORT_MAX_SESSIONS` of draft 07 of WebTransport over HTTP/3. Safari takes no session
/// without it (hyperium/h3 issue 347); Chromium and Firefox go by draft 02, which h3 announces.
const WEBTRANSPORT_MAX_SESSIONS_07: u64 = 0xc671_706a;

/// The first bytes of a control stream with one setting more; `None` if `bytes` are none.
pub(super) fn extend(bytes: &[u8]) -> Option<Vec<u8>> {
    let rest = bytes.strip_prefix(&START)?;
    let (length, used) = varint::decode(rest)?;
    let settings = rest.get(used..)?.get(..usize::try_from(length).ok()?)?;
    let after = &rest[used + settings.len()..];
    let mut settings = settings.to_vec();
    varint::encode(WEBTRANSPORT_MAX_SESSIONS_07, &mut settings);
    varint::encode(1, &mut settings);
    let mut extended = START.to_vec();
    varint::encode(settings.len() as u64, &mut extended);
    extended.extend_from_slice(&settings);
    extended.extend_from_slice(after);
    Some(extended)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_setting_is_added_and_nothing_else_changes() {
        let extended = extend(&[0x00, 0x04, 0x02, 0x33, 0x01]).unwrap();
        assert_eq!(extended[..5], [0x00, 0x04, 0x0b, 0x33, 0x01]);
        assert_eq!(extended[5..], [0xc0, 0, 0, 0, 0xc6, 0x71, 0x70, 0x6a, 0x01]);
        for other in [&[0x02][..], &[0x00, 0x07, 0x01, 0x00], &[0x00, 0x04, 0x05, 0x33]] {
            assert_eq!(extend(other), None);
        }
    }
}
