//! What a message of a measurement says: its number, and when it was first sent. Pure.

/// Room for both numbers and the spaces behind them.
pub(crate) const BYTES_MIN: usize = 42;
/// What fills a text up.
const FILLER: char = '.';

/// The words of one message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stamp {
    /// 1, 2, 3… of one sender.
    pub(crate) number: u64,
    /// Nanoseconds from the beginning of the run to the first attempt.
    pub(crate) sent_ns: u64,
}

impl Stamp {
    /// As a text of exactly so many bytes, at least [`BYTES_MIN`].
    pub(crate) fn text(self, bytes: usize) -> String {
        let mut text = format!("{} {} ", self.number, self.sent_ns);
        debug_assert!(text.len() <= BYTES_MIN, "two numbers of 20 digits and two spaces fit");
        text.extend(std::iter::repeat_n(FILLER, bytes.saturating_sub(text.len())));
        text
    }

    /// `None` for a text of another length or with other words.
    pub(crate) fn read(text: &str, bytes: usize) -> Option<Self> {
        let mut words = text.splitn(3, ' ');
        let mut number = || words.next()?.parse().ok();
        let stamp = Self { number: number()?, sent_ns: number()? };
        (text.len() == bytes && words.next()?.chars().all(|char| char == FILLER)).then_some(stamp)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_has_its_length_and_gives_back_its_numbers() {
        for (number, sent_ns) in [(1, 0), (12_345, 9_876_543_210), (u64::MAX, u64::MAX)] {
            for bytes in [BYTES_MIN, 200, 16_384] {
                let stamp = Stamp { number, sent_ns };
                let text = stamp.text(bytes);
                assert_eq!((text.len(), Stamp::read(&text, bytes)), (bytes, Some(stamp)));
            }
        }
    }

    #[test]
    fn an_altered_text_is_not_read() {
        let text = Stamp { number: 7, sent_ns: 8 }.text(200);
        assert_eq!(Stamp::read(&text[..199], 200), None);
        assert_eq!(Stamp::read(&text.replacen("..", ".x", 1), 200), None);
        assert_eq!(Stamp::read("hello", 5), None);
        assert_eq!(Stamp::read("", 0), None);
    }
}
