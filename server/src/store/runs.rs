//! Cutting what is read of several logs to one page.

use tern_protocol::Entry;

use super::{PageLimit, StoreError};

/// Entries of one log after the other, up to a limit over all of them, but never before the first.
#[derive(Debug)]
pub(super) struct Runs {
    limit: PageLimit,
    entries: usize,
    bytes: usize,
    runs: Vec<Vec<Entry>>,
}

impl Runs {
    pub(super) fn new(limit: PageLimit) -> Self {
        Self { limit, entries: 0, bytes: 0, runs: Vec::new() }
    }

    /// Adds what fits of the next log, entries with their encoded bytes. False if it was cut.
    pub(super) fn add(
        &mut self,
        entries: impl Iterator<Item = Result<(Entry, usize), StoreError>>,
    ) -> Result<bool, StoreError> {
        let mut run = Vec::new();
        for entry in entries {
            let (entry, bytes) = entry?;
            let is_over = self.entries >= self.limit.entries || self.bytes + bytes > self.limit.bytes;
            if self.entries > 0 && is_over {
                // A run of which nothing fits is not begun.
                if !run.is_empty() {
                    self.runs.push(run);
                }
                return Ok(false);
            }
            (self.entries, self.bytes) = (self.entries + 1, self.bytes + bytes);
            run.push(entry);
        }
        self.runs.push(run);
        Ok(true)
    }

    pub(super) fn finish(self) -> Vec<Vec<Entry>> {
        self.runs
    }
}
