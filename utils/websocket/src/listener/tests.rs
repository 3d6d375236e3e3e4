//! Socket files, and connections with and without a hand-over.

use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::time::Instant;

use super::*;
use crate::doubles::{give, sockaddr_un};

/// A directory that is removed at the end of the test.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Folder {
        let path = std::env::temp_dir().join(format!("websocket-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir(&path).unwrap();
        Folder(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Runs steps whose silent connections must not be refused meanwhile, and returns what they return. A thread that stands
/// still for that long tries again.
fn before_a_refusal<T>(steps: impl Fn() -> T) -> T {
    let mut tries_left = 5;
    loop {
        let start = Instant::now();
        let panic = match catch_unwind(AssertUnwindSafe(&steps)) {
            Ok(made) => return made,
            Err(panic) => panic,
        };
        let took_ms = start.elapsed().as_millis();
        tries_left -= 1;
        if took_ms < HANDOVER_MS.into() || tries_left == 0 {
            resume_unwind(panic);
        }
        eprintln!("the steps took {took_ms} ms and are tried again");
    }
}

fn nonblocking(path: &Path) -> Listener {
    let mut listener = Listener::bind(path, &Options::default()).unwrap();
    listener.set_nonblocking(true);
    listener
}

fn is_readable(listener: &Listener) -> bool {
    Deadline::after_ms(0).wait(listener.as_fd(), PollFlags::POLLIN).unwrap()
}

#[test]
fn the_socket_file() {
    let folder = Folder::new("file");
    let path = folder.0.join("echo");
    let options = Options { mode: 0o660, ..Options::default() };
    drop(UnixListener::bind(&path).unwrap());
    let listener = Listener::bind(&path, &options).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o660);
    let taken = Listener::bind(&path, &options).unwrap_err();
    assert_eq!(taken, PlaceError::Taken(path.clone()));
    assert!(taken.to_string().starts_with(path.to_str().unwrap()));
    drop(listener);
    assert!(!path.exists());

    fs::write(&path, "").unwrap();
    assert_eq!(Listener::bind(&path, &options).unwrap_err(), PlaceError::NoSocket(path.clone()));
    let nowhere = folder.0.join("no/folder");
    assert_eq!(Listener::bind(&nowhere, &options).unwrap_err(), PlaceError::Io(nowhere, Errno::ENOENT));
    let long = folder.0.join("x".repeat(108));
    assert_eq!(Listener::bind(&long, &options).unwrap_err(), PlaceError::Io(long, Errno::ENAMETOOLONG));
}

#[test]
fn a_socket_file_of_another_process_is_kept() {
    let folder = Folder::new("another");
    let path = folder.0.join("echo");
    let listener = nonblocking(&path);
    fs::remove_file(&path).unwrap();
    let _another = UnixListener::bind(&path).unwrap();
    drop(listener);
    assert!(path.exists());
}

#[test]
fn a_late_hand_over_does_not_block_others() {
    before_a_refusal(|| {
        let folder = Folder::new("late");
        let path = folder.0.join("echo");
        let mut listener = nonblocking(&path);
        assert_eq!(listener.accept().unwrap_err(), AcceptError::WouldBlock);
        let (late, early) = (UnixStream::connect(&path).unwrap(), UnixStream::connect(&path).unwrap());
        let (mut one, ours) = UnixStream::pair().unwrap();
        give(&early, &sockaddr_un(), &[ours.as_raw_fd()]);
        drop(ours);
        assert!(is_readable(&listener));
        drop(listener.accept().unwrap());
        assert_eq!(one.read(&mut [0]).unwrap(), 0);
        assert_eq!(listener.accept().unwrap_err(), AcceptError::WouldBlock);
        assert!(!is_readable(&listener), "a silent connection does not wake anybody");
        let (_two, ours) = UnixStream::pair().unwrap();
        give(&late, &sockaddr_un(), &[ours.as_raw_fd()]);
        assert!(is_readable(&listener));
        assert_eq!(listener.accept().unwrap().address(), None);
        assert!(!is_readable(&listener));
    });
}

#[test]
fn plain_clients_are_refused() {
    before_a_refusal(|| {
        let folder = Folder::new("plain");
        let path = folder.0.join("echo");
        let mut listener = nonblocking(&path);
        for late in [false, true] {
            let mut plain = UnixStream::connect(&path).unwrap();
            if late {
                assert_eq!(listener.accept().unwrap_err(), AcceptError::WouldBlock);
            }
            plain.write_all(b"hello").unwrap();
            assert_eq!(listener.accept().unwrap_err(), AcceptError::Plain);
            assert!(
                plain.read(&mut [0]).is_err_and(|error| error.raw_os_error() == Some(104)),
                "closed with bytes unread"
            );
            assert_eq!(listener.accept().unwrap_err(), AcceptError::WouldBlock);
        }
        let plain = UnixStream::connect(&path).unwrap();
        let (_client, ours) = UnixStream::pair().unwrap();
        give(&plain, b"?", &[ours.as_raw_fd()]);
        assert_eq!(listener.accept().unwrap_err(), AcceptError::Handover(HandoverError::Address));
    });
}

#[test]
fn clients_wait_after_too_many_silent_connections() {
    let (_folder, mut listener, mut silent, _behind, _client) = before_a_refusal(|| {
        let folder = Folder::new("silent");
        let path = folder.0.join("echo");
        let mut listener = nonblocking(&path);
        let silent: Vec<UnixStream> = (0..SILENT_MAX).map(|_| UnixStream::connect(&path).unwrap()).collect();
        let behind = UnixStream::connect(&path).unwrap();
        let (client, ours) = UnixStream::pair().unwrap();
        give(&behind, &sockaddr_un(), &[ours.as_raw_fd()]);
        assert_eq!(listener.accept().unwrap_err(), AcceptError::WouldBlock);
        assert!(!is_readable(&listener));
        (folder, listener, silent, behind, client)
    });
    let wait = Deadline::after_ms(60_000);
    assert!(wait.wait(listener.as_fd(), PollFlags::POLLIN).unwrap());
    let mut refused = 0;
    while let Err(error) = listener.accept() {
        match error {
            AcceptError::Plain => refused += 1,
            _ => assert!(wait.wait(listener.as_fd(), PollFlags::POLLIN).unwrap(), "{refused}: {error}"),
        }
    }
    assert!((1..=SILENT_MAX).contains(&refused));
    assert_eq!(silent[0].read(&mut [0]).unwrap(), 0);
}

#[test]
fn simultaneous_connections_of_a_gateway() {
    before_a_refusal(|| {
        const CLIENTS: usize = 200;
        let folder = Folder::new("crowd");
        let path = folder.0.join("echo");
        let mut listener = nonblocking(&path);
        let connections: Vec<UnixStream> = (0..CLIENTS).map(|_| UnixStream::connect(&path).unwrap()).collect();
        assert_eq!(listener.accept().unwrap_err(), AcceptError::WouldBlock);
        assert_eq!(listener.silent.len(), SILENT_MAX);
        let (_client, ours) = UnixStream::pair().unwrap();
        for connection in &connections {
            give(connection, &sockaddr_un(), &[ours.as_raw_fd()]);
        }
        assert_eq!((0..CLIENTS).filter(|_| listener.accept().is_ok()).count(), CLIENTS);
        assert_eq!(listener.accept().unwrap_err(), AcceptError::WouldBlock);
    });
}
