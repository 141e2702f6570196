//! The way back from a store to whoever appends: bounded by the asker, never full, nothing lost.

use tokio::sync::mpsc;

use super::{Appended, StoreError};

/// Answers to append groups by their tickets: as many as became durable together.
pub type Answers = Vec<(u64, Result<Appended, StoreError>)>;

/// Where a store answers the groups of one asker. Cheap to clone.
#[derive(Clone, Debug)]
pub struct AppendAnswers(mpsc::Sender<Answers>);

impl AppendAnswers {
    /// For an asker that never has more than `groups_max` groups under way: each answer finds room, so that a
    /// store neither waits nor loses one.
    pub fn new(groups_max: usize) -> (Self, mpsc::Receiver<Answers>) {
        let (sender, receiver) = mpsc::channel(groups_max.max(1));
        (Self(sender), receiver)
    }

    /// Answers now. An asker that has gone does not matter.
    pub fn send(&self, answers: Answers) {
        if answers.is_empty() {
            return;
        }
        if let Err(mpsc::error::TrySendError::Full(answers)) = self.0.try_send(answers) {
            // The asker has more under way than it said: a bug of ours, and those groups stay unanswered.
            tracing::error!(answers = answers.len(), "an asker has no room for the answers to its appends");
            debug_assert!(false, "an asker has more appends under way than it said");
        }
    }

    /// Answers of both go to the same asker.
    pub fn is_same(&self, other: &Self) -> bool {
        self.0.same_channel(&other.0)
    }

    /// A promise to answer these tickets.
    pub fn owe(&self, tickets: Vec<u64>) -> Owed {
        Owed { answers: self.clone(), tickets }
    }
}

/// Tickets that are still to be answered. Dropped, it answers that the outcome is not known.
#[derive(Debug)]
pub struct Owed {
    answers: AppendAnswers,
    tickets: Vec<u64>,
}

impl Owed {
    /// The tickets, for whoever answers them together with others. Nothing is owed any more.
    pub fn take(mut self) -> (AppendAnswers, Vec<u64>) {
        (self.answers.clone(), std::mem::take(&mut self.tickets))
    }

    /// Answers all tickets, in their order.
    pub fn settle(self, results: impl IntoIterator<Item = Result<Appended, StoreError>>) {
        let (answers, tickets) = self.take();
        answers.send(tickets.into_iter().zip(results).collect());
    }
}

impl Drop for Owed {
    fn drop(&mut self) {
        let tickets = std::mem::take(&mut self.tickets);
        self.answers.send(tickets.into_iter().map(|ticket| (ticket, Err(unanswered()))).collect());
    }
}

/// What an asker is told when the store went away with its group.
pub(super) fn unanswered() -> StoreError {
    StoreError::Unavailable("the store stopped before the write was confirmed".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn every_ticket_is_answered_once_even_if_the_store_dies() {
        let (answers, mut answered) = AppendAnswers::new(3);
        answers.owe(vec![1, 2]).settle([Ok(Appended::Applied), Ok(Appended::Unknown)]);
        drop(answers.owe(vec![3]));
        let first = answered.recv().await.unwrap();
        assert!(matches!(first[..], [(1, Ok(Appended::Applied)), (2, Ok(Appended::Unknown))]), "{first:?}");
        let second = answered.try_recv().expect("a dropped promise is answered at once");
        assert!(matches!(second[..], [(3, Err(StoreError::Unavailable(_)))]), "{second:?}");
        assert!(answered.try_recv().is_err(), "each once");
    }
}
