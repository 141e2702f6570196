//! Halves of characters in JSON texts: what `JSON.stringify` writes for a text that was cut inside a
//! character.

use std::borrow::Cow;

/// Bytes of an escape such as `\ud83d`.
const ESCAPE_BYTES: usize = 6;
/// The digits of U+FFFD, the replacement character: as long as those they stand in for.
const REPLACEMENT: &str = "fffd";

/// The JSON text with each escape of a lone surrogate replaced by that of U+FFFD: what any encoder of UTF-8
/// makes of it. Everything else stays as it is.
pub fn without_lone_surrogates(text: &str) -> Cow<'_, str> {
    let mut mended = Cow::Borrowed(text);
    let mut at = 0;
    while let Some(found) = text[at..].find('\\') {
        at += found;
        let Some(unit) = unit_at(text, at) else {
            // Another escape, of two bytes at least; its second may be a backslash.
            at += 1 + text[at + 1..].chars().next().map_or(0, char::len_utf8);
            continue;
        };
        let next = unit_at(text, at + ESCAPE_BYTES);
        match unit {
            0xd800..=0xdbff if next.is_some_and(|next| (0xdc00..=0xdfff).contains(&next)) => {
                at += 2 * ESCAPE_BYTES;
            }
            0xd800..=0xdfff => {
                mended.to_mut().replace_range(at + 2..at + ESCAPE_BYTES, REPLACEMENT);
                at += ESCAPE_BYTES;
            }
            _ => at += ESCAPE_BYTES,
        }
    }
    mended
}

/// The UTF-16 unit of the escape that begins here, if one does.
fn unit_at(text: &str, at: usize) -> Option<u16> {
    let digits = text.get(at..at + ESCAPE_BYTES)?.strip_prefix("\\u")?;
    let is_hex = digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_hex.then(|| u16::from_str_radix(digits, 16).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_halves_of_characters_are_replaced() {
        for (text, mended) in [
            (r#""\ud83d""#, r#""\ufffd""#),
            (r#""\udc4d""#, r#""\ufffd""#),
            (r#""\uD83D\uDC4D""#, r#""\uD83D\uDC4D""#),
            (r#""\ud83d\ud83d\udc4d""#, r#""\ufffd\ud83d\udc4d""#),
            (r#""\ud83dx\udc4d""#, r#""\ufffdx\ufffd""#),
            (r#""\\ud83d""#, r#""\\ud83d""#),
            (r#""\\\ud83d""#, r#""\\\ufffd""#),
            (r#""\u00e9\n""#, r#""\u00e9\n""#),
            (r"\ud8", r"\ud8"),
            (r"\ud8é0", r"\ud8é0"),
            (r"\é\ud800", r"\é\ufffd"),
            (r"\", r"\"),
        ] {
            assert_eq!(without_lone_surrogates(text), mended);
        }
        assert!(matches!(without_lone_surrogates(r#""\ud83d\udc4d""#), Cow::Borrowed(_)));
    }
}
