//! The contract of `Driver` as a table of cases, each of which runs over every driver.
//!
//! A case is generic over its scene: a driver, and the clients, backends, files and devices around it, which the case
//! plays itself. There are two scenes: real objects for the drivers whose handles are descriptors, and the simulated
//! kernel. `UAKARI_CASES` selects the cases whose names contain its value.

mod accept;
mod bench;
mod cancel;
mod connect;
mod devices;
mod ending;
mod files;
mod handover;
mod pool;
mod real;
mod receive;
mod send;
mod simulated;
mod waiting;

use std::ffi::{CStr, CString};
use std::net::SocketAddr;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use super::device::Device;
use super::epoll::Epoll;
use super::uring::Uring;
use super::{Driver, Errno, SocketType, Token};
use crate::types::Address;
use bench::{Bench, Story};
use real::Real;
use simulated::Simulated;

/// Buffers in the pool of each case: 12 for messages, 4 for requests.
const BUFFERS: u16 = 16;
/// Bytes that a far end reads at once, enough for each packet.
const READ_SIZE_MAX: usize = 128 * 1024;
/// Time after which a case is given up.
const CASE_MS: u64 = 120_000;

/// The handles of a scene's driver.
type Handle<S> = <<S as Scene>::Driver as Driver>::Handle;

/// A driver with its surroundings.
trait Scene: Sized {
    /// The driver under test.
    type Driver: Driver;
    /// The other end of a connection or of a device, which the case plays.
    type Far;
    /// Whether it is the simulated kernel.
    const IS_SIMULATED: bool;

    fn driver(&mut self) -> &mut Self::Driver;
    /// Drops the driver with all its operations in flight. The other functions for far ends work on.
    fn drop_driver(&mut self);
    /// What is left open or lent, as far as the scene can count it; empty: nothing.
    fn leaks(&self) -> String;

    /// A new listening socket, and its port's number.
    fn listener(&mut self, family: Family) -> (Handle<Self>, usize);
    /// The address of a port.
    fn port_address(&self, port: usize) -> Address;
    /// Connects a client to a port.
    fn client(&mut self, port: usize) -> Self::Far;
    /// The address of a client.
    fn client_address(&self, client: &Self::Far) -> Address;

    /// The scene's folder, opened.
    fn folder(&mut self) -> Handle<Self>;
    /// The absolute path of a file in the scene's folder, or of the folder itself if the name is empty.
    fn path(&self, name: &str) -> CString;
    /// Adds a file to the scene's folder.
    fn add(&mut self, name: &str, file: File<'_>);
    /// Makes room in the backlog of a `File::Full`.
    fn make_room(&mut self, name: &str);
    /// A TCP address.
    fn host(&mut self, host: Host) -> SocketAddr;
    /// The next connection to a backend: a file's name or a host's address.
    fn arrived(&mut self, backend: &str) -> Option<Self::Far>;
    /// A record that was sent with descriptors to a backend's connection, and their far ends.
    fn parcel(&mut self, connection: &Self::Far) -> Option<(Vec<u8>, Vec<Self::Far>)>;

    /// A new device; returns its path.
    fn device(&mut self, device: Device) -> CString;
    /// The far end of a device that was opened and prepared.
    fn device_far(&mut self, path: &CStr) -> Self::Far;

    /// Writes bytes, or a packet; returns the number of bytes that fitted. None: no room, or nobody reads.
    fn write(&mut self, far: &Self::Far, bytes: &[u8]) -> Option<usize>;
    /// Reads what is there, at most this many bytes, or one packet of at most this size.
    fn read(&mut self, far: &Self::Far, size_max: usize) -> Heard;
    /// Ends the stream to the driver.
    fn finish(&mut self, far: &Self::Far);
    /// Closes after all bytes were read.
    fn leave(&mut self, far: Self::Far);
    /// Closes with unread bytes, which the case has sent before, so that the driver's end is reset.
    fn reset(&mut self, far: Self::Far);

    /// Sets a small send buffer for a TCP connection of the driver, so that it does not grow.
    fn keep_small(&mut self, handle: &Handle<Self>);
    /// Sends a byte of urgent data (tcp(7)).
    fn urge(&mut self, far: &Self::Far);
    /// Sends bytes with a descriptor (unix(7), SCM_RIGHTS); returns the other end of what it refers to.
    fn write_with_descriptor(&mut self, far: &Self::Far, bytes: &[u8]) -> Self::Far;
    /// Whether a UNIX socket of the driver has a name, which its peer sees.
    fn has_name(&self, handle: &Handle<Self>) -> bool;
    /// Limits the unsent bytes of a client, as its listener does.
    fn limit_unsent(&mut self, client: &Handle<Self>);
    /// The limit of unsent bytes; 0: none.
    fn unsent_size_max(&self, client: &Handle<Self>) -> u32;
    /// Whether the kernel probes the peer of a connection (tcp(7), SO_KEEPALIVE).
    fn has_keepalive(&self, handle: &Handle<Self>) -> bool;
    /// Lets the driver watch SIGUSR1, and returns its number.
    fn watch_signal(&mut self, token: Token) -> Result<i32, Errno>;
    /// Sends SIGUSR1 to this thread.
    fn raise_signal(&mut self);
}

/// The family of a listening socket.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Family {
    Tcp,
    Unix,
}

/// A file to add to the scene's folder.
#[derive(Clone, Copy, Debug)]
enum File<'a> {
    Bytes(&'a [u8]),
    Folder,
    /// A socket whose backend accepts.
    Listening(SocketType),
    /// A socket without a listener.
    Refusing,
    /// A listening stream socket with a full backlog.
    Full,
    /// A symbolic link out of the folder, to a file.
    LinkOut,
    /// A symbolic link to this path.
    Link(&'a str),
    Fifo,
}

/// A TCP backend.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Host {
    Answering,
    Refusing,
    /// It drops all packets.
    Silent,
}

/// What a far end reads.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Heard {
    Bytes(Vec<u8>),
    /// Nothing yet.
    Nothing,
    End,
    Reset,
}

/// A case of the contract.
struct Case<S: Scene> {
    name: &'static str,
    run: fn(&mut Bench<S>),
    /// What the simulated kernel lacks to run it; None: nothing.
    lack: Option<&'static str>,
}

/// A case's name, its function, and what the simulated kernel lacks to run it.
type Row<S> = (&'static str, fn(&mut Bench<S>), Option<&'static str>);

const NONE: Option<&str> = None;

/// All cases.
fn cases<S: Scene>() -> Vec<Case<S>> {
    let table: &[Row<S>] = &[
        ("accept: addresses", accept::addresses, NONE),
        ("accept: many clients, before and after it is armed", accept::many, NONE),
        ("accept: a client that has left", accept::left, NONE),
        ("accept: of a socket that does not listen", accept::fails, Some("only a listener can be accepted from")),
        ("receive: Once", receive::once, NONE),
        ("receive: Request", receive::request, NONE),
        ("receive: Multishot", receive::multishot, NONE),
        ("receive: at most one buffer", receive::one_buffer, NONE),
        ("receive: what arrived while no receive was in flight", receive::while_unarmed, NONE),
        ("receive: between two receives", receive::between, NONE),
        ("receive: a large stream", receive::large, NONE),
        ("receive: end of stream", receive::end, NONE),
        ("receive: bytes and the end at once", receive::bytes_and_end, NONE),
        ("receive: reset", receive::reset, NONE),
        ("receive: ended by shutdown", receive::shut, NONE),
        ("receive: sockets in turn keep their order", receive::in_turn, NONE),
        ("receive: Packets", receive::packets, NONE),
        ("receive: Packets, the last one empty", receive::last_packet_empty, NONE),
        ("receive: Packets, one too large", receive::packet_too_large, NONE),
        ("receive: Packets, many", receive::many_packets, NONE),
        ("receive: urgent data", receive::urgent, Some("no urgent data")),
        ("receive: descriptors of a peer are closed", receive::descriptors, Some("no descriptors in a stream")),
        ("send: Now", send::now, NONE),
        ("send: several segments", send::segments, NONE),
        ("send: more segments than one send gathers", send::many_segments, NONE),
        ("send: from the pool", send::from_pool, NONE),
        ("send: Now, a part fits", send::part, NONE),
        ("send: Now, the buffer is full", send::full, NONE),
        ("send: Wait", send::wait, NONE),
        ("send: Wait while a receive waits", send::both_ways, NONE),
        ("send: Wait, the peer leaves", send::wait_and_left, NONE),
        ("send: Wait, ended by shutdown", send::wait_and_shut, NONE),
        ("send: Wait, ended by shutdown while others are ready", send::shut_among_others, NONE),
        ("send: the peer has left", send::left, NONE),
        ("send: after its own shutdown", send::half_closed, NONE),
        ("send: packets", send::packets, NONE),
        ("send: a packet larger than the send buffer", send::packet_too_large, Some("a packet of any size fits")),
        ("open: each type for reading", files::reading, NONE),
        ("open: a socket for reading", files::reading_socket, NONE),
        ("open: each type for connecting", files::connecting, NONE),
        ("open: absolute paths", files::anywhere, NONE),
        ("open: missing", files::missing, NONE),
        ("open: below a file", files::below_file, Some("names of a tree have no components")),
        ("open: links within the folder", files::links_within, Some("no links within a folder")),
        ("open: a link out, beneath", files::link_out_beneath, NONE),
        ("open: a link out, from", files::link_out_from, Some("a link that leads out has no target")),
        ("open: links that do not end, and magic ones", files::link_loops, Some("no such links")),
        ("open: a folder is replaced", files::replace, NONE),
        ("read: a file in pieces", files::read, NONE),
        ("read: at the end and beyond", files::read_end, NONE),
        ("read: beyond 4 GiB", files::read_far, Some("files are in memory")),
        ("read: a folder", files::read_folder, Some("only a file can be read")),
        ("read: no buffer", files::read_starved, NONE),
        ("connect: stream", connect::stream, NONE),
        ("connect: packets", connect::packets, NONE),
        ("connect: without a name", connect::unnamed, Some("backends see no address")),
        ("connect: refused", connect::refused, NONE),
        ("connect: wrong type", connect::wrong_type, NONE),
        ("connect: full backlog", connect::full, NONE),
        ("connect: TCP", connect::tcp, NONE),
        ("connect: TCP keepalive", connect::keepalive, Some("no socket options")),
        ("connect: TCP refused", connect::tcp_refused, NONE),
        ("connect: TCP without an answer", connect::tcp_silent, NONE),
        ("device: identities", devices::identities, NONE),
        ("device: errors of the open", devices::errors, NONE),
        ("device: a pipe without a reader", devices::no_reader, Some("a plain kernel's pipe has a reader")),
        ("device: a terminal line in both directions", devices::line, NONE),
        ("device: a terminal line is raw", devices::raw, Some("lines transfer bytes as they are")),
        ("device: read from a pipe", devices::pipe_in, NONE),
        ("device: write to a pipe", devices::pipe_out, NONE),
        ("device: a full pipe", devices::full_pipe, NONE),
        ("device: a pipe's reader leaves", devices::reader_leaves, NONE),
        ("hand-over: plain", handover::plain, NONE),
        ("hand-over: the client's later bytes are the backend's", handover::later_bytes, NONE),
        ("hand-over: relayed", handover::relayed, NONE),
        ("hand-over: relayed, without a reply", handover::without_reply, NONE),
        ("hand-over: watched", handover::watched, NONE),
        ("hand-over: watched, other outcomes", handover::outcomes, Some("a plain kernel's backend receives")),
        ("hand-over: records that the kernel does not make", handover::without_records, NONE),
        ("hand-over: the client has not taken all", handover::room, NONE),
        ("hand-over: the backend cannot be connected", handover::unconnected, NONE),
        ("hand-over: the client has reset", handover::reset, NONE),
        ("hand-over: a reply that does not fit", handover::large_reply, NONE),
        ("hand-over: the limit of unsent bytes", handover::unsent, Some("no socket options")),
        ("cancel: accept", cancel::accept, NONE),
        ("cancel: receive", cancel::receive, NONE),
        ("cancel: receive from a device", cancel::device_receive, NONE),
        ("cancel: send", cancel::send, NONE),
        ("cancel: send to a device", cancel::device_send, NONE),
        ("cancel: connect", cancel::connect, NONE),
        ("cancel: connect to TCP", cancel::connect_tcp, NONE),
        ("cancel: hand-over", cancel::hand_over, NONE),
        ("cancel: open and read", cancel::files, NONE),
        ("cancel: nothing", cancel::nothing, NONE),
        ("cancel: another operation of the slot", cancel::neighbours, NONE),
        ("pool: empty share", pool::empty, NONE),
        ("pool: shares are apart", pool::shares, NONE),
        ("pool: may_receive counts this turn's receives", pool::may_receive, NONE),
        ("pool: a flood of receivers", pool::flood, NONE),
        ("pool: buffers are reused", pool::reuse, NONE),
        ("pool: a lent buffer stays as it is", pool::lent, NONE),
        ("end: half close in both orders", ending::half_close, NONE),
        ("end: close with unread bytes", ending::close_unread, NONE),
        ("end: a number that is used again", ending::reused_number, NONE),
        ("end: a number that is used again, with an end pending", ending::reused_after_end, NONE),
        ("end: a closed listener refuses", ending::closed_listener, Some("a port outlives its listener")),
        ("end: dropped with everything in flight", ending::teardown, Some("the far ends are part of the driver")),
        ("wait: at once", waiting::at_once, NONE),
        ("wait: for its time", waiting::timeout, NONE),
        ("wait: without a limit", waiting::without_limit, NONE),
        ("wait: Rest is honest", waiting::rest, NONE),
        ("wait: times", waiting::times, NONE),
        ("signal", waiting::signal, Some("no signals")),
    ];
    table.iter().map(|(name, run, lack)| Case { name, run: *run, lack: *lack }).collect()
}

/// Performs a case in a thread of its own; an error tells why it failed, and what the driver returned.
fn perform<S: Scene + 'static>(driver: &str, case: &Case<S>, make: fn() -> S) -> Result<(), String> {
    let story = Story::default();
    let told = story.clone();
    let run = case.run;
    let (sender, receiver) = mpsc::channel();
    let thread = std::thread::Builder::new().name(format!("{driver}: {}", case.name)).spawn(move || {
        let mut bench = Bench::new(make(), told);
        run(&mut bench);
        bench.end();
        sender.send(())
    });
    let thread = thread.expect("a thread");
    let cause = match receiver.recv_timeout(Duration::from_millis(CASE_MS)) {
        Err(RecvTimeoutError::Timeout) => "it has not ended".to_owned(),
        _ => match thread.join() {
            Ok(_) => return Ok(()),
            Err(panic) => match panic.downcast::<String>() {
                Ok(text) => *text,
                Err(panic) => (*panic.downcast_ref::<&str>().unwrap_or(&"no text")).to_owned(),
            },
        },
    };
    Err(format!("{}: {cause}\n{}", case.name, story.tail()))
}

/// Runs all cases over a driver, and reports the failed ones together.
fn run<S: Scene + 'static>(driver: &str, make: fn() -> S) {
    let wanted = std::env::var("UAKARI_CASES").unwrap_or_default();
    let (mut passed, mut left_out, mut failures) = (0, 0, Vec::new());
    for case in cases::<S>().into_iter().filter(|case| case.name.contains(&wanted)) {
        if let (true, Some(lack)) = (S::IS_SIMULATED, case.lack) {
            println!("{driver}: {}: left out: {lack}", case.name);
            left_out += 1;
            continue;
        }
        match perform(driver, &case, make) {
            Ok(()) => {
                println!("{driver}: {}: ok", case.name);
                passed += 1;
            }
            Err(story) => {
                println!("{driver}: {}: FAILED", case.name);
                failures.push(story);
            }
        }
    }
    println!("{driver}: {passed} cases passed, {} failed, {left_out} left out", failures.len());
    assert!(failures.is_empty(), "{driver}: {} cases failed\n\n{}", failures.len(), failures.join("\n"));
}

#[test]
fn uring() {
    run("uring", || Real::new(Uring::new(BUFFERS).expect("a ring"), Uring::watch_signals));
}

#[test]
fn epoll() {
    run("epoll", || Real::new(Epoll::new(BUFFERS).expect("an epoll instance"), Epoll::watch_signals));
}

#[test]
fn sim() {
    run("sim", Simulated::new);
}
