//! What is open in the simulated kernel, and what it has been asked for.

use crate::driver::{Batch, Handover, Receive, SocketType, Token};

/// Something open. Not to be copied: who has it closes it.
#[derive(Debug)]
pub struct Handle(pub(super) usize);

pub enum Object {
    Listener,
    Folder,
    File(String),
    Wire(usize),
}

pub enum Ask {
    Accept,
    Receive { how: Receive },
    Send { batch: Batch, wait: bool },
    Open { path: String },
    Connect { socket_type: SocketType },
    HandOver { client: usize, handover: Handover },
    Read { offset: u64 },
}

pub struct Op {
    pub token: Token,
    pub object: usize,
    pub ask: Ask,
    pub is_cancelled: bool,
}

impl Op {
    /// Whether it works on this object.
    pub fn is_on(&self, object: usize) -> bool {
        self.object == object || matches!(self.ask, Ask::HandOver { client, .. } if client == object)
    }
}
