//! The server's loop: one poll(2) for all clients and their processes.

use std::os::fd::AsFd;
use std::time::Instant;

use nix::poll::{PollFd, PollFlags};
use server::listener::{Accepted, Listener};
use server::stop;
use websocket::deadline::Deadline;

use crate::Options;
use crate::client::{Client, Fate, Shared};
use crate::limits::{HELD_SIZE_MAX, READ_SIZE, REAP_MS};
use crate::process::{Launcher, Reaper};

/// Serves until a stop signal. The stop signals have to be blocked.
pub(crate) fn serve(mut listener: Listener, options: &Options, launcher: &Launcher) -> Result<(), String> {
    let mut shared = Shared { options, launcher, reaper: Reaper::default(), buffer: vec![0; READ_SIZE] };
    let mut clients: Vec<Client> = Vec::new();
    while !stop::is_requested() {
        // A process that is still ending counts as a client.
        let has_room = clients.len() + shared.reaper.count() < options.clients_max;
        let events = wait(&listener, &clients, has_room, &shared.reaper)?;
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
        shed(&mut clients, &mut shared);
        shared.reaper.turn();
        if !accepts.is_empty()
            && let Some(Accepted::Plain(socket)) = listener.accept()
        {
            clients.push(Client::new(socket, options));
        }
    }
    for client in clients {
        client.leave(&mut shared.reaper);
    }
    shared.reaper.finish();
    Ok(())
}

/// Waits. Returns the events of the listener, then those of each client's socket and its process, where there is
/// something to wait for.
fn wait(listener: &Listener, clients: &[Client], has_room: bool, reaper: &Reaper) -> Result<Vec<PollFlags>, String> {
    let mut fds = vec![PollFd::new(listener.as_fd(), listener.interest(has_room))];
    for client in clients {
        let watched = client.interest().into_iter().chain(client.process_interest());
        fds.extend(watched.map(|(fd, events)| PollFd::new(fd, events)));
    }
    let reaping = (reaper.count() > 0).then(|| Deadline::after_ms(REAP_MS));
    let deadlines = clients.iter().filter_map(Client::wakes_at).map(Deadline::at);
    stop::wait(&mut fds, deadlines.chain(listener.deadline()).chain(reaping))
}

/// Drops the client that stores most, if all of them together store too much.
fn shed(clients: &mut Vec<Client>, shared: &mut Shared<'_>) {
    let sizes: Vec<usize> = clients.iter().map(Client::held_size).collect();
    if sizes.iter().sum::<usize>() > HELD_SIZE_MAX
        && let Some((index, size)) = sizes.iter().enumerate().max_by_key(|(_, size)| **size)
    {
        let client = clients.swap_remove(index);
        let name = client.name();
        shared.options.complain(format_args!("{name} is dropped: of the memory of all clients it has {size} bytes"));
        client.leave(&mut shared.reaper);
    }
}
