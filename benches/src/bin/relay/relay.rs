//! The relay: handles completions and starts operations.

use crate::buffers::Buffers;
use crate::pair::{BACKEND, CLIENT, Chunk, Pair};
use crate::ring::{Done, Ring, Token};
use nix::errno::Errno;
use std::collections::VecDeque;
use std::net::TcpListener;
use std::os::fd::{AsFd, FromRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use uakari_bench::Result;

/// Number of buffers for each direction. With one common group, bytes that backends do not take
/// could occupy all buffers, so that no replies could be received: a deadlock. More buffers than
/// busy clients need would only evict cache lines.
const BUFFERS: u16 = 64;

/// All pairs and the ring.
pub struct Relay {
    ring: Ring,
    listener: TcpListener,
    backend: PathBuf,
    /// Indexed by the side that receives into them.
    buffers: [Buffers; 2],
    pairs: Vec<Option<Pair>>,
    free: Vec<usize>,
    /// Slots whose receive ended with ENOBUFS, by side.
    starving: [VecDeque<usize>; 2],
    done: Vec<Done>,
}

impl Relay {
    /// A relay with a started accept.
    pub fn new(listener: TcpListener, backend: PathBuf) -> Result<Relay> {
        let mut ring = Ring::new()?;
        let buffers =
            [Buffers::lend(&ring.inner, CLIENT as u16, BUFFERS)?, Buffers::lend(&ring.inner, BACKEND as u16, BUFFERS)?];
        ring.accept(listener.as_fd())?;
        Ok(Relay {
            ring,
            listener,
            backend,
            buffers,
            pairs: Vec::new(),
            free: Vec::new(),
            starving: [VecDeque::new(), VecDeque::new()],
            done: Vec::new(),
        })
    }

    /// One submit, then all available completions.
    pub fn turn(&mut self) -> Result<()> {
        let mut all = std::mem::take(&mut self.done);
        self.ring.turn(&mut all)?;
        for done in all.drain(..) {
            self.on_done(done)?;
        }
        self.done = all;
        Ok(())
    }

    fn on_done(&mut self, done: Done) -> Result<()> {
        match done.token {
            Token::Close => Ok(()),
            Token::Accept => self.on_accept(done),
            Token::Receive { slot, side } => {
                self.on_receive(slot, side, done)?;
                self.close_if_over(slot)
            }
            Token::Send { slot, side } => {
                self.on_send(slot, side, done.result)?;
                self.close_if_over(slot)
            }
        }
    }

    fn on_accept(&mut self, done: Done) -> Result<()> {
        if done.result < 0 {
            let error = Errno::from_raw(-done.result);
            return Err(format!("accept: {error}").into());
        }
        if !done.more {
            self.ring.accept(self.listener.as_fd())?;
        }
        // SAFETY: the kernel has just made this descriptor, for us alone.
        let client = unsafe { OwnedFd::from_raw_fd(done.result) };
        // Blocks until the backend's listen queue has room.
        let Ok(backend) = UnixStream::connect(&self.backend) else {
            return self.ring.close(client);
        };
        let slot = self.free.pop().unwrap_or(self.pairs.len());
        if slot == self.pairs.len() {
            self.pairs.push(None);
        }
        self.pairs[slot] = Some(Pair::new(client, backend.into()));
        self.receive(slot, CLIENT)?;
        self.receive(slot, BACKEND)
    }

    fn receive(&mut self, slot: usize, side: usize) -> Result<()> {
        if let Some(pair) = self.pairs[slot].as_mut() {
            let end = &mut pair.sides[side];
            end.receiving = true;
            let token = Token::Receive { slot, side };
            self.ring.receive(end.as_fd(), &self.buffers[side], token)?;
        }
        Ok(())
    }

    fn on_receive(&mut self, slot: usize, side: usize, done: Done) -> Result<()> {
        let Some(pair) = self.pairs[slot].as_mut() else {
            return Err(format!("a completion for nobody: {:?}", done.token).into());
        };
        pair.sides[side].receiving = done.more;
        match (done.result, done.buffer) {
            (_, Some(buffer)) if pair.broken || done.result <= 0 => {
                self.buffers[side].give_back(buffer);
            }
            (size, Some(buffer)) => {
                let size = size as u32;
                let sent = 0;
                let queue = &mut pair.sides[1 - side].queue;
                queue.push_back(Chunk { buffer, size, sent });
                self.send(slot, 1 - side)?;
            }
            _ => {}
        }
        if done.more {
            return Ok(());
        }
        self.on_receive_ended(slot, side, done.result)
    }

    fn on_receive_ended(&mut self, slot: usize, side: usize, result: i32) -> Result<()> {
        let Some(pair) = self.pairs[slot].as_mut().filter(|pair| !pair.broken) else {
            return Ok(());
        };
        if result > 0 {
            return self.receive(slot, side);
        }
        if result == 0 {
            pair.sides[side].ended = true;
            if pair.sides[1 - side].queue.is_empty() {
                pair.pass_end_to(1 - side);
            }
        } else if Errno::from_raw(-result) == Errno::ENOBUFS {
            pair.starving += 1;
            self.starving[side].push_back(slot);
        } else {
            pair.break_off();
        }
        Ok(())
    }

    /// Sends the first queued chunk for `side`, unless a send is in flight.
    fn send(&mut self, slot: usize, side: usize) -> Result<()> {
        let Some(pair) = self.pairs[slot].as_mut() else {
            return Ok(());
        };
        let end = &mut pair.sides[side];
        let Some(chunk) = end.queue.front().filter(|_| !end.sending) else {
            return Ok(());
        };
        let address = self.buffers[1 - side].address(chunk.buffer, chunk.sent);
        let bytes = (address, chunk.size - chunk.sent);
        self.ring.send(end.as_fd(), bytes, Token::Send { slot, side })?;
        end.sending = true;
        Ok(())
    }

    fn on_send(&mut self, slot: usize, side: usize, result: i32) -> Result<()> {
        let Some(pair) = self.pairs[slot].as_mut() else {
            return Err("a send completed for nobody".into());
        };
        let end = &mut pair.sides[side];
        end.sending = false;
        if result < 0 && !pair.broken {
            pair.break_off();
        }
        if pair.broken {
            return self.drop_queue(slot, side);
        }
        let end = &mut pair.sides[side];
        let Some(chunk) = end.queue.front_mut() else {
            return Err("a send of nothing".into());
        };
        chunk.sent += result as u32;
        if chunk.sent == chunk.size {
            let buffer = chunk.buffer;
            end.queue.pop_front();
            if end.queue.is_empty() && pair.sides[1 - side].ended {
                pair.pass_end_to(side);
            }
            self.give_back(1 - side, buffer)?;
        }
        self.send(slot, side)
    }

    /// Returns a buffer, and restarts a receive that ended with ENOBUFS.
    fn give_back(&mut self, group: usize, buffer: u16) -> Result<()> {
        self.buffers[group].give_back(buffer);
        let Some(slot) = self.starving[group].pop_front() else {
            return Ok(());
        };
        if let Some(pair) = self.pairs[slot].as_mut() {
            pair.starving -= 1;
        }
        self.receive(slot, group)
    }

    fn drop_queue(&mut self, slot: usize, side: usize) -> Result<()> {
        let Some(pair) = self.pairs[slot].as_mut() else {
            return Ok(());
        };
        for chunk in std::mem::take(&mut pair.sides[side].queue) {
            self.give_back(1 - side, chunk.buffer)?;
        }
        Ok(())
    }

    fn close_if_over(&mut self, slot: usize) -> Result<()> {
        let Some(pair) = self.pairs[slot].take_if(|pair| pair.is_over()) else {
            return Ok(());
        };
        if pair.starving > 0 {
            for starving in &mut self.starving {
                starving.retain(|other| *other != slot);
            }
        }
        for side in [CLIENT, BACKEND] {
            for chunk in &pair.sides[side].queue {
                self.give_back(1 - side, chunk.buffer)?;
            }
        }
        for fd in pair.into_fds() {
            self.ring.close(fd)?;
        }
        self.free.push(slot);
        Ok(())
    }
}
