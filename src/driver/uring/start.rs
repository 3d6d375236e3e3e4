//! Creates the ring, and explains why io_uring cannot be used.

use std::fmt;

use io_uring::IoUring;
use nix::errno::Errno;

use crate::limits::{RING_ENTRIES, RING_ENTRIES_MIN};

/// Why io_uring cannot be used. Display names the cause and the remedy.
#[derive(Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum StartError {
    NoKernelSupport,
    Disabled(String),
    Forbidden,
    KernelTooOld,
    LockedMemory,
    Other(Errno),
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StartError::NoKernelSupport => f.write_str(
                "this kernel has no io_uring (or a container hides it): run Linux 6.1 or later built with CONFIG_IO_URING",
            ),
            StartError::Disabled(value) => write!(
                f,
                "io_uring is switched off by kernel.io_uring_disabled = {value}: set it to 0 with `sysctl -w kernel.io_uring_disabled=0`"
            ),
            StartError::Forbidden => f.write_str(
                "io_uring is forbidden here, most likely by a container's seccomp profile: allow io_uring_setup, io_uring_enter and io_uring_register in it",
            ),
            StartError::KernelTooOld => f.write_str("this kernel's io_uring is too old: run Linux 6.1 or later"),
            StartError::LockedMemory => f.write_str(
                "the limit of locked memory (RLIMIT_MEMLOCK) is too low for a ring: raise it with `ulimit -l` or LimitMEMLOCK= to 1 MiB",
            ),
            StartError::Other(errno) => write!(f, "io_uring cannot be set up: {}", errno.desc()),
        }
    }
}

/// Creates a ring, as large as RLIMIT_MEMLOCK allows.
pub(super) fn new_ring() -> Result<IoUring, StartError> {
    let mut entries = RING_ENTRIES;
    loop {
        match build(entries) {
            Ok(ring) => return Ok(ring),
            Err(Errno::ENOMEM) if entries > RING_ENTRIES_MIN => entries /= 2,
            Err(errno) => return Err(start_error(errno)),
        }
    }
}

fn build(entries: u32) -> Result<IoUring, Errno> {
    let mut first_error = Errno::EINVAL;
    for no_sqarray in [true, false] {
        let mut builder = IoUring::builder();
        builder.setup_single_issuer().setup_defer_taskrun().setup_submit_all().setup_cqsize(entries * 4);
        if no_sqarray {
            builder.setup_no_sqarray();
        }
        match builder.build(entries) {
            Ok(ring) => return Ok(ring),
            Err(error) => first_error = errno_of(&error),
        }
        if first_error != Errno::EINVAL {
            break;
        }
    }
    Err(first_error)
}

pub(super) fn start_error(errno: Errno) -> StartError {
    match errno {
        Errno::ENOSYS => StartError::NoKernelSupport,
        Errno::EINVAL => StartError::KernelTooOld,
        Errno::ENOMEM => StartError::LockedMemory,
        Errno::EPERM | Errno::EACCES => match std::fs::read_to_string("/proc/sys/kernel/io_uring_disabled") {
            Ok(value) if value.trim() != "0" => StartError::Disabled(value.trim().to_owned()),
            _ => StartError::Forbidden,
        },
        errno => StartError::Other(errno),
    }
}

pub(super) fn errno_of(error: &std::io::Error) -> Errno {
    Errno::from_raw(error.raw_os_error().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_refusal_names_its_cause_and_a_remedy() {
        for (errno, cause, remedy) in [
            (Errno::ENOSYS, "no io_uring", "Linux 6.1"),
            (Errno::EINVAL, "too old", "Linux 6.1"),
            (Errno::ENOMEM, "RLIMIT_MEMLOCK", "LimitMEMLOCK"),
        ] {
            let sentence = start_error(errno).to_string();
            assert!(sentence.contains(cause) && sentence.contains(remedy), "{sentence}");
        }
        let disabled = StartError::Disabled("2".into()).to_string();
        assert!(disabled.contains("kernel.io_uring_disabled = 2") && disabled.contains("sysctl -w"), "{disabled}");
        assert!(StartError::Forbidden.to_string().contains("seccomp"));
    }
}
