//! The server's loop: one poll(2) for all clients and their processes.

use std::io::{Write as _, stderr};
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::signal::SigSet;
use nix::sys::time::TimeSpec;
use server::limits::ACCEPT_PAUSE_MS;
use server::{start, stop};

use crate::client::{Client, Fate, Shared};
use crate::limits::{HELD_SIZE_MAX, READ_SIZE, REAP_MS};
use crate::options::Options;
use crate::process::{Launcher, Reaper};

/// Serves until a signal says stop. The signals are blocked already.
pub fn serve(listener: &OwnedFd, options: &Options, launcher: &Launcher) -> Result<(), String> {
    let mut shared = Shared { options, launcher, reaper: Reaper::default(), buffer: vec![0; READ_SIZE] };
    let mut clients: Vec<Client> = Vec::new();
    let mut accept_at = Instant::now();
    while !stop::is_asked() {
        // Processes that end are clients who have not left altogether.
        let has_room = clients.len() + shared.reaper.count() < options.clients_max;
        let events = wait(listener, &clients, has_room, accept_at, &shared.reaper)?;
        let mut events = events.into_iter();
        let accepts = events.next().unwrap_or(PollFlags::empty());
        let mut next = |is_there: bool| if is_there { events.next() } else { None }.unwrap_or(PollFlags::empty());
        let mut staying = Vec::with_capacity(clients.len());
        for mut client in clients {
            let event = next(client.interest().is_some());
            let process_event = next(client.process_interest().is_some());
            let is_due = client.wakes_at().is_some_and(|at| at <= Instant::now());
            let is_idle = event.is_empty() && process_event.is_empty() && !is_due;
            if is_idle || client.turn(event, process_event, &mut shared) == Fate::Stays {
                staying.push(client);
            } else {
                client.leave(&mut shared.reaper);
            }
        }
        clients = staying;
        shed(&mut clients, &mut shared.reaper);
        shared.reaper.turn();
        if !accepts.is_empty() {
            match start::accept(listener.as_fd()) {
                Ok(socket) => clients.push(Client::new(socket, options)),
                // It would come again at once.
                Err(errno) if start::is_shortage(errno) => {
                    accept_at = Instant::now() + Duration::from_millis(ACCEPT_PAUSE_MS);
                }
                Err(_) => {}
            }
        }
    }
    for client in clients {
        client.leave(&mut shared.reaper);
    }
    shared.reaper.finish();
    Ok(())
}

/// Waits for whatever may go on. The events are those of the listener, then of each client and of its process, where
/// there is something to wait for.
fn wait(
    listener: &OwnedFd,
    clients: &[Client],
    has_room: bool,
    accept_at: Instant,
    reaper: &Reaper,
) -> Result<Vec<PollFlags>, String> {
    let now = Instant::now();
    let accepts = if has_room && accept_at <= now { PollFlags::POLLIN } else { PollFlags::empty() };
    let mut fds = vec![PollFd::new(listener.as_fd(), accepts)];
    for client in clients {
        let waited_for = client.interest().into_iter().chain(client.process_interest());
        fds.extend(waited_for.map(|(fd, events)| PollFd::new(fd, events)));
    }
    let pause = (accept_at > now).then_some(accept_at);
    let reaping = (reaper.count() > 0).then(|| now + Duration::from_millis(REAP_MS));
    let wakes_at = clients.iter().filter_map(Client::wakes_at).chain(pause).chain(reaping).min();
    let time = wakes_at.map(|at| TimeSpec::from(at.saturating_duration_since(now)));
    // Signals are let in here only, so that none is lost between the look at the flag and the wait.
    match ppoll(&mut fds, time, Some(SigSet::empty())) {
        Ok(_) => {}
        // What the kernel says of the events then means nothing.
        Err(Errno::EINTR) => return Ok(vec![PollFlags::empty(); fds.len()]),
        Err(errno) => return Err(format!("poll: {}", errno.desc())),
    }
    Ok(fds.iter().map(|fd| fd.revents().unwrap_or(PollFlags::empty())).collect())
}

/// Where all hold too much, whoever holds most goes.
fn shed(clients: &mut Vec<Client>, reaper: &mut Reaper) {
    let sizes: Vec<usize> = clients.iter().map(Client::held_size).collect();
    if sizes.iter().sum::<usize>() > HELD_SIZE_MAX
        && let Some((index, size)) = sizes.iter().enumerate().max_by_key(|(_, size)| **size)
    {
        let client = clients.swap_remove(index);
        let name = client.name();
        let _ = writeln!(stderr(), "websocket_jsonrpc: {name} is let go: of what all clients hold it has {size} bytes");
        client.leave(reaper);
    }
}
