//! An error in one line.

/// An error and its causes, each said once: many say their cause themselves.
pub(super) fn told(error: &anyhow::Error) -> String {
    error.chain().fold(String::new(), |text, cause| match cause.to_string() {
        cause if text.is_empty() => cause,
        cause if text.contains(&cause) => text,
        cause => format!("{text}: {cause}"),
    })
}

#[cfg(test)]
mod tests {
    use std::io;

    use anyhow::Context;

    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("cannot use here: {source}")]
    struct Told {
        source: io::Error,
    }

    #[test]
    fn a_cause_is_told_once() {
        let told_itself = || Told { source: io::Error::other("no room") };
        assert_eq!(told(&told_itself().into()), "cannot use here: no room");
        let error = Err::<(), _>(told_itself()).context("while starting").unwrap_err();
        assert_eq!(told(&error), "while starting: cannot use here: no room");
        assert_eq!(told(&anyhow::anyhow!("no room").context("while starting")), "while starting: no room");
    }
}
