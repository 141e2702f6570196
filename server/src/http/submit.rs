//! Changes asked for by HTTP: the same rules, rates and log as for those of a session.

use std::time::Instant;

use tern_protocol::{Code, ConversationId, SendAck, TempId, UserId};
use tokio::sync::oneshot;

use super::{Api, Problem};
use crate::auth::Claims;
use crate::conversation::{Change, NO_SESSION, Refusal, Reply, Submission, age_ms};
use crate::session::quota::Verdict;
use crate::session::{Refused, is_erased, remember};
use crate::store::UserChange;

/// A change and where it goes.
pub(super) struct Asked {
    pub(super) conversation: ConversationId,
    /// The other user, where a message names a user.
    pub(super) peer: Option<UserId>,
    pub(super) temp_id: Option<TempId>,
    /// Milliseconds since the first attempt.
    pub(super) age_ms: Option<u64>,
    pub(super) change: Change,
}

impl Asked {
    /// A change of a group.
    pub(super) fn group(conversation: ConversationId, temp_id: Option<TempId>, change: Change) -> Self {
        Self { conversation, peer: None, temp_id, age_ms: None, change }
    }
}

/// In whose name something is done.
pub(super) struct Sender {
    user: UserId,
    name: Option<String>,
}

/// The owner of the token; it is kept that they have been here, and their name.
pub(super) async fn oneself(api: &Api, claims: Claims) -> Result<Sender, Problem> {
    remember(&*api.store, &claims).await.map_err(unavailable)?;
    Ok(Sender { user: claims.user, name: claims.name })
}

/// Somebody for whom a back end speaks by this token, with the name of their own last token.
pub(super) async fn somebody(api: &Api, user: UserId, claims: &Claims) -> Result<Sender, Problem> {
    let store = &*api.store;
    if is_erased(store, &user, claims).await.map_err(unavailable)? {
        let detail = "from was erased; a token of the back end issued after that may begin again";
        return Err(Problem::of(Code::FORBIDDEN, detail));
    }
    let known = store.users(std::slice::from_ref(&user)).await.map_err(unavailable)?.pop().flatten();
    let name = match known {
        Some(known) => known.name,
        None => {
            // Who writes is no longer a recipient whom nobody knows.
            let issued_ms = Some(claims.issued_ms.unwrap_or(0));
            store.change_user(&user, UserChange::Name(None), issued_ms).await.map_err(unavailable)?;
            None
        }
    };
    Ok(Sender { user, name })
}

pub(super) fn unavailable(error: crate::store::StoreError) -> Problem {
    Refused::from(error).into()
}

/// Whether the change makes sense and the user may ask for one now. Called before anything is written.
pub(super) fn admit(api: &Api, user: &UserId, asked: &Asked) -> Result<(), Problem> {
    asked.change.check().and_then(|()| age_ms(asked.age_ms)).map_err(refusal)?;
    match api.quota.send(user, Instant::now()) {
        Verdict::Allowed => Ok(()),
        Verdict::Refused { retry_after } => Err(Problem::too_often(retry_after, "sends of this user")),
    }
}

/// Has the change made, and answers once it is durable. All sessions of all members are told of it, those
/// of the sender too. Ask [`admit`] first.
pub(super) async fn submit(api: &Api, sender: Sender, asked: Asked) -> Result<SendAck, Problem> {
    let Asked { conversation, peer, temp_id, age_ms: age_said, change } = asked;
    let temp_id = temp_id.unwrap_or_else(|| TempId::from_uuid(uuid::Uuid::new_v4()));
    let (answer, answered) = oneshot::channel();
    api.router.submit(Submission {
        conversation,
        peer,
        sender: sender.user,
        sender_name: sender.name,
        origin: NO_SESSION,
        temp_id,
        after: None,
        age_ms: age_ms(age_said).map_err(refusal)?,
        change,
        arrived: Instant::now(),
        reply: Reply::new(move |outcome| drop(answer.send(outcome))),
    });
    // A reply is never dropped without an answer.
    let outcome = answered.await.unwrap_or(Err(Refusal::Unavailable("the outcome is not known")));
    Ok(outcome.map_err(refusal)?.ack(conversation, temp_id))
}

fn refusal(refusal: Refusal) -> Problem {
    Refused::from(refusal).into()
}
