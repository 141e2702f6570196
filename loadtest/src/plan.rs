//! Decides who takes part and what they send. Pure.

use std::collections::{BTreeMap, HashMap};

use tern_protocol::{GROUP_MEMBERS_MAX, UserId};

use crate::irc::{Log, Skip};

/// Most members, since they all go into one group.
pub(crate) const MEMBERS_MAX: usize = GROUP_MEMBERS_MAX;

/// One message to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Planned {
    /// Who sends it, as an index into the members.
    pub(crate) author: usize,
    /// What.
    pub(crate) text: String,
}

/// Who sends what.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Plan {
    /// The most active first.
    pub(crate) members: Vec<UserId>,
    /// In the order of the file.
    pub(crate) messages: Vec<Planned>,
    /// Lines that are not sent, by reason.
    pub(crate) skipped: BTreeMap<Skip, usize>,
}

/// Takes the `members_max` authors with the most messages; of equals, who spoke first.
pub(crate) fn plan(log: Log, members_max: usize) -> Plan {
    let mut activity: HashMap<&UserId, (usize, usize)> = HashMap::new();
    for (place, message) in log.messages.iter().enumerate() {
        activity.entry(&message.author).or_insert((0, place)).0 += 1;
    }
    let mut ranked: Vec<_> = activity.into_iter().collect();
    ranked.sort_by_key(|(_, (count, first))| (usize::MAX - count, *first));
    ranked.truncate(members_max.min(MEMBERS_MAX));
    let members: Vec<UserId> = ranked.into_iter().map(|(author, _)| author.clone()).collect();
    let index: HashMap<UserId, usize> =
        members.iter().enumerate().map(|(index, user)| (user.clone(), index)).collect();

    let mut skipped = log.skipped;
    let mut messages = Vec::with_capacity(log.messages.len());
    for message in log.messages {
        match index.get(&message.author) {
            Some(author) => messages.push(Planned { author: *author, text: message.text }),
            None => *skipped.entry(Skip::NotMember).or_default() += 1,
        }
    }
    Plan { members, messages, skipped }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::irc::parse;

    fn log(lines: &[(&str, &str)]) -> Log {
        let text: String =
            lines.iter().map(|(author, text)| format!("[00:00] <{author}> {text}\n")).collect();
        parse(text.as_bytes())
    }

    fn names(plan: &Plan) -> Vec<&str> {
        plan.members.iter().map(UserId::as_str).collect()
    }

    #[test]
    fn the_most_active_take_part_and_of_equals_who_spoke_first() {
        let log = log(&[("dan", "1"), ("cid", "2"), ("bob", "3"), ("ann", "4"), ("bob", "5"), ("ann", "6")]);
        let plan = plan(log, 3);
        assert_eq!(names(&plan), ["bob", "ann", "dan"]);
        assert_eq!(plan.skipped, BTreeMap::from([(Skip::NotMember, 1)]));
    }

    #[test]
    fn messages_stay_in_the_order_of_the_file() {
        let plan = plan(log(&[("ann", "1"), ("bob", "2"), ("ann", "3"), ("eve", "4"), ("bob", "5")]), 2);
        let sent: Vec<_> = plan.messages.iter().map(|m| (m.author, m.text.as_str())).collect();
        assert_eq!(sent, [(0, "1"), (1, "2"), (0, "3"), (1, "5")]);
    }

    #[test]
    fn never_more_than_a_group_holds() {
        let lines: Vec<_> = (0..150).map(|n| format!("user{n}")).collect();
        let lines: Vec<_> = lines.iter().map(|name| (name.as_str(), "hi")).collect();
        assert_eq!(plan(log(&lines), 1_000).members.len(), MEMBERS_MAX);
    }

    #[test]
    fn a_log_without_messages_makes_an_empty_plan() {
        let plan = plan(log(&[]), 100);
        assert!(plan.members.is_empty() && plan.messages.is_empty());
    }
}
