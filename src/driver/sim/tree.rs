//! What paths and TCP addresses lead to in the simulated kernel.

use std::collections::BTreeMap;

use crate::driver::device::Device;
use crate::driver::{Errno, FileId, FileKind, FileStatus, SocketType};

/// The wall clock at the beginning; files are a little older.
pub const EPOCH_S: u64 = 1_700_000_000;

/// The files of a folder by their relative paths.
pub type Tree = BTreeMap<String, Node>;

/// What a path leads to.
#[derive(Clone)]
pub enum Node {
    /// A folder within its tree.
    Folder,
    /// The root of the tree with this number: a folder that the gateway holds open.
    Root(usize),
    /// A file with these bytes.
    File(Vec<u8>),
    /// A listening socket of this type.
    Server(SocketType),
    /// A socket without a listener.
    Dead,
    /// A server whose backlog is full until this time.
    Full(u64),
    /// A server whose backlog is full most of the time.
    Narrow(SocketType),
    /// A symbolic link that leads out of its tree.
    Outside,
    /// A terminal line.
    Tty,
    /// A named pipe.
    Fifo,
}

/// What answers at a TCP address. An address without a host is unreachable.
#[derive(Clone)]
pub enum Host {
    /// A server of this name.
    Server(String),
    /// It refuses connections.
    Refuses,
    /// It drops what it is sent: a connect ends when it is cancelled.
    Silent,
}

/// A path and where it begins.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Place {
    /// The tree of a relative path; None: the path is absolute.
    pub tree: Option<usize>,
    pub path: String,
}

impl Place {
    /// The last component of the path.
    pub fn name(&self) -> String {
        self.path.rsplit('/').next().unwrap_or_default().to_owned()
    }

    /// A number that differs from path to path (FNV-1a).
    pub fn inode(&self) -> u64 {
        let start = 0xcbf2_9ce4_8422_2325;
        self.path.bytes().fold(start, |hash: u64, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
    }

    /// The file system: each tree is one.
    fn file_system(&self) -> u64 {
        self.tree.map_or(1, |tree| tree as u64 + 2)
    }
}

impl Node {
    /// What opening it without speaking to it tells.
    pub(super) fn kind(&self, place: &Place) -> Result<FileKind, Errno> {
        Ok(match self {
            Node::Outside => return Err(Errno::EXDEV),
            Node::Folder | Node::Root(_) => FileKind::Folder,
            Node::Tty | Node::Fifo => FileKind::Other,
            Node::File(bytes) => FileKind::Regular(FileStatus {
                size: bytes.len() as u64,
                modified_s: EPOCH_S as i64 - 1_000,
                modified_ns: 0,
                changed_s: EPOCH_S as i64 - 1_000,
                changed_ns: 1,
                inode: place.inode(),
                file_system: place.file_system(),
                mount: 1,
            }),
            Node::Server(_) | Node::Dead | Node::Full(_) | Node::Narrow(_) => {
                FileKind::Socket(FileId { file_system: place.file_system(), inode: place.inode(), ..FileId::default() })
            }
        })
    }

    /// Why it cannot be opened for speaking, if it cannot: as open(2) and the checks after it tell.
    pub(super) fn check_device(&self, device: Device) -> Result<(), Errno> {
        match (self, device) {
            (Node::Tty, _) | (Node::Fifo, Device::Fifo(_)) => Ok(()),
            (Node::Fifo | Node::File(_), Device::Tty { .. }) => Err(Errno::ENOTTY),
            (Node::Folder | Node::Root(_), _) => Err(Errno::EISDIR),
            (Node::File(_), Device::Fifo(_)) => Err(Errno::ENODEV),
            _ => Err(Errno::ENXIO),
        }
    }
}
