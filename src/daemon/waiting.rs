//! Retries of folders, addresses and hosts that a start or reload did not find. The log has a line when a retry begins
//! and when the resource is found.

use nix::sys::signal::kill;
use nix::unistd::Pid;

use super::hosts::{HostLookup, UNKNOWN, has_unknown};
use super::resources::{Awaited, Mode, Reusable, Waiting, open_all};
use super::{Daemon, LOADED, announce};
use crate::limits::{LOOKUP_RETRY_MS, LOOKUP_RETRY_MS_MAX, WAIT_RETRY_MS};
use crate::observe::log::{self, Level};

/// Missing resources of the running daemon.
#[derive(Default)]
pub(crate) struct Waits {
    /// Folders and addresses.
    waiting: Vec<Waiting>,
    /// Time of the next retry.
    look_ms: u64,
    /// The lookup in progress.
    lookup: Option<HostLookup>,
    /// Time of the next lookup, and the pause before it. Some only while no lookup is in progress.
    lookup_ms: Option<u64>,
    pause_ms: u64,
    /// A lookup ended during a reload: its addresses are not applied yet.
    is_behind: bool,
}

impl Waits {
    /// For the service manager.
    pub(crate) fn status(&self) -> String {
        match &self.waiting[..] {
            [] if self.lookup.is_none() && self.lookup_ms.is_none() => "serving".to_owned(),
            [] => "serving; waiting for hosts of links".to_owned(),
            [only] => format!("serving; waiting for {}", only.awaited),
            [first, more @ ..] => format!("serving; waiting for {} and {} more", first.awaited, more.len()),
        }
    }

    /// The folders and addresses.
    pub(crate) fn awaited(&self) -> Vec<Awaited> {
        self.waiting.iter().map(|waiting| waiting.awaited.clone()).collect()
    }

    /// Whether this is all that is waited for.
    fn has_all_of(&self, waiting: &[Waiting]) -> bool {
        self.waiting.iter().all(|old| waiting.iter().any(|new| new.awaited == old.awaited))
    }

    /// Time of the next action.
    fn next_ms(&self) -> Option<u64> {
        let look_ms = (!self.waiting.is_empty()).then_some(self.look_ms);
        [look_ms, self.lookup_ms].into_iter().flatten().min()
    }
}

/// Wakes the loop, which finds a lookup's answer.
pub(crate) fn wake() {
    let _ = kill(Pid::this(), LOADED);
}

impl Daemon {
    /// Notes what a configuration that was put in place waits for. `what` stands before the sentence of what was not
    /// waited for before, `end` after the name of what is waited for no longer.
    pub(super) fn wait_for(&mut self, waiting: Vec<Waiting>, what: &str, end: &str) {
        let is_in = |list: &[Waiting], awaited: &Awaited| list.iter().any(|other| other.awaited == *awaited);
        let old = std::mem::take(&mut self.waits.waiting);
        for Waiting { sentence, .. } in waiting.iter().filter(|new| !is_in(&old, &new.awaited)) {
            log::event(Level::Warn, format_args!("{what}{sentence}: it is waited for"));
        }
        for Waiting { awaited, .. } in old.iter().filter(|old| !is_in(&waiting, &old.awaited)) {
            log::event(Level::Info, format_args!("{awaited} {end}"));
        }
        self.waits.waiting = waiting;
        self.waits.look_ms = self.gateway.now_ms() + WAIT_RETRY_MS;
    }

    /// Notes what a lookup did not find, and begins the next one, now or later.
    pub(super) fn wait_for_hosts(&mut self, lookup: Option<HostLookup>) {
        // What was found for the configuration before this one is of no use.
        self.waits.is_behind = false;
        self.waits.pause_ms = LOOKUP_RETRY_MS;
        self.waits.lookup_ms = None;
        for complaint in lookup.iter().flat_map(|lookup| lookup.complaints(&self.config, UNKNOWN)) {
            log::event(Level::Warn, format_args!("{complaint}"));
        }
        self.waits.lookup = lookup;
        if has_unknown(&self.config) && self.waits.lookup.is_none() {
            self.waits.lookup_ms = Some(self.gateway.now_ms());
        }
        self.take_answers();
    }

    /// Takes what lookups have found.
    pub(super) fn take_answers(&mut self) {
        let Some(lookup) = &mut self.waits.lookup else { return };
        let (found, is_over) = lookup.take(&mut self.config);
        for line in &found {
            log::event(Level::Info, format_args!("{line}"));
        }
        if is_over {
            self.waits.lookup = None;
            if has_unknown(&self.config) {
                self.waits.lookup_ms = Some(self.gateway.now_ms() + self.waits.pause_ms);
                self.waits.pause_ms = (2 * self.waits.pause_ms).min(LOOKUP_RETRY_MS_MAX);
            }
        }
        // A reload works with the addresses that were open when it began.
        if self.loading.is_some() {
            self.waits.is_behind |= !found.is_empty();
        } else if !found.is_empty() {
            self.open_again("");
        }
    }

    /// How long the loop may wait for other events.
    pub(super) fn waits_ms(&self) -> Option<u64> {
        let at_ms = self.waits.next_ms().filter(|_| !self.is_stopping && self.loading.is_none())?;
        Some(at_ms.saturating_sub(self.gateway.now_ms()))
    }

    /// Retries what is due.
    pub(super) fn look_again(&mut self) {
        let now_ms = self.gateway.now_ms();
        // A reload works with the addresses that were open when it began.
        if self.is_stopping || self.loading.is_some() {
            return;
        }
        if self.waits.lookup_ms.is_some_and(|ms| ms <= now_ms) {
            self.waits.lookup_ms = None;
            self.waits.lookup = HostLookup::begin(&self.config, wake);
            // Where no thread could be started, nothing else tells.
            self.take_answers();
        }
        if !self.waits.waiting.is_empty() && self.waits.look_ms <= now_ms {
            self.waits.look_ms = now_ms + WAIT_RETRY_MS;
            if self.waits.waiting.iter().any(|waiting| waiting.awaited.may_be_there()) {
                self.open("", true);
            }
        }
    }

    /// After a reload that changed nothing: uses what lookups have found meanwhile.
    pub(super) fn catch_up(&mut self) {
        if std::mem::take(&mut self.waits.is_behind) {
            self.open_again("");
        }
    }

    /// Opens once more what the configuration names, without giving up anything that is open. `what` stands before the
    /// sentences of what is not there any more.
    pub(super) fn open_again(&mut self, what: &str) {
        self.open(what, false);
    }

    /// Where it `needs_gain` and nothing that is waited for could be opened, all stays as it is: those that are counted
    /// would be counted anew.
    fn open(&mut self, what: &str, needs_gain: bool) {
        let (known, inherited) = (&self.addresses()[..], &self.inherited[..]);
        let held = Reusable { known, inherited, folders: &self.folders, awaited: &[] };
        match open_all(&self.config, held, Mode::Retry) {
            Ok(opened) if needs_gain && self.waits.has_all_of(&opened.waiting) => {
                for Waiting { awaited, sentence } in opened.waiting {
                    let Some(old) = self.waits.waiting.iter_mut().find(|old| old.awaited == awaited) else { continue };
                    if old.sentence != sentence {
                        log::event(Level::Warn, format_args!("{sentence}: it is waited for"));
                        old.sentence = sentence;
                    }
                }
            }
            Ok(mut opened) => {
                announce(opened.bound.iter().chain(&opened.inherited));
                self.folders = std::mem::take(&mut opened.folders);
                self.gateway.configure(self.config.limits.clone(), opened.openings);
                self.wait_for(opened.waiting, what, "is there now");
            }
            Err(sentences) => {
                for sentence in sentences {
                    log::event(Level::Warn, format_args!("{what}{sentence}"));
                }
            }
        }
        self.tell(self.notifier.status(&self.waits.status()));
    }
}
