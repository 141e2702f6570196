//! Questions to the server: history, conversations, members. They change nothing, so they are
//! asked again after a temporary refusal or a lost connection, within one time limit.

use std::time::Duration;

use tern_protocol::{
    ConversationId, ConversationPage, Fetch, Frame, ListConversations, ListMembers, MemberInfo, Page,
};
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::Client;
use crate::command::{Attempt, Command, Question};
use crate::error::RequestError;

/// Wait before asking again where the server gives no hint.
const RETRY_WAIT: Duration = Duration::from_millis(250);

/// Where in the log a page of history lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Anchor {
    /// The newest entries.
    Latest,
    /// Entries below this seq.
    Before(u64),
    /// Entries above this seq.
    After(u64),
    /// Entries on both sides of this seq, itself included.
    Around(u64),
}

impl Client {
    /// A page of history: consecutive entries, newest first, at most `limit` (1 to 200) of them,
    /// cut at 64 KiB, with the bounds of what this member may see.
    ///
    /// # Errors
    /// Refused ([`NOT_FOUND`](crate::Code::NOT_FOUND) also for a conversation the user is not
    /// in), no answer in time, or the client has stopped.
    pub async fn history(
        &self,
        conversation: ConversationId,
        anchor: Anchor,
        limit: u32,
    ) -> Result<Page, RequestError> {
        let mut fetch = Fetch { conversation, before: None, after: None, around: None, limit: Some(limit) };
        match anchor {
            Anchor::Latest => {}
            Anchor::Before(seq) => fetch.before = Some(seq),
            Anchor::After(seq) => fetch.after = Some(seq),
            Anchor::Around(seq) => fetch.around = Some(seq),
        }
        self.ask(fetch.into(), |frame| match frame {
            Frame::Page(page) => Some(page),
            _ => None,
        })
        .await
    }

    /// A page of the user's conversations, most recently changed first: from the start without a
    /// `cursor`, else after the page whose `next` it was. `limit` is 1 to 200.
    ///
    /// # Errors
    /// Refused, no answer in time, or the client has stopped.
    pub async fn conversations(
        &self,
        cursor: Option<String>,
        limit: u32,
    ) -> Result<ConversationPage, RequestError> {
        self.ask(ListConversations { cursor, limit: Some(limit) }.into(), |frame| match frame {
            Frame::ConversationPage(page) => Some(page),
            _ => None,
        })
        .await
    }

    /// The members of a conversation in the order they joined.
    ///
    /// # Errors
    /// Refused, no answer in time, or the client has stopped.
    pub async fn members(&self, conversation: ConversationId) -> Result<Vec<MemberInfo>, RequestError> {
        self.ask(ListMembers { conversation }.into(), |frame| match frame {
            Frame::MemberList(list) => Some(list.members),
            _ => None,
        })
        .await
    }

    pub(super) async fn ask<T>(&self, frame: Frame, read: fn(Frame) -> Option<T>) -> Result<T, RequestError> {
        let timeout = self.request_timeout;
        let deadline = Instant::now() + timeout;
        let mut last = None;
        let attempts = async {
            loop {
                let wait = match self.ask_once(frame.clone()).await? {
                    Attempt::Frame(frame) => match read(*frame) {
                        Some(body) => return Ok(body),
                        None => {
                            last = Some("the answer was of another kind".to_owned());
                            RETRY_WAIT
                        }
                    },
                    Attempt::Refused(error) if error.temporary || error.code.temporary() => {
                        last = Some(format!("{}: {}", error.code, error.detail));
                        let hint = error.retry_after_ms.map(|ms| Duration::from_millis(ms.into()));
                        hint.unwrap_or(RETRY_WAIT)
                    }
                    Attempt::Refused(error) => {
                        return Err(RequestError::Refused { code: error.code, detail: error.detail });
                    }
                    Attempt::Offline => {
                        last = Some("not connected".to_owned());
                        self.online().await?;
                        Duration::ZERO
                    }
                    Attempt::Full => return Err(RequestError::Full),
                };
                tokio::time::sleep(wait).await;
            }
        };
        match tokio::time::timeout_at(deadline, attempts).await {
            Ok(result) => result,
            Err(_) => Err(RequestError::Timeout { timeout, last }),
        }
    }

    async fn ask_once(&self, frame: Frame) -> Result<Attempt, RequestError> {
        let (answer, answered) = oneshot::channel();
        self.command(Command::Ask(Question { frame, answer })).await?;
        answered.await.map_err(|_| RequestError::Closed)
    }

    async fn online(&self) -> Result<(), RequestError> {
        let mut state = self.states();
        state.wait_for(|now| now.is_online()).await.map(|_| ()).map_err(|_| RequestError::Closed)
    }
}
