//! Open objects of the simulated kernel, and the pending operations.

use std::net::SocketAddr;

use super::tree::Place;
use crate::driver::device::Device;
use crate::driver::{Batch, Handover, OpenFor, Receive, SocketType, Token};

/// A handle of an open object. Not Copy: its owner closes it.
#[derive(Debug)]
pub struct Handle(pub(super) usize);

#[derive(Debug)]
pub enum Object {
    /// A listening socket of the port with this number.
    Listener(usize),
    /// The root of the tree with this number.
    Folder(usize),
    File(Place),
    Wire(usize),
    /// A device and the wire to the program at its other end. No bytes are transferred before the device is prepared.
    Device {
        wire: usize,
        device: Device,
        name: String,
        is_prepared: bool,
    },
}

pub enum Ask {
    Accept,
    Receive { how: Receive },
    Send { batch: Batch, wait: bool },
    Open { place: Place, purpose: OpenFor },
    Connect { socket_type: SocketType },
    ConnectTcp { address: SocketAddr },
    HandOver { client: usize, handover: Handover },
    Read { offset: u64 },
}

/// Stands for the object of operations without one.
pub const NOTHING: usize = usize::MAX;

/// An operation that has not completed.
pub struct Pending {
    pub token: Token,
    /// The token that cancels this operation.
    pub cancelled_by: Token,
    pub object: usize,
    pub ask: Ask,
    pub is_cancelled: bool,
}

impl Pending {
    /// Whether the operation uses this object.
    pub fn is_on(&self, object: usize) -> bool {
        self.object == object || matches!(self.ask, Ask::HandOver { client, .. } if client == object)
    }
}
