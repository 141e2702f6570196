//! A sync: what changed is told at once, then the missing entries piece by piece.

use std::collections::HashMap;

use tern_protocol::resume::CatchUp;
use tern_protocol::{
    Code, ConversationId, ConversationSummary, Deliver, Erased, Gap, Position, SyncEnd, SyncPage,
};

use super::worker::Worker;
use super::{Gone, Part};
use crate::clock::now;
use crate::conversation::history::{Ahead, Changed, Changes, Missing, Run};
use crate::session::refused::Refused;
use crate::store::Apart;

/// Conversations in one page: with the longest names half a frame.
const PAGE_ROWS: usize = 64;
/// Logs of which entries are read at once: what comes back is one frame's worth of all of them.
const RUNS_MAX: usize = 64;

impl Worker {
    /// Reads what changed and lines up what is to be told of it. What is left of a sync before goes: the
    /// client asked anew.
    pub(super) async fn begin_sync(
        &mut self,
        request: Option<u64>,
        cursors: Vec<Position>,
    ) -> Result<(), Refused> {
        self.catching_up.clear();
        let known: HashMap<ConversationId, u64> =
            cursors.into_iter().map(|position| (position.conversation, position.seq)).collect();
        let asked = self.gateway.history.changed(&self.seat.user, &known);
        let Changes { changed, ahead, unreadable } = self.reading(asked).await?;
        self.count(&changed, &ahead);
        for conversation in unreadable {
            if self.leave_out(conversation).await.is_err() {
                return Ok(());
            }
        }
        for ahead in ahead {
            // What has no head here is not theirs: anybody can make up such a cursor.
            if ahead.head > 0 {
                self.gateway.rollback.note(ahead.conversation, ahead.cursor, ahead.head, now());
            }
            let detail =
                format!("cursor {} of {} is above its head {}", ahead.cursor, ahead.conversation, ahead.head);
            let refused = Refused::new(Code::CURSOR_AHEAD, detail).within(ahead.conversation);
            let frame = refused.into_frame().into();
            if self.send(request, frame).await.is_err() {
                return Ok(());
            }
        }
        let count = changed.len() as u32;
        let changed = changed.into_iter().map(|changed| (changed.summary, changed.missing));
        let (summaries, missing): (Vec<ConversationSummary>, Vec<Missing>) = changed.unzip();
        let mut summaries = summaries.into_iter().peekable();
        while summaries.peek().is_some() {
            let conversations = summaries.by_ref().take(PAGE_ROWS).collect();
            self.catching_up.push_back(Part::Page { request, conversations });
        }
        for missing in &missing {
            self.line_up(request, missing);
        }
        self.catching_up.push_back(Part::End { request, changed: count });
        Ok(())
    }

    fn count(&self, changed: &[Changed], ahead: &[Ahead]) {
        let sync = &self.gateway.metrics.sync;
        let gap = changed.iter().any(|one| matches!(one.missing.catch_up, CatchUp::Tail { .. }));
        match (ahead.is_empty(), changed.is_empty(), gap) {
            (false, _, _) => sync.refused.increment(1),
            (true, true, _) => sync.up_to_date.increment(1),
            (true, false, true) => sync.gap.increment(1),
            (true, false, false) => sync.caught_up.increment(1),
        }
    }

    fn line_up(&mut self, request: Option<u64>, missing: &Missing) {
        let conversation = missing.conversation;
        if let Some(seq) = missing.erased_seq {
            self.catching_up.push_back(Part::Erased { request, erased: Erased { conversation, seq } });
        }
        let (gap, entries) = match missing.catch_up {
            CatchUp::Whole { from, to } => (None, Some((from, to))),
            CatchUp::Tail { gap_from, gap_to, from, to } => (Some((gap_from, gap_to)), Some((from, to))),
            CatchUp::UpToDate | CatchUp::Ahead => (None, None),
        };
        // What the user may not see and what is too much follow each other: one gap.
        let first = missing.hidden.or(gap).map(|gap| gap.0);
        if let Some((from, to)) = first.zip(gap.or(missing.hidden).map(|gap| gap.1)) {
            self.catching_up.push_back(Part::Gap { request, gap: Gap { conversation, from, to } });
        }
        if let Some((from, to)) = entries {
            self.catching_up.push_back(Part::Entries { request, run: Run { conversation, from, to } });
        }
    }

    /// Sends the next piece.
    pub(super) async fn catch_up(&mut self) -> Result<(), Gone> {
        let Some(part) = self.catching_up.pop_front() else { return Ok(()) };
        match part {
            Part::Page { request, conversations } => {
                self.send(request, SyncPage { conversations }.into()).await
            }
            Part::Gap { request, gap } => self.send(request, gap.into()).await,
            Part::Erased { request, erased } => self.send(request, erased.into()).await,
            Part::End { request, changed } => self.send(request, SyncEnd { changed }.into()).await,
            Part::Entries { request, run } => self.read_entries(request, run).await,
            Part::Deliver { request, deliver } => {
                if let Some(last) = deliver.entries.last() {
                    self.seat.outbox.note_told(deliver.conversation, last.seq);
                }
                self.send(request, deliver.into()).await
            }
        }
    }

    /// Tells that a conversation cannot be read. It is no answer to the sync, which goes on without it.
    async fn leave_out(&self, conversation: ConversationId) -> Result<(), Gone> {
        self.gateway.refused(Code::UNAVAILABLE);
        let refused = Refused::new(Code::UNAVAILABLE, "this conversation cannot be read now; it is left out");
        self.send(None, refused.within(conversation).into_frame().into()).await
    }

    /// Without this piece the sync is not complete: no SyncEnd, the client asks again.
    async fn break_off(&mut self, request: Option<u64>, refused: Refused) -> Result<(), Gone> {
        self.catching_up.clear();
        self.send(request, refused.into_frame().into()).await
    }

    /// Reads what comes next of this run and of those that follow it directly.
    async fn read_entries(&mut self, request: Option<u64>, run: Run) -> Result<(), Gone> {
        let mut runs = vec![run];
        while let Some(Part::Entries { run, .. }) = self.catching_up.front().filter(|_| runs.len() < RUNS_MAX)
        {
            runs.push(*run);
            self.catching_up.pop_front();
        }
        let mut read = match self.reading(self.gateway.history.runs(&runs)).await {
            Ok(Apart { damaged, .. }) if !damaged.is_empty() => {
                // The first of them; the others wait for their turn.
                for run in runs.drain(1..).rev() {
                    self.catching_up.push_front(Part::Entries { request, run });
                }
                return self.leave_out(run.conversation).await;
            }
            Ok(Apart { found, .. }) => found.into_iter(),
            Err(error) => {
                return self.break_off(request, Refused::from(error).within(run.conversation)).await;
            }
        };
        let (mut parts, mut left) = (Vec::new(), Vec::new());
        for run in runs {
            let entries = read.next();
            // What was read and is not there has aged out.
            let last = entries.as_ref().map(|entries| entries.last().map_or(run.to, |last| last.seq));
            let from = last.map_or(run.from, |last| last + 1);
            if from <= run.to {
                left.push(Part::Entries { request, run: Run { from, ..run } });
            }
            parts.extend(entries.filter(|entries| !entries.is_empty()).map(|entries| {
                let deliver = Deliver { conversation: run.conversation, entries };
                Part::Deliver { request, deliver }
            }));
        }
        // One at a time: other questions go between them, and a new sync takes their place.
        parts.append(&mut left);
        for part in parts.into_iter().rev() {
            self.catching_up.push_front(part);
        }
        Ok(())
    }
}
