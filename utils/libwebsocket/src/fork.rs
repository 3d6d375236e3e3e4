//! fork(2): what happens to locks, clients and the ledger in the child.

use std::sync::Once;

use nix::libc;

use crate::{client, cut_timer, ledger, table};

/// Called before the first client: registers the fork handlers.
pub(crate) fn prepare() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        table::own();
        // SAFETY: the functions live as long as the library, which is never unloaded.
        unsafe { libc::pthread_atfork(Some(before_fork), Some(cut_timer::after_fork_in_parent), Some(in_child)) };
    });
}

/// If the fork fails, its clients end without a close frame: the ledger waits for the child forever.
extern "C" fn before_fork() {
    cut_timer::before_fork();
    for_each_place(ledger::expect_child);
}

extern "C" fn in_child() {
    table::own();
    for (_, client) in table::clients() {
        client.lose();
    }
    client::lose();
    cut_timer::in_child(table::clients().map(|(_, client)| client));
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
