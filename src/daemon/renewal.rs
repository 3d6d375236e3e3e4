//! Certificates that change while the daemon runs. inotify(7) reports a change, a thread reads the files when they are
//! quiet, and new handshakes use the new identity. A pair that does not match yet is tried again. A regular look finds
//! what inotify cannot see, such as changes on a file server.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, TryRecvError, channel};

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags};

use super::Daemon;
use super::addresses::AddressEvents;
use super::certificates::{Certificates, ReadAgain};
use super::file_events::{FileEvents, FileWatches};
use super::retries::wake;
use super::self_signed;
use crate::config::TextSetting;
use crate::driver::{Errno, unix_s};
use crate::limits::{
    TLS_DATES_MS, TLS_LOOK_MS, TLS_QUIET_MS, TLS_QUIET_MS_MAX, TLS_RETRY_MS, TLS_RETRY_MS_MAX, TLS_UNWATCHED_LOOK_MS,
};
use crate::observe::log::{self, Level};

/// The look at the files, and when the next one begins. Times are those of the event loop.
#[derive(Default)]
pub(crate) struct Renewal {
    /// None: no server has TLS, or inotify is not available.
    events: Option<Arc<FileEvents>>,
    watches: FileWatches,
    /// Events of the host's addresses. None: no certificate depends on them, or rtnetlink(7) is not available.
    addresses: Option<AddressEvents>,
    /// When to run uakari-ca besides the daily run: the addresses have changed, or the last run failed. None: not.
    issue_ms: Option<u64>,
    /// Its failures that were logged since the last success, and within a day.
    failures: Vec<String>,
    /// It was logged that there are no events of addresses.
    is_netlink_missing: bool,
    /// When to look. None: no server has TLS.
    look_ms: Option<u64>,
    /// When the first change was reported that no look has begun after.
    changed_ms: Option<u64>,
    /// The look in progress.
    looking: Option<Receiver<Look>>,
    /// The look in progress is for an earlier configuration.
    is_outdated: bool,
    /// Since when looks fail. None: the last one did not, or its failure was reported.
    failing_ms: Option<u64>,
    /// The errors that were reported.
    reported: Vec<String>,
    /// When the dates of the certificates were checked, in seconds since 1970.
    dates_s: u64,
    /// The error of the watches that was reported.
    fault: Option<Errno>,
}

/// The result of a look.
struct Look {
    /// FileWatches of this instance.
    events: Option<Arc<FileEvents>>,
    watches: FileWatches,
    /// The servers with TLS.
    servers: Vec<ReadAgain>,
    /// The failures of uakari-ca. None: it did not run.
    failures: Option<Vec<String>>,
}

impl Look {
    /// Renews the certificates of these authorities if that is due, watches the files, then reads them.
    fn at(certificates: &Certificates, events: Option<Arc<FileEvents>>, authorities: Option<&[TextSetting]>) -> Look {
        let failures = authorities.map(self_signed::renew);
        let watches = events.as_ref().map(|events| events.watch(certificates.paths())).unwrap_or_default();
        Look { events, watches, servers: certificates.read_again(), failures }
    }
}

impl Renewal {
    /// When the next look begins. None: no server has TLS.
    fn due_ms(&self) -> Option<u64> {
        let look_ms = self.look_ms?;
        Some(self.issue_ms.map_or(look_ms, |issue_ms| issue_ms.min(look_ms)))
    }

    /// Schedules the next run of uakari-ca after one with these failures. That for a change of the addresses stays.
    fn end_run(&mut self, failures: Vec<String>, now_ms: u64) {
        if !failures.is_empty() {
            self.issue_ms.get_or_insert(now_ms + TLS_LOOK_MS);
        }
        self.failures = failures;
    }
}

impl Daemon {
    /// Begins to look at the files of a new configuration, if it has any. `known` are errors that were reported already,
    /// `failures` those of uakari-ca.
    pub(super) fn begin_renewal(&mut self, known: Vec<String>, failures: Vec<String>) {
        let now_ms = self.gateway.now_ms();
        let renewal = &mut self.renewal;
        renewal.is_outdated = renewal.looking.is_some();
        (renewal.changed_ms, renewal.failing_ms, renewal.fault) = (None, None, None);
        renewal.reported = known;
        renewal.end_run(failures, now_ms);
        renewal.dates_s = unix_s();
        renewal.look_ms = (!self.certificates.is_empty()).then_some(now_ms);
        let depends_on_addresses = !self_signed::authorities_of(&self.config).is_empty();
        let fits = renewal.look_ms.is_some() && renewal.addresses.is_some() == depends_on_addresses;
        // The kernel ends the watches of a closed instance.
        if !fits && (renewal.events.take().is_some() | renewal.addresses.take().is_some()) {
            renewal.watches = FileWatches::default();
            // It is registered, so this cannot fail.
            let _ = self.gateway.watch_files(None);
        }
    }

    /// Opens the events that are not open: of the files, and of the addresses if certificates depend on them.
    fn open_events(&mut self) {
        let depends_on_addresses = !self_signed::authorities_of(&self.config).is_empty();
        let had_addresses = self.renewal.addresses.is_some();
        if depends_on_addresses && !had_addresses {
            match AddressEvents::new() {
                Ok(addresses) => self.renewal.addresses = Some(addresses),
                Err(errno) if !std::mem::replace(&mut self.renewal.is_netlink_missing, true) => {
                    let what = "changes of this host's addresses are noticed once a day only";
                    log::event(Level::Warn, format_args!("{what}: {}: allow netlink(7) sockets", errno.desc()));
                }
                Err(_) => {}
            }
        }
        let events = FileEvents::new();
        // The addresses are watched without the files too.
        if events.is_ok() || self.renewal.addresses.is_some() != had_addresses {
            let descriptors = events.iter().map(FileEvents::descriptor);
            // A set of epoll(7) is readable when one of its descriptors is.
            let set = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).and_then(|set| {
                for descriptor in descriptors.chain(self.renewal.addresses.iter().map(AddressEvents::descriptor)) {
                    set.add(descriptor, EpollEvent::new(EpollFlags::EPOLLIN, 0))?;
                }
                Ok(set.0)
            });
            if let Err(errno) = set.and_then(|set| self.gateway.watch_files(Some(set))) {
                self.renewal.addresses = None;
                return self.report_fault(errno);
            }
        }
        match events {
            Ok(events) => self.renewal.events = Some(Arc::new(events)),
            Err(errno) => self.report_fault(errno),
        }
    }

    fn report_fault(&mut self, errno: Errno) {
        let remedy = match errno {
            Errno::EMFILE => "raise fs.inotify.max_user_instances (sysctl), or the limit of open files",
            Errno::ENOSPC => "raise fs.inotify.max_user_watches (sysctl)",
            // A folder that this user may not read, or a file that does not exist, which is reported elsewhere.
            _ if self.renewal.events.is_some() => return,
            _ => "allow inotify(7)",
        };
        if self.renewal.fault.replace(errno) != Some(errno) {
            let seconds = TLS_UNWATCHED_LOOK_MS / 1000;
            let what = format!("certificate files cannot be watched, and are read every {seconds} s instead");
            log::event(Level::Warn, format_args!("{what}: {}: {remedy}", errno.desc()));
        }
    }

    /// How long the loop may wait for other events. None: no look is due.
    pub(super) fn renewal_wait_ms(&self) -> Option<u64> {
        let is_free = !self.is_stopping && self.loading.is_none() && self.renewal.looking.is_none();
        let at_ms = self.renewal.due_ms().filter(|_| is_free)?;
        Some(at_ms.saturating_sub(self.gateway.now_ms()))
    }

    /// Handles changes of files, and looks at them if that is due.
    pub(super) fn renew_due(&mut self) {
        let now_ms = self.gateway.now_ms();
        let renewal = &mut self.renewal;
        let mut has_changed = false;
        if self.gateway.take_changed_files() {
            if let Some(events) = &renewal.events {
                has_changed = events.take(&renewal.watches, renewal.looking.is_none());
            }
            if renewal.addresses.as_mut().is_some_and(AddressEvents::take) {
                let quiet_ms = now_ms + TLS_QUIET_MS;
                renewal.issue_ms = Some(renewal.issue_ms.map_or(quiet_ms, |ms| ms.min(quiet_ms)));
            }
        }
        if has_changed {
            let first_ms = *renewal.changed_ms.get_or_insert(now_ms);
            renewal.look_ms = Some((now_ms + TLS_QUIET_MS).min(first_ms + TLS_QUIET_MS_MAX));
            // What was reported before may have changed.
            renewal.failing_ms = None;
            renewal.reported.clear();
        }
        let is_free = !self.is_stopping && self.loading.is_none() && renewal.looking.is_none();
        if is_free && renewal.due_ms().is_some_and(|ms| ms <= now_ms) {
            self.look();
        }
    }

    fn look(&mut self) {
        let now_s = unix_s();
        let now_ms = self.gateway.now_ms();
        let mut must_issue = self.renewal.issue_ms.is_some_and(|ms| ms <= now_ms);
        // The clock may have been set.
        if now_s.abs_diff(self.renewal.dates_s) >= TLS_DATES_MS / 1000 {
            self.renewal.dates_s = now_s;
            must_issue = true;
            self.renewal.failures.clear();
            for warning in self.certificates.dated_warnings(now_s) {
                log::event(Level::Warn, format_args!("{warning}"));
            }
        }
        if self.renewal.events.is_none() {
            self.open_events();
        }
        let renewal = &mut self.renewal;
        renewal.changed_ms = None;
        renewal.look_ms = Some(now_ms + TLS_UNWATCHED_LOOK_MS);
        if must_issue {
            renewal.issue_ms = None;
        }
        let (sender, receiver) = channel();
        let (certificates, events) = (self.certificates.clone(), renewal.events.clone());
        let authorities = must_issue.then(|| self_signed::authorities_of(&self.config));
        let thread = std::thread::Builder::new().name("certificates".to_owned()).spawn(move || {
            // The receiver lives as long as the daemon.
            let _ = sender.send(Look::at(&certificates, events, authorities.as_deref()));
            wake();
        });
        match thread {
            Ok(_) => renewal.looking = Some(receiver),
            Err(error) => {
                log::event(Level::Error, format_args!("certificates cannot be read again: {error}"));
                renewal.issue_ms = must_issue.then_some(now_ms + TLS_UNWATCHED_LOOK_MS);
            }
        }
    }

    /// Applies the result of a look.
    pub(super) fn end_look(&mut self) {
        let look = match self.renewal.looking.as_ref().map(Receiver::try_recv) {
            None | Some(Err(TryRecvError::Empty)) => return,
            Some(Err(TryRecvError::Disconnected)) => None,
            Some(Ok(look)) => Some(look),
        };
        let renewal = &mut self.renewal;
        renewal.looking = None;
        let is_outdated = std::mem::take(&mut renewal.is_outdated);
        let Some(Look { events, watches, servers, failures }) = look else { return };
        if let Some(failures) = failures {
            for failure in failures.iter().filter(|failure| !renewal.failures.contains(failure)) {
                log::event(Level::Error, format_args!("{failure}"));
            }
            renewal.end_run(failures, self.gateway.now_ms());
        }
        let mut is_watched = false;
        if let (Some(own), Some(events)) = (&renewal.events, events)
            && Arc::ptr_eq(own, &events)
        {
            events.forget(&renewal.watches, &watches);
            renewal.watches = watches;
            is_watched = renewal.watches.fault.is_none();
        }
        if let Some(errno) = self.renewal.watches.fault {
            self.report_fault(errno);
        }
        if !is_outdated {
            let errors = self.apply(servers);
            self.schedule_look(errors, is_watched);
        }
    }

    /// Uses new identities. Returns the errors.
    fn apply(&mut self, servers: Vec<ReadAgain>) -> Vec<String> {
        let mut errors = Vec::new();
        for read in servers {
            match self.certificates.renew(read) {
                Ok(None) => {}
                Ok(Some((line, warnings))) => {
                    log::event(Level::Info, format_args!("{line}"));
                    for warning in warnings {
                        log::event(Level::Warn, format_args!("{warning}"));
                    }
                }
                Err(more) => errors.extend(more),
            }
        }
        errors
    }

    /// Schedules the next look: soon if the last one failed, since files are replaced one after the other.
    fn schedule_look(&mut self, errors: Vec<String>, is_watched: bool) {
        let (now_ms, renewal) = (self.gateway.now_ms(), &mut self.renewal);
        let mut pause_ms = if is_watched { TLS_LOOK_MS } else { TLS_UNWATCHED_LOOK_MS };
        if errors.is_empty() || errors == renewal.reported {
            renewal.failing_ms = None;
            renewal.reported = errors;
        } else if now_ms < *renewal.failing_ms.get_or_insert(now_ms) + TLS_RETRY_MS_MAX {
            pause_ms = TLS_RETRY_MS;
        } else {
            for error in errors.iter().filter(|error| !renewal.reported.contains(error)) {
                log::event(Level::Error, format_args!("{error}: the old certificate stays in use"));
            }
            renewal.failing_ms = None;
            renewal.reported = errors;
        }
        // A change during the look has scheduled another one.
        if renewal.changed_ms.is_none() {
            renewal.look_ms = Some(now_ms + pause_ms);
        }
    }
}
