//! Permanent loss of root privileges (capabilities(7), setuid(2), prctl(2)).

use std::ffi::CString;
use std::fmt;

use caps::{CapSet, Capability, CapsHashSet};
use nix::errno::Errno;
use nix::sys::prctl;
use nix::unistd::{Uid, User, getresuid, initgroups, setgid, setuid};

use crate::types::ListenAddress;

/// Why privileges could not be dropped. Display names the user and the remedy.
#[derive(Debug)]
pub enum PrivilegeError {
    /// The system has no such user.
    UnknownUser(String),
    /// The user database could not be read.
    Lookup(String, Errno),
    /// The process may not become this user.
    NotPermitted(String),
    /// A system call failed unexpectedly.
    Failed(&'static str, String),
    /// All calls succeeded, but root privileges could be regained.
    NotForGood(String),
}

impl fmt::Display for PrivilegeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PrivilegeError::UnknownUser(user) => {
                write!(f, "there is no user {user:?}: name one of /etc/passwd")
            }
            PrivilegeError::Lookup(user, errno) => {
                write!(f, "the user {user} cannot be looked up: {}: see that /etc/passwd can be read", errno.desc())
            }
            PrivilegeError::NotPermitted(user) => {
                write!(f, "this process may not become the user {user}: start it as root or as {user}, or name no user")
            }
            PrivilegeError::Failed(step, cause) => {
                write!(f, "cannot {step}: {cause}: allow it in the container's or the service's settings")
            }
            PrivilegeError::NotForGood(user) => {
                write!(f, "the process became the user {user} and could still go back to root: start it as {user}")
            }
        }
    }
}

/// Becomes this user permanently: sets groups and user, and drops all capabilities but CAP_NET_BIND_SERVICE. That one
/// is kept only with `keeps_binding`, so that a port below 1024 can be bound again. A process that is this user already
/// keeps its groups. Root that stays root keeps its capabilities.
///
/// Privileges belong to threads: call this before a second thread exists, and before the ring is created, whose workers
/// have the privileges of their creator.
pub fn drop_to(user: &str, keeps_binding: bool) -> Result<(), PrivilegeError> {
    let account = account(user)?;
    harden()?;
    if !is_already(account.uid)? {
        // While the process still has the capability to do so.
        empty_bounding_set()?;
        keep_capabilities(keeps_binding)?;
        become_account(&account)?;
        keep_capabilities(false)?;
    }
    if account.uid.is_root() {
        return Ok(());
    }
    limit_capabilities(keeps_binding)?;
    // Verified, not assumed. Since harden() execve(2) cannot add privileges.
    if setuid(Uid::from_raw(0)).is_ok() {
        return Err(PrivilegeError::NotForGood(user.to_owned()));
    }
    Ok(())
}

/// The account of a user.
pub fn account(user: &str) -> Result<User, PrivilegeError> {
    User::from_name(user)
        .map_err(|errno| PrivilegeError::Lookup(user.to_owned(), errno))?
        .ok_or_else(|| PrivilegeError::UnknownUser(user.to_owned()))
}

/// The warning for a daemon that was started as root without `user`.
pub const STAYS_ROOT: &str = "this daemon stays root, since no user is named: set user, or give -u USER";

/// Whether the process has root privileges.
pub fn is_root() -> bool {
    Uid::effective().is_root()
}

/// Checks whether this process could become a user, without becoming it.
pub fn examine(user: &str) -> Result<(), PrivilegeError> {
    let account = account(user)?;
    if is_root() || is_already(account.uid)? { Ok(()) } else { Err(PrivilegeError::NotPermitted(user.to_owned())) }
}

/// Hardening for every user: execve(2) cannot add privileges (PR_SET_NO_NEW_PRIVS).
pub fn harden() -> Result<(), PrivilegeError> {
    prctl::set_no_new_privs().map_err(|errno| failed("set no_new_privs", errno))
}

/// Whether binding this address takes CAP_NET_BIND_SERVICE (ip(7)): `keeps_binding` for it.
pub fn is_needed_to_bind(address: &ListenAddress) -> bool {
    matches!(address, ListenAddress::Tcp(tcp) if (1..1024).contains(&tcp.port()))
}

/// Sets real, effective and saved ids, so that none can be restored.
fn is_already(uid: Uid) -> Result<bool, PrivilegeError> {
    let now = getresuid().map_err(|errno| failed("ask for the process's user", errno))?;
    Ok([now.real, now.effective, now.saved].iter().all(|one| *one == uid))
}

fn become_account(account: &User) -> Result<(), PrivilegeError> {
    let steps = || {
        let name = CString::new(account.name.as_str()).map_err(|_| Errno::EINVAL)?;
        initgroups(&name, account.gid)?;
        setgid(account.gid)?;
        setuid(account.uid)
    };
    steps().map_err(|errno| match errno {
        Errno::EPERM => PrivilegeError::NotPermitted(account.name.clone()),
        errno => failed("become another user", errno),
    })
}

/// Sets whether permitted capabilities survive a change of the user (PR_SET_KEEPCAPS).
fn keep_capabilities(kept: bool) -> Result<(), PrivilegeError> {
    prctl::set_keepcaps(kept).map_err(|errno| failed("set keepcaps", errno))
}

/// Empties the bounding set, which limits what execve(2) can add. Needs CAP_SETPCAP, which containers may lack.
fn empty_bounding_set() -> Result<(), PrivilegeError> {
    let step = "empty the capability bounding set";
    let may = caps::has_cap(None, CapSet::Effective, Capability::CAP_SETPCAP).map_err(|error| failed(step, error))?;
    if may { caps::clear(None, CapSet::Bounding).map_err(|error| failed(step, error)) } else { Ok(()) }
}

fn limit_capabilities(keeps_binding: bool) -> Result<(), PrivilegeError> {
    let step = "limit the capabilities";
    let mut kept = caps::read(None, CapSet::Permitted).map_err(|error| failed(step, error))?;
    kept.retain(|capability| keeps_binding && *capability == Capability::CAP_NET_BIND_SERVICE);
    let none = CapsHashSet::new();
    // The ambient set is a subset of the inheritable one, the effective set of the permitted one.
    for (set, wanted) in [(CapSet::Effective, &kept), (CapSet::Inheritable, &none), (CapSet::Permitted, &kept)] {
        caps::set(None, set, wanted).map_err(|error| failed(step, error))?;
    }
    Ok(())
}

fn failed(step: &'static str, cause: impl fmt::Display) -> PrivilegeError {
    PrivilegeError::Failed(step, cause.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_below_1024_take_a_right() {
        for (address, expected) in [
            ("0.0.0.0:80", true),
            ("[::1]:1023", true),
            ("127.0.0.1:1024", false),
            ("127.0.0.1:0", false),
            ("unix:/run/uakari.sock", false),
        ] {
            assert_eq!(is_needed_to_bind(&address.parse().unwrap()), expected, "{address}");
        }
    }

    #[test]
    fn users_that_are_refused() {
        for user in ["nosuchuser", "", "0", "nobody\0", "no\nbody"] {
            let error = drop_to(user, false).unwrap_err();
            assert!(matches!(error, PrivilegeError::UnknownUser(_)), "{user:?}: {error}");
            let sentence = error.to_string();
            assert!(sentence.contains("/etc/passwd") && !sentence.contains(['\n', '\0']), "{user:?}: {sentence}");
        }
        if !Uid::effective().is_root() {
            let error = drop_to("root", true).unwrap_err();
            assert!(matches!(error, PrivilegeError::NotPermitted(_)), "{error}");
            assert!(error.to_string().contains("start it as root"), "{error}");
        }
    }

    /// The change of the user itself is tested end to end, since it is irreversible.
    #[test]
    fn the_user_it_is_already_needs_no_rights() {
        // A container may run as a user id without a name.
        let Some(user) = User::from_uid(Uid::effective()).unwrap() else { return };
        let before = getresuid().unwrap();
        drop_to(&user.name, false).unwrap();
        assert_eq!(getresuid().unwrap(), before);
        assert!(prctl::get_no_new_privs().unwrap());
        let permitted = caps::read(None, CapSet::Permitted).unwrap();
        assert!(Uid::effective().is_root() || permitted.is_empty(), "{permitted:?}");
    }
}
