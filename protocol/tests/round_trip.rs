//! What one side writes the other reads, in both codecs, however the bytes are cut.

mod strategies;

use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use tern_protocol::*;

/// Reads all of `bytes`, fed in pieces of the given lengths (then the rest at once).
fn read_in_pieces(bytes: &[u8], pieces: &[usize]) -> Result<Vec<Envelope>, DecodeError> {
    let mut decoder = Decoder::default();
    let mut read = Vec::new();
    let mut rest = bytes;
    let lengths = pieces.iter().copied().chain(std::iter::once(usize::MAX));
    for length in lengths {
        let (piece, after) = rest.split_at(length.min(rest.len()));
        decoder.extend(piece);
        rest = after;
        while let Some(incoming) = decoder.next()? {
            match incoming {
                Incoming::Frame(envelope) => read.push(envelope),
                Incoming::Skipped(number) => panic!("type {number} is known"),
            }
        }
    }
    decoder.finish()?;
    Ok(read)
}

#[test]
fn the_strategies_cover_the_frame_table() {
    let mut runner = TestRunner::deterministic();
    let covered: Vec<_> = strategies::bodies()
        .into_iter()
        .map(|body| body.new_tree(&mut runner).expect("a strategy gives a value").current())
        .map(|frame| (frame.number(), frame.name(), frame.side()))
        .collect();
    assert_eq!(covered, Frame::TABLE);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn any_frame_survives_the_binary_codec(envelope in strategies::envelope()) {
        prop_assert_eq!(read_in_pieces(&encode(&envelope), &[]), Ok(vec![envelope]));
    }

    #[test]
    fn any_frame_survives_json(envelope in strategies::envelope()) {
        let fresh = || unreachable!("a written frame has its temp_id");
        prop_assert_eq!(from_json(&to_json(&envelope), fresh), Ok(envelope));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn the_cuts_of_a_stream_do_not_matter(
        envelopes in proptest::collection::vec(strategies::envelope(), 0..8),
        pieces in proptest::collection::vec(0usize..40, 0..60),
    ) {
        let mut bytes = Vec::new();
        for envelope in &envelopes {
            encode_into(&mut bytes, envelope);
        }
        prop_assert_eq!(read_in_pieces(&bytes, &pieces), Ok(envelopes));
    }

    #[test]
    fn a_stream_that_ends_inside_a_frame_says_so(
        envelope in strategies::envelope(),
        cut in any::<prop::sample::Index>(),
    ) {
        let bytes = encode(&envelope);
        let cut = 1 + cut.index(bytes.len() - 1);
        if cut < bytes.len() {
            prop_assert_eq!(read_in_pieces(&bytes[..cut], &[]), Err(DecodeError::Truncated));
        }
    }
}
