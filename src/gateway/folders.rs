//! Reopens the configured folders by path. Deployments replace a symbolic link or rename a folder, so each path is
//! reopened periodically and the result replaces the open folder. A file system that does not respond delays only its
//! own folder.

use std::ffi::CString;
use std::fmt;
use std::sync::Arc;

use super::endpoint::{Endpoint, Held};
use super::listener::Listener;
use super::slots::Look;
use super::{Gateway, World, tag_salt};
use crate::driver::{Driver, Errno, FileKind, Op, OpenFor, Reach};
use crate::limits::{FOLDER_LOOK_MS, FOLDER_MISSES_MAX};
use crate::observe::log::{self, Level};

/// Schedule and state of the reopening.
#[derive(Default)]
pub(super) struct Watch {
    /// When the folders are due to be reopened, in ms. None: no folder is watched.
    due_ms: Option<u64>,
    folders: Vec<Watched>,
    /// Configuration number, so that a result for an older configuration is ignored.
    epoch: u32,
}

/// A folder to reopen.
struct Watched {
    /// The listener, and the index among its endpoint's folders.
    listener: usize,
    index: usize,
    /// Whether a reopening is in flight.
    is_asked: bool,
    /// Consecutive reopenings that failed.
    misses: u32,
}

/// Why a path is unusable. Display tells the operator the remedy.
struct Remedy(Errno);

impl fmt::Display for Remedy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            Errno::ENOENT => "create it again",
            Errno::ENOTDIR => "put a folder in its place",
            Errno::EACCES => {
                "give the daemon's user search permission for it and the folders above it, or restart after a change"
            }
            Errno::EMFILE | Errno::ENFILE => "raise the limit of open files",
            _ => "see to it that it can be opened",
        })
    }
}

impl<D: Driver> Gateway<D> {
    /// Watches the folders of all current listeners and no others.
    pub(super) fn watch_folders(&mut self) {
        let mut folders = Vec::new();
        let mut seen: Vec<&Arc<Endpoint<D::Handle>>> = Vec::new();
        for (listener, Listener { endpoint, is_leaving, .. }) in &self.listeners {
            if *is_leaving || seen.iter().any(|one| Arc::ptr_eq(one, endpoint)) {
                continue;
            }
            seen.push(endpoint);
            let watched = endpoint.held().enumerate().filter(|(_, held)| !held.path.is_empty());
            folders.extend(watched.map(|(index, _)| Watched { listener, index, is_asked: false, misses: 0 }));
        }
        let due_ms = (!folders.is_empty()).then_some(self.world.now_ms + FOLDER_LOOK_MS);
        let epoch = self.watch.epoch.wrapping_add(1);
        self.watch = Watch { due_ms, folders, epoch };
    }

    /// Stops reopening.
    pub(super) fn stop_watching(&mut self) {
        self.watch.due_ms = None;
    }

    /// When to reopen the folders, in ms. None: not due, or no client is in a handshake. An idle gateway thus does not
    /// wake up; a new client finds the reopening submitted before its request.
    pub(super) fn folders_due_ms(&self) -> Option<u64> {
        self.watch.due_ms.filter(|_| self.admission.has_handshakes())
    }

    /// Submits the reopening of all folders, if due.
    pub(super) fn look_at_folders(&mut self) {
        if self.folders_due_ms().is_none_or(|due_ms| self.world.now_ms < due_ms) {
            return;
        }
        self.watch.due_ms = Some(self.world.now_ms + FOLDER_LOOK_MS);
        let epoch = self.watch.epoch;
        for (index, watched) in self.watch.folders.iter_mut().enumerate().filter(|(_, watched)| !watched.is_asked) {
            let Some(held) = held(&self.listeners, watched) else { continue };
            let World { slots, driver, .. } = &mut self.world;
            let key = slots.insert_folder(Look { index, epoch });
            watched.is_asked = true;
            driver.open(slots.token(key, Op::Open), Reach::Anywhere, searched(held), OpenFor::Connecting);
        }
    }

    /// Handles the result of reopening a folder.
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
        let held = watched.and_then(|watched| Some((held(&self.listeners, watched)?, watched)));
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

/// Path of the folder's "." entry: opening it requires search permission on the folder, as serving from it does.
fn searched<H>(held: &Held<H>) -> CString {
    // A CString contains no interior NUL.
    CString::new([held.path.to_bytes(), b"/."].concat()).unwrap_or_default()
}

fn held<'a, H>(listeners: &'a slab::Slab<Listener<H>>, watched: &Watched) -> Option<&'a Held<H>> {
    listeners.get(watched.listener)?.endpoint.held().nth(watched.index)
}
