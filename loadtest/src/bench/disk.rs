//! How fast the disk is by itself: small appends, each followed by fdatasync, one at a time. A
//! message cannot be durable sooner than one of them.

use std::io::{self, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::report::{Percentiles, histogram};

/// Size of an append in bytes: about a short message with its marker and its head.
const APPEND_BYTES: usize = 512;
/// How long is measured.
const PROBE: Duration = Duration::from_secs(2);

/// What one probe found.
#[derive(Debug, Serialize)]
pub(super) struct DiskRate {
    /// fdatasync calls per second.
    pub(super) per_second: f64,
    /// Time of an append with its fdatasync.
    pub(super) latency: Percentiles,
}

/// Measures the file system of this directory, in a file that is removed again. Blocks for some 2 s.
pub(super) fn probe(dir: &Path) -> io::Result<DiskRate> {
    let mut file = tempfile::tempfile_in(dir)?;
    let mut histogram = histogram();
    let started = Instant::now();
    while started.elapsed() < PROBE {
        let at = Instant::now();
        file.write_all(&[0x5a; APPEND_BYTES])?;
        file.sync_data()?;
        histogram.saturating_record(at.elapsed().as_micros() as u64);
    }
    let per_second = histogram.len() as f64 / started.elapsed().as_secs_f64();
    Ok(DiskRate { per_second, latency: (&histogram).into() })
}
