//! What the file system, the servers and the clock answer the exchange.

use uakari::driver::device::DeviceId;
use uakari::driver::{Errno, FileKind, HandoverStep, OpenFor};
use uakari::exchange::{Ending, Input};

use super::Gateway;

impl Gateway {
    /// Answers an open, if there is one.
    pub fn answer_open(&mut self, opened: Result<FileKind, Errno>) {
        let Some(purpose) = self.opens.pop_front() else { return };
        let opened = opened.map(|kind| match (purpose, kind) {
            (OpenFor::Speaking(device), _) => FileKind::Device(DeviceId::default(), device),
            (_, FileKind::Device(..)) | (OpenFor::Reading, FileKind::Socket(_)) => FileKind::Other,
            _ => kind,
        });
        self.opened = opened.ok();
        self.input(Input::Opened(opened));
    }

    /// Answers a connect or a hand-over, if there is one.
    pub fn answer_connect(&mut self, connected: Result<(), Errno>) {
        if std::mem::take(&mut self.awaits_backlog) {
            return self.input(Input::Retry);
        }
        if let Some(reply) = self.handover.take() {
            return self.answer_handover(&reply, connected);
        }
        let Some(is_tcp) = self.connects.pop_front() else { return };
        let connected = match connected {
            // Only sockets of the file system have a type of their own.
            Err(Errno::EPROTOTYPE) if is_tcp => Err(Errno::ECONNREFUSED),
            connected => connected,
        };
        self.backend.is_there |= connected.is_ok() && self.ending.is_none();
        self.input(Input::Connected(connected));
    }

    /// A client that has sent nothing more is the server's and nobody else's.
    fn answer_handover(&mut self, reply: &[u8], connected: Result<(), Errno>) {
        let result = connected.map_err(|errno| match errno {
            Errno::EIO => (HandoverStep::Pass, Errno::EPIPE),
            Errno::EPROTOTYPE => (HandoverStep::Reply, Errno::EPIPE),
            errno => (HandoverStep::Connect, errno),
        });
        if matches!(result, Ok(()) | Err((HandoverStep::Pass, _))) {
            self.client.sent.extend(reply);
        }
        self.is_tunnel = result.is_ok() && self.exchange.wants().has_pipelined;
        self.backend.is_there |= self.is_tunnel;
        self.input(Input::HandedOver(result));
        assert!(result.is_err() || self.is_tunnel || self.ending == Some(Ending::HandedOver));
    }

    /// Answers a read of the opened file, if there is one.
    pub fn answer_read(&mut self, bytes: &[u8]) {
        if self.reads > 0 {
            self.reads -= 1;
            self.bytes(None, bytes);
        }
    }
}
