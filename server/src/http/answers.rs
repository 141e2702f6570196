//! How many answers one connection may have in memory: the next request waits until a client has taken one.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use axum::body::Body;
use bytes::Bytes;
use http::Response;
use hyper::body::{Body as _, Frame, SizeHint};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::budget::{Budget, Charge};

/// A protocol takes no more of a body than that before it knows that the client has room.
const SLICE_BYTES: usize = 16 * 1024;

/// The turns of one connection, and the budget of all. Clones share them.
#[derive(Clone, Debug)]
pub(super) struct Answers {
    turns: Arc<Semaphore>,
    memory: Budget,
}

/// The right to work on one request.
#[derive(Debug)]
pub(super) struct Turn {
    _permit: OwnedSemaphorePermit,
    memory: Budget,
}

impl Answers {
    /// So many turns; answers are charged to `memory`.
    pub(super) fn new(most: usize, memory: Budget) -> Self {
        Self { turns: Arc::new(Semaphore::new(most)), memory }
    }

    /// Waits for a turn.
    pub(super) async fn turn(&self) -> Turn {
        let permit = self.turns.clone().acquire_owned().await;
        Turn { _permit: permit.expect("nobody closes it"), memory: self.memory.clone() }
    }
}

impl Turn {
    /// The turn is over, and the memory of the answer given back, when the last of it is taken. It is charged
    /// whether there is room or not: what was asked for is done, and must not be called refused.
    pub(super) fn hold(self, response: Response<Body>) -> Response<Body> {
        let bytes = usize::try_from(response.body().size_hint().lower()).unwrap_or(usize::MAX);
        let charge = self.memory.charge(bytes);
        response.map(|body| Body::new(Held { body, rest: Bytes::new(), _turn: (self, charge) }))
    }
}

/// A body in slices.
struct Held {
    body: Body,
    rest: Bytes,
    _turn: (Turn, Charge),
}

impl hyper::body::Body for Held {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        if self.rest.is_empty() {
            match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => self.rest = data,
                    Err(trailers) => return Poll::Ready(Some(Ok(trailers))),
                },
                ended => return Poll::Ready(ended),
            }
        }
        let length = self.rest.len().min(SLICE_BYTES);
        Poll::Ready(Some(Ok(Frame::data(self.rest.split_to(length)))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let (inner, rest) = (self.body.size_hint(), self.rest.len() as u64);
        let mut hint = SizeHint::new();
        hint.set_lower(inner.lower() + rest);
        if let Some(upper) = inner.upper() {
            hint.set_upper(upper + rest);
        }
        hint
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;

    #[tokio::test]
    async fn a_long_body_comes_in_slices_and_says_at_every_time_what_is_left() {
        let text: Vec<u8> = (0..50_000_u32).map(|number| number as u8).collect();
        let memory = Budget::new(1_000_000);
        let answers = Answers::new(1, memory.clone());
        let mut body = answers.turn().await.hold(Response::new(Body::from(text.clone()))).into_body();
        let mut taken = Vec::new();
        while !body.is_end_stream() {
            assert_eq!(body.size_hint().exact(), Some(50_000 - taken.len() as u64));
            let slice = body.frame().await.unwrap().unwrap().into_data().unwrap();
            assert!(slice.len() <= SLICE_BYTES);
            taken.extend_from_slice(&slice);
        }
        assert_eq!(taken, text);
        assert!(body.frame().await.is_none());
    }

    #[tokio::test]
    async fn a_turn_lasts_until_the_answer_is_gone() {
        let memory = Budget::new(1_000_000);
        let answers = Answers::new(1, memory.clone());
        let response = answers.turn().await.hold(Response::new(Body::from("x")));
        assert!(answers.turns.clone().try_acquire_owned().is_err());
        assert_eq!(memory.used(), 1);
        drop(response);
        assert_eq!(memory.used(), 0);
        answers.turn().await;
    }

    #[tokio::test]
    async fn what_was_done_is_answered_however_short_memory_is() {
        let memory = Budget::new(1000);
        let answers = Answers::new(2, memory.clone());
        let first = answers.turn().await.hold(Response::new(Body::from("x".repeat(900))));
        let second = answers.turn().await.hold(Response::new(Body::from("x".repeat(900))));
        assert_eq!((first.status().as_u16(), second.status().as_u16()), (200, 200));
        assert_eq!(memory.used(), 1800);
        assert!(!memory.has_room(1), "and what is asked next is refused before it is done");
        drop((first, second));
        assert_eq!(memory.used(), 0);
    }
}
