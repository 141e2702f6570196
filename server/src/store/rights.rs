//! What a token still gives the right to: judged by whose it is, when it was issued, and what was taken from
//! its user since. Pure.

use serde::{Deserialize, Serialize};
use tern_protocol::UserId;

use super::Erasure;

/// By which token something is asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Right {
    /// When it was issued, in Unix milliseconds: 0 if it does not say.
    pub issued_ms: u64,
    /// Whose it is, where that is not the one in whose name it is asked for.
    pub bearer: Option<UserId>,
}

/// What was taken from a user's tokens.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// The last time they were erased.
    pub erasure: Option<Erasure>,
    /// Tokens issued before this time are refused, in Unix milliseconds; 0: none were revoked.
    pub refused_before_ms: u64,
}

/// Why a token gives no right any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lost {
    /// Its user was erased after it was issued. Nobody gets this right back.
    Erased,
    /// It was revoked: a token issued later gives the right.
    Revoked,
}

impl Standing {
    /// Why a token of this user, issued at this time in Unix milliseconds, gives no right.
    pub fn lost(&self, issued_ms: u64) -> Option<Lost> {
        if self.erasure.as_ref().is_some_and(|erasure| erasure.bars(issued_ms)) {
            return Some(Lost::Erased);
        }
        (issued_ms < self.refused_before_ms).then_some(Lost::Revoked)
    }
}

impl Right {
    /// That of a user's own token.
    pub fn own(issued_ms: u64) -> Self {
        Self { issued_ms, bearer: None }
    }

    /// Why it is none to do something in the name of `user`. What was revoked are the tokens of who bears one;
    /// in the name of who was erased only a token issued after that speaks, whoever bears it.
    pub fn lost(&self, user: &UserId, mut standing: impl FnMut(&UserId) -> Standing) -> Option<Lost> {
        let spoken_for = standing(user);
        match &self.bearer {
            None => spoken_for.lost(self.issued_ms),
            Some(bearer) => {
                let erased = Standing { refused_before_ms: 0, ..spoken_for }.lost(self.issued_ms);
                erased.or_else(|| standing(bearer).lost(self.issued_ms))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(name: &str) -> UserId {
        UserId::new(name).unwrap()
    }

    fn erased(at_ms: u64) -> Standing {
        Standing { erasure: Some(Erasure { at_ms, open: None }), refused_before_ms: 0 }
    }

    fn revoked(refused_before_ms: u64) -> Standing {
        Standing { erasure: None, refused_before_ms }
    }

    #[test]
    fn only_tokens_issued_before_the_moment_are_revoked() {
        assert_eq!(
            [0, 999, 1_000].map(|issued_ms| revoked(1_000).lost(issued_ms).is_some()),
            [true, true, false]
        );
        assert_eq!(Standing::default().lost(0), None);
        let both = Standing { refused_before_ms: 2_000, ..erased(1_000) };
        assert_eq!(
            [1_000, 1_500, 2_000].map(|ms| both.lost(ms)),
            [Some(Lost::Erased), Some(Lost::Revoked), None]
        );
    }

    #[test]
    fn a_back_ends_token_is_judged_by_the_back_ends_standing() {
        let lost = |of_shop: Standing, of_bob: Standing| {
            let right = Right { issued_ms: 500, bearer: Some(user("shop")) };
            right.lost(
                &user("bob"),
                |user| if user.as_str() == "shop" { of_shop.clone() } else { of_bob.clone() },
            )
        };
        assert_eq!(lost(Standing::default(), revoked(1_000)), None, "bob has no part in this token");
        assert_eq!(lost(revoked(1_000), Standing::default()), Some(Lost::Revoked));
        assert_eq!(lost(Standing::default(), erased(1_000)), Some(Lost::Erased));
        assert_eq!(lost(erased(1_000), Standing::default()), Some(Lost::Erased));
        assert_eq!(Right::own(500).lost(&user("bob"), |_| revoked(501)), Some(Lost::Revoked));
    }
}
