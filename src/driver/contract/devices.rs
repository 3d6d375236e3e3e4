//! Terminal lines and named pipes.

use std::ffi::CString;

use super::bench::{Bench, Line, batch, pattern};
use super::{Errno, File, Handle, Scene};
use crate::driver::device::{Device, Direction};
use crate::driver::{Batch, Driver, FileKind, OpenFor, Reach, Receive, Received, Segment, Sending, Share, SocketType};

const TTY: Device = Device::Tty { baud: 115_200 };
const SOURCE: Device = Device::Fifo(Direction::Read);
const SINK: Device = Device::Fifo(Direction::Write);

fn open<S: Scene>(bench: &mut Bench<S>, path: &CString, device: Device) -> Result<(Handle<S>, FileKind), Errno> {
    let token = bench.token();
    bench.open_by(token, Reach::Anywhere, path, OpenFor::Speaking(device));
    bench.opened(token)
}

/// A device that is opened and prepared, and its far end.
pub(super) fn device<S: Scene>(bench: &mut Bench<S>, device: Device) -> Line<S> {
    let path = bench.scene.device(device);
    let (handle, kind) = open(bench, &path, device).expect("a device");
    assert!(matches!(kind, FileKind::Device(_, opened) if opened == device), "{kind:?}");
    assert_eq!(bench.driver().prepare(&handle, device), Ok(()));
    let far = bench.scene.device_far(&path);
    Line { token: bench.token(), handle, far }
}

/// A pipe that the driver reads from.
pub(super) fn source<S: Scene>(bench: &mut Bench<S>) -> Line<S> {
    device(bench, SOURCE)
}

/// A pipe that the driver writes to.
pub(super) fn sink<S: Scene>(bench: &mut Bench<S>) -> Line<S> {
    device(bench, SINK)
}

/// A terminal line.
pub(super) fn tty<S: Scene>(bench: &mut Bench<S>) -> Line<S> {
    device(bench, TTY)
}

/// Writes until the device is full; returns what was written.
pub(super) fn fill<S: Scene>(bench: &mut Bench<S>, line: &Line<S>) -> Vec<u8> {
    let mut sent = Vec::new();
    loop {
        let bytes = pattern(4_096);
        bench.send(line.token, &line.handle, batch(&bytes), Sending::Device);
        for _ in 0..3 {
            bench.pump(Some(20));
        }
        if !bench.has_arrived(line.token, crate::driver::Op::Send) {
            return sent;
        }
        match bench.sent(line.token).1 {
            Ok(size) => sent.extend(&bytes[..size]),
            // It is ready and takes nothing yet.
            Err(Errno::EAGAIN) => {}
            Err(errno) => panic!("{errno}"),
        }
    }
}

pub(super) fn identities<S: Scene>(bench: &mut Bench<S>) {
    let mut ids = Vec::new();
    for device in [TTY, TTY, SOURCE, SINK] {
        let path = bench.scene.device(device);
        let (handle, kind) = open(bench, &path, device).expect("a device");
        let FileKind::Device(id, _) = kind else { panic!("{kind:?}") };
        let (again, kind) = open(bench, &path, device).expect("a device");
        assert!(matches!(kind, FileKind::Device(other, _) if other == id), "one device");
        assert!(!ids.contains(&id), "two devices");
        ids.push(id);
        bench.driver().close(handle);
        bench.driver().close(again);
    }
    // Both ends of one pipe.
    let path = bench.scene.device(SINK);
    let (reading, one) = open(bench, &path, SOURCE).expect("a pipe");
    let (writing, other) = open(bench, &path, SINK).expect("a pipe");
    let (FileKind::Device(one, _), FileKind::Device(other, _)) = (one, other) else { panic!("no devices") };
    assert_ne!(one, other);
    bench.driver().close(reading);
    bench.driver().close(writing);
}

pub(super) fn errors<S: Scene>(bench: &mut Bench<S>) {
    bench.scene.add("file", File::Bytes(b"content"));
    bench.scene.add("folder", File::Folder);
    bench.scene.add("pipe", File::Fifo);
    bench.scene.add("socket", File::Listening(SocketType::Stream));
    for (name, device, expected) in [
        ("file", TTY, Errno::ENOTTY),
        ("pipe", TTY, Errno::ENOTTY),
        ("file", SOURCE, Errno::ENODEV),
        ("file", SINK, Errno::ENODEV),
        ("folder", TTY, Errno::EISDIR),
        ("folder", SOURCE, Errno::EISDIR),
        ("folder", SINK, Errno::EISDIR),
        ("socket", TTY, Errno::ENXIO),
        ("socket", SOURCE, Errno::ENXIO),
        ("missing", TTY, Errno::ENOENT),
    ] {
        let path = bench.scene.path(name);
        let failed = open(bench, &path, device).map(|(_, kind)| kind);
        assert_eq!(failed, Err(expected), "{name} as {device:?}");
    }
}

/// fifo(7).
pub(super) fn no_reader<S: Scene>(bench: &mut Bench<S>) {
    bench.scene.add("pipe", File::Fifo);
    let path = bench.scene.path("pipe");
    assert_eq!(open(bench, &path, SINK).map(|(_, kind)| kind), Err(Errno::ENXIO));
}

pub(super) fn line<S: Scene>(bench: &mut Bench<S>) {
    let line = tty(bench);
    for is_early in [true, false, false] {
        if is_early {
            bench.tell(&line.far, b"reading 7\n");
        }
        bench.receive(line.token, &line.handle, Receive::Device);
        if !is_early {
            bench.expect_quiet();
            bench.tell(&line.far, b"reading 7\n");
        }
        assert_eq!(bench.gather(&line, Receive::Device, 10), b"reading 7\n");
        // Both directions at once.
        bench.receive(line.token, &line.handle, Receive::Device);
        bench.send_all(&line, b"command\n", Sending::Device);
        assert_eq!(bench.hear(&line.far, 8), b"command\n");
        bench.tell(&line.far, b"answer");
        assert_eq!(bench.gather(&line, Receive::Device, 6), b"answer");
    }
    bench.close_line(line);
}

/// No byte has a meaning of its own, and nothing is echoed.
pub(super) fn raw<S: Scene>(bench: &mut Bench<S>) {
    let line = tty(bench);
    let all: Vec<u8> = (0..=255).collect();
    bench.tell(&line.far, &all);
    assert_eq!(bench.gather(&line, Receive::Device, 256), all);
    bench.send_all(&line, &all, Sending::Device);
    assert_eq!(bench.hear(&line.far, 256), all);
    let wrong = Device::Tty { baud: 12_345 };
    assert_eq!(bench.driver().prepare(&line.handle, wrong), Err(Errno::EINVAL));
    bench.close_line(line);
}

pub(super) fn pipe_in<S: Scene>(bench: &mut Bench<S>) {
    let line = source(bench);
    bench.receive(line.token, &line.handle, Receive::Device);
    bench.expect_quiet();
    bench.tell(&line.far, b"first");
    let (Received::Data(lease), false) = bench.leased(line.token) else { panic!("no data") };
    assert_eq!(lease.share, Share::Messages);
    assert_eq!(bench.take(lease), b"first");
    for number in 0..200u8 {
        bench.tell(&line.far, &[number; 10]);
        assert_eq!(bench.gather(&line, Receive::Device, 10), [number; 10]);
    }
    bench.tell(&line.far, b"one");
    bench.expect_quiet();
    bench.tell(&line.far, b"two");
    assert_eq!(bench.gather(&line, Receive::Device, 6), b"onetwo");
    bench.close_line(line);
}

pub(super) fn pipe_out<S: Scene>(bench: &mut Bench<S>) {
    let line = sink(bench);
    bench.send_all(&line, b"first", Sending::Device);
    assert_eq!(bench.hear(&line.far, 5), b"first");
    let rest = vec![Segment::heap((*b"two ").into()), Segment::heap((*b"six").into())];
    let batch = Batch { first: Segment::heap((*b"one ").into()), rest };
    bench.send(line.token, &line.handle, batch, Sending::Device);
    assert_eq!(bench.sent(line.token).1, Ok(11));
    assert_eq!(bench.hear(&line.far, 11), b"one two six");
    bench.close_line(line);
}

pub(super) fn full_pipe<S: Scene>(bench: &mut Bench<S>) {
    let line = sink(bench);
    let sent = fill(bench, &line);
    // The last send waits.
    bench.expect_quiet();
    assert!(bench.hear(&line.far, sent.len()) == sent, "other bytes");
    let (_, result) = bench.sent(line.token);
    let size = result.expect("a send");
    assert_eq!(bench.hear(&line.far, size), pattern(4_096)[..size]);
    bench.close_line(line);
}

pub(super) fn reader_leaves<S: Scene>(bench: &mut Bench<S>) {
    let line = sink(bench);
    fill(bench, &line);
    let Line { token, handle, far } = line;
    bench.scene.leave(far);
    assert_eq!(bench.sent(token).1, Err(Errno::EPIPE));
    bench.send(token, &handle, batch(b"more"), Sending::Device);
    assert_eq!(bench.sent(token).1, Err(Errno::EPIPE));
    bench.close(token, handle);
}
