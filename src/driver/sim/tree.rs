//! The files and TCP hosts of the simulated kernel.

use std::collections::BTreeMap;

use crate::driver::device::Device;
use crate::driver::{Errno, FileId, FileKind, FileStatus, OpenFor, SocketType};

/// The wall clock at the start, in seconds since 1970; files are slightly older.
pub const EPOCH_S: u64 = 1_700_000_000;

/// The files of a folder by their relative paths.
pub type Tree = BTreeMap<String, Node>;

/// A file of any type.
#[derive(Clone)]
pub enum Node {
    /// A folder in its tree.
    Folder,
    /// The root of the tree with this number: a folder that the gateway holds open.
    Root(usize),
    /// A file with these bytes.
    File(Vec<u8>),
    /// A listening socket of this type.
    Backend(SocketType),
    /// A socket without a listener.
    Dead,
    /// A listening socket whose backlog is full until this time, in milliseconds.
    Full(u64),
    /// A listening socket whose backlog is full most of the time.
    Narrow(SocketType),
    /// A symbolic link that leads out of its tree.
    Outside,
    /// A terminal line.
    Tty,
    /// A named pipe.
    Fifo,
}

/// A host at a TCP address. An address without a host is unreachable.
#[derive(Clone)]
pub enum Host {
    /// A backend with this name.
    Backend(String),
    /// Refuses connections (ECONNREFUSED).
    Refuses,
    /// Drops all packets: a connect completes only when it is cancelled.
    Silent,
}

/// A path and its base.
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

    /// A number that is derived from the path (FNV-1a) and differs from path to path.
    pub fn inode(&self) -> u64 {
        let start = 0xcbf2_9ce4_8422_2325;
        self.path.bytes().fold(start, |hash: u64, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
    }

    /// The file system number: each tree is a file system.
    fn file_system(&self) -> u64 {
        self.tree.map_or(1, |tree| tree as u64 + 2)
    }
}

impl Node {
    /// The result of an open without `OpenFor::Speaking`.
    pub(super) fn kind(&self, place: &Place, purpose: OpenFor) -> Result<FileKind, Errno> {
        Ok(match self {
            Node::Outside => return Err(Errno::EXDEV),
            // open(2).
            Node::Backend(_) | Node::Dead | Node::Full(_) | Node::Narrow(_) if purpose == OpenFor::Reading => {
                return Err(Errno::ENXIO);
            }
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
            Node::Backend(_) | Node::Dead | Node::Full(_) | Node::Narrow(_) => {
                FileKind::Socket(FileId { file_system: place.file_system(), inode: place.inode(), ..FileId::default() })
            }
        })
    }

    /// Whether the file can be opened with `OpenFor::Speaking`: the errors of open(2) and of the later checks.
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
