//! The loop of `tern chat`: what is typed goes out, what comes in is shown.

use std::io::Write;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use serde::Deserialize;
use serde_json::json;
use tern_client::{
    Ack, Anchor, Client, ConversationId, ConversationKind, Data, Draft, Event, Events, Pending, SendError,
    State, Target, UserId,
};
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::blocking::{self, Deciding};
use super::show;

/// Entries of the past shown at the start.
const HISTORY: usize = 20;
/// Lines typed or piped in that wait to be taken.
const LINES_MAX: usize = 64;
/// Conversations looked at for a group by its name.
const LISTED_MAX: usize = 10_000;
/// On leaving, what is typed gets this long to become durable; then it is kept for the next time.
const LEAVE: Duration = Duration::from_secs(3);

/// The other side.
pub(super) enum Whom {
    /// A user.
    User(UserId),
    /// A group by its id.
    Group(ConversationId),
    /// A group by its name; made with these members if there is none.
    Named { name: String, with: Vec<UserId> },
}

/// Lines of standard input, from a thread of their own since reading them blocks.
pub(super) fn lines() -> mpsc::Receiver<String> {
    let (sender, receiver) = mpsc::channel(LINES_MAX);
    std::thread::spawn(move || {
        for line in std::io::stdin().lines().map_while(Result::ok) {
            if sender.blocking_send(line).is_err() {
                return;
            }
        }
    });
    receiver
}

/// A line of JSON from a program.
#[derive(Deserialize)]
struct Typed {
    #[serde(default)]
    text: String,
    data: Option<Data>,
    reply_to: Option<u64>,
}

/// A message on its way.
type Sending = std::pin::Pin<Box<dyn Future<Output = (String, Result<Ack, SendError>)>>>;

/// One conversation in the terminal.
pub(super) struct Room {
    client: Client,
    events: Events,
    whom: Whom,
    json: bool,
    sending: FuturesUnordered<Sending>,
    /// Commands under way.
    deciding: FuturesUnordered<Deciding>,
    /// Where it is, once known.
    place: Option<(Target, ConversationId)>,
    /// Entries up to here were shown.
    shown: u64,
    history_shown: bool,
    warned_unknown: bool,
}

impl Room {
    pub(super) fn new(client: Client, events: Events, whom: Whom, json: bool) -> Self {
        Self {
            client,
            events,
            whom,
            json,
            sending: FuturesUnordered::new(),
            deciding: FuturesUnordered::new(),
            place: None,
            shown: 0,
            history_shown: false,
            warned_unknown: false,
        }
    }

    pub(super) async fn run(mut self, mut lines: mpsc::Receiver<String>) -> anyhow::Result<ExitCode> {
        if let Whom::User(user) = &self.whom {
            // The pair's id also needs our own name, which a session tells; the target does not.
            self.place =
                self.own_name().map(|me| (Target::User(user.clone()), ConversationId::pair(&me, user)));
        }
        loop {
            // A group must be known before there is anywhere to send to.
            let can_send = matches!(self.whom, Whom::User(_)) || self.place.is_some();
            tokio::select! {
                line = lines.recv(), if can_send => match line {
                    Some(line) => self.type_line(&line)?,
                    None => return self.leave().await,
                },
                event = self.events.next() => match event {
                    Some(event) => {
                        if let Some(exit) = self.on_event(event).await? {
                            return Ok(exit);
                        }
                    }
                    None => return Ok(ExitCode::SUCCESS),
                },
                Some((text, done)) = self.sending.next(), if !self.sending.is_empty() => self.on_sent(&text, done),
                Some(line) = self.deciding.next(), if !self.deciding.is_empty() => {
                    self.print(&json!({}), &format!("-- {line}"));
                }
            }
        }
    }

    fn own_name(&self) -> Option<UserId> {
        self.client.session().map(|session| session.user.clone())
    }

    fn type_line(&mut self, line: &str) -> anyhow::Result<()> {
        let mut draft = Draft::new(line);
        if self.json {
            match serde_json::from_str::<Typed>(line) {
                Ok(Typed { text, data, reply_to }) => {
                    (draft.text, draft.data, draft.reply_to) = (text, data, reply_to);
                }
                Err(error) => {
                    self.print(&json!({"event": "bad_line", "error": error.to_string()}), "");
                    return Ok(());
                }
            }
        }
        if let Some(command) = blocking::command(line).filter(|_| !self.json) {
            let other = match &self.whom {
                Whom::User(user) => Some(user.clone()),
                Whom::Group(_) | Whom::Named { .. } => None,
            };
            self.deciding.push(blocking::obey(self.client.clone(), command, other));
            return Ok(());
        }
        if draft.text.is_empty() && draft.data.is_none() {
            return Ok(());
        }
        let text = draft.text.clone();
        let to = match (&self.place, &self.whom) {
            (Some((target, _)), _) => target.clone(),
            (None, Whom::User(user)) => Target::User(user.clone()),
            (None, _) => bail!("the group is not known yet"),
        };
        match self.client.submit(to, draft) {
            Ok(pending) => self.sending.push(Box::pin(follow(text, pending))),
            Err(error) => self.on_sent(&text, Err(error)),
        }
        Ok(())
    }

    fn on_sent(&mut self, text: &str, done: Result<Ack, SendError>) {
        match done {
            Ok(ack) => {
                if ack.recipient_unknown && !self.warned_unknown {
                    self.warned_unknown = true;
                    let note = "the other side has never been here: they get it if they ever come";
                    self.print(&json!({"event": "recipient_unknown"}), &format!("-- {note}"));
                }
                if self.json {
                    self.print(&json!({"event": "ack", "temp_id": ack.temp_id, "seq": ack.seq}), "");
                }
            }
            Err(SendError::Closed) => {}
            Err(error) => {
                let line = show::failed(text, &error);
                self.print(&json!({"event": "send_failed", "text": text, "error": error.to_string()}), &line);
            }
        }
    }

    async fn on_event(&mut self, event: Event) -> anyhow::Result<Option<ExitCode>> {
        match &event {
            Event::Entry { conversation, entry } => {
                let here = self.place.as_ref().is_none_or(|place| place.1 == *conversation);
                if !self.json && (!here || !self.history_shown || entry.seq <= self.shown) {
                    return Ok(None);
                }
                self.shown = self.shown.max(entry.seq);
                self.print(&show::json_entry(*conversation, entry), &show::entry(entry));
            }
            Event::State(state) => {
                let line = format!("-- {}", show::state(state));
                if let Some(json) = show::json_event(&event) {
                    self.print(&json, &line);
                }
                if let State::Closed { .. } = state {
                    return Ok(Some(ExitCode::FAILURE));
                }
                if state.is_online() && !self.history_shown {
                    self.arrive().await?;
                }
            }
            Event::Presence(users) => {
                for user in users {
                    let json = json!({"event": "presence", "users": [user]});
                    self.print(&json, &format!("-- {}", show::presence(user)));
                }
            }
            Event::Typing { conversation, user } => {
                if self.place.as_ref().is_some_and(|place| place.1 == *conversation) {
                    let json = json!({"event": "typing", "conversation": conversation, "user": user});
                    self.print(&json, &format!("-- {user} is typing…"));
                }
            }
            other => {
                if let Some(json) = show::json_event(other).filter(|_| self.json) {
                    self.print(&json, "");
                }
            }
        }
        Ok(None)
    }

    /// First time online: find the place, show the past, watch the other side.
    async fn arrive(&mut self) -> anyhow::Result<()> {
        let (target, conversation) = match self.find().await {
            Ok(place) => place,
            // A server that vanished again is waited for; the rest cannot go on.
            Err(error) if !self.client.state().is_online() => {
                tracing::debug!(%error, "not found yet");
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        if let Ok(page) = self.client.history(conversation, Anchor::Latest, HISTORY as u32).await {
            for entry in page.entries.iter().rev() {
                if !self.json {
                    self.print(&json!({}), &show::entry(entry));
                }
                self.shown = entry.seq;
            }
        }
        self.place = Some((target, conversation));
        self.history_shown = true;
        self.watch().await;
        Ok(())
    }

    /// Asks for the presence of the other side; it is told when it becomes visible.
    async fn watch(&mut self) {
        if let Some((Target::User(user), _)) = &self.place {
            let _ = self.client.watch(vec![user.clone()]).await;
        }
    }

    async fn find(&self) -> anyhow::Result<(Target, ConversationId)> {
        match &self.whom {
            Whom::User(user) => {
                let me = self.own_name().context("no session")?;
                Ok((Target::User(user.clone()), ConversationId::pair(&me, user)))
            }
            Whom::Group(id) => Ok((Target::Conversation(*id), *id)),
            Whom::Named { name, with } => {
                if let Some(id) = self.by_name(name).await? {
                    return Ok((Target::Conversation(id), id));
                }
                if with.is_empty() {
                    bail!("you are in no group named {name:?}; add --with USER,… to make it");
                }
                let made = self.client.create_group(name.clone(), with.clone()).await?;
                Ok((Target::Conversation(made.conversation), made.conversation))
            }
        }
    }

    async fn by_name(&self, name: &str) -> anyhow::Result<Option<ConversationId>> {
        let mut found = Vec::new();
        let (mut cursor, mut listed) = (None, 0);
        loop {
            let page = self.client.conversations(cursor, 200).await?;
            listed += page.conversations.len();
            let groups = page.conversations.iter().filter(|row| row.kind == ConversationKind::Group);
            found.extend(groups.filter(|row| row.name.as_deref() == Some(name)).map(|row| row.conversation));
            cursor = page.next;
            if cursor.is_none() || listed >= LISTED_MAX {
                break;
            }
        }
        if found.len() > 1 {
            bail!("you are in {} groups named {name:?}; say which by its id: {found:?}", found.len());
        }
        Ok(found.pop())
    }

    /// No more input: what is on its way gets a moment, the rest is kept.
    async fn leave(mut self) -> anyhow::Result<ExitCode> {
        let waited = timeout(LEAVE, async {
            while let Some((text, done)) = self.sending.next().await {
                self.on_sent(&text, done);
            }
            while let Some(line) = self.deciding.next().await {
                self.print(&json!({}), &format!("-- {line}"));
            }
        })
        .await;
        if waited.is_err() {
            let note = format!("{} messages are not sent yet; they are sent next time", self.sending.len());
            self.print(&json!({"event": "kept", "messages": self.sending.len()}), &format!("-- {note}"));
        }
        self.client.close().await;
        Ok(ExitCode::SUCCESS)
    }

    fn print(&self, json: &serde_json::Value, line: &str) {
        let mut out = std::io::stdout().lock();
        // A closed terminal or pipe ends the program by its input.
        let _ = if self.json { writeln!(out, "{json}") } else { writeln!(out, "{line}") };
    }
}

async fn follow(text: String, pending: Pending) -> (String, Result<Ack, SendError>) {
    let done = pending.await;
    (text, done)
}
