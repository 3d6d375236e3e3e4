//! The process around it, and its children.

use std::sync::Once;
use std::sync::atomic::{AtomicI32, Ordering};

use nix::libc;

use crate::{client, cut, ledger, table};

/// The process that all that is known belongs to; 0: nothing is known yet.
static OWNER: AtomicI32 = AtomicI32::new(0);

/// Whether this is a child that shares its parent's memory (vfork(2)): what it does to its file descriptors is not
/// done to the parent's.
pub(crate) fn is_vfork_child() -> bool {
    let owner = OWNER.load(Ordering::Relaxed);
    // SAFETY: it takes nothing and cannot fail.
    owner != 0 && owner != unsafe { libc::getpid() }
}

/// Before the first client.
pub(crate) fn prepare() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        own();
        // SAFETY: the functions live as long as the library, which is never unloaded while clients are there.
        unsafe { libc::pthread_atfork(Some(before_fork), Some(cut::after_fork_in_parent), Some(in_child)) };
    });
}

fn own() {
    // SAFETY: it takes nothing and cannot fail.
    let process = unsafe { libc::getpid() };
    OWNER.store(process, Ordering::Relaxed);
}

/// Where a fork fails, its clients end without a close frame: the child is expected for ever.
extern "C" fn before_fork() {
    cut::before_fork();
    for_each_place(ledger::expect_child);
}

extern "C" fn in_child() {
    own();
    for (_, client) in table::clients() {
        client.lose();
    }
    client::lose();
    cut::in_child(table::clients().map(|(_, client)| client));
    ledger::lose();
    for_each_place(ledger::enter_child);
}

/// A client with several file descriptors has one place.
fn for_each_place(act: fn(ledger::Place)) {
    let mut places: Vec<ledger::Place> = Vec::new();
    for (_, client) in table::clients() {
        let place = client.place.try_lock().and_then(|place| *place);
        places.extend(place.filter(|place| !places.contains(place)));
    }
    places.into_iter().for_each(act);
}
