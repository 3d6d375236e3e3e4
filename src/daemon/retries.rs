//! Retries of folders, addresses and hosts that were missing at a start or reload. The log has a line when a resource
//! is missing and when it is found.

use nix::sys::signal::kill;
use nix::unistd::Pid;

use super::hosts::{HostLookup, Refresh, UNKNOWN, has_names, has_unknown};
use super::resources::{MissingResource, Mode, ResourceName, Reusable, open_all};
use super::{Daemon, LOADED, announce};
use crate::limits::{LOOKUP_AGAIN_MS, LOOKUP_RETRY_MS, LOOKUP_RETRY_MS_MAX, WAIT_RETRY_MS};
use crate::observe::log::{self, Level};

/// Missing resources of the running daemon, and when to look for them again. Times are those of the event loop.
#[derive(Default)]
pub(crate) struct Retries {
    /// Folders and addresses.
    missing: Vec<MissingResource>,
    /// Time of the next attempt to open them.
    open_ms: u64,
    /// The lookup in progress.
    lookup: Option<HostLookup>,
    /// Time of the next lookup. None while a lookup is in progress, or if no host is unknown.
    lookup_ms: Option<u64>,
    /// The pause before the next lookup.
    lookup_pause_ms: u64,
    /// The lookups of hosts of nodes that were resolved before.
    refresh: Refresh,
    /// Time of the next of these lookups. None: no node has a name.
    refresh_ms: Option<u64>,
    /// Hosts of links were resolved during a reload, and their addresses are not in use yet.
    has_unused_addresses: bool,
}

impl Retries {
    /// The status text for the service manager.
    pub(crate) fn status(&self) -> String {
        match &self.missing[..] {
            [] if self.lookup.is_none() && self.lookup_ms.is_none() => "serving".to_owned(),
            [] => "serving; waiting for hosts of links".to_owned(),
            [only] => format!("serving; waiting for {}", only.name),
            [first, more @ ..] => format!("serving; waiting for {} and {} more", first.name, more.len()),
        }
    }

    /// The missing folders and addresses.
    pub(crate) fn names(&self) -> Vec<ResourceName> {
        self.missing.iter().map(|missing| missing.name.clone()).collect()
    }

    /// Whether `missing` includes all resources that were missing before.
    fn are_all_in(&self, missing: &[MissingResource]) -> bool {
        self.missing.iter().all(|old| missing.iter().any(|new| new.name == old.name))
    }

    /// Time of the next attempt or lookup. None: nothing is missing.
    fn next_ms(&self) -> Option<u64> {
        let open_ms = (!self.missing.is_empty()).then_some(self.open_ms);
        [open_ms, self.lookup_ms, self.refresh_ms].into_iter().flatten().min()
    }
}

/// Wakes the loop, which then applies the answers of a lookup.
pub(crate) fn wake() {
    let _ = kill(Pid::this(), LOADED);
}

impl Daemon {
    /// Replaces the list of missing resources, and logs the difference: a warning for each new one; the name and `end`
    /// for each one that is not missing any more.
    pub(super) fn set_missing(&mut self, missing: Vec<MissingResource>, end: &str) {
        let is_in = |list: &[MissingResource], name: &ResourceName| list.iter().any(|other| other.name == *name);
        let old = std::mem::take(&mut self.retries.missing);
        for MissingResource { sentence, .. } in missing.iter().filter(|new| !is_in(&old, &new.name)) {
            log::event(Level::Warn, format_args!("{sentence}: waiting for it"));
        }
        for MissingResource { name, .. } in old.iter().filter(|old| !is_in(&missing, &old.name)) {
            log::event(Level::Info, format_args!("{name} {end}"));
        }
        self.retries.missing = missing;
        self.retries.open_ms = self.gateway.now_ms() + WAIT_RETRY_MS;
    }

    /// Takes over a lookup, logs the hosts that it has not resolved, and schedules the next lookup.
    pub(super) fn set_lookup(&mut self, lookup: Option<HostLookup>) {
        // Addresses that were found for the previous configuration are dropped with it.
        self.retries.has_unused_addresses = false;
        self.retries.lookup_pause_ms = LOOKUP_RETRY_MS;
        self.retries.lookup_ms = None;
        for complaint in lookup.iter().flat_map(|lookup| lookup.complaints(&self.config, UNKNOWN)) {
            log::event(Level::Warn, format_args!("{complaint}"));
        }
        self.retries.lookup = lookup;
        if has_unknown(&self.config) && self.retries.lookup.is_none() {
            self.retries.lookup_ms = Some(self.gateway.now_ms());
        }
        let refresh_ms = self.retries.refresh_ms.unwrap_or(self.gateway.now_ms() + LOOKUP_AGAIN_MS);
        self.retries.refresh_ms = has_names(&self.config).then_some(refresh_ms);
        self.apply_answers();
    }

    /// Applies the answers of the lookups.
    pub(super) fn apply_answers(&mut self) {
        for (level, line) in self.retries.refresh.take(&self.config) {
            log::event(level, format_args!("{line}"));
        }
        let Some(lookup) = &mut self.retries.lookup else { return };
        let found = lookup.take(&mut self.config);
        for line in &found.lines {
            log::event(Level::Info, format_args!("{line}"));
        }
        if found.is_over {
            self.retries.lookup = None;
            if has_unknown(&self.config) {
                self.retries.lookup_ms = Some(self.gateway.now_ms() + self.retries.lookup_pause_ms);
                self.retries.lookup_pause_ms = (2 * self.retries.lookup_pause_ms).min(LOOKUP_RETRY_MS_MAX);
            }
        }
        // A reload relies on the listeners that existed when it began.
        if self.loading.is_some() {
            self.retries.has_unused_addresses |= found.is_of_link;
        } else if found.is_of_link {
            self.open_again(false);
        }
    }

    /// How long the loop may wait for other events. None: no retry is scheduled.
    pub(super) fn retry_wait_ms(&self) -> Option<u64> {
        let at_ms = self.retries.next_ms().filter(|_| !self.is_stopping && self.loading.is_none())?;
        Some(at_ms.saturating_sub(self.gateway.now_ms()))
    }

    /// Starts the attempts and lookups that are due.
    pub(super) fn retry_due(&mut self) {
        let now_ms = self.gateway.now_ms();
        // A reload relies on the listeners that existed when it began.
        if self.is_stopping || self.loading.is_some() {
            return;
        }
        if self.retries.lookup_ms.is_some_and(|ms| ms <= now_ms) {
            self.retries.lookup_ms = None;
            self.retries.lookup = HostLookup::begin(&self.config, wake);
            // If no thread could be started, there is no wake-up.
            self.apply_answers();
        }
        if self.retries.refresh_ms.is_some_and(|ms| ms <= now_ms) {
            self.retries.refresh_ms = Some(now_ms + LOOKUP_AGAIN_MS);
            self.retries.refresh.begin(&self.config, wake);
        }
        if !self.retries.missing.is_empty() && self.retries.open_ms <= now_ms {
            self.retries.open_ms = now_ms + WAIT_RETRY_MS;
            if self.retries.missing.iter().any(|missing| missing.name.may_be_there()) {
                self.open_again(true);
            }
        }
    }

    /// After a failed reload: uses the addresses that were resolved meanwhile.
    pub(super) fn use_resolved(&mut self) {
        if std::mem::take(&mut self.retries.has_unused_addresses) {
            self.open_again(false);
        }
    }

    /// Opens the resources of the configuration again, and keeps those that are open. With `needs_gain`, changes nothing
    /// unless a missing resource could be opened: new endpoints would count their clients from zero.
    pub(super) fn open_again(&mut self, needs_gain: bool) {
        let (known, inherited) = (&self.addresses()[..], &self.inherited[..]);
        let held = Reusable { known, inherited, folders: &self.folders, missing: &[] };
        match open_all(&self.config, &self.certificates, held, Mode::Retry) {
            Ok(opened) if needs_gain && self.retries.are_all_in(&opened.missing) => {
                for MissingResource { name, sentence } in opened.missing {
                    let Some(old) = self.retries.missing.iter_mut().find(|old| old.name == name) else { continue };
                    if old.sentence != sentence {
                        log::event(Level::Warn, format_args!("{sentence}: waiting for it"));
                        old.sentence = sentence;
                    }
                }
            }
            Ok(mut opened) => {
                announce(opened.bound.iter().chain(&opened.inherited));
                self.folders = std::mem::take(&mut opened.folders);
                self.gateway.configure(self.config.limits.clone(), opened.setups);
                self.set_missing(opened.missing, "is available now");
            }
            Err(sentences) => {
                for sentence in sentences {
                    log::event(Level::Warn, format_args!("{sentence}"));
                }
            }
        }
        self.tell(self.notifier.status(&self.retries.status()));
    }
}
