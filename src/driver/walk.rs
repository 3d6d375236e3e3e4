//! Path resolution in user space, for kernels without openat2(2) (before Linux 5.6) and for seccomp profiles that
//! forbid it.
//!
//! Each component is opened by itself with `O_NOFOLLOW`, relative to the descriptor of its folder, so that no rename
//! can redirect the kernel. Beneath a folder, ".." returns to the descriptor through which the lookup came: a folder
//! that is moved meanwhile does not lead out.

use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;

use nix::errno::Errno;
use nix::fcntl::{OFlag, open, openat, readlinkat};
use nix::libc;
use nix::sys::stat::{Mode, SFlag};
use nix::sys::statfs::{PROC_SUPER_MAGIC, fstatfs};
use nix::unistd::geteuid;

use super::status::{Status, status_of};
use crate::limits::{OPEN_DEPTH_MAX, OPEN_LINKS_MAX};

/// Opens a folder to look names up in.
const FOLDER: OFlag = OFlag::O_PATH.union(OFlag::O_DIRECTORY).union(OFlag::O_CLOEXEC);
/// Inode number of the root of a procfs.
const PROC_ROOT_INODE: u64 = 1;

/// Opens a path as openat2(2) does with RESOLVE_NO_MAGICLINKS, and if `is_beneath` with RESOLVE_BENEATH. The descriptor
/// has `O_CLOEXEC`. `O_CREAT`, `O_TMPFILE` and `O_NOFOLLOW` are not supported (EINVAL).
///
/// EAGAIN: a file was replaced during the lookup; the caller repeats it, as with openat2(2). ENAMETOOLONG is also the
/// error of a path that leads more than `OPEN_DEPTH_MAX` folders below `folder`, if `is_beneath`.
///
/// Stricter than the kernel: links are followed as with fs.protected_symlinks = 1 (proc_sys_fs(5)), and of the links on
/// a procfs only those in its root. The mount option nosymfollow has no effect.
pub(super) fn walk(folder: BorrowedFd<'_>, path: &CStr, flags: OFlag, is_beneath: bool) -> Result<OwnedFd, Errno> {
    let is_supported = !flags.intersects(OFlag::O_CREAT | OFlag::O_NOFOLLOW) && !flags.contains(OFlag::O_TMPFILE);
    let mut rest = match path.to_bytes() {
        _ if !is_supported => return Err(Errno::EINVAL),
        [] => return Err(Errno::ENOENT),
        // The limit includes the NUL.
        path if path.len() >= libc::PATH_MAX as usize => return Err(Errno::ENAMETOOLONG),
        path => path.to_vec(),
    };
    let mut walk = Walk { folder, is_beneath, entered: Vec::new(), links_left: OPEN_LINKS_MAX };
    if rest.starts_with(b"/") {
        walk.restart()?;
    }
    let mut at = 0;
    loop {
        let (name, after) = split(&rest[at..]);
        let is_last = after.iter().all(|byte| *byte == b'/');
        let flags = match after {
            [] => flags,
            _ if is_last => flags | OFlag::O_DIRECTORY,
            _ => FOLDER,
        };
        let name = match name {
            b"." if !is_last => None,
            b".." if is_beneath => {
                walk.leave()?;
                is_last.then_some(&b"."[..])
            }
            name => Some(name),
        };
        match name.map(|name| step(walk.current(), name, flags)).transpose()? {
            None => at = rest.len() - after.len(),
            Some(Step::Opened(fd)) if is_last => return Ok(fd),
            Some(Step::Opened(fd)) => {
                at = rest.len() - after.len();
                walk.enter(fd)?;
            }
            Some(Step::Link(link)) => {
                rest = [&walk.follow(&link, is_last)?, after].concat();
                at = 0;
            }
        }
    }
}

/// The first component, and what follows it: nothing, or text that begins with '/'. "." if there is no component.
fn split(path: &[u8]) -> (&[u8], &[u8]) {
    let start = path.iter().position(|byte| *byte != b'/');
    let Some(start) = start else { return (b".", b"") };
    let path = &path[start..];
    path.split_at(path.iter().position(|byte| *byte == b'/').unwrap_or(path.len()))
}

/// The result of one component.
enum Step {
    Opened(OwnedFd),
    /// A symbolic link, opened with `O_PATH`.
    Link(OwnedFd),
}

/// Opens the file of this name, or the link if it is one.
fn step(folder: BorrowedFd<'_>, name: &[u8], flags: OFlag) -> Result<Step, Errno> {
    let flags = flags | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let errno = match openat(folder, name, flags, Mode::empty()) {
        Ok(fd) => {
            // Only O_PATH opens a link; O_DIRECTORY excludes it.
            let may_be_link = flags.contains(OFlag::O_PATH) && !flags.contains(OFlag::O_DIRECTORY);
            let is_link = may_be_link && status_of(&fd)?.kind == SFlag::S_IFLNK;
            return Ok(if is_link { Step::Link(fd) } else { Step::Opened(fd) });
        }
        Err(errno @ (Errno::ELOOP | Errno::ENOTDIR)) => errno,
        Err(errno) => return Err(errno),
    };
    let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let fd = openat(folder, name, flags, Mode::empty())?;
    match status_of(&fd)?.kind {
        SFlag::S_IFLNK => Ok(Step::Link(fd)),
        kind if errno == Errno::ENOTDIR && kind != SFlag::S_IFDIR => Err(errno),
        // It was a link, or no folder, before.
        _ => Err(Errno::EAGAIN),
    }
}

/// A lookup in progress.
struct Walk<'a> {
    folder: BorrowedFd<'a>,
    is_beneath: bool,
    /// If `is_beneath`, all folders from below `folder` to the current one; else at most the current one.
    entered: Vec<OwnedFd>,
    links_left: u32,
}

impl Walk<'_> {
    fn current(&self) -> BorrowedFd<'_> {
        self.entered.last().map_or(self.folder, |folder| folder.as_fd())
    }

    fn enter(&mut self, folder: OwnedFd) -> Result<(), Errno> {
        if !self.is_beneath {
            // The kernel's own ".." leads back.
            self.entered.clear();
        }
        if self.entered.len() == OPEN_DEPTH_MAX {
            return Err(Errno::ENAMETOOLONG);
        }
        self.entered.push(folder);
        Ok(())
    }

    /// Returns to the folder above. Only if `is_beneath`.
    fn leave(&mut self) -> Result<(), Errno> {
        // The kernel requires search permission for ".." as for other names.
        openat(self.current(), c".", FOLDER, Mode::empty())?;
        self.entered.pop().map(drop).ok_or(Errno::EXDEV)
    }

    /// Continues at the root.
    fn restart(&mut self) -> Result<(), Errno> {
        if self.is_beneath {
            return Err(Errno::EXDEV);
        }
        self.enter(open(c"/", FOLDER, Mode::empty())?)
    }

    /// The target of a link in the current folder. If it is absolute, the lookup continues at the root.
    fn follow(&mut self, link: &OwnedFd, is_last: bool) -> Result<Vec<u8>, Errno> {
        self.links_left = self.links_left.checked_sub(1).ok_or(Errno::ELOOP)?;
        let (folder, status) = (status_of(self.current())?, status_of(link)?);
        if is_last && is_protected(&folder, &status) {
            return Err(Errno::EACCES);
        }
        let is_magic = fstatfs(link)?.filesystem_type() == PROC_SUPER_MAGIC
            && (folder.inode, folder.file_system) != (PROC_ROOT_INODE, status.file_system);
        if is_magic {
            return Err(Errno::ELOOP);
        }
        let target = readlinkat(link, c"")?.into_vec();
        match target.first() {
            None => return Err(Errno::ENOENT),
            Some(b'/') => self.restart()?,
            Some(_) => {}
        }
        Ok(target)
    }
}

/// Whether a link as the last component may be an attacker's: it is in a folder in which all users may create links,
/// and belongs neither to the folder's owner nor to the user of this process (proc_sys_fs(5), protected_symlinks).
fn is_protected(folder: &Status, link: &Status) -> bool {
    folder.permissions.contains(Mode::S_ISVTX | Mode::S_IWOTH)
        && link.owner != folder.owner
        && link.owner != geteuid().as_raw()
}

#[cfg(test)]
mod tests {
    use std::ffi::CString;
    use std::fs::{self, File, Permissions};
    use std::os::fd::AsRawFd;
    use std::os::unix::fs::{MetadataExt, PermissionsExt, lchown, symlink};
    use std::os::unix::net::UnixListener;
    use std::path::{Path, PathBuf};
    use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
    use std::thread;

    use nix::fcntl::{FcntlArg, FdFlag, OpenHow, RenameFlags, ResolveFlag, fcntl, openat2, renameat2};
    use nix::unistd::{Uid, mkfifo, setfsuid};

    use super::*;
    use crate::driver::sim::Rng;

    const PATH: OFlag = OFlag::O_PATH;
    const READ: OFlag = OFlag::O_RDONLY.union(OFlag::O_NONBLOCK);
    const WRITE: OFlag = OFlag::O_WRONLY.union(OFlag::O_NONBLOCK);

    /// A folder `base`, which is removed at the end, and in it the folder `root` at which lookups begin.
    struct Tree {
        base: PathBuf,
        root: OwnedFd,
    }

    impl Tree {
        fn new(test: &str) -> Tree {
            let base = std::env::temp_dir().join(format!("uakari-walk-{}-{test}", std::process::id()));
            fs::create_dir_all(base.join("root")).unwrap();
            let root = open(&base.join("root"), FOLDER, Mode::empty()).unwrap();
            Tree { base, root }
        }

        fn folders(&self, paths: &[&str]) {
            paths.iter().for_each(|path| fs::create_dir(self.base.join(path)).unwrap());
        }

        fn files(&self, paths: &[&str]) {
            paths.iter().for_each(|path| drop(File::create_new(self.base.join(path)).unwrap()));
        }

        fn links(&self, links: &[(&str, &str)]) {
            links.iter().for_each(|(path, target)| symlink(target, self.base.join(path)).unwrap());
        }

        fn walk(&self, path: &str, flags: OFlag, is_beneath: bool) -> Outcome {
            outcome(walk(self.root.as_fd(), &CString::new(path).unwrap(), flags, is_beneath))
        }

        /// None: the kernel has no openat2(2).
        fn openat2(&self, path: &str, flags: OFlag, is_beneath: bool) -> Option<Outcome> {
            let mut resolve = ResolveFlag::RESOLVE_NO_MAGICLINKS;
            resolve.set(ResolveFlag::RESOLVE_BENEATH, is_beneath);
            let how = OpenHow::new().flags(flags | OFlag::O_CLOEXEC).resolve(resolve);
            loop {
                match openat2(&self.root, path, how) {
                    // Other tests rename files.
                    Err(Errno::EAGAIN) => {}
                    Err(Errno::ENOSYS | Errno::EPERM) => return None,
                    result => return Some(outcome(result)),
                }
            }
        }

        /// Compares with the kernel, if it has openat2(2).
        #[track_caller]
        fn compare(&self, path: &str, flags: OFlag, is_beneath: bool, about: &str) {
            let Some(expected) = self.openat2(path, flags, is_beneath) else { return };
            let got = self.walk(path, flags, is_beneath);
            let name = &path[..path.len().min(200)];
            assert_eq!(got, expected, "{name:?} {flags:?} is_beneath: {is_beneath} {about}");
        }

        /// The file system and inode number of a path, whose last component is not followed.
        fn id(&self, path: &str) -> (u64, u64) {
            let status = fs::symlink_metadata(self.base.join(path)).unwrap();
            (status.dev(), status.ino())
        }
    }

    impl Drop for Tree {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.base);
        }
    }

    /// The file system and inode number of an opened file, and the flags of the descriptor.
    type Outcome = Result<((u64, u64), OFlag), Errno>;

    fn outcome(result: Result<OwnedFd, Errno>) -> Outcome {
        let fd = result?;
        let status = status_of(&fd).unwrap();
        let flags = OFlag::from_bits_retain(fcntl(&fd, FcntlArg::F_GETFL).unwrap());
        assert_eq!(fcntl(&fd, FcntlArg::F_GETFD).unwrap(), FdFlag::FD_CLOEXEC.bits());
        Ok(((status.file_system, status.inode), flags & (OFlag::O_ACCMODE | OFlag::O_PATH | OFlag::O_NONBLOCK)))
    }

    /// A tree with files of all types and links of all kinds.
    fn full_tree(test: &str) -> Tree {
        let tree = Tree::new(test);
        tree.folders(&["outside", "outside/folder", "root/folder", "root/folder/deep", "root/folder/deep/deeper"]);
        tree.files(&["outside/file", "outside/folder/file", "root/file", "root/folder/file"]);
        tree.files(&["root/folder/deep/file", "root/folder/deep/deeper/file"]);
        drop(UnixListener::bind(tree.base.join("root/socket")).unwrap());
        mkfifo(&tree.base.join("root/fifo"), Mode::S_IRWXU).unwrap();
        let root = tree.base.join("root");
        let magic = format!("/proc/self/fd/{}", tree.root.as_raw_fd());
        tree.links(&[
            ("root/to-file", "file"),
            ("root/to-folder", "folder"),
            ("root/to-folder-slash", "folder//"),
            ("root/to-folder-dot", "folder/."),
            ("root/to-file-slash", "file/"),
            ("root/to-file-dot", "file/."),
            ("root/to-socket", "./socket"),
            ("root/to-fifo", "folder/../fifo"),
            ("root/to-link", "to-file"),
            ("root/to-link-to-link", "folder/../to-link"),
            ("root/to-folder-link", "to-folder/deep"),
            ("root/folder/up", "../file"),
            ("root/folder/deep/up", "../../file"),
            ("root/folder/deep/up-and-in", "../../to-folder/file"),
            ("root/self", "."),
            ("root/loop", "loop"),
            ("root/ping", "pong"),
            ("root/pong", "ping"),
            ("root/dangling", "missing"),
            ("root/dangling-folder", "missing/file"),
            ("root/through-file", "file/file"),
            ("root/parent", ".."),
            ("root/out", "../outside/file"),
            ("root/out-folder", "../outside"),
            ("root/folder/out", "../../outside"),
            ("root/out-and-back", "../root/file"),
            ("root/absolute", root.join("file").to_str().unwrap()),
            ("root/absolute-folder", root.join("folder").to_str().unwrap()),
            ("root/slash", "/"),
            ("root/slashes", "///"),
            ("root/magic", &magic),
            ("root/not-magic", "/proc/self/../version"),
        ]);
        for number in 1..=41 {
            let target = if number == 1 { "file".to_owned() } else { format!("chain{}", number - 1) };
            symlink(target, root.join(format!("chain{number}"))).unwrap();
        }
        tree
    }

    #[test]
    fn table() {
        let tree = full_tree("table");
        let (file, folder, outside) = (Ok("root/file"), Ok("root/folder"), Ok("outside/file"));
        let long_name = "n".repeat(256);
        let long_path = "./".repeat(2046) + "file";
        let longer_path = "./".repeat(2046) + "file2";
        let long_folder = "folder/../".repeat(400) + "file";
        // A path, the result beneath the folder, and the result where links may lead out.
        type Expected<'a> = Result<&'a str, Errno>;
        let rows: &[(&str, Expected, Expected)] = &[
            ("file", file, file),
            ("./file", file, file),
            (".//file", file, file),
            ("folder/file", Ok("root/folder/file"), Ok("root/folder/file")),
            ("folder//deep///file", Ok("root/folder/deep/file"), Ok("root/folder/deep/file")),
            ("folder", folder, folder),
            ("folder/", folder, folder),
            ("folder/.", folder, folder),
            ("folder/deep/..", folder, folder),
            ("folder/deep/../", folder, folder),
            ("folder/deep/deeper/../..", folder, folder),
            ("folder/..", Ok("root"), Ok("root")),
            ("folder/../file", file, file),
            ("socket", Ok("root/socket"), Ok("root/socket")),
            ("fifo", Ok("root/fifo"), Ok("root/fifo")),
            (".", Ok("root"), Ok("root")),
            ("./", Ok("root"), Ok("root")),
            ("", Err(Errno::ENOENT), Err(Errno::ENOENT)),
            ("missing", Err(Errno::ENOENT), Err(Errno::ENOENT)),
            ("missing/", Err(Errno::ENOENT), Err(Errno::ENOENT)),
            ("missing/..", Err(Errno::ENOENT), Err(Errno::ENOENT)),
            ("file/", Err(Errno::ENOTDIR), Err(Errno::ENOTDIR)),
            ("file/.", Err(Errno::ENOTDIR), Err(Errno::ENOTDIR)),
            ("file/..", Err(Errno::ENOTDIR), Err(Errno::ENOTDIR)),
            ("file/../file", Err(Errno::ENOTDIR), Err(Errno::ENOTDIR)),
            ("socket/file", Err(Errno::ENOTDIR), Err(Errno::ENOTDIR)),
            ("to-file", file, file),
            ("to-file/", Err(Errno::ENOTDIR), Err(Errno::ENOTDIR)),
            ("to-file-slash", Err(Errno::ENOTDIR), Err(Errno::ENOTDIR)),
            ("to-folder", folder, folder),
            ("to-folder/", folder, folder),
            ("to-folder/file", Ok("root/folder/file"), Ok("root/folder/file")),
            ("to-folder/..", Ok("root"), Ok("root")),
            ("to-folder-link/..", folder, folder),
            ("to-folder-slash", folder, folder),
            ("to-link-to-link", file, file),
            ("folder/up", file, file),
            ("folder/deep/up", file, file),
            ("folder/deep/up-and-in", Ok("root/folder/file"), Ok("root/folder/file")),
            ("self/self/file", file, file),
            ("chain40", file, file),
            ("chain41", Err(Errno::ELOOP), Err(Errno::ELOOP)),
            ("chain20/../chain20", Err(Errno::ENOTDIR), Err(Errno::ENOTDIR)),
            ("self/chain39", file, file),
            ("self/chain40", Err(Errno::ELOOP), Err(Errno::ELOOP)),
            ("loop", Err(Errno::ELOOP), Err(Errno::ELOOP)),
            ("ping", Err(Errno::ELOOP), Err(Errno::ELOOP)),
            ("dangling", Err(Errno::ENOENT), Err(Errno::ENOENT)),
            ("dangling-folder", Err(Errno::ENOENT), Err(Errno::ENOENT)),
            ("through-file", Err(Errno::ENOTDIR), Err(Errno::ENOTDIR)),
            ("..", Err(Errno::EXDEV), Ok("")),
            ("../root/file", Err(Errno::EXDEV), file),
            ("folder/../..", Err(Errno::EXDEV), Ok("")),
            ("folder/../../outside/file", Err(Errno::EXDEV), outside),
            ("parent", Err(Errno::EXDEV), Ok("")),
            ("out", Err(Errno::EXDEV), outside),
            ("out-folder/file", Err(Errno::EXDEV), outside),
            ("out-folder/../root/file", Err(Errno::EXDEV), file),
            ("folder/out", Err(Errno::EXDEV), Ok("outside")),
            ("folder/out/file", Err(Errno::EXDEV), outside),
            ("out-and-back", Err(Errno::EXDEV), file),
            ("absolute", Err(Errno::EXDEV), file),
            ("absolute-folder/file", Err(Errno::EXDEV), Ok("root/folder/file")),
            ("absolute-folder/..", Err(Errno::EXDEV), Ok("root")),
            ("slash", Err(Errno::EXDEV), Ok("/")),
            ("slash/..", Err(Errno::EXDEV), Ok("/")),
            ("slashes/../../.", Err(Errno::EXDEV), Ok("/")),
            ("/", Err(Errno::EXDEV), Ok("/")),
            ("//.", Err(Errno::EXDEV), Ok("/")),
            ("/..", Err(Errno::EXDEV), Ok("/")),
            ("/file", Err(Errno::EXDEV), Err(Errno::ENOENT)),
            ("magic", Err(Errno::EXDEV), Err(Errno::ELOOP)),
            ("magic/file", Err(Errno::EXDEV), Err(Errno::ELOOP)),
            ("not-magic", Err(Errno::EXDEV), Ok("/proc/version")),
            ("/proc/self/exe", Err(Errno::EXDEV), Err(Errno::ELOOP)),
            ("/proc/self/root/etc", Err(Errno::EXDEV), Err(Errno::ELOOP)),
            (&long_name, Err(Errno::ENAMETOOLONG), Err(Errno::ENAMETOOLONG)),
            (&long_path, Err(Errno::ENAMETOOLONG), Err(Errno::ENAMETOOLONG)),
            (&long_path[2..], file, file),
            (&longer_path[2..], Err(Errno::ENOENT), Err(Errno::ENOENT)),
            (&long_folder, file, file),
        ];
        for (path, beneath, anywhere) in rows {
            for (is_beneath, expected) in [(true, beneath), (false, anywhere)] {
                let found = tree.walk(path, PATH, is_beneath).map(|(id, _)| id);
                let name = &path[..path.len().min(200)];
                assert_eq!(found, expected.map(|path| tree.id(path)), "{name:?} is_beneath: {is_beneath}");
                tree.compare(path, PATH, is_beneath, "");
            }
        }
    }

    #[test]
    fn flags_and_file_types() {
        let tree = full_tree("flags");
        let rows = [
            ("file", READ, Ok("root/file")),
            ("file", WRITE, Ok("root/file")),
            ("file", PATH | OFlag::O_DIRECTORY, Err(Errno::ENOTDIR)),
            ("file", READ | OFlag::O_DIRECTORY, Err(Errno::ENOTDIR)),
            ("to-file", READ, Ok("root/file")),
            ("to-file", READ | OFlag::O_DIRECTORY, Err(Errno::ENOTDIR)),
            ("to-folder", READ | OFlag::O_DIRECTORY, Ok("root/folder")),
            ("to-folder", PATH | OFlag::O_DIRECTORY, Ok("root/folder")),
            ("folder", WRITE, Err(Errno::EISDIR)),
            ("folder/..", READ, Ok("root")),
            ("socket", READ, Err(Errno::ENXIO)),
            ("to-socket", READ, Err(Errno::ENXIO)),
            ("to-socket", PATH, Ok("root/socket")),
            ("socket/", READ, Err(Errno::ENOTDIR)),
            ("fifo", READ, Ok("root/fifo")),
            ("fifo", WRITE, Err(Errno::ENXIO)),
            ("to-fifo", WRITE, Err(Errno::ENXIO)),
            ("to-fifo", OFlag::O_RDWR | OFlag::O_NONBLOCK, Ok("root/fifo")),
        ];
        for (path, flags, expected) in rows {
            let found = tree.walk(path, flags, true).map(|(id, _)| id);
            assert_eq!(found, expected.map(|path| tree.id(path)), "{path} {flags:?}");
        }
        for flags in [OFlag::O_CREAT, OFlag::O_NOFOLLOW, OFlag::O_TMPFILE] {
            assert_eq!(tree.walk("file", flags | OFlag::O_RDWR, true), Err(Errno::EINVAL));
        }
    }

    /// All names of a tree with many endings, opened in many ways.
    #[test]
    fn equals_the_kernel() {
        let tree = full_tree("kernel");
        let mut names: Vec<String> = vec![String::new()];
        for at in ["", "folder/", "folder/deep/", "to-folder/"] {
            let entries = fs::read_dir(tree.base.join("root").join(at)).unwrap();
            let entries = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
            names.extend(entries.map(|name| format!("{at}{name}")));
        }
        let endings =
            ["", "/", "//.", "/..", "/../", "/file", "/./file", "/../file", "/missing", "/../..", "/../../file", "/up"];
        let folder = OFlag::O_DIRECTORY;
        for name in &names {
            for ending in endings {
                for flags in [PATH, PATH | folder, READ, READ | folder, WRITE, OFlag::O_RDWR | OFlag::O_NONBLOCK] {
                    for is_beneath in [true, false] {
                        tree.compare(&format!("{name}{ending}"), flags, is_beneath, "");
                    }
                }
            }
        }
    }

    fn pick<'a>(rng: &mut Rng, from: &[&'a str]) -> &'a str {
        from[rng.below(from.len())]
    }

    fn random_path(rng: &mut Rng, tree: &Tree) -> String {
        let mut path = String::new();
        if rng.one_in(12) {
            path = tree.base.join("root").to_str().unwrap().to_owned() + "/";
        }
        for _ in 0..=rng.below(5) {
            path += pick(rng, &["a", "b", "c", "a", "b", "c", "..", ".", "root"]);
            path += pick(rng, &["/", "/", "/", "//"]);
        }
        if rng.one_in(4) { path } else { path.trim_end_matches('/').to_owned() }
    }

    #[test]
    fn equals_the_kernel_in_random_trees() {
        for seed in 0..60 {
            let mut rng = Rng(seed);
            let tree = Tree::new(&format!("random-{seed}"));
            let mut folders = vec![PathBuf::from(&tree.base), tree.base.join("root"), tree.base.join("root")];
            for _ in 0..14 {
                let path = folders[rng.below(folders.len())].join(pick(&mut rng, &["a", "b", "c"]));
                // Names that exist already are skipped.
                match rng.below(7) {
                    0..3 if fs::create_dir(&path).is_ok() => folders.push(path),
                    3 => drop(File::create_new(&path)),
                    4..7 => drop(symlink(random_path(&mut rng, &tree), &path)),
                    _ => {}
                }
            }
            for _ in 0..150 {
                let path = random_path(&mut rng, &tree);
                let flags = [PATH, READ, PATH | OFlag::O_DIRECTORY][rng.below(3)];
                for is_beneath in [true, false] {
                    tree.compare(&path, flags, is_beneath, &format!("seed {seed}"));
                }
            }
        }
    }

    #[test]
    fn permissions() {
        let tree = Tree::new("permissions");
        tree.folders(&["root/closed", "root/closed/folder", "root/listed", "root/listed/folder", "root/open"]);
        tree.files(&["root/file", "root/closed/file", "root/listed/file", "root/open/file", "root/open/locked"]);
        tree.links(&[("root/to-closed", "closed/file"), ("root/open/to-closed", "../closed/../open/file")]);
        tree.links(&[("root/to-listed", "listed"), ("root/to-locked", "open/locked")]);
        let set = |path: &str, mode| {
            fs::set_permissions(tree.base.join("root").join(path), Permissions::from_mode(mode)).unwrap();
        };
        let modes = [("closed", 0o000), ("listed", 0o444), ("open", 0o755), ("open/locked", 0o000), ("", 0o755)];
        modes.iter().for_each(|(path, mode)| set(path, *mode));
        let paths = [
            "closed",
            "closed/",
            "closed/.",
            "closed/..",
            "closed/../file",
            "closed/file",
            "closed/missing",
            "closed/folder/..",
            "listed",
            "listed/.",
            "listed/..",
            "listed/file",
            "listed/folder/../file",
            "open/file",
            "open/locked",
            "open/..",
            "to-closed",
            "open/to-closed",
            "to-listed",
            "to-listed/",
            "to-listed/..",
            "to-locked",
            "..",
        ];
        // The user of the file system is a thread's own. Unless this is root, it stays as it is.
        thread::scope(|scope| {
            scope.spawn(|| {
                setfsuid(Uid::from_raw(65534));
                assert_eq!(tree.walk("closed/file", PATH, true), Err(Errno::EACCES));
                assert_eq!(tree.walk("closed/..", PATH, true), Err(Errno::EACCES));
                assert_eq!(tree.walk("open/locked", READ, true), Err(Errno::EACCES));
                assert!(tree.walk("open/locked", PATH, true).is_ok());
                for path in paths {
                    for flags in [PATH, READ, PATH | OFlag::O_DIRECTORY, WRITE] {
                        tree.compare(path, flags, true, "");
                        tree.compare(path, flags, false, "");
                    }
                }
            });
        });
        ["closed", "listed"].iter().for_each(|path| set(path, 0o755));
    }

    /// Links of other users in a folder in which all users may create links.
    #[test]
    fn protected_links() {
        if !geteuid().is_root() {
            return;
        }
        let tree = Tree::new("protected");
        tree.folders(&["root/shared", "root/shared/folder"]);
        tree.files(&["root/file", "root/shared/folder/file"]);
        tree.links(&[("root/shared/own", "../file"), ("root/shared/foreign", "../file")]);
        tree.links(&[("root/shared/to-folder", "folder"), ("root/to-foreign", "shared/foreign")]);
        for link in ["foreign", "to-folder"] {
            lchown(tree.base.join("root/shared").join(link), Some(1), None).unwrap();
        }
        let found = |path| tree.walk(path, READ, true).map(|(id, _)| id);
        assert_eq!(found("shared/foreign"), Ok(tree.id("root/file")));
        fs::set_permissions(tree.base.join("root/shared"), Permissions::from_mode(0o1777)).unwrap();
        assert_eq!(found("shared/own"), Ok(tree.id("root/file")));
        assert_eq!(found("shared/foreign"), Err(Errno::EACCES));
        assert_eq!(found("to-foreign"), Err(Errno::EACCES));
        // Only the last component is judged.
        assert_eq!(found("shared/to-folder/file"), Ok(tree.id("root/shared/folder/file")));
        if fs::read_to_string("/proc/sys/fs/protected_symlinks").is_ok_and(|text| text.trim() == "1") {
            for path in ["shared/own", "shared/foreign", "to-foreign", "shared/to-folder", "shared/to-folder/file"] {
                tree.compare(path, READ, true, "");
            }
        }
    }

    #[test]
    fn folders_held_open_are_bounded() {
        let tree = Tree::new("depth");
        let deepest = "a/".repeat(OPEN_DEPTH_MAX) + "a";
        fs::create_dir_all(tree.base.join("root").join(&deepest)).unwrap();
        let found = |path: &str, is_beneath| tree.walk(path, PATH, is_beneath).map(|(id, _)| id);
        assert_eq!(found(&deepest, true), Ok(tree.id(&format!("root/{deepest}"))));
        assert_eq!(found(&format!("{deepest}/."), true), Err(Errno::ENAMETOOLONG));
        assert_eq!(found(&format!("{deepest}/."), false), Ok(tree.id(&format!("root/{deepest}"))));
        let steps = "a/../".repeat(3 * OPEN_DEPTH_MAX) + "a";
        assert_eq!(found(&steps, true), Ok(tree.id("root/a")));
    }

    /// Exchanges two paths again and again, and calls `check` meanwhile, until they were exchanged during 500 calls. On a
    /// busy machine the threads may run in turn, so the number of calls is limited too.
    fn race(tree: &Tree, one: &str, other: &str, check: impl Fn()) {
        let (one, other) = (tree.base.join(one), tree.base.join(other));
        let exchange = |one: &Path, other: &Path| {
            let cwd = nix::fcntl::AT_FDCWD;
            renameat2(cwd, one, cwd, other, RenameFlags::RENAME_EXCHANGE).unwrap();
        };
        let (is_over, exchanges) = (AtomicBool::new(false), AtomicU32::new(0));
        thread::scope(|scope| {
            scope.spawn(|| {
                let _end = EndBoth(&is_over);
                while !is_over.load(Ordering::Relaxed) {
                    exchange(&one, &other);
                    exchanges.fetch_add(1, Ordering::Relaxed);
                }
            });
            let _end = EndBoth(&is_over);
            let (mut calls, mut raced_calls) = (0, 0);
            while raced_calls < 500 && calls < 20_000 && !is_over.load(Ordering::Relaxed) {
                let before = exchanges.load(Ordering::Relaxed);
                check();
                calls += 1;
                raced_calls += u32::from(exchanges.load(Ordering::Relaxed) != before);
            }
        });
    }

    /// Ends both threads of a race when one of them ends or fails.
    struct EndBoth<'a>(&'a AtomicBool);

    impl Drop for EndBoth<'_> {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }

    fn expect_inside(found: Outcome, allowed: &[(u64, u64)]) {
        match found {
            Ok((id, _)) => assert!(allowed.contains(&id), "opened a file outside"),
            Err(errno) => assert!(matches!(errno, Errno::EXDEV | Errno::EAGAIN), "{errno}"),
        }
    }

    #[test]
    fn a_folder_exchanged_with_a_link_that_leads_out() {
        let tree = Tree::new("race-folder");
        tree.folders(&["root/a", "root/a/b", "outside", "outside/b"]);
        tree.files(&["root/a/b/file", "outside/b/file"]);
        tree.links(&[("root/link", "../outside")]);
        let inside = [tree.id("root/a/b/file")];
        race(&tree, "root/a", "root/link", || {
            for path in ["a/b/file", "a/b/../b/file", "a/b/../../a/b/file"] {
                expect_inside(tree.walk(path, READ, true), &inside);
                expect_inside(tree.walk(path, PATH, true), &inside);
            }
        });
    }

    #[test]
    fn a_file_exchanged_with_a_link_that_leads_out() {
        let tree = Tree::new("race-file");
        tree.folders(&["outside"]);
        tree.files(&["root/file", "outside/file"]);
        tree.links(&[("root/link", "../outside/file")]);
        let inside = [tree.id("root/file")];
        race(&tree, "root/file", "root/link", || {
            expect_inside(tree.walk("file", READ, true), &inside);
            expect_inside(tree.walk("file", PATH, true), &inside);
        });
    }

    /// The kernel's ".." in a folder that was moved out leads to the folder above its new place.
    #[test]
    fn a_folder_moved_out_during_the_lookup() {
        let tree = Tree::new("race-moved");
        tree.folders(&["root/a", "root/a/b", "outside", "outside/b"]);
        tree.files(&["root/a/file", "outside/file"]);
        let inside = [tree.id("root/a/file")];
        race(&tree, "root/a/b", "outside/b", || {
            for path in ["a/b/../file", "a/b/../../a/file"] {
                expect_inside(tree.walk(path, READ, true), &inside);
                expect_inside(tree.walk(path, PATH, true), &inside);
            }
        });
    }
}
