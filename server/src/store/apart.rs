//! Reading many things at once where some of them may be damaged: what cannot be read is set apart, and the
//! rest is read all the same. Costs one round trip while nothing is damaged.

use std::ops::RangeInclusive;

use tern_protocol::{ConversationId, Entry, UserId};

use super::{Glance, Glances, PageLimit, StoreError, User, Users};

/// Answers in the order of the questions, and the questions that met damage, by their place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Apart<T> {
    /// One answer per question.
    pub found: Vec<T>,
    /// Places of those whose answer is only a stand-in, since stored data is damaged.
    pub damaged: Vec<usize>,
}

/// [`Glances::glance`]; `None` stands for what cannot be read.
pub async fn glance_apart(
    store: &dyn Glances,
    ids: &[ConversationId],
) -> Result<Apart<Option<Glance>>, StoreError> {
    let mut halves = Halves::of(ids, None);
    while let Some(part) = halves.next() {
        let answer = store.glance(part).await;
        halves.take(part, answer)?;
    }
    Ok(halves.apart)
}

/// [`Glances::last_entries`]; `None` stands for what cannot be read.
pub async fn last_entries_apart(
    store: &dyn Glances,
    at: &[(ConversationId, u64)],
) -> Result<Apart<Option<Entry>>, StoreError> {
    let mut halves = Halves::of(at, None);
    while let Some(part) = halves.next() {
        let answer = store.last_entries(part).await;
        halves.take(part, answer)?;
    }
    Ok(halves.apart)
}

/// [`Users::users`]; `None` stands for who cannot be read.
pub async fn users_apart(store: &dyn Users, users: &[UserId]) -> Result<Apart<Option<User>>, StoreError> {
    let mut halves = Halves::of(users, None);
    while let Some(part) = halves.next() {
        let answer = store.users(part).await;
        halves.take(part, answer)?;
    }
    Ok(halves.apart)
}

/// Whether there is a row of the user; one that cannot be read is one.
pub async fn has_profile(store: &dyn Users, user: &UserId) -> Result<bool, StoreError> {
    let Apart { found, damaged } = users_apart(store, std::slice::from_ref(user)).await?;
    Ok(!damaged.is_empty() || found.iter().any(Option::is_some))
}

/// [`Glances::runs`]: answers for the first of the ranges. A range that cannot be read has no entries and ends
/// the answer.
pub async fn runs_apart(
    store: &dyn Glances,
    of: &[(ConversationId, RangeInclusive<u64>)],
    limit: PageLimit,
) -> Result<Apart<Vec<Entry>>, StoreError> {
    let mut length = of.len();
    loop {
        match store.runs(&of[..length], limit).await {
            Ok(found) => return Ok(Apart { found, damaged: Vec::new() }),
            Err(StoreError::Corrupt(_)) if length > 1 => length = length.div_ceil(2),
            Err(StoreError::Corrupt(_)) => return Ok(Apart { found: vec![Vec::new()], damaged: vec![0] }),
            Err(error) => return Err(error),
        }
    }
}

/// What is still to be asked: all at once, and where that meets damage each half, down to single ones.
struct Halves<'a, Q, T> {
    left: Vec<&'a [Q]>,
    stand_in: T,
    apart: Apart<T>,
}

impl<'a, Q, T: Clone> Halves<'a, Q, T> {
    fn of(questions: &'a [Q], stand_in: T) -> Self {
        let apart = Apart { found: Vec::with_capacity(questions.len()), damaged: Vec::new() };
        Self { left: vec![questions], stand_in, apart }
    }

    /// What to ask next, in the order of the questions.
    fn next(&mut self) -> Option<&'a [Q]> {
        self.left.pop()
    }

    /// The answer to what was to be asked.
    fn take(&mut self, part: &'a [Q], answer: Result<Vec<T>, StoreError>) -> Result<(), StoreError> {
        match answer {
            Ok(answers) => self.apart.found.extend(answers),
            Err(StoreError::Corrupt(_)) if part.len() > 1 => {
                let (first, second) = part.split_at(part.len() / 2);
                self.left.extend([second, first]);
            }
            Err(StoreError::Corrupt(_)) => {
                self.apart.damaged.push(self.apart.found.len());
                self.apart.found.push(self.stand_in.clone());
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Asks a store in which every number that is 7 more than a multiple of 40 is damaged; the answer, and how
    /// often it was asked.
    fn ask(questions: &[u32]) -> (Apart<Option<u32>>, usize) {
        let (mut halves, mut calls) = (Halves::of(questions, None), 0);
        while let Some(part) = halves.next() {
            calls += 1;
            let answer = match part.iter().any(|number| number % 40 == 7) {
                true => Err(StoreError::Corrupt("a block".into())),
                false => Ok(part.iter().map(|number| Some(number * 2)).collect()),
            };
            halves.take(part, answer).unwrap();
        }
        (halves.apart, calls)
    }

    #[test]
    fn what_is_damaged_is_set_apart_and_the_rest_is_in_its_place() {
        let (Apart { found, damaged }, calls) = ask(&(0..100).collect::<Vec<_>>());
        assert_eq!((damaged.as_slice(), found.len()), ([7, 47, 87].as_slice(), 100));
        for (place, answer) in found.iter().enumerate() {
            assert_eq!(*answer, (!damaged.contains(&place)).then_some(place as u32 * 2));
        }
        assert!(calls < 60, "by halves: {calls}");
        let (whole, calls) = ask(&[1, 2, 3]);
        assert_eq!((whole.found, whole.damaged.len(), calls), (vec![Some(2), Some(4), Some(6)], 0, 1));
        let mut halves = Halves::<u32, Option<u32>>::of(&[1, 2], None);
        let part = halves.next().unwrap();
        let down = halves.take(part, Err(StoreError::Unavailable("down".into())));
        assert!(down.is_err(), "a store that does not answer is no damage");
    }
}
