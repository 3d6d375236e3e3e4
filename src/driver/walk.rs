//! placeholder
use nix::errno::Errno;
use nix::fcntl::OFlag;
use std::ffi::CStr;
use std::os::fd::{BorrowedFd, OwnedFd};
pub(super) fn walk(_: BorrowedFd<'_>, _: &CStr, _: OFlag, _: bool) -> Result<OwnedFd, Errno> {
    Err(Errno::ENOSYS)
}
