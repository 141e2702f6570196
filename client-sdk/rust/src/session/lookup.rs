//! The search of a log for own changes that are too old to be sent again.

use tern_protocol::{ConversationId, Fetch, PAGE_ENTRIES_MAX, Page};

/// Most pages read in one search; what is not in them counts as not there (10,000 entries).
const PAGES_MAX: u32 = 50;
/// The clocks of client and server, and the way between them, may differ by this much: 15 min.
const MARGIN_MS: u64 = 15 * 60 * 1000;

/// Walks from the newest entry back to the time of the oldest change that is looked for.
#[derive(Debug, Default)]
pub(super) struct Lookup {
    before: Option<u64>,
    pages: u32,
    request: Option<u64>,
}

/// Whether the search goes on.
#[derive(Debug, PartialEq)]
pub(super) enum Progress {
    More,
    Done,
}

impl Lookup {
    /// The next page to ask for; `None` while one is awaited.
    pub(super) fn ask(&mut self, conversation: ConversationId, request: u64) -> Option<Fetch> {
        if self.request.is_some() {
            return None;
        }
        self.request = Some(request);
        let limit = Some(PAGE_ENTRIES_MAX as u32);
        Some(Fetch { conversation, before: self.before, after: None, around: None, limit })
    }

    pub(super) fn waits_for(&self, request: u64) -> bool {
        self.request == Some(request)
    }

    /// A page came; `oldest_ms` is the server's time when the oldest change was made.
    pub(super) fn read(&mut self, page: &Page, oldest_ms: u64) -> Progress {
        self.request = None;
        self.pages += 1;
        let Some(last) = page.entries.last() else { return Progress::Done };
        self.before = Some(last.seq);
        let before_all = last.time_ms.saturating_add(MARGIN_MS) < oldest_ms;
        if before_all || last.seq <= page.first_seq || self.pages >= PAGES_MAX {
            Progress::Done
        } else {
            Progress::More
        }
    }
}
