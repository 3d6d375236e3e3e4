//! Opens of files and folders, and reads.

use std::ffi::CString;

use super::bench::{Bench, Got, Route, pattern};
use super::{Errno, File, Handle, Scene};
use crate::driver::{Driver, FileKind, OpenFor, Reach, Receive, Received, Share, SocketType};
use crate::limits::{POOL_BUFFER_SIZE, POOL_HEADROOM};

type Opened<S> = Result<(Handle<S>, FileKind), Errno>;

/// Opens a path below the scene's folder.
fn open<S: Scene>(bench: &mut Bench<S>, name: &str, purpose: OpenFor) -> Opened<S> {
    let token = bench.token();
    bench.open(token, name, purpose);
    bench.opened(token)
}

/// Opens an absolute path.
fn open_anywhere<S: Scene>(bench: &mut Bench<S>, path: &str, purpose: OpenFor) -> Opened<S> {
    let token = bench.token();
    let path = CString::new(path).expect("no NUL");
    bench.open_by(token, Reach::Anywhere, &path, purpose);
    bench.opened(token)
}

/// The kind of what was opened, and closes it.
fn kind<S: Scene>(bench: &mut Bench<S>, opened: Opened<S>) -> Result<FileKind, Errno> {
    let (handle, kind) = opened?;
    bench.driver().close(handle);
    Ok(kind)
}

/// Reads once.
fn read_at<S: Scene>(bench: &mut Bench<S>, file: &Handle<S>, offset: u64) -> Got {
    let token = bench.token();
    bench.read(token, file, offset);
    bench.was_read(token)
}

/// The first bytes of a file in a folder.
fn content<S: Scene>(bench: &mut Bench<S>, folder: &Handle<S>, name: &str) -> Got {
    let token = bench.token();
    let name = CString::new(name).expect("no NUL");
    bench.open_by(token, Reach::Beneath(folder), &name, OpenFor::Reading);
    let (file, _) = bench.opened(token).expect("a file");
    let got = read_at(bench, &file, 0);
    bench.driver().close(file);
    got
}

pub(super) fn reading<S: Scene>(bench: &mut Bench<S>) {
    bench.scene.add("file", File::Bytes(b"content"));
    bench.scene.add("folder", File::Folder);
    bench.scene.add("folder/file", File::Bytes(b"below"));
    bench.scene.add("pipe", File::Fifo);
    let opened = open(bench, "file", OpenFor::Reading);
    let Ok(FileKind::Regular(status)) = kind(bench, opened) else { panic!("no file") };
    assert_eq!(status.size, 7);
    assert!(status.modified_s > 0 && status.changed_s > 0, "{status:?}");
    let opened = open(bench, "file", OpenFor::Reading);
    assert_eq!(kind(bench, opened), Ok(FileKind::Regular(status)), "the same file");
    let opened = open(bench, "folder/file", OpenFor::Reading);
    let Ok(FileKind::Regular(other)) = kind(bench, opened) else { panic!("no file") };
    assert!(other.size == 5 && other.inode != status.inode, "{other:?}");
    let opened = open(bench, "folder", OpenFor::Reading);
    assert_eq!(kind(bench, opened), Ok(FileKind::Folder));
    // It does not wait for a writer.
    let opened = open(bench, "pipe", OpenFor::Reading);
    assert_eq!(kind(bench, opened), Ok(FileKind::Other));
}

/// `OpenCause::NoPeer`.
pub(super) fn reading_socket<S: Scene>(bench: &mut Bench<S>) {
    bench.scene.add("listening", File::Listening(SocketType::Stream));
    bench.scene.add("refusing", File::Refusing);
    for name in ["listening", "refusing"] {
        let opened = open(bench, name, OpenFor::Reading);
        assert_eq!(kind(bench, opened), Err(Errno::ENXIO), "{name}");
    }
}

pub(super) fn connecting<S: Scene>(bench: &mut Bench<S>) {
    bench.scene.add("stream", File::Listening(SocketType::Stream));
    bench.scene.add("packets", File::Listening(SocketType::SeqPacket));
    bench.scene.add("refusing", File::Refusing);
    bench.scene.add("file", File::Bytes(b"content"));
    bench.scene.add("folder", File::Folder);
    bench.scene.add("pipe", File::Fifo);
    let mut ids = Vec::new();
    for name in ["stream", "packets", "refusing"] {
        let opened = open(bench, name, OpenFor::Connecting);
        let Ok(FileKind::Socket(id)) = kind(bench, opened) else { panic!("{name} is no socket") };
        let opened = open(bench, name, OpenFor::Connecting);
        assert_eq!(kind(bench, opened), Ok(FileKind::Socket(id)), "the same file");
        assert!(!ids.contains(&id), "{name} has the identity of another");
        ids.push(id);
    }
    let opened = open(bench, "file", OpenFor::Connecting);
    assert!(matches!(kind(bench, opened), Ok(FileKind::Regular(status)) if status.size == 7));
    let opened = open(bench, "folder", OpenFor::Connecting);
    assert_eq!(kind(bench, opened), Ok(FileKind::Folder));
    let opened = open(bench, "pipe", OpenFor::Connecting);
    assert_eq!(kind(bench, opened), Ok(FileKind::Other));
}

pub(super) fn anywhere<S: Scene>(bench: &mut Bench<S>) {
    bench.scene.add("file", File::Bytes(b"content"));
    let path_of = |bench: &Bench<S>, name: &str| bench.scene.path(name).into_string().expect("UTF-8");
    let (folder, file) = (path_of(bench, ""), path_of(bench, "file"));
    let (handle, kind_of_file) = open_anywhere(bench, &file, OpenFor::Reading).expect("a file");
    assert!(matches!(kind_of_file, FileKind::Regular(_)));
    assert_eq!(read_at(bench, &handle, 0), Got::Bytes(b"content".to_vec()));
    bench.driver().close(handle);
    // The entry of the folder itself.
    let within = format!("{}/.", folder.trim_end_matches('/'));
    let (handle, kind_of_folder) = open_anywhere(bench, &within, OpenFor::Connecting).expect("a folder");
    assert_eq!(kind_of_folder, FileKind::Folder);
    let scenes = bench.scene.folder();
    let (one, other) = (bench.driver().identity(&handle), bench.driver().identity(&scenes));
    assert!(one.is_some() && one == other, "{one:?} and {other:?}");
    assert_eq!(content(bench, &handle, "file"), Got::Bytes(b"content".to_vec()));
    bench.driver().close(handle);
    let opened = open_anywhere(bench, &format!("{file}/."), OpenFor::Connecting);
    assert_eq!(kind(bench, opened), Err(Errno::ENOTDIR));
}

pub(super) fn missing<S: Scene>(bench: &mut Bench<S>) {
    for purpose in [OpenFor::Reading, OpenFor::Connecting] {
        for name in ["missing", "missing/below"] {
            let opened = open(bench, name, purpose);
            assert_eq!(kind(bench, opened), Err(Errno::ENOENT), "{name}");
        }
        let opened = open_anywhere(bench, "/no-such-folder/missing", purpose);
        assert_eq!(kind(bench, opened), Err(Errno::ENOENT));
    }
}

pub(super) fn below_file<S: Scene>(bench: &mut Bench<S>) {
    bench.scene.add("file", File::Bytes(b"content"));
    for purpose in [OpenFor::Reading, OpenFor::Connecting] {
        let opened = open(bench, "file/below", purpose);
        assert_eq!(kind(bench, opened), Err(Errno::ENOTDIR));
    }
    let opened = open(bench, &"x".repeat(300), OpenFor::Reading);
    assert_eq!(kind(bench, opened), Err(Errno::ENAMETOOLONG));
}

pub(super) fn links_within<S: Scene>(bench: &mut Bench<S>) {
    bench.scene.add("file", File::Bytes(b"content"));
    bench.scene.add("folder", File::Folder);
    bench.scene.add("folder/up", File::Link("../file"));
    bench.scene.add("same", File::Link("file"));
    bench.scene.add("chain", File::Link("folder/up"));
    bench.scene.add("around", File::Link("folder"));
    bench.scene.add("dangling", File::Link("missing"));
    for name in ["same", "folder/up", "chain", "around/up", "folder/../file", "./file"] {
        for purpose in [OpenFor::Reading, OpenFor::Connecting] {
            let opened = open(bench, name, purpose);
            assert!(matches!(kind(bench, opened), Ok(FileKind::Regular(_))), "{name} for {purpose:?}");
        }
    }
    let opened = open(bench, "dangling", OpenFor::Reading);
    assert_eq!(kind(bench, opened), Err(Errno::ENOENT));
}

pub(super) fn link_out_beneath<S: Scene>(bench: &mut Bench<S>) {
    bench.scene.add("out", File::LinkOut);
    for purpose in [OpenFor::Reading, OpenFor::Connecting] {
        let opened = open(bench, "out", purpose);
        assert_eq!(kind(bench, opened), Err(Errno::EXDEV));
    }
    if S::IS_SIMULATED {
        return;
    }
    let file = bench.scene.path("file").into_string().expect("UTF-8");
    bench.scene.add("file", File::Bytes(b"content"));
    bench.scene.add("absolute", File::Link(&file));
    bench.scene.add("folder", File::Link(".."));
    bench.scene.add("back", File::Link("../inside/file"));
    for name in ["absolute", "folder", "folder/outside", "back", "..", "../inside/file"] {
        let opened = open(bench, name, OpenFor::Reading);
        assert_eq!(kind(bench, opened), Err(Errno::EXDEV), "{name}");
    }
    let root = bench.scene.folder();
    let token = bench.token();
    let absolute = bench.scene.path("file");
    bench.open_by(token, Reach::Beneath(&root), &absolute, OpenFor::Reading);
    let opened = bench.opened(token);
    assert_eq!(kind(bench, opened), Err(Errno::EXDEV), "an absolute path");
}

pub(super) fn link_out_from<S: Scene>(bench: &mut Bench<S>) {
    let file = bench.scene.path("file").into_string().expect("UTF-8");
    bench.scene.add("file", File::Bytes(b"content"));
    bench.scene.add("out", File::LinkOut);
    bench.scene.add("absolute", File::Link(&file));
    let root = bench.scene.folder();
    for (name, size) in [(c"out", 7), (c"absolute", 7), (c"file", 7)] {
        for purpose in [OpenFor::Reading, OpenFor::Connecting] {
            let token = bench.token();
            bench.open_by(token, Reach::From(&root), name, purpose);
            let opened = bench.opened(token);
            let found = kind(bench, opened);
            assert!(matches!(found, Ok(FileKind::Regular(status)) if status.size == size), "{name:?}: {found:?}");
        }
    }
}

pub(super) fn link_loops<S: Scene>(bench: &mut Bench<S>) {
    bench.scene.add("loop", File::Link("pool"));
    bench.scene.add("pool", File::Link("loop"));
    bench.scene.add("magic", File::Link("/proc/self/exe"));
    let opened = open(bench, "loop", OpenFor::Reading);
    assert_eq!(kind(bench, opened), Err(Errno::ELOOP));
    let root = bench.scene.folder();
    for name in [c"loop", c"magic"] {
        let token = bench.token();
        bench.open_by(token, Reach::From(&root), name, OpenFor::Reading);
        let opened = bench.opened(token);
        assert_eq!(kind(bench, opened), Err(Errno::ELOOP), "{name:?}");
    }
    let opened = open(bench, "magic", OpenFor::Reading);
    assert!(matches!(kind(bench, opened), Err(Errno::EXDEV | Errno::ELOOP)));
}

/// Opens that start after the replacement use the new folder.
pub(super) fn replace<S: Scene>(bench: &mut Bench<S>) {
    bench.scene.add("file", File::Bytes(b"content"));
    let path = format!("{}/.", bench.scene.path("").into_string().expect("UTF-8").trim_end_matches('/'));
    let (held, _) = open_anywhere(bench, &path, OpenFor::Connecting).expect("a folder");
    let before = bench.driver().identity(&held);
    let (new, _) = open_anywhere(bench, &path, OpenFor::Connecting).expect("a folder");
    assert_eq!(bench.driver().replace(&held, new), Ok(()));
    assert_eq!(bench.driver().identity(&held), before, "the same folder again");
    assert_eq!(content(bench, &held, "file"), Got::Bytes(b"content".to_vec()));
    if !S::IS_SIMULATED {
        bench.scene.add("other", File::Folder);
        bench.scene.add("other/file", File::Bytes(b"other"));
        let (new, _) = open(bench, "other", OpenFor::Connecting).expect("a folder");
        let identity = bench.driver().identity(&new);
        assert_eq!(bench.driver().replace(&held, new), Ok(()));
        assert_eq!(bench.driver().identity(&held), identity);
        assert_ne!(identity, before);
        assert_eq!(content(bench, &held, "file"), Got::Bytes(b"other".to_vec()));
    }
    bench.driver().close(held);
}

fn read_all<S: Scene>(bench: &mut Bench<S>, file: &Handle<S>, size: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    while bytes.len() < size {
        match read_at(bench, file, bytes.len() as u64) {
            Got::Bytes(more) => bytes.extend(more),
            other => panic!("{other:?} at {}", bytes.len()),
        }
    }
    bytes
}

/// A whole file, and pieces at offsets.
pub(super) fn read<S: Scene>(bench: &mut Bench<S>) {
    let bytes = pattern(300_000);
    bench.scene.add("file", File::Bytes(&bytes));
    let (file, _) = open(bench, "file", OpenFor::Reading).expect("a file");
    // Again, from the page cache.
    for _ in 0..2 {
        assert!(read_all(bench, &file, bytes.len()) == bytes, "other bytes");
    }
    let token = bench.token();
    for offset in [0, 1, 4_095, 4_096, 70_001, 299_999] {
        bench.read(token, &file, offset as u64);
        let Got::Bytes(piece) = bench.was_read(token) else { panic!("no bytes at {offset}") };
        assert!(piece.len() <= POOL_BUFFER_SIZE - POOL_HEADROOM && bytes[offset..].starts_with(&piece), "at {offset}");
    }
    // Several reads of one file at once.
    let tokens: Vec<_> = (0..3).map(|_| bench.token()).collect();
    for (token, offset) in tokens.iter().zip([0, 100_000, 200_000]) {
        bench.read(*token, &file, offset);
    }
    for (token, offset) in tokens.iter().zip([0, 100_000, 200_000]) {
        let Got::Bytes(piece) = bench.was_read(*token) else { panic!("no bytes at {offset}") };
        assert!(bytes[offset..].starts_with(&piece), "at {offset}");
    }
    bench.driver().close(file);
}

pub(super) fn read_end<S: Scene>(bench: &mut Bench<S>) {
    bench.scene.add("file", File::Bytes(b"content"));
    bench.scene.add("empty", File::Bytes(b""));
    let (file, _) = open(bench, "file", OpenFor::Reading).expect("a file");
    let token = bench.token();
    for (offset, expected) in [(6, Got::Bytes(b"t".to_vec())), (7, Got::End), (8, Got::End), (1_000_000, Got::End)] {
        bench.read(token, &file, offset);
        assert_eq!(bench.was_read(token), expected, "at {offset}");
    }
    bench.driver().close(file);
    let (file, _) = open(bench, "empty", OpenFor::Reading).expect("a file");
    bench.read(token, &file, 0);
    assert_eq!(bench.was_read(token), Got::End);
    bench.driver().close(file);
}

pub(super) fn read_far<S: Scene>(bench: &mut Bench<S>) {
    const FAR: u64 = (5 << 30) + 3;
    let path = bench.scene.path("sparse").into_string().expect("UTF-8");
    let sparse = std::fs::File::create(path).expect("a file");
    std::os::unix::fs::FileExt::write_all_at(&sparse, b"far", FAR).expect("a sparse file");
    let (file, kind) = open(bench, "sparse", OpenFor::Reading).expect("a file");
    assert!(matches!(kind, FileKind::Regular(status) if status.size == FAR + 3));
    let token = bench.token();
    bench.read(token, &file, FAR);
    assert_eq!(bench.was_read(token), Got::Bytes(b"far".to_vec()));
    bench.read(token, &file, FAR + 3);
    assert_eq!(bench.was_read(token), Got::End);
    bench.read(token, &file, 1 << 32);
    assert!(matches!(bench.was_read(token), Got::Bytes(zeros) if zeros.iter().all(|byte| *byte == 0)));
    bench.driver().close(file);
}

pub(super) fn read_folder<S: Scene>(bench: &mut Bench<S>) {
    bench.scene.add("folder", File::Folder);
    let (folder, _) = open(bench, "folder", OpenFor::Reading).expect("a folder");
    let token = bench.token();
    bench.read(token, &folder, 0);
    assert_eq!(bench.was_read(token), Got::Failed(Errno::EISDIR));
    bench.driver().close(folder);
}

/// Reads use the share of requests.
pub(super) fn read_starved<S: Scene>(bench: &mut Bench<S>) {
    bench.scene.add("file", File::Bytes(b"content"));
    let (file, _) = open(bench, "file", OpenFor::Reading).expect("a file");
    let line = bench.line(Route::UnixClient);
    let mut held = Vec::new();
    while bench.driver().buffers_free(Share::Requests) > 0 {
        bench.tell(&line.far, b"x");
        bench.receive(line.token, &line.handle, Receive::Request);
        let (Received::Data(lease), false) = bench.leased(line.token) else { panic!("no data") };
        held.push(lease);
    }
    let token = bench.token();
    bench.read(token, &file, 0);
    assert_eq!(bench.was_read(token), Got::Failed(Errno::ENOBUFS));
    bench.driver().release(held.pop().expect("a buffer"));
    bench.read(token, &file, 0);
    assert_eq!(bench.was_read(token), Got::Bytes(b"content".to_vec()));
    held.into_iter().for_each(|lease| bench.driver().release(lease));
    bench.driver().close(file);
    bench.close_line(line);
}
