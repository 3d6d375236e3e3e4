//! Chains of linked operations (hand-overs, polls of devices), connects, and the cancellation of operations.

use std::os::fd::OwnedFd;

use io_uring::{cqueue, opcode, squeue, types};
use nix::errno::Errno;
use nix::sys::socket::SockaddrLike;

use super::handover::{Chain, STEPS};
use super::in_flight::{self, BackendAddress, InFlight};
use super::pool::raw;
use super::results::result_of;
use super::{STEP_SHIFT, Uring, index_bits, packet_token};
use crate::driver::rights;
use crate::driver::{Completion, Event, Handover, HandoverStep, Op, Received, Token};

/// A timeout of the ring.
pub(super) fn timespec(ms: u64) -> types::Timespec {
    types::Timespec::new().sec(ms / 1000).nsec((ms % 1000) as u32 * 1_000_000)
}

impl Uring {
    /// Makes space for `entries` entries, since a chain of links must be in one submission.
    fn make_room(&mut self, entries: usize) {
        while {
            let queue = self.ring.submission();
            queue.capacity() - queue.len() < entries
        } {
            if self.ring.submit().is_err() {
                self.reap();
            }
        }
    }

    /// Pushes a poll: the entry that is pushed next waits until the device is ready. The poll itself completes only if
    /// it fails.
    pub(super) fn push_poll(&mut self, token: Token, device: &OwnedFd, events: i16) {
        self.make_room(2);
        let flags = squeue::Flags::IO_LINK | squeue::Flags::SKIP_SUCCESS;
        let poll = opcode::PollAdd::new(raw(device), events as u32).build().flags(flags);
        self.push(poll.user_data(token.to_bits()));
    }

    /// Handles a failed poll of a device. The linked operation is cancelled without a completion (io_uring_enter(2),
    /// IOSQE_CQE_SKIP_SUCCESS), so its completion is made here.
    pub(super) fn on_wait_failed(&mut self, token: Token, entry: &cqueue::Entry) -> Option<Completion<OwnedFd>> {
        let errno = match result_of(entry).err()? {
            // A spurious wake-up, such as any process's tcsetattr(3), makes the kernel poll a terminal's two wait
            // queues once more, which it refuses.
            Errno::EINVAL => Errno::EAGAIN,
            errno => errno,
        };
        if token.op == Op::Readable {
            let token = Token { op: Op::Receive, ..token };
            let event = Event::Received { result: Received::Failed(errno), more: false };
            return Some(Completion { token, event });
        }
        let token = Token { op: Op::Send, ..token };
        let index = self.index_of(token)?;
        Some(in_flight::complete(self.in_flight.remove(index), 0, Err(errno)))
    }

    /// Connects; an error before the submission is returned with the next completions.
    pub(super) fn push_connect(&mut self, token: Token, made: Result<(OwnedFd, BackendAddress), Errno>) {
        match made {
            Ok((socket, address)) => {
                let address = Box::new(address);
                let (start, size) = match &*address {
                    BackendAddress::Unix(unix) => (unix.as_ptr().cast(), unix.len()),
                    BackendAddress::Tcp(tcp) => (tcp.as_ptr(), tcp.len()),
                };
                let entry = opcode::Connect::new(raw(&socket), start, size).build();
                let index = self.in_flight.insert(InFlight::Connect { token, socket, _address: address });
                self.push_indexed(entry, index);
            }
            Err(errno) => self.ready.push(Completion { token, event: Event::Connected(Err(errno)) }),
        }
    }

    /// Hands a client over; an error before the submission is returned with the next completions.
    pub(super) fn begin_handover(&mut self, token: Token, file: &OwnedFd, client: &OwnedFd, handover: Handover) {
        let made = rights::may_hand_over(client, self.has_too_many_untaken);
        let made =
            made.and_then(|()| Chain::new(file, client, handover).map_err(|errno| (HandoverStep::Connect, errno)));
        match made {
            Ok(chain) => {
                self.has_too_many_untaken = false;
                self.push_chain(token, client, chain);
            }
            Err(failed) => self.ready.push(Completion { token, event: Event::HandedOver(Err(failed)) }),
        }
    }

    fn push_chain(&mut self, token: Token, client: &OwnedFd, chain: Box<Chain>) {
        self.make_room(STEPS);
        let entries = chain.entries(client);
        let index = self.in_flight.insert(InFlight::HandOver { token, chain });
        for (entry, step) in entries.zip(0..) {
            self.push(entry.user_data(step_bits(index, step)));
        }
    }

    /// The user data of all operations in flight for a token, and of linked operations that may have started: a device
    /// that was ready may have no data when it is read, and the ring then waits in the read.
    pub(super) fn operations_of(&self, token: Token) -> Vec<u64> {
        let own = Some(token.to_bits());
        let linked = match token.op {
            Op::Receive => Some(packet_token(token).to_bits()),
            Op::Readable => Some(Token { op: Op::Receive, ..token }.to_bits()),
            Op::Writable => self.index_of(Token { op: Op::Send, ..token }).map(index_bits),
            Op::Send | Op::Open => self.index_of(token).map(index_bits),
            Op::Connect => {
                let index = self.index_of(token);
                return index
                    .map_or(Vec::new(), |index| (0..STEPS as u64).map(|step| step_bits(index, step)).collect());
            }
            _ => None,
        };
        own.into_iter().chain(linked).collect()
    }

    /// The index of an operation in `in_flight`; None: it has none.
    fn index_of(&self, token: Token) -> Option<usize> {
        self.in_flight.iter().find(|(_, one)| one.token() == token).map(|(index, _)| index)
    }
}

/// The user data of one operation in a chain; the first operation has that of the index itself.
fn step_bits(index: usize, step: u64) -> u64 {
    step << STEP_SHIFT | index_bits(index)
}
