//! Folders that are held open, and the paths that they were opened by. Releases are deployed by turning a symbolic link
//! or by renaming a folder: each path is opened again from time to time, and what it leads to now takes the place of
//! what is held. A file system that does not answer delays its own look alone.

use std::ffi::CString;
use std::fmt;
use std::sync::Arc;

use super::entrance::{Endpoint, Entrance, Held};
use super::slots::{Look, User};
use super::{Gateway, World, tag_salt};
use crate::driver::{Driver, Errno, FileKind, Op, OpenFor, Reach};
use crate::limits::{FOLDER_LOOK_MS, FOLDER_MISSES_MAX};
use crate::observe::log::{self, Level};

/// When to look, and what the last looks found.
#[derive(Default)]
pub struct Watch {
    /// When the next look is due; None: there is nothing to look at.
    due_ms: Option<u64>,
    folders: Vec<Watched>,
    /// Counts the configurations, so that a look that outlasts its own changes nothing.
    epoch: u32,
}

/// A folder that is looked at.
struct Watched {
    /// The entrance, and which of its endpoint's folders.
    entrance: usize,
    index: usize,
    /// A look is in flight.
    is_asked: bool,
    /// Looks in a row that found nothing that can be used.
    misses: u32,
}

/// Why a path is no use. Display is the operator's remedy.
struct Remedy(Errno);

impl fmt::Display for Remedy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            Errno::ENOENT => "make it again",
            Errno::ENOTDIR => "put a folder in its place",
            Errno::EACCES => "let the daemon's user into it and into the folders above it, or restart after a change",
            Errno::EMFILE | Errno::ENFILE => "raise the limit of open files",
            _ => "see to it that it can be opened",
        })
    }
}

impl<D: Driver> Gateway<D> {
    /// Looks at the folders of the present entrances from now on, and at no others.
    pub(super) fn watch_folders(&mut self) {
        let mut folders = Vec::new();
        let mut seen: Vec<&Arc<Endpoint<D::Handle>>> = Vec::new();
        for (entrance, Entrance { endpoint, is_leaving, .. }) in &self.entrances {
            if *is_leaving || seen.iter().any(|one| Arc::ptr_eq(one, endpoint)) {
                continue;
            }
            seen.push(endpoint);
            let watched = endpoint.held().enumerate().filter(|(_, held)| !held.path.is_empty());
            folders.extend(watched.map(|(index, _)| Watched { entrance, index, is_asked: false, misses: 0 }));
        }
        let due_ms = (!folders.is_empty()).then_some(self.world.now_ms + FOLDER_LOOK_MS);
        let epoch = self.watch.epoch.wrapping_add(1);
        self.watch = Watch { due_ms, folders, epoch };
    }

    /// No more looks.
    pub(super) fn stop_watching(&mut self) {
        self.watch.due_ms = None;
    }

    /// When the folders are due to be looked at, if a client may ask for something in them. A gateway that nobody asks
    /// sleeps; a client that comes then finds the look before its request.
    pub(super) fn folders_due_ms(&self) -> Option<u64> {
        self.watch.due_ms.filter(|_| self.admission.has_handshakes())
    }

    /// Asks what the paths lead to now, if it is time.
    pub(super) fn look_at_folders(&mut self) {
        if self.folders_due_ms().is_none_or(|due_ms| self.world.now_ms < due_ms) {
            return;
        }
        self.watch.due_ms = Some(self.world.now_ms + FOLDER_LOOK_MS);
        let epoch = self.watch.epoch;
        for (index, watched) in self.watch.folders.iter_mut().enumerate().filter(|(_, watched)| !watched.is_asked) {
            let Some(held) = held(&self.entrances, watched) else { continue };
            let World { slots, driver, .. } = &mut self.world;
            let Ok(key) = slots.insert(User::Folder(Look { index, epoch })) else { continue };
            watched.is_asked = true;
            driver.open(slots.token(key, Op::Open), Reach::Anywhere, searched(held), OpenFor::Connecting);
        }
    }

    /// What a path leads to.
    pub(super) fn on_folder(&mut self, look: Look, opened: Result<(D::Handle, FileKind), Errno>) {
        let found = match opened {
            Ok((handle, FileKind::Folder)) => Ok(handle),
            Ok((handle, _)) => {
                self.world.driver.close(handle);
                Err(Errno::ENOTDIR)
            }
            Err(errno) => Err(errno),
        };
        let watched = self.watch.folders.get_mut(look.index).filter(|_| look.epoch == self.watch.epoch);
        let held = watched.and_then(|watched| Some((held(&self.entrances, watched)?, watched)));
        let driver = &mut self.world.driver;
        let Some((held, watched)) = held else {
            return found.map_or((), |handle| driver.close(handle));
        };
        watched.is_asked = false;
        let path = held.path.to_string_lossy();
        let replaced = match found {
            Ok(new) if driver.identity(&new).is_some_and(|id| driver.identity(&held.handle) != Some(id)) => {
                driver.replace(&held.handle, new).map(|()| true)
            }
            Ok(same) => {
                driver.close(same);
                Ok(false)
            }
            Err(errno) => Err(errno),
        };
        match replaced {
            Ok(is_other) => {
                let was_missed = std::mem::take(&mut watched.misses) >= FOLDER_MISSES_MAX;
                if is_other {
                    self.world.tag_salt = tag_salt();
                    log::event(Level::Info, format_args!("the folder {path} is another one now, and is served"));
                } else if was_missed {
                    log::event(Level::Info, format_args!("the folder {path} is there again"));
                }
            }
            Err(errno) => {
                watched.misses = watched.misses.saturating_add(1);
                if watched.misses == FOLDER_MISSES_MAX {
                    let (what, remedy) = (errno.desc(), Remedy(errno));
                    log::event(
                        Level::Warn,
                        format_args!("the folder {path} cannot be opened again: {what}: the old one stays: {remedy}"),
                    );
                }
            }
        }
    }
}

/// The path of the folder's own entry: opening that one needs the right to search the folder, as serving from it does.
fn searched<H>(held: &Held<H>) -> CString {
    // A CString has no NUL in it.
    CString::new([held.path.to_bytes(), b"/."].concat()).unwrap_or_default()
}

fn held<'a, H>(entrances: &'a slab::Slab<Entrance<H>>, watched: &Watched) -> Option<&'a Held<H>> {
    entrances.get(watched.entrance)?.endpoint.held().nth(watched.index)
}
