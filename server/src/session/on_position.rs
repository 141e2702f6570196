//! Frames that say how far the user is: acks and read positions.

use tern_protocol::{ACK_POSITIONS_MAX, Ack, Code, ConversationId, Read};

use super::active::{Active, Handled};
use super::backlog::Job;
use super::refused::Refused;

impl Active {
    pub(super) async fn on_ack(&mut self, ack: Ack) -> Result<Handled, Refused> {
        if ack.positions.len() > ACK_POSITIONS_MAX {
            let detail =
                format!("{} positions, at most {ACK_POSITIONS_MAX} are allowed", ack.positions.len());
            return Err(Refused::new(Code::LIMIT_EXCEEDED, detail));
        }
        for position in ack.positions {
            self.check_position(position.conversation, position.seq).await?;
            self.gateway.parts.delivery.confirm(&self.seat, position.conversation, position.seq);
        }
        Ok(Handled::Later)
    }

    pub(super) async fn on_read(&mut self, request: Option<u64>, read: Read) -> Result<Handled, Refused> {
        self.check_position(read.conversation, read.seq).await?;
        self.backlog.push(Job::Read { request, read })
    }

    /// A position must lie in the part of the log that the user may see.
    async fn check_position(&self, conversation: ConversationId, seq: u64) -> Result<(), Refused> {
        let history = &self.gateway.parts.history;
        let access = history.access(&self.seat.user, conversation).await?;
        let access = access.ok_or_else(|| Refused::not_found().within(conversation))?;
        if seq > access.last_seq {
            let detail = format!("seq {seq} is above the head {} of {conversation}", access.last_seq);
            return Err(Refused::new(Code::CURSOR_AHEAD, detail).within(conversation));
        }
        Ok(())
    }
}
