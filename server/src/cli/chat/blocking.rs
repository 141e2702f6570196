//! What is typed in `tern chat` that is no message: whom the user blocks.

use futures_util::FutureExt;
use futures_util::future::LocalBoxFuture;
use tern_client::{Client, RequestError, UserId};

/// A line that is a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Command {
    /// `/block [USER]`
    Block(Option<UserId>),
    /// `/unblock [USER]`
    Unblock(Option<UserId>),
    /// `/blocks`
    List,
    /// A command that cannot be understood, and why.
    Wrong(String),
}

/// What comes of a command, as a line for people.
pub(super) type Deciding = LocalBoxFuture<'static, String>;

/// The command in a line, `None` if it is a message.
pub(super) fn command(line: &str) -> Option<Command> {
    let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
    let user = || match rest.trim() {
        "" => Ok(None),
        text => text.parse().map(Some).map_err(|error| Command::Wrong(format!("{error}"))),
    };
    Some(match word {
        "/block" => user().map_or_else(|wrong| wrong, Command::Block),
        "/unblock" => user().map_or_else(|wrong| wrong, Command::Unblock),
        "/blocks" => Command::List,
        _ => return None,
    })
}

/// Does what it says; `other` is whom a command means that names nobody.
pub(super) fn obey(client: Client, command: Command, other: Option<UserId>) -> Deciding {
    async move {
        match command {
            Command::Wrong(why) => why,
            Command::List => match client.blocks().await {
                Ok(blocks) if blocks.is_empty() => "you block nobody".into(),
                Ok(blocks) => {
                    let users: Vec<String> = blocks.iter().map(|blocked| blocked.user.to_string()).collect();
                    format!("you block {}", users.join(", "))
                }
                Err(error) => failed(&error),
            },
            Command::Block(user) => match user.or(other) {
                None => "say whom to block: /block USER".into(),
                Some(user) => match client.block(user.clone()).await {
                    Ok(()) => format!("{user} is blocked and not told; /unblock {user} takes it back"),
                    Err(error) => failed(&error),
                },
            },
            Command::Unblock(user) => match user.or(other) {
                None => "say whom to unblock: /unblock USER".into(),
                Some(user) => match client.unblock(user.clone()).await {
                    Ok(()) => format!("{user} is not blocked"),
                    Err(error) => failed(&error),
                },
            },
        }
    }
    .boxed_local()
}

fn failed(error: &RequestError) -> String {
    format!("not done: {error}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_a_command_is_no_message() {
        let bob = UserId::new("bob").unwrap();
        assert_eq!(command("/block"), Some(Command::Block(None)));
        assert_eq!(command("/block bob"), Some(Command::Block(Some(bob.clone()))));
        assert_eq!(command("/unblock bob "), Some(Command::Unblock(Some(bob))));
        assert_eq!(command("/blocks"), Some(Command::List));
        assert!(matches!(command("/block c:x"), Some(Command::Wrong(_))));
        for message in ["", "hi", "/shrug", "/blocked", " /block", "//block"] {
            assert_eq!(command(message), None, "{message}");
        }
    }
}
