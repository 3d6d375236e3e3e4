//! What the fuzz targets share. Nothing here asks the code under test what would be right.

/// What a fuzzer's bytes are taken for.
pub mod choices;

/// RFC 6455, read the slow and plain way.
pub mod reference;

/// Trees of configurations.
pub mod tree;

/// Access lines of the log.
pub mod access;

/// A gateway on a simulated kernel, and the two ends of its connection.
pub mod gateway;

/// What it answers over HTTP.
pub mod replies;

/// What went through it.
pub mod conversation;

/// HTTP/1.1, read the slow and plain way.
pub mod request;

use std::ffi::c_uint;
use std::mem::MaybeUninit;
use std::slice;
use std::sync::atomic::{AtomicU64, Ordering};

/// Takes the place of the C library's: the keys of hash tables and the random numbers of cryptography are the same in
/// each run, so that a seed of the fuzzer gives the same inputs. A target that needs nothing else of this crate names it
/// as `_`.
#[allow(unsafe_code, reason = "a symbol of this name is what the standard library calls")]
#[unsafe(no_mangle)]
extern "C" fn getrandom(buffer: *mut u8, size: usize, _: c_uint) -> isize {
    // Equal random numbers could be refused.
    static NEXT: AtomicU64 = AtomicU64::new(0);
    // SAFETY: the caller passes a buffer of this size (getrandom(2)).
    let bytes = unsafe { slice::from_raw_parts_mut(buffer.cast::<MaybeUninit<u8>>(), size) };
    for byte in bytes {
        byte.write((NEXT.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed) >> 56) as u8);
    }
    size as isize
}
