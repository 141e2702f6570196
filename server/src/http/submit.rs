//! Changes asked for by HTTP: the same rules, rates and log as for those of a session.

use std::sync::Arc;
use std::time::Instant;

use tern_protocol::{Code, SendAck, UserId};
use tokio::sync::oneshot;

use super::Problem;
use crate::auth::{Claims, Scope};
use crate::conversation::{Ask, Refusal, Reply, Submission, Wanted};
use crate::delivery::Delivery;
use crate::router::Router;
use crate::session::people::Deciding;
use crate::session::quota::{Allowance, Quota};
use crate::session::{Refused, remember};
use crate::store::{Right, Store, UserChange};

/// Where changes are asked for. Cheap to clone.
#[derive(Clone)]
pub(super) struct Desk {
    pub(super) store: Arc<dyn Store>,
    pub(super) quota: Arc<Quota>,
    pub(super) router: Router,
    pub(super) delivery: Delivery,
}

impl Desk {
    /// The owner of the token decides something.
    pub(super) fn deciding<'a>(&'a self, claims: &'a Claims) -> Deciding<'a> {
        Deciding {
            store: &*self.store,
            delivery: &self.delivery,
            me: &claims.user,
            right: claims.right(),
            asker: None,
        }
    }
}

/// In whose name something is done.
pub(super) struct Sender {
    pub(super) user: UserId,
    pub(super) name: Option<String>,
    /// That of the token by which it is asked for.
    pub(super) right: Right,
}

/// The owner of the token; it is kept that they have been here, and their name.
pub(super) async fn oneself(desk: &Desk, claims: Claims) -> Result<Sender, Problem> {
    remember(&*desk.store, &claims).await.map_err(unavailable)?;
    let right = claims.right();
    Ok(Sender { user: claims.user, name: claims.name, right })
}

/// Somebody for whom a back end speaks by this token, with the name of their own last token.
pub(super) async fn somebody(desk: &Desk, user: UserId, claims: &Claims) -> Result<Sender, Problem> {
    let store = &*desk.store;
    let right = Right { issued_ms: claims.issued_ms, bearer: Some(claims.user.clone()) };
    let erasure = store.standing(&user).await.map_err(unavailable)?.erasure;
    if erasure.is_some_and(|erasure| erasure.bars(claims.issued_ms)) {
        let detail = "from was erased; a token of the back end issued after that may begin again";
        return Err(Problem::of(Code::FORBIDDEN, detail));
    }
    let known = store.users(std::slice::from_ref(&user)).await.map_err(unavailable)?.pop().flatten();
    let name = match known {
        Some(known) => known.name,
        None => {
            // Who writes is no longer a recipient whom nobody knows.
            store
                .change_user(&user, UserChange::Name(None), Some(right.clone()))
                .await
                .map_err(unavailable)?;
            None
        }
    };
    Ok(Sender { user, name, right })
}

pub(super) fn unavailable(error: crate::store::StoreError) -> Problem {
    Refused::from(error).into()
}

/// Whether the change makes sense and the bearer may ask for one now: a back end by a rate of its own, in
/// whosever name. Called before anything is written.
pub(super) fn admit(desk: &Desk, claims: &Claims, wanted: &Wanted) -> Result<(), Problem> {
    wanted.check().map_err(refused)?;
    if claims.may(Scope::SendAs) {
        let allowance = desk.quota.send_of_back_end(&claims.user, Instant::now());
        return allowed(allowance, "sends of this back end");
    }
    may_change(desk, &claims.user)
}

/// Whether the user may change something now.
pub(super) fn may_change(desk: &Desk, user: &UserId) -> Result<(), Problem> {
    may_make(desk, user, 1)
}

/// Whether the user may make so many changes now.
pub(super) fn may_make(desk: &Desk, user: &UserId, changes: usize) -> Result<(), Problem> {
    allowed(desk.quota.sends(user, changes, Instant::now()), "sends of this user")
}

fn allowed(allowance: Allowance, what: &str) -> Result<(), Problem> {
    match allowance {
        Allowance::Allowed => Ok(()),
        Allowance::Refused { retry_after } => Err(Problem::too_often(retry_after, what)),
    }
}

/// Whether the user may read something now.
pub(super) fn may_read(desk: &Desk, user: &UserId) -> Result<(), Problem> {
    match desk.quota.fetch(user, Instant::now()) {
        Allowance::Allowed => Ok(()),
        Allowance::Refused { retry_after } => Err(Problem::too_often(retry_after, "reads of this user")),
    }
}

/// Has the change made, and answers once it is durable. All sessions of all members are told of it, those
/// of the sender too. Ask [`admit`] first.
pub(super) async fn submit(desk: &Desk, sender: Sender, wanted: Wanted) -> Result<SendAck, Problem> {
    let checked = wanted.check();
    let Wanted { conversation, peer, temp_id, change, .. } = wanted;
    let age_ms = checked.map_err(refused)?;
    let ask = Ask {
        conversation,
        peer,
        sender: sender.user,
        sender_name: sender.name,
        asker: None,
        temp_id,
        after: None,
        age_ms,
        right: Some(sender.right),
        change,
    };
    let (answer, answered) = oneshot::channel();
    let reply = Reply::new(move |outcome| drop(answer.send(outcome)));
    desk.router.submit(Submission { ask, arrived: Instant::now(), reply });
    // A reply is never dropped without an answer.
    let outcome = answered.await.unwrap_or(Err(Refusal::Unavailable("the outcome is not known")));
    Ok(outcome.map_err(refused)?.ack(conversation, temp_id))
}

fn refused(refusal: Refusal) -> Problem {
    Refused::from(refusal).into()
}
