//! Files of the authority's folder. Several are replaced by a plan: first all new contents are written and synchronised
//! under temporary names, then they are renamed in order. A full disk fails in the first part, which changes nothing.
//! A crash in the second part leaves a beginning of the plan, and each plan is made so that every beginning works.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use nix::unistd::{AccessFlags, Gid, Uid, User, access, setgid, setgroups, setuid};

use crate::error::CaError;
use crate::limits::{FILE_SIZE_MAX, LOCK_MS, LOCK_RETRY_MS};
use crate::name::Name;

/// The authority's certificate.
pub(crate) const CERTIFICATE: &str = "ca.pem";
/// Its key.
pub(crate) const KEY: &str = "ca.key";
/// A new key, until the certificate for it is there. The key that fits the certificate is the authority's.
pub(crate) const NEW_KEY: &str = "ca.key.new";
/// Trust stores.
pub(crate) const PKCS12: &str = "ca.p12";
/// See `PKCS12`.
pub(crate) const JKS: &str = "ca.jks";
/// See `index.rs`.
pub(crate) const INDEX: &str = "index";
/// The certificate revocation list.
pub(crate) const CRL: &str = "crl.pem";
/// Locked with flock(2) by a process that changes the folder.
const LOCK: &str = "lock";
/// Certificates that were given out, and their keys.
const ISSUED: &str = "issued";
/// Modes of folders, of keys and the index, and of what everybody may read.
const FOLDER_MODE: u32 = 0o755;
const PRIVATE_MODE: u32 = 0o600;
const PUBLIC_MODE: u32 = 0o644;
/// The beginning of temporary names. No certificate's name begins with a dot.
const TEMPORARY: &str = ".new.";

/// The certificate with this name.
pub(crate) fn certificate_of(name: &Name) -> String {
    format!("{ISSUED}/{name}.pem")
}

/// The key of the certificate with this name, if the authority made it.
pub(crate) fn key_of(name: &Name) -> String {
    format!("{ISSUED}/{name}.key")
}

/// A folder, which is not locked.
#[derive(Clone, Debug)]
pub(crate) struct Folder(PathBuf);

impl Folder {
    pub(crate) fn new(path: &Path) -> Folder {
        Folder(path.to_owned())
    }

    /// The path of a file in it.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// The error of a file in it.
    fn failed(&self, name: &str, error: io::Error) -> CaError {
        CaError::File { path: self.path(name), error }
    }

    /// A file's content is wrong.
    pub(crate) fn damaged(&self, name: &str, reason: impl Into<String>) -> CaError {
        CaError::Damaged { path: self.path(name), reason: reason.into() }
    }

    /// Creates the folder, unless it is there, and the one for certificates.
    pub(crate) fn create(&self) -> Result<(), CaError> {
        let parents = self.0.parent().filter(|parent| !parent.as_os_str().is_empty());
        parents.map_or(Ok(()), fs::create_dir_all).map_err(|error| self.failed("", error))?;
        for path in ["", ISSUED] {
            let path_in_it = self.path(path);
            let created =
                DirBuilder::new().mode(0o700).create(&path_in_it).and_then(|()| set_mode(&path_in_it, FOLDER_MODE));
            match created.and_then(|()| synchronise_parent(&path_in_it)) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(self.failed(path, error)),
                _ => {}
            }
        }
        self.check()
    }

    /// It must be a folder of this user, that only its owner may change, and so must the one for certificates.
    pub(crate) fn check(&self) -> Result<(), CaError> {
        if !check_folder(&self.0)? {
            return Err(CaError::NoAuthority(self.0.clone()));
        }
        check_folder(&self.path(ISSUED)).map(|_| ())
    }

    /// The owner of the folder, if that is another user than this one. None also: it cannot be asked.
    pub(crate) fn other_owner(&self) -> Option<(Uid, Gid)> {
        let metadata = fs::metadata(&self.0).ok()?;
        let owner = Uid::from_raw(metadata.uid());
        (owner != Uid::effective()).then(|| (owner, Gid::from_raw(metadata.gid())))
    }

    /// Whether a process of this user may use the folder. A user or folder that is not there is nobody's fault yet.
    pub(crate) fn expect_owner(&self, user: &str) -> Result<(), CaError> {
        let Ok(Some(user)) = User::from_name(user) else { return Ok(()) };
        match fs::metadata(&self.0) {
            Ok(metadata) if metadata.uid() != user.uid.as_raw() => {
                Err(CaError::Foreign { path: self.0.clone(), uid: metadata.uid() })
            }
            _ => Ok(()),
        }
    }

    /// Whether new files can be made in it.
    pub(crate) fn expect_writable(&self) -> Result<(), CaError> {
        for name in ["", ISSUED] {
            access(&self.path(name), AccessFlags::W_OK).map_err(|errno| self.failed(name, errno.into()))?;
        }
        Ok(())
    }

    /// Root becomes the owner of the folder for good: what it wrote as root, the owner could not use, and what
    /// the owner has put there, such as a symbolic link, root must not follow.
    pub(crate) fn become_owner(&self) -> Result<(), CaError> {
        let Some((owner, group)) = self.other_owner().filter(|_| Uid::effective().is_root()) else { return Ok(()) };
        let group = User::from_uid(owner).ok().flatten().map_or(group, |user| user.gid);
        let changed = setgroups(&[]).and_then(|()| setgid(group)).and_then(|()| setuid(owner));
        changed.map_err(|errno| self.failed("", errno.into()))
    }

    /// Waits until no other process changes the folder, at most `LOCK_MS`. The lock ends when the file is closed.
    pub(crate) fn lock(&self) -> Result<File, CaError> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(PRIVATE_MODE)
            .open(self.path(LOCK));
        let file = file.map_err(|error| self.failed(LOCK, error))?;
        self.wait_for_lock(|| file.try_lock())?;
        Ok(file)
    }

    /// As `lock`, without changing the folder. None: it was never locked.
    pub(crate) fn lock_shared(&self) -> Result<Option<File>, CaError> {
        let Ok(file) = File::open(self.path(LOCK)) else { return Ok(None) };
        self.wait_for_lock(|| file.try_lock_shared())?;
        Ok(Some(file))
    }

    /// flock(2) has no time limit, and a process that holds the lock may be stopped.
    fn wait_for_lock(&self, try_lock: impl Fn() -> Result<(), TryLockError>) -> Result<(), CaError> {
        let deadline = Instant::now() + Duration::from_millis(LOCK_MS);
        loop {
            match try_lock() {
                Ok(()) => return Ok(()),
                Err(TryLockError::Error(error)) => return Err(self.failed(LOCK, error)),
                Err(TryLockError::WouldBlock) if Instant::now() >= deadline => {
                    return Err(CaError::Locked(self.path(LOCK)));
                }
                Err(TryLockError::WouldBlock) => thread::sleep(Duration::from_millis(LOCK_RETRY_MS)),
            }
        }
    }

    /// Whether there is such a file.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.path(name).exists()
    }

    /// The content of a file. None: there is none.
    pub(crate) fn read(&self, name: &str) -> Result<Option<Vec<u8>>, CaError> {
        self.read_up_to(name, FILE_SIZE_MAX)
    }

    /// As `read`, of at most this many bytes.
    pub(crate) fn read_up_to(&self, name: &str, size_max: usize) -> Result<Option<Vec<u8>>, CaError> {
        match File::open(self.path(name)) {
            Ok(file) => self.content(name, file, size_max).map(Some),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(self.failed(name, error)),
        }
    }

    /// As `read`, of a file that only its owner may read.
    pub(crate) fn read_private(&self, name: &str) -> Result<Option<String>, CaError> {
        let file = match File::open(self.path(name)) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(self.failed(name, error)),
        };
        let metadata = file.metadata().map_err(|error| self.failed(name, error))?;
        if metadata.permissions().mode() & 0o077 != 0 {
            return Err(CaError::Exposed { path: self.path(name), mode: PRIVATE_MODE });
        }
        let bytes = self.content(name, file, FILE_SIZE_MAX)?;
        String::from_utf8(bytes).map(Some).map_err(|_| self.damaged(name, "is no text"))
    }

    fn content(&self, name: &str, file: File, size_max: usize) -> Result<Vec<u8>, CaError> {
        let mut bytes = Vec::new();
        let limit = u64::try_from(size_max).unwrap_or(u64::MAX).saturating_add(1);
        file.take(limit).read_to_end(&mut bytes).map_err(|error| self.failed(name, error))?;
        if bytes.len() > size_max {
            return Err(self.damaged(name, format!("has more than {size_max} bytes")));
        }
        Ok(bytes)
    }

    /// Removes temporary files that a crash has left. The folder must be locked.
    pub(crate) fn clear(&self) {
        for folder in ["", ISSUED] {
            let entries = fs::read_dir(self.path(folder)).into_iter().flatten().flatten();
            for entry in entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(TEMPORARY)) {
                // What cannot be removed is replaced by the next plan, or does no harm.
                let _ = fs::remove_file(entry.path());
            }
        }
    }

    /// Makes the names of a folder durable.
    fn synchronise(&self, name: &str) -> io::Result<()> {
        step()?;
        synchronise_parent(&self.path(name))
    }
}

/// Changes of several files, in order.
pub(crate) struct Plan<'a> {
    folder: &'a Folder,
    steps: Vec<Step>,
}

enum Step {
    Write { name: String, bytes: Vec<u8>, mode: u32 },
    Move { from: String, to: String },
    Remove { name: String },
}

impl<'a> Plan<'a> {
    pub(crate) fn new(folder: &'a Folder) -> Plan<'a> {
        Plan { folder, steps: Vec::new() }
    }

    /// Replaces a file. Only its owner may read it.
    pub(crate) fn write(self, name: impl Into<String>, bytes: impl Into<Vec<u8>>) -> Plan<'a> {
        self.write_with_mode(name.into(), bytes.into(), PRIVATE_MODE)
    }

    /// Replaces a file that everybody may read: a gateway of another user reads certificates and the CRL again.
    pub(crate) fn publish(self, name: impl Into<String>, bytes: impl Into<Vec<u8>>) -> Plan<'a> {
        self.write_with_mode(name.into(), bytes.into(), PUBLIC_MODE)
    }

    fn write_with_mode(mut self, name: String, bytes: Vec<u8>, mode: u32) -> Plan<'a> {
        self.steps.push(Step::Write { name, bytes, mode });
        self
    }

    /// Renames a file, which replaces another one.
    pub(crate) fn rename(mut self, from: &str, to: &str) -> Plan<'a> {
        self.steps.push(Step::Move { from: from.to_owned(), to: to.to_owned() });
        self
    }

    /// Removes a file, if it is there.
    pub(crate) fn remove(mut self, name: impl Into<String>) -> Plan<'a> {
        self.steps.push(Step::Remove { name: name.into() });
        self
    }

    /// Changes the files. After an error, either none or the first few of them are changed.
    pub(crate) fn run(self) -> Result<(), CaError> {
        let result = self.prepare().and_then(|()| self.commit());
        if result.is_err() && !is_crashed() {
            for (number, step) in self.steps.iter().enumerate() {
                if let Step::Write { name, .. } = step {
                    // Those that were renamed or never written are not there.
                    let _ = fs::remove_file(self.temporary(number, name));
                }
            }
        }
        result
    }

    /// Writes all new contents under temporary names.
    fn prepare(&self) -> Result<(), CaError> {
        for (number, step) in self.steps.iter().enumerate() {
            if let Step::Write { name, bytes, mode } = step {
                let write = write_new(&self.temporary(number, name), bytes, *mode);
                write.map_err(|error| self.folder.failed(name, error))?;
            }
        }
        Ok(())
    }

    fn commit(&self) -> Result<(), CaError> {
        for (number, change) in self.steps.iter().enumerate() {
            let (name, changed) = match change {
                Step::Write { name, .. } => {
                    (name, step().and_then(|()| fs::rename(self.temporary(number, name), self.folder.path(name))))
                }
                Step::Move { from, to } => {
                    (to, step().and_then(|()| fs::rename(self.folder.path(from), self.folder.path(to))))
                }
                Step::Remove { name } => match step().and_then(|()| fs::remove_file(self.folder.path(name))) {
                    Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                    removed => (name, removed),
                },
            };
            changed.and_then(|()| self.folder.synchronise(name)).map_err(|error| self.folder.failed(name, error))?;
        }
        Ok(())
    }

    /// A path beside the file. The folder is locked, so that no other process uses it; a crash may have left one.
    fn temporary(&self, number: usize, name: &str) -> PathBuf {
        self.folder.path(name).with_file_name(format!("{TEMPORARY}{number}"))
    }
}

/// Whether there is this folder, which must be this user's, and no other one's to change.
fn check_folder(path: &Path) -> Result<bool, CaError> {
    let metadata = match fs::metadata(path) {
        Ok(metadata) if metadata.is_dir() => metadata,
        Ok(_) => return Err(CaError::File { path: path.to_owned(), error: io::ErrorKind::NotADirectory.into() }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(CaError::File { path: path.to_owned(), error }),
    };
    if metadata.uid() != Uid::effective().as_raw() {
        return Err(CaError::Foreign { path: path.to_owned(), uid: metadata.uid() });
    }
    if metadata.permissions().mode() & 0o022 != 0 {
        return Err(CaError::Exposed { path: path.to_owned(), mode: FOLDER_MODE });
    }
    Ok(true)
}

/// Makes the name of a file or folder durable.
fn synchronise_parent(path: &Path) -> io::Result<()> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(parent)?.sync_all()
}

/// Sets the mode of a file, whatever the umask is.
fn set_mode(path: &Path, mode: u32) -> io::Result<()> {
    fs::set_permissions(path, Permissions::from_mode(mode))
}

/// Writes a file that is not there, or a remainder.
fn write_new(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let _ = fs::remove_file(path);
    step()?;
    let mut file = OpenOptions::new().write(true).create_new(true).mode(PRIVATE_MODE).open(path)?;
    if mode != PRIVATE_MODE {
        set_mode(path, mode)?;
    }
    let (first, rest) = bytes.split_at(bytes.len() / 2);
    file.write_all(first)?;
    step()?;
    file.write_all(rest)?;
    step()?;
    file.sync_all()
}

#[cfg(not(test))]
fn step() -> io::Result<()> {
    Ok(())
}

#[cfg(not(test))]
fn is_crashed() -> bool {
    false
}

#[cfg(test)]
use fault::{is_crashed, step};

/// Failures of the unit tests: the n-th step of this thread fails.
#[cfg(test)]
pub(crate) mod fault {
    use std::cell::Cell;
    use std::io;

    thread_local! {
        static STEPS_LEFT: Cell<Option<usize>> = const { Cell::new(None) };
        static IS_CRASH: Cell<bool> = const { Cell::new(false) };
    }

    /// Lets this many steps succeed. None: all of them. After a crash the plan does not clean up.
    pub(crate) fn set(steps: Option<usize>, is_crash: bool) {
        STEPS_LEFT.set(steps);
        IS_CRASH.set(is_crash);
    }

    pub(super) fn step() -> io::Result<()> {
        match STEPS_LEFT.get() {
            None => Ok(()),
            Some(0) => Err(io::ErrorKind::StorageFull.into()),
            Some(left) => {
                STEPS_LEFT.set(Some(left - 1));
                Ok(())
            }
        }
    }

    pub(super) fn is_crashed() -> bool {
        IS_CRASH.get() && STEPS_LEFT.get() == Some(0)
    }
}
