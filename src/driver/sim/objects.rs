//! What is open in the simulated kernel, and what it has been asked for.

use crate::driver::{Batch, Receive, SocketType, Token};

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
    Read { offset: u64 },
}

pub struct Op {
    pub token: Token,
    pub object: usize,
    pub ask: Ask,
    pub is_cancelled: bool,
}
