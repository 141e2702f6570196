//! A sync: what changed is told at once, then the missing entries piece by piece.

use std::collections::HashMap;

use tern_protocol::resume::CatchUp;
use tern_protocol::{
    Code, ConversationId, ConversationSummary, Deliver, Erased, Gap, Position, SyncEnd, SyncPage,
};

use super::worker::{Gone, Worker};
use crate::conversation::history::{Ahead, Changed, Missing, Run};
use crate::session::refused::Refused;

/// Conversations in one page: with the longest names half a frame.
const PAGE_ROWS: usize = 64;
/// Logs whose missing entries are read at a time.
const RUNS_AT_ONCE: usize = 64;

/// A piece of a sync.
pub(super) enum Part {
    /// Conversations that changed, for one frame.
    Page { request: Option<u64>, conversations: Vec<ConversationSummary> },
    /// Entries that are named and not sent.
    Gap { request: Option<u64>, gap: Gap },
    /// Something that was sent earlier is not to be kept.
    Erased { request: Option<u64>, erased: Erased },
    /// Entries to be read and sent, in as many frames as it takes.
    Entries { request: Option<u64>, run: Run },
    /// That was all.
    End { request: Option<u64>, changed: u32 },
}

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
        let (changed, ahead) = self.reading(asked).await?;
        self.count(&changed, &ahead);
        for ahead in ahead {
            let detail =
                format!("cursor {} of {} is above its head {}", ahead.cursor, ahead.conversation, ahead.head);
            let refused = Refused::new(Code::CURSOR_AHEAD, detail).within(ahead.conversation);
            let frame = refused.into_frame().into();
            if self.send(request, frame).await.is_err() {
                return Ok(());
            }
        }
        let count = changed.len() as u32;
        let mut missing = Vec::with_capacity(changed.len());
        let mut changed = changed.into_iter();
        while changed.len() > 0 {
            let page = changed.by_ref().take(PAGE_ROWS).map(|changed| {
                missing.push(changed.missing);
                changed.summary
            });
            let conversations = page.collect();
            self.catching_up.push_back(Part::Page { request, conversations });
        }
        self.line_up(request, &missing);
        self.catching_up.push_back(Part::End { request, changed: count });
        Ok(())
    }

    fn count(&self, changed: &[Changed], ahead: &[Ahead]) {
        let sync = &self.gateway.metrics.sync;
        let gap = changed.iter().any(|changed| matches!(changed.missing.catch_up, CatchUp::Tail { .. }));
        match (ahead.is_empty(), changed.is_empty(), gap) {
            (false, _, _) => sync.refused.increment(1),
            (true, true, _) => sync.up_to_date.increment(1),
            (true, false, true) => sync.gap.increment(1),
            (true, false, false) => sync.caught_up.increment(1),
        }
    }

    /// First what is only named, then what is to be read, so that many logs are read at once.
    fn line_up(&mut self, request: Option<u64>, missing: &[Missing]) {
        let mut runs = Vec::new();
        for &Missing { conversation, hidden, catch_up, erased_seq } in missing {
            if let Some(seq) = erased_seq {
                self.catching_up.push_back(Part::Erased { request, erased: Erased { conversation, seq } });
            }
            let (gap, entries) = match catch_up {
                CatchUp::Whole { from, to } => (None, Some((from, to))),
                CatchUp::Tail { gap_from, gap_to, from, to } => (Some((gap_from, gap_to)), Some((from, to))),
                CatchUp::UpToDate | CatchUp::Ahead => (None, None),
            };
            // What the user may not see and what is too much follow each other: one gap.
            let first = hidden.or(gap).map(|gap| gap.0);
            if let Some((from, to)) = first.zip(gap.or(hidden).map(|gap| gap.1)) {
                self.catching_up.push_back(Part::Gap { request, gap: Gap { conversation, from, to } });
            }
            let run =
                entries.map(|(from, to)| Part::Entries { request, run: Run { conversation, from, to } });
            runs.extend(run);
        }
        self.catching_up.extend(runs);
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
            Part::Entries { request, run } => self.send_entries(request, run).await,
        }
    }

    /// Reads the missing entries of as many logs as fit in a frame, and sends them log by log.
    async fn send_entries(&mut self, request: Option<u64>, first: Run) -> Result<(), Gone> {
        let mut runs = vec![first];
        while runs.len() < RUNS_AT_ONCE
            && let Some(&Part::Entries { run, .. }) = self.catching_up.front()
        {
            runs.push(run);
            self.catching_up.pop_front();
        }
        let found = match self.reading(self.gateway.history.runs(&runs)).await {
            Ok(found) => found,
            Err(error) => return self.break_off(request, error.into()).await,
        };
        // What did not fit comes next; a log that has nothing left to show is done.
        let answered = found.len().clamp(1, runs.len());
        for &run in runs[answered..].iter().rev() {
            self.catching_up.push_front(Part::Entries { request, run });
        }
        if let Some(last) = found.last().and_then(|entries| entries.last())
            && last.seq < runs[answered - 1].to
        {
            let run = Run { from: last.seq + 1, ..runs[answered - 1] };
            self.catching_up.push_front(Part::Entries { request, run });
        }
        for (Run { conversation, .. }, entries) in runs.into_iter().zip(found) {
            let Some(last) = entries.last().map(|entry| entry.seq) else { continue };
            self.seat.outbox.note_told(conversation, last);
            self.send(request, Deliver { conversation, entries }.into()).await?;
        }
        Ok(())
    }

    /// Without this piece the sync is not complete: no SyncEnd, the client asks again.
    async fn break_off(&mut self, request: Option<u64>, refused: Refused) -> Result<(), Gone> {
        self.catching_up.clear();
        self.send(request, refused.into_frame().into()).await
    }
}
