//! inotify(7) watches of files, whatever leads to them: links, links of folders, folders that are replaced.

use std::collections::{HashMap, VecDeque};
use std::ffi::{OsStr, OsString};
use std::fs;
use std::mem;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Component, Path, PathBuf};

use nix::errno::Errno;
use nix::libc;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify, WatchDescriptor};

use crate::limits::{INOTIFY_READS_MAX, OPEN_LINKS_MAX};

/// A folder on a path: whether it is moved or removed itself.
const OF_FOLDER: AddWatchFlags = AddWatchFlags::IN_DELETE_SELF.union(AddWatchFlags::IN_MOVE_SELF);
/// A folder with a link or a file of a path: also whether this entry is replaced or written to.
const OF_ENTRIES: AddWatchFlags = OF_FOLDER
    .union(AddWatchFlags::IN_CREATE)
    .union(AddWatchFlags::IN_DELETE)
    .union(AddWatchFlags::IN_MOVE)
    .union(AddWatchFlags::IN_MODIFY)
    .union(AddWatchFlags::IN_CLOSE_WRITE)
    .union(AddWatchFlags::IN_ATTRIB);

/// An inotify instance. Threads place watches while the event loop reads events.
pub(crate) struct FileEvents(Inotify);

/// Watched folders, and the names in each that matter. A folder without names matters itself.
#[derive(Default)]
pub(crate) struct FileWatches {
    names: HashMap<WatchDescriptor, Vec<OsString>>,
    /// Why not everything is watched. None: everything is.
    pub(crate) fault: Option<Errno>,
}

impl FileEvents {
    /// Without watches.
    pub(crate) fn new() -> Result<FileEvents, Errno> {
        Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC).map(FileEvents)
    }

    /// For a poll.
    pub(crate) fn descriptor(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }

    /// FileWatches all files with these paths. What changes after this call is an event, even if it is read later. May wait
    /// for a file system.
    pub(crate) fn watch<'a>(&self, paths: impl Iterator<Item = &'a str>) -> FileWatches {
        let mut watches = FileWatches::default();
        for path in paths {
            match std::path::absolute(path) {
                Ok(path) => self.watch_path(&path, &mut watches),
                Err(_) => watches.fault = watches.fault.or(Some(Errno::ENOENT)),
            }
        }
        watches
    }

    /// FileWatches a folder before it looks into it, from the root on, so that no change is missed.
    fn watch_path(&self, path: &Path, watches: &mut FileWatches) {
        let mut folder = PathBuf::from("/");
        let mut rest: VecDeque<OsString> = path.components().filter_map(normal).collect();
        let mut links = 0;
        while let Some(name) = rest.pop_front() {
            if name == ".." {
                folder.pop();
                continue;
            }
            let path = folder.join(&name);
            let is_folder = |path: &Path| fs::symlink_metadata(path).is_ok_and(|status| status.is_dir());
            if !rest.is_empty() && is_folder(&path) && self.add(&path, None, watches) {
                folder = path;
                continue;
            }
            self.add(&folder, Some(&name), watches);
            match fs::read_link(&path) {
                Ok(target) if links < OPEN_LINKS_MAX => {
                    links += 1;
                    if target.is_absolute() {
                        folder = PathBuf::from("/");
                    }
                    let target = target.components().filter_map(normal);
                    rest = target.chain(mem::take(&mut rest)).collect();
                }
                Ok(_) => return,
                // It became a folder, or this user may not watch it.
                Err(_) if !rest.is_empty() && is_folder(&path) => folder = path,
                Err(_) => return,
            }
        }
    }

    /// FileWatches a folder, or with `name` an entry of it. False: that failed.
    fn add(&self, folder: &Path, name: Option<&OsStr>, watches: &mut FileWatches) -> bool {
        let what = if name.is_some() { OF_ENTRIES } else { OF_FOLDER };
        // The kernel joins the masks of all watches of a folder.
        let how = AddWatchFlags::from_bits_retain(libc::IN_MASK_ADD);
        let flags = what | how | AddWatchFlags::IN_ONLYDIR | AddWatchFlags::IN_DONT_FOLLOW;
        match self.0.add_watch(folder, flags) {
            Ok(watch) => {
                let names = watches.names.entry(watch).or_default();
                names.extend(name.filter(|name| !names.iter().any(|known| known == name)).map(OsStr::to_owned));
                true
            }
            Err(errno) => {
                // A lack of watches is what an operator can correct.
                if errno == Errno::ENOSPC || watches.fault.is_none() {
                    watches.fault = Some(errno);
                }
                false
            }
        }
    }

    /// Whether something has changed since the last call, according to these watches. `knows_all`: other watches do not
    /// matter.
    pub(crate) fn take(&self, watches: &FileWatches, knows_all: bool) -> bool {
        let mut has_changed = false;
        for _ in 0..INOTIFY_READS_MAX {
            let Ok(events) = self.0.read_events() else { break };
            for event in events {
                has_changed |= match (watches.names.get(&event.wd), &event.name) {
                    _ if event.mask.contains(AddWatchFlags::IN_Q_OVERFLOW) => true,
                    (Some(names), Some(name)) => names.contains(name),
                    (Some(_), None) => true,
                    // The end of a watch that was removed.
                    (None, _) if event.mask.contains(AddWatchFlags::IN_IGNORED) => false,
                    (None, _) => !knows_all,
                };
            }
        }
        has_changed
    }

    /// Removes the watches of `old` that `new` does not have.
    pub(crate) fn forget(&self, old: &FileWatches, new: &FileWatches) {
        for watch in old.names.keys().filter(|watch| !new.names.contains_key(watch)) {
            // The kernel has removed it already if the folder is gone.
            let _ = self.0.rm_watch(*watch);
        }
    }
}

/// A component that is to be looked up. `std::path` drops "." itself.
fn normal(component: Component<'_>) -> Option<OsString> {
    match component {
        Component::Normal(_) | Component::ParentDir => Some(component.as_os_str().to_owned()),
        Component::Prefix(_) | Component::RootDir | Component::CurDir => None,
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    /// `live/current/name` leads through two links to `data/one/file`.
    fn lay() -> PathBuf {
        let root = nix::unistd::mkdtemp(&std::env::temp_dir().join("uakari-events-XXXXXX")).unwrap();
        for folder in ["live", "data/one", "data/two"] {
            fs::create_dir_all(root.join(folder)).unwrap();
        }
        fs::write(root.join("data/one/file"), "").unwrap();
        fs::write(root.join("data/two/file"), "").unwrap();
        symlink("../data/one", root.join("live/current")).unwrap();
        symlink("./file", root.join("data/one/name")).unwrap();
        root
    }

    #[test]
    fn what_changes_a_file_is_an_event() {
        type Change = fn(&Path);
        let cases: [(&str, bool, Change); 14] = [
            ("nothing", false, |_| ()),
            ("the file is read", false, |root| drop(fs::read(root.join("live/current/name")).unwrap())),
            ("another file in its folder", false, |root| fs::write(root.join("data/one/other"), "").unwrap()),
            ("a file in a folder on the path", false, |root| fs::write(root.join("data/other"), "").unwrap()),
            ("another link", false, |root| symlink("nowhere", root.join("live/other")).unwrap()),
            ("written to", true, |root| fs::write(root.join("data/one/file"), "new").unwrap()),
            ("replaced", true, |root| fs::rename(root.join("data/two/file"), root.join("data/one/file")).unwrap()),
            ("removed", true, |root| fs::remove_file(root.join("data/one/file")).unwrap()),
            ("the last link", true, |root| fs::remove_file(root.join("data/one/name")).unwrap()),
            ("the link of the folder", true, |root| {
                symlink("../data/two", root.join("live/next")).unwrap();
                fs::rename(root.join("live/next"), root.join("live/current")).unwrap();
            }),
            ("its folder", true, |root| fs::rename(root.join("data/one"), root.join("data/old")).unwrap()),
            ("a folder above", true, |root| fs::rename(root.join("data"), root.join("old")).unwrap()),
            ("the folder of links", true, |root| fs::rename(root.join("live"), root.join("old")).unwrap()),
            ("its mode", true, |root| {
                let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
                fs::set_permissions(root.join("data/one/file"), mode).unwrap();
            }),
        ];
        for (case, is_event, change) in cases {
            let root = lay();
            let events = FileEvents::new().unwrap();
            let path = root.join("live/../live/./current/name");
            let watches = events.watch([path.to_str().unwrap()].into_iter());
            assert_eq!(watches.fault, None, "{case}");
            change(&root);
            assert_eq!(events.take(&watches, true), is_event, "{case}");
            assert!(!events.take(&watches, true), "{case}: taken");
            fs::remove_dir_all(&root).unwrap();
        }
    }

    /// A missing file or folder that appears is an event. A loop of links ends.
    #[test]
    fn missing_files_are_watched() {
        let root = lay();
        symlink("loop", root.join("loop")).unwrap();
        let events = FileEvents::new().unwrap();
        let paths = ["missing", "more/missing", "loop/file"].map(|name| root.join(name).to_str().unwrap().to_owned());
        let watches = events.watch(paths.iter().map(String::as_str));
        for name in ["missing", "more"] {
            fs::create_dir(root.join(name)).unwrap();
            assert!(events.take(&watches, true), "{name}");
        }
        fs::create_dir(root.join("unrelated")).unwrap();
        assert!(!events.take(&watches, true));
        fs::remove_dir_all(&root).unwrap();
    }

    /// A look that is not over yet may have placed watches that are unknown; removed ones do not matter.
    #[test]
    fn unknown_watches() {
        let root = lay();
        let events = FileEvents::new().unwrap();
        let watches = events.watch([root.join("data/one/file").to_str().unwrap()].into_iter());
        fs::write(root.join("data/one/file"), "new").unwrap();
        assert!(!events.take(&FileWatches::default(), true));
        fs::write(root.join("data/one/file"), "new").unwrap();
        assert!(events.take(&FileWatches::default(), false));
        events.forget(&watches, &FileWatches::default());
        fs::write(root.join("data/one/file"), "new").unwrap();
        assert!(!events.take(&FileWatches::default(), false), "no watch is left");
        fs::remove_dir_all(&root).unwrap();
    }
}
