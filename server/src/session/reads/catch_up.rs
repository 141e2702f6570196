//! A sync: what changed is told at once, then the missing entries piece by piece.

use std::collections::HashMap;

use tern_protocol::resume::CatchUp;
use tern_protocol::{
    Code, ConversationId, ConversationSummary, Deliver, Erased, Gap, Position, SyncEnd, SyncPage,
};

use super::worker::{Gone, Worker};
use crate::conversation::history::{Ahead, Missing};
use crate::session::refused::Refused;
use crate::store::{InboxRow, StoreError};

/// Conversations in one page: with the longest names half a frame.
const PAGE_ROWS: usize = 64;

/// A piece of a sync.
pub(super) enum Part {
    /// Conversations that changed, to be read and sent in one frame.
    Page { request: Option<u64>, rows: Vec<InboxRow> },
    /// Entries that are named and not sent.
    Gap { request: Option<u64>, gap: Gap },
    /// Something that was sent earlier is not to be kept.
    Erased { request: Option<u64>, erased: Erased },
    /// Entries to be read and sent, in as many frames as it takes.
    Entries { request: Option<u64>, conversation: ConversationId, from: u64, to: u64 },
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
        let (rows, missing): (Vec<InboxRow>, Vec<Missing>) = changed.into_iter().unzip();
        let pages = rows.chunks(PAGE_ROWS).map(|rows| Part::Page { request, rows: rows.to_vec() });
        self.catching_up.extend(pages);
        for missing in &missing {
            self.line_up(request, missing);
        }
        self.catching_up.push_back(Part::End { request, changed: count });
        Ok(())
    }

    fn count(&self, changed: &[(InboxRow, Missing)], ahead: &[Ahead]) {
        let sync = &self.gateway.metrics.sync;
        let gap = changed.iter().any(|(_, missing)| matches!(missing.catch_up, CatchUp::Tail { .. }));
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
            self.catching_up.push_back(Part::Entries { request, conversation, from, to });
        }
    }

    /// Sends the next piece.
    pub(super) async fn catch_up(&mut self) -> Result<(), Gone> {
        let Some(part) = self.catching_up.pop_front() else { return Ok(()) };
        match part {
            Part::Page { request, rows } => self.send_page(request, rows).await,
            Part::Gap { request, gap } => self.send(request, gap.into()).await,
            Part::Erased { request, erased } => self.send(request, erased.into()).await,
            Part::End { request, changed } => self.send(request, SyncEnd { changed }.into()).await,
            Part::Entries { request, conversation, from, to } => {
                self.send_entries(request, conversation, from, to).await
            }
        }
    }

    async fn send_page(&mut self, request: Option<u64>, rows: Vec<InboxRow>) -> Result<(), Gone> {
        match self.reading(self.summaries(&rows)).await {
            Ok(conversations) if conversations.is_empty() => Ok(()),
            Ok(conversations) => self.send(request, SyncPage { conversations }.into()).await,
            Err(error) => self.break_off(request, error.into()).await,
        }
    }

    async fn summaries(&self, rows: &[InboxRow]) -> Result<Vec<ConversationSummary>, StoreError> {
        let mut summaries = Vec::with_capacity(rows.len());
        for row in rows {
            summaries.extend(self.gateway.history.summary(&self.seat.user, row).await?);
        }
        Ok(summaries)
    }

    /// Without this piece the sync is not complete: no SyncEnd, the client asks again.
    async fn break_off(&mut self, request: Option<u64>, refused: Refused) -> Result<(), Gone> {
        self.catching_up.clear();
        self.send(request, refused.into_frame().into()).await
    }

    async fn send_entries(
        &mut self,
        request: Option<u64>,
        conversation: ConversationId,
        from: u64,
        to: u64,
    ) -> Result<(), Gone> {
        match self.reading(self.gateway.history.chunk(conversation, from, to)).await {
            Ok(entries) => {
                let Some(last) = entries.last().map(|entry| entry.seq) else { return Ok(()) };
                if last < to {
                    let rest = Part::Entries { request, conversation, from: last + 1, to };
                    self.catching_up.push_front(rest);
                }
                self.seat.outbox.note_told(conversation, last);
                self.send(request, Deliver { conversation, entries }.into()).await
            }
            Err(error) => self.break_off(request, Refused::from(error).within(conversation)).await,
        }
    }
}
