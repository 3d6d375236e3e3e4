//! fork(2) and vfork(2): what happens to locks, clients and the ledger in the child.

use std::sync::Once;
use std::sync::atomic::{AtomicI32, Ordering};

use nix::libc;

use crate::{client, cut, ledger, table};

/// The process that owns the library's state; 0: no client yet.
static OWNER: AtomicI32 = AtomicI32::new(0);

/// Whether this is a vfork(2) child, which shares its parent's memory but has descriptors of its own.
pub(crate) fn is_vfork_child() -> bool {
    let owner = OWNER.load(Ordering::Relaxed);
    // SAFETY: getpid(2) takes no argument and cannot fail.
    owner != 0 && owner != unsafe { libc::getpid() }
}

/// Called before the first client: registers the fork handlers.
pub(crate) fn prepare() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        own();
        // SAFETY: the functions live as long as the library, which is never unloaded.
        unsafe { libc::pthread_atfork(Some(before_fork), Some(cut::after_fork_in_parent), Some(in_child)) };
    });
}

fn own() {
    // SAFETY: getpid(2) takes no argument and cannot fail.
    let process = unsafe { libc::getpid() };
    OWNER.store(process, Ordering::Relaxed);
}

/// If the fork fails, its clients end without a close frame: the ledger expects the child for ever.
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

/// Calls `act` once for each client, however many descriptors it has.
fn for_each_place(act: fn(ledger::Place)) {
    let mut places: Vec<ledger::Place> = Vec::new();
    for (_, client) in table::clients() {
        let place = client.place.try_lock().and_then(|place| *place);
        places.extend(place.filter(|place| !places.contains(place)));
    }
    places.into_iter().for_each(act);
}
