//! Terminal lines: the tests play the device on a pseudoterminal.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::thread;

use nix::fcntl::{OFlag, open};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::pty::{grantpt, posix_openpt, ptsname_r, unlockpt};
use nix::sys::signal::Signal;
use nix::sys::stat::Mode;
use nix::sys::termios::{
    BaudRate, ControlFlags, InputFlags, LocalFlags, OutputFlags, SetArg, Termios, cfgetospeed, tcgetattr, tcsetattr,
};

use crate::client::{BINARY, Client, Frame, PING};
use crate::daemon::Daemon;
use crate::links::{configured, configured_in};
use crate::pipes::opened;
use crate::process::{DEADLINE, Folder, eventually, uninterrupted};

/// More than the kernel keeps between a client and the daemon.
pub const SIZE: u32 = 16_000_000;

/// A pseudoterminal: the device's end, and the path that the daemon opens.
pub struct Line {
    pub device: File,
    pub path: PathBuf,
    /// Kept open to read its settings.
    line: OwnedFd,
}

impl Line {
    pub fn new() -> Line {
        // Not openpty(3), whose descriptors other tests' children would inherit.
        let flags = OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
        let master = posix_openpt(flags).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let path = PathBuf::from(ptsname_r(&master).unwrap());
        let line = open(&path, flags, Mode::empty()).unwrap();
        Line { device: File::from(OwnedFd::from(master)), path, line }
    }

    fn settings(&self) -> Termios {
        tcgetattr(&self.line).unwrap()
    }

    /// A daemon that leads /tty to it.
    fn daemon(&self, more: &str) -> Daemon {
        let path = self.path.display();
        configured(&format!("links = ({{ origin = \"^/tty$\"; type = \"tty\"; destination = \"{path}\"; {more} }});"))
    }

    /// The next bytes that the device receives.
    fn expect(&mut self, bytes: impl AsRef<[u8]>) {
        let mut got = vec![0; bytes.as_ref().len()];
        let mut at = 0;
        while at < got.len() {
            assert!(is_readable(&self.device), "{at} of {} bytes came", got.len());
            at += self.device.read(&mut got[at..]).unwrap();
        }
        assert!(got == bytes.as_ref(), "{}", got.escape_ascii());
    }

    fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.device.write_all(bytes.as_ref()).unwrap();
    }
}

pub fn is_readable(fd: impl AsFd) -> bool {
    let mut fds = [PollFd::new(fd.as_fd(), PollFlags::POLLIN)];
    poll(&mut fds, PollTimeout::try_from(DEADLINE.as_millis() as u32).unwrap()) == Ok(1)
}

/// Messages whose payloads together are these bytes.
fn expect_bytes(client: &mut Client, opcode: u8, bytes: &[u8]) {
    let mut got = Vec::new();
    while got.len() < bytes.len() {
        let (kind, part) = client.message();
        assert_eq!(kind, opcode);
        got.extend(part);
    }
    assert!(got == bytes, "{} other bytes came", got.len());
}

#[test]
fn a_line_transmits_every_byte_unchanged() {
    let mut line = Line::new();
    // The settings of a new terminal: it echoes, edits lines, and translates line ends.
    assert!(line.settings().local_flags.contains(LocalFlags::ECHO | LocalFlags::ICANON));
    let daemon = line.daemon("message-type = \"binary\"; baud = 115200;");
    let mut client = daemon.connect("/tty");
    let all: Vec<u8> = (0..=255).chain((0..=255).rev()).collect();
    line.send(&all);
    expect_bytes(&mut client, BINARY, &all);
    client.binary(&all);
    line.expect(&all);
    // One by one: among several bytes a single one (an interrupt, a start, a stop) may go unnoticed.
    for byte in 0..=255 {
        line.send([byte]);
        client.expect_binary(&[byte]);
        client.binary(&[byte]);
        line.expect([byte]);
    }
    client.finish(1000);
}

#[test]
fn a_line_has_the_configured_speed() {
    for (set, rate) in [
        ("", BaudRate::B9600),
        ("baud = 4800;", BaudRate::B4800),
        ("baud = \"921600\";", BaudRate::B921600),
        ("baud = 50;", BaudRate::B50),
    ] {
        let line = Line::new();
        let daemon = line.daemon(set);
        let _client = daemon.connect("/tty");
        let settings = line.settings();
        assert_eq!(cfgetospeed(&settings), rate, "{set}");
        // CS8, CREAD and CLOCAL.
        let control = settings.control_flags;
        assert_eq!(control & ControlFlags::CSIZE, ControlFlags::CS8);
        assert!(control.contains(ControlFlags::CREAD | ControlFlags::CLOCAL), "{control:?}");
        assert!(!control.intersects(ControlFlags::PARENB), "{control:?}");
        let changing =
            InputFlags::IXON | InputFlags::ICRNL | InputFlags::INLCR | InputFlags::IGNCR | InputFlags::ISTRIP;
        assert!(!settings.input_flags.intersects(changing), "{:?}", settings.input_flags);
        assert!(!settings.output_flags.contains(OutputFlags::OPOST));
        assert!(!settings.local_flags.intersects(LocalFlags::ECHO | LocalFlags::ICANON | LocalFlags::ISIG));
    }
}

/// A GPS receiver's lines; lines to it have the ends that the page chose.
#[test]
fn nmea_lines() {
    let mut line = Line::new();
    let daemon = line.daemon("protocol = \"lines\"; message-type = \"text\"; baud = 4800;");
    let mut client = daemon.connect("/tty");
    line.send("$GPGGA,092750.000,5321.6802,N,00630.3372,W,1,8,1.03,61.7,M,55.2,M,,*76\r\n$GPG");
    client.expect_text("$GPGGA,092750.000,5321.6802,N,00630.3372,W,1,8,1.03,61.7,M,55.2,M,,*76");
    line.send("SA,A,3,10,07,05,02,29,04,08,13,,,,,1.72,1.03,1.38*0A\r");
    line.send("\n");
    client.expect_text("$GPGSA,A,3,10,07,05,02,29,04,08,13,,,,,1.72,1.03,1.38*0A");
    client.text("$PMTK220,200*2C\r");
    line.expect("$PMTK220,200*2C\r\n");
    client.finish(1000);
}

/// One client at a time; the line is free once the client has left, in whatever way.
#[test]
fn a_line_has_one_client() {
    let mut line = Line::new();
    let daemon = line.daemon("");
    for leaves_well in [true, false, true] {
        let mut client = connect_eventually(&daemon, "/tty");
        for _ in 0..2 {
            assert_eq!(daemon.upgrade("/tty", &[]).status, 503);
        }
        line.send("x");
        client.expect_text("x");
        if leaves_well {
            client.finish(1000);
        } else {
            drop(client);
            connect_eventually(&daemon, "/tty").finish(1000);
        }
    }
    let mut client = connect_eventually(&daemon, "/tty");
    line.send("to the next one");
    client.expect_text("to the next one");
}

/// The limit holds for the device, across links and configurations.
#[test]
fn a_line_has_one_client_across_links() {
    let line = Line::new();
    let folder = Folder::new();
    std::os::unix::fs::symlink(&line.path, folder.join("line")).unwrap();
    let path = line.path.display();
    let daemon = configured_in(
        folder,
        &format!(
            "links = ({{ origin = \"^/tty$\"; type = \"tty\"; destination = \"{path}\"; }},
                {{ origin = \"^/other$\"; type = \"tty\"; destination = \"@/line\"; baud = 300; }});"
        ),
    );
    let mut client = daemon.connect("/tty");
    assert_eq!(daemon.upgrade("/other", &[]).status, 503);
    daemon.signal(Signal::SIGHUP);
    daemon.log().wait_for(&["reloaded: new connections get the new configuration"]);
    for path in ["/tty", "/other"] {
        assert_eq!(daemon.upgrade(path, &[]).status, 503, "{path}");
    }
    assert_eq!(cfgetospeed(&line.settings()), BaudRate::B9600, "who is refused changes nothing for the others");
    client.finish(1000);
    connect_eventually(&daemon, "/other").finish(1000);
}

/// A line with clients > 1; a new client does not disturb the others.
#[test]
fn a_line_with_several_clients() {
    let mut line = Line::new();
    let daemon = line.daemon("message-type = \"binary\"; baud = 115200; limits = { clients = 3; };");
    let mut clients: Vec<Client> = Vec::new();
    for number in 1..=3 {
        clients.push(daemon.connect("/tty"));
        for client in &mut clients {
            client.send(&[Frame::new(PING, &[number])]);
            client.expect_pong(&[number]);
            client.binary(&[number]);
            line.expect([number]);
        }
    }
    assert_eq!(daemon.upgrade("/tty", &[]).status, 503);
    // Settings made by another program are kept.
    let mut settings = line.settings();
    settings.control_flags.toggle(ControlFlags::HUPCL);
    tcsetattr(&line.line, SetArg::TCSANOW, &settings).unwrap();
    let mut last = clients.pop().unwrap();
    for client in &mut clients {
        client.binary(b"bye");
        line.expect("bye");
        client.finish(1000);
    }
    // Of several readers the kernel chooses one.
    eventually("the others have closed it", || opened(&daemon, &line.path) == 1);
    line.send("still heard");
    expect_bytes(&mut last, BINARY, b"still heard");
    last.finish(1000);
    daemon.log().wait_for(&["c3 end", "code=1000"]);
}

/// Bytes that a device has not taken are not mixed with those of the next client.
#[test]
fn a_stalled_line_is_not_shared() {
    let mut line = Line::new();
    let daemon = line.daemon("message-type = \"binary\"; limits = { stall-ms = 1000; };");
    let mut first = daemon.connect("/tty");
    first.binary(&vec![b'1'; 120_000]);
    assert!(is_readable(&line.device));
    drop(first);
    let mut second = connect_eventually(&daemon, "/tty");
    // It receives what the device sends from now on.
    for byte in 0..100 {
        line.send([byte]);
        second.expect_binary(&[byte]);
    }
    // Its bytes follow those of the first client.
    second.binary(b"2");
    let mut got = Vec::new();
    while !got.contains(&b'2') {
        assert!(is_readable(&line.device));
        let mut part = [0; 4096];
        let size = line.device.read(&mut part).unwrap();
        got.extend_from_slice(&part[..size]);
    }
    assert!(got.ends_with(b"12"), "{} bytes came after it", got.rsplit(|byte| *byte == b'2').next().unwrap().len());
}

/// A WebSocket, once the device is free.
pub fn connect_eventually(daemon: &Daemon, path: &str) -> Client {
    let mut client = None;
    eventually(&format!("{path} is served"), || {
        let mut wire = daemon.wire();
        let is_served = wire.upgrade(path, &[]).status == 101;
        client = is_served.then(|| Client::new(wire));
        is_served
    });
    client.unwrap()
}

/// The processor time that the daemon has used, in milliseconds.
fn processor_ms(daemon: &Daemon) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{}/stat", daemon.pid())).unwrap();
    let fields: Vec<&str> = text.rsplit(')').next().unwrap().split_whitespace().collect();
    let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
    // Linux counts a hundred ticks a second on every machine (USER_HZ).
    ticks * 10
}

#[test]
fn a_line_that_hangs_up() {
    for is_writing in [false, true] {
        let mut line = Line::new();
        let daemon = line.daemon("message-type = \"binary\";");
        let mut client = daemon.connect("/tty");
        line.send("last");
        client.expect_binary(b"last");
        if is_writing {
            // More than the line takes, so that a write is in flight.
            client.binary(&vec![7; 120_000]);
            assert!(is_readable(&line.device));
        }
        drop(line);
        let (code, reason) = client.frame().close_code();
        assert!(code == 1000 || code == 1011, "{code} {reason}");
        let before = processor_ms(&daemon);
        // The client does not answer: the daemon waits CLOSE_MS.
        client.wire.expect_end();
        let used = processor_ms(&daemon) - before;
        assert!(used < 300, "{used} ms of processor time");
    }
}

#[test]
fn a_line_loses_nothing_while_one_side_does_not_read() {
    let mut line = Line::new();
    let daemon = line.daemon("message-type = \"binary\"; baud = 4000000;");
    let mut client = daemon.connect("/tty");
    let all: Vec<u8> = (0..SIZE).map(|at| (at % 251) as u8).collect();
    let mut device = line.device.try_clone().unwrap();
    let before = daemon.resident_kib();
    thread::scope(|scope| {
        let writer = scope.spawn(|| device.write_all(&all).unwrap());
        // The line and all buffers after it are full: the device waits.
        let mut last = 0;
        eventually("the device waits", || {
            daemon.get("/nosuch");
            let unread = unread(client.wire.stream());
            std::mem::replace(&mut last, unread) == unread && unread > 0
        });
        let grown = daemon.resident_kib().saturating_sub(before);
        assert!(!writer.is_finished() && grown < 12 * 1024, "{grown} KiB more");
        expect_bytes(&mut client, BINARY, &all);
    });
    thread::scope(|scope| {
        let mut wire = client.wire.stream().try_clone().unwrap();
        let bytes = Frame::new(BINARY, &all).masked().bytes();
        let writer = scope.spawn(move || wire.write_all(&bytes).unwrap());
        assert!(is_readable(&line.device));
        daemon.get("/nosuch");
        assert!(!writer.is_finished(), "the client's bytes went somewhere");
        line.expect(&all);
    });
    client.finish(1000);
}

/// Bytes in the receive buffer.
fn unread(stream: &std::net::TcpStream) -> usize {
    let mut buffer = vec![0; 16 << 20];
    uninterrupted(|| stream.peek(&mut buffer)).unwrap()
}

#[test]
fn files_that_are_not_devices() {
    let daemon = configured(
        "links = ({ origin = \"^/file$\"; type = \"fifo\"; destination = \"@/uakari.conf\"; },
            { origin = \"^/write$\"; type = \"fifo\"; destination = \"@/uakari.conf\"; direction = \"write\"; },
            { origin = \"^/tty$\"; type = \"tty\"; destination = \"@/uakari.conf\"; },
            { origin = \"^/folder$\"; type = \"tty\"; destination = \"@/run\"; },
            { origin = \"^/null$\"; type = \"tty\"; destination = \"/dev/null\"; },
            { origin = \"^/missing$\"; type = \"tty\"; destination = \"@/missing\"; });",
    );
    for (name, said) in [
        ("file", "No such device"),
        ("write", "No such device"),
        ("tty", "Not a typewriter"),
        ("folder", "Is a directory"),
        ("null", "Not a typewriter"),
        ("missing", "No such file or directory"),
    ] {
        assert_eq!(daemon.upgrade(&format!("/{name}"), &[]).status, 502, "{name}");
        daemon.log().wait_for(&["warn", &format!("name=\"{name}\""), "502", said]);
    }
}
