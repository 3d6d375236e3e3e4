//! Receives of packets (SOCK_SEQPACKET), one completion per packet.
//!
//! recv(2) returns 0 for an empty packet and for the end of stream, and a later check of the socket cannot distinguish
//! them, since the end may have arrived meanwhile. Therefore each packet is received with a control message, the
//! timestamp that `connect::to_unix` enabled; the end has none.

use std::os::fd::OwnedFd;

use io_uring::{opcode, squeue, types};
use nix::errno::Errno;
use nix::libc;

use super::pool::{Pool, raw};
use crate::driver::connect::{PACKET_CONTROL_SIZE, PACKET_PREFIX_SIZE};
use crate::driver::{Lease, Op, Received, Token};
use crate::limits::{PACKET_SIZE_MAX, POOL_BUFFER_SIZE, POOL_HEADROOM};

const _: () = assert!(PACKET_SIZE_MAX as usize <= POOL_BUFFER_SIZE - POOL_HEADROOM - PACKET_PREFIX_SIZE);

/// The msghdr of packet receives. The kernel reads it when the operation is submitted.
pub(super) struct PacketRequest(libc::msghdr);

impl PacketRequest {
    /// Boxed, since the kernel holds a pointer to it.
    pub(super) fn new() -> Box<PacketRequest> {
        // SAFETY: a msghdr of zeros names no address, no segments and no control data.
        let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
        header.msg_controllen = PACKET_CONTROL_SIZE as _;
        Box::new(PacketRequest(header))
    }

    pub(super) fn entry(&self, socket: &OwnedFd, buffer_group: u16) -> squeue::Entry {
        let receive = opcode::RecvMsgMulti::new(raw(socket), &raw const self.0, buffer_group);
        receive.flags(libc::MSG_TRUNC as u32).build()
    }

    /// The result of a completed receive in this buffer, and an entry that returns an unused buffer, if one is needed.
    pub(super) fn received(&self, pool: &mut Pool, buffer: u16) -> (Received, Option<squeue::Entry>) {
        let lease = pool.lend(buffer, 0);
        let told = types::RecvMsgOut::parse(&pool.buffer(&lease)[POOL_HEADROOM..], &self.0);
        let Ok(told) = told else { return (Received::Failed(Errno::EIO), pool.release(lease)) };
        let (size, room) = (told.incoming_payload_len() as usize, told.payload_data().len());
        let is_packet = size > 0 || told.incoming_control_len() > 0;
        let is_cut = size > room || told.is_payload_truncated();
        match (is_packet, is_cut) {
            (false, _) => (Received::End, pool.release(lease)),
            (true, true) => (Received::Failed(Errno::EMSGSIZE), pool.release(lease)),
            (true, false) => {
                let start = lease.start + PACKET_PREFIX_SIZE as u32;
                (Received::Data(Lease { start, end: start + size as u32, ..lease }), None)
            }
        }
    }
}

/// The token of packet receives, which distinguishes their completions from those of other receives.
pub(super) fn packet_token(token: Token) -> Token {
    Token { op: Op::Packet, ..token }
}
