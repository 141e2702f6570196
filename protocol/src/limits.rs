//! Every limit of the protocol, with its unit and reason. `Limits` is what Welcome tells a client.

use serde::{Deserialize, Serialize};

/// Longest user id in bytes.
pub const USER_ID_BYTES_MAX: usize = 128;
/// Longest device id in bytes.
pub const DEVICE_ID_BYTES_MAX: usize = 64;
/// Longest frame in bytes, counted from after the length prefix; also the longest WebSocket message.
pub const FRAME_BYTES_MAX: usize = 64 * 1024;
/// Longest JSON text of a frame that a server sends, in bytes. A frame's limit counts its binary
/// form; in JSON every byte may become an escape of six, and names of fields come on top.
pub const JSON_BYTES_MAX: usize = 8 * FRAME_BYTES_MAX;
/// Longest text of a message in bytes of UTF-8, the data beside it included.
pub const TEXT_BYTES_MAX: usize = 16 * 1024;
/// Longest name of a group or of a user in bytes of UTF-8.
pub const NAME_BYTES_MAX: usize = 128;
/// Most members of a group.
pub const GROUP_MEMBERS_MAX: usize = 100;
/// Most entries in one page of history.
pub const PAGE_ENTRIES_MAX: usize = 200;
/// Entries in a page of history when the request does not say.
pub const PAGE_ENTRIES_DEFAULT: usize = 20;
/// Pages, cursor lists and delivered batches are cut at this many bytes as well as by count.
/// It leaves room for the frame header and the fixed fields around the list.
pub const PAGE_BYTES_MAX: usize = FRAME_BYTES_MAX - 4 * 1024;
/// Most users one session watches at a time: what fits on a screen, with a margin.
pub const WATCH_USERS_MAX: usize = 200;
/// Most sends of one session that are neither acked nor refused for good.
pub const SENDS_IN_FLIGHT_MAX: usize = 256;
/// Most cursors in one Sync frame (a JSON cursor is about 65 bytes).
pub const SYNC_CURSORS_MAX: usize = 512;
/// Most cursors of one sync, over all its frames.
pub const SYNC_CURSORS_TOTAL_MAX: usize = 10_000;
/// Most groups in one LeaveGroups frame.
pub const LEAVE_GROUPS_MAX: usize = 100;
/// Most blocked users in one page.
pub const BLOCKS_PAGE_MAX: usize = 200;
/// Most users whom one user blocks, where the server does not say otherwise.
pub const BLOCKS_MAX: usize = 1_000;
/// Most positions in one Ack frame.
pub const ACK_POSITIONS_MAX: usize = 100;
/// A gap of at most this many entries is sent whole.
pub const GAP_WHOLE_MAX: u64 = 500;
/// After a larger gap this many of the newest entries are sent.
pub const GAP_TAIL: u64 = 50;
/// Longest token in bytes.
pub const TOKEN_BYTES_MAX: usize = 4 * 1024;
/// Longest detail in an error that says what was wrong with a frame, in bytes.
pub const DETAIL_BYTES_MAX: usize = 256;
/// Longest reason in a close, in bytes: what fits in a WebSocket close frame.
pub const CLOSE_REASON_BYTES_MAX: usize = 120;
/// A retry with the same `temp_id` is recognised for this long, in seconds (7 days).
pub const DEDUPE_WINDOW_S: u32 = 7 * 24 * 3600;
/// Most malformed frames of one session before it is closed.
pub const BAD_FRAMES_MAX: u32 = 20;

// A full page must fit in a frame, and one text in a page.
const _: () = assert!(PAGE_BYTES_MAX < FRAME_BYTES_MAX);
const _: () = assert!(TEXT_BYTES_MAX * 2 < PAGE_BYTES_MAX);
const _: () = assert!(SYNC_CURSORS_MAX <= SYNC_CURSORS_TOTAL_MAX);
const _: () = assert!(GAP_TAIL <= GAP_WHOLE_MAX);
// A page of blocked users fits in a frame.
const _: () = assert!(BLOCKS_PAGE_MAX * (USER_ID_BYTES_MAX + 16) < PAGE_BYTES_MAX);

/// The limits of this server, told in Welcome so that clients need not guess.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(feature = "schema", derive(postcard_schema::Schema))]
pub struct Limits {
    /// Longest frame, in bytes.
    pub frame_bytes: u32,
    /// Longest text of a message, in bytes of UTF-8, the data beside it included.
    pub text_bytes: u32,
    /// Longest name of a group or user, in bytes of UTF-8.
    pub name_bytes: u32,
    /// Most members of a group.
    pub group_members: u32,
    /// Most entries in a page of history.
    pub page_entries: u32,
    /// Most users watched at a time by one session.
    pub watch_users: u32,
    /// Most unresolved sends of one session.
    pub sends_in_flight: u32,
    /// Most cursors in one Sync frame.
    pub sync_cursors: u32,
    /// Most cursors of one sync, over all its frames.
    pub sync_cursors_total: u32,
    /// Most positions in one Ack frame.
    pub ack_positions: u32,
    /// A gap up to this many entries is sent whole.
    pub gap_whole: u32,
    /// Newest entries sent after a larger gap.
    pub gap_tail: u32,
    /// How long retries are recognised, in seconds.
    pub dedupe_window_s: u32,
    /// Most sessions of one user.
    pub sessions_per_user: u32,
    /// The client pings when it has sent nothing for this long, in seconds.
    pub keepalive_s: u32,
    /// A peer that was silent for this long is dead, in seconds.
    pub dead_after_s: u32,
    /// Sends per second this user may keep up; bursts are larger.
    pub sends_per_second: u32,
    /// Most users whom one user blocks.
    pub blocks: u32,
    /// Most groups in one LeaveGroups frame.
    pub leave_groups: u32,
    /// Most groups a user can be in that others put them in and that they have not accepted.
    pub added_groups: u32,
}
