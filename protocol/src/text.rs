//! Which texts may name something: what cannot be seen, or turns the words beside it around, is in no id and
//! in no name, so that two that look alike are not two.

use std::borrow::Cow;

use icu_normalizer::ComposingNormalizerBorrowed;

use crate::limits::NAME_BYTES_MAX;

/// What a text has that an id or a name must not have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TextFault {
    /// A control character, a line break of any kind among them.
    #[error("control characters or line breaks")]
    Control,
    /// A character that shows nothing, or that changes the direction of what stands beside it.
    #[error("invisible characters or such that change the direction of writing")]
    Invisible,
    /// A space at the beginning or at the end; in an id any space but the ordinary one.
    #[error("spaces at an edge or special spaces")]
    Space,
}

/// A text is no name of a group or of a user.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// It is empty or too long.
    #[error("a name has 1 to {NAME_BYTES_MAX} bytes, this one has {0}")]
    Length(usize),
    /// It has what no name may have.
    #[error("a name must not have {0}")]
    Fault(TextFault),
}

/// Finds what is wrong with the name of a group or of a user. What holds an emoji or the letters of a word
/// together is allowed inside a name.
pub fn check_name(name: &str) -> Result<(), NameError> {
    if name.is_empty() || name.len() > NAME_BYTES_MAX {
        return Err(NameError::Length(name.len()));
    }
    let mut before = ' ';
    for c in name.chars() {
        let joins = is_joiner(c) && !before.is_whitespace();
        if is_break(c) {
            return Err(NameError::Fault(TextFault::Control));
        }
        if is_invisible(c) && !joins {
            return Err(NameError::Fault(TextFault::Invisible));
        }
        before = c;
    }
    if has_space_at_edge(name) { Err(NameError::Fault(TextFault::Space)) } else { Ok(()) }
}

/// What of a text may be a name: without what no name may have, with a space for a line break, cut to its
/// length. `None`: nothing is left.
pub fn name_of(text: &str) -> Option<String> {
    let mut name = String::new();
    for c in text.chars() {
        let c = if is_break(c) { ' ' } else { c };
        let before = name.chars().next_back().unwrap_or(' ');
        let is_space_again = c.is_whitespace() && before.is_whitespace();
        let is_lost = is_invisible(c) && (!is_joiner(c) || before.is_whitespace());
        if is_space_again || is_lost {
            continue;
        }
        if name.len() + c.len_utf8() > NAME_BYTES_MAX {
            break;
        }
        name.push(c);
    }
    name.truncate(name.trim_end().len());
    check_name(&name).is_ok().then_some(name)
}

/// Finds what is wrong with an id, besides its length.
pub(crate) fn id_fault(text: &str) -> Option<TextFault> {
    if text.chars().any(is_break) {
        Some(TextFault::Control)
    } else if text.chars().any(is_invisible) {
        Some(TextFault::Invisible)
    } else if has_space_at_edge(text) || text.chars().any(|c| c.is_whitespace() && c != ' ') {
        Some(TextFault::Space)
    } else {
        None
    }
}

/// The composed form (NFC): one of all the ways to write the same letters.
pub(crate) fn composed(text: &str) -> Cow<'_, str> {
    if text.is_ascii() {
        return Cow::Borrowed(text); // as almost every id is
    }
    const { ComposingNormalizerBorrowed::new_nfc() }.normalize(text)
}

fn has_space_at_edge(text: &str) -> bool {
    text.starts_with(char::is_whitespace) || text.ends_with(char::is_whitespace)
}

/// Ends a line or controls a terminal.
fn is_break(c: char) -> bool {
    c.is_control() || matches!(c, '\u{2028}' | '\u{2029}')
}

/// Zero-width joiners, and what says whether a sign is shown as text or as a picture.
fn is_joiner(c: char) -> bool {
    matches!(c, '\u{200c}' | '\u{200d}' | '\u{fe0e}' | '\u{fe0f}')
}

/// Unicode's `Default_Ignorable_Code_Point`, and what shows as nothing without being in it.
fn is_invisible(c: char) -> bool {
    matches!(c,
        '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}'..='\u{1160}' | '\u{17b4}'..='\u{17b5}'
        | '\u{180b}'..='\u{180f}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}' | '\u{2800}' | '\u{3164}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}'
        | '\u{ffa0}' | '\u{fff0}'..='\u{fffb}' | '\u{1bca0}'..='\u{1bca3}' | '\u{1d173}'..='\u{1d17a}'
        | '\u{e0000}'..='\u{e0fff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_of_a_text_is_always_a_name() {
        let texts =
            ["A\nB", " \u{3000}a \u{3000} b\u{200d} ", "\u{202e}evil", "é\u{301}", "👨\u{200d}👩", "x\u{0}"];
        let left = ["A B", "a b\u{200d}", "evil", "é\u{301}", "👨\u{200d}👩", "x"];
        for (text, left) in texts.into_iter().zip(left) {
            assert_eq!(name_of(text).as_deref(), Some(left), "{text:?}");
            check_name(left).unwrap();
        }
        for nothing in ["", " ", "\n\u{2028}", "\u{200b}\u{200d}", "\u{3164}"] {
            assert_eq!(name_of(nothing), None, "{nothing:?}");
        }
        assert_eq!(name_of(&"é".repeat(100)), Some("é".repeat(64)));
    }

    #[test]
    fn what_cannot_be_seen_is_in_no_id_and_in_no_name() {
        use TextFault::{Control, Invisible, Space};
        for (text, fault) in [
            ("bob ", Space),
            (" bob", Space),
            ("bob\u{a0}", Space),
            ("bob\u{3000}", Space),
            (" ", Space),
            ("bob\u{200b}", Invisible),
            ("\u{202e}bob", Invisible),
            ("bo\u{2066}b", Invisible),
            ("b\u{ad}ob", Invisible),
            ("bob\u{3164}", Invisible),
            ("\u{feff}bob", Invisible),
            ("\u{200d}bob", Invisible),
            ("bob\u{e0041}", Invisible),
            ("\u{2028}", Control),
            ("bo\u{2029}b", Control),
            ("bo\u{85}b", Control),
            ("bo\nb", Control),
        ] {
            assert_eq!(id_fault(text), Some(fault), "{text:?}");
            assert_eq!(check_name(text), Err(NameError::Fault(fault)), "{text:?}");
        }
        for text in
            ["bob", "user 1", "cn=pat,ou=people", "\u{1f600}", "Łódź", "山田 太郎", "مريم", "a/b", "#"]
        {
            assert_eq!((id_fault(text), check_name(text)), (None, Ok(())), "{text:?}");
        }
    }

    #[test]
    fn a_name_keeps_what_holds_its_signs_together_and_an_id_has_none_of_it() {
        for text in ["\u{1f468}\u{200d}\u{1f467}", "می\u{200c}خواهم", "I \u{2764}\u{fe0f} tea", "a\u{a0}b"]
        {
            assert_eq!(check_name(text), Ok(()), "{text:?}");
            assert!(id_fault(text).is_some(), "{text:?}");
        }
        assert_eq!(check_name(""), Err(NameError::Length(0)));
        assert_eq!(check_name(&"é".repeat(65)), Err(NameError::Length(130)));
    }

    #[test]
    fn the_ways_to_write_the_same_letters_become_one() {
        assert_eq!(composed("jose\u{301}"), "jos\u{e9}");
        assert_eq!(composed("jos\u{e9}"), "jos\u{e9}");
        assert_eq!(composed("\u{212b}"), "\u{e5}".to_uppercase());
        assert!(matches!(composed("bob"), Cow::Borrowed("bob")));
    }
}
