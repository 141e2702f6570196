//! Frames that say how far the user is: acks and read positions.

use tern_protocol::{ACK_POSITIONS_MAX, Ack, Code, Read};

use super::active::Active;
use super::reads::Job;
use super::refused::Refused;
use super::step::Handled;

impl Active {
    /// What this session was told of is confirmed at once; about the rest the store is asked.
    pub(super) fn on_ack(&mut self, request: Option<u64>, ack: Ack) -> Result<Handled, Refused> {
        if ack.positions.len() > ACK_POSITIONS_MAX {
            let detail =
                format!("{} positions, at most {ACK_POSITIONS_MAX} are allowed", ack.positions.len());
            return Err(Refused::new(Code::LIMIT_EXCEEDED, detail));
        }
        let mut positions = ack.positions;
        positions.retain(|position| {
            let told = self.seat.outbox.has_told(position.conversation, position.seq);
            if told {
                self.gateway.confirm(&self.seat, position.conversation, position.seq);
            }
            !told
        });
        if !positions.is_empty() {
            self.reads.push(Job::Ack { request, positions })?;
        }
        Ok(Handled::Silent)
    }

    pub(super) fn on_read(&mut self, request: Option<u64>, read: Read) -> Result<Handled, Refused> {
        self.reads.push(Job::Read { request, read })?;
        Ok(Handled::Silent)
    }
}
