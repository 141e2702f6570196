//! What a message says before it is sent.

use tern_protocol::{Code, Data, TEXT_BYTES_MAX};

use crate::error::SendError;

/// What a message says. A text alone is one:
///
/// ```no_run
/// # async fn run(client: tern_client::Client, bob: tern_client::UserId) -> Result<(), Box<dyn std::error::Error>> {
/// use tern_client::{Data, Draft};
///
/// client.send(bob.clone(), "hi").await?;
/// let ack = client.send(bob.clone(), Draft::new("look").data(Data::from_value(&("photo", 7))?)).await?;
/// client.send(bob, Draft::new("nice").reply_to(ack.seq)).await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Draft {
    /// UTF-8; may be empty beside `data`.
    pub text: String,
    /// What the application puts beside the text, for its own clients; at most 16 KiB together with it.
    pub data: Option<Data>,
    /// The earlier entry of the same conversation that the message answers.
    pub reply_to: Option<u64>,
}

impl Draft {
    /// A text.
    pub fn new(text: impl Into<String>) -> Self {
        Self { text: text.into(), ..Self::default() }
    }

    /// The same with this beside the text.
    #[must_use]
    pub fn data(self, data: Data) -> Self {
        Self { data: Some(data), ..self }
    }

    /// The same as an answer to this entry.
    #[must_use]
    pub fn reply_to(self, seq: u64) -> Self {
        Self { reply_to: Some(seq), ..self }
    }

    /// Refuses what the server would refuse by its fixed limits.
    pub(crate) fn check(&self) -> Result<(), SendError> {
        let bytes = self.text.len() + self.data.as_ref().map_or(0, |data| data.as_str().len());
        let (code, detail) = match bytes {
            0 => (Code::TEXT_EMPTY, "there is neither text nor data".to_owned()),
            1..=TEXT_BYTES_MAX => return Ok(()),
            _ => (Code::TEXT_TOO_LONG, format!("text_bytes: {bytes} of at most {TEXT_BYTES_MAX}")),
        };
        Err(SendError::Refused { code, detail })
    }
}

impl From<String> for Draft {
    fn from(text: String) -> Self {
        Self::new(text)
    }
}

impl From<&str> for Draft {
    fn from(text: &str) -> Self {
        Self::new(text)
    }
}

impl From<&String> for Draft {
    fn from(text: &String) -> Self {
        Self::new(text)
    }
}

impl From<Data> for Draft {
    fn from(data: Data) -> Self {
        Self::default().data(data)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_data_count_together() {
        let code = |draft: Draft| match draft.check() {
            Err(SendError::Refused { code, .. }) => Some(code),
            _ => None,
        };
        let data = |bytes: usize| Data::from_value(&"x".repeat(bytes - 2)).unwrap();
        assert_eq!(code(Draft::new("")), Some(Code::TEXT_EMPTY));
        assert_eq!(code(data(2).into()), None, "data alone is enough");
        assert_eq!(code(Draft::new("x".repeat(16_000)).data(data(384))), None);
        assert_eq!(code(Draft::new("x".repeat(16_000)).data(data(385))), Some(Code::TEXT_TOO_LONG));
    }
}
