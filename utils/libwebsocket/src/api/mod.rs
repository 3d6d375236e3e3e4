//! The C interface of the package `websocket`, for servers that speak WebSocket themselves. include/websocket.h
//! documents each function.
//!
//! Every pointer argument may be NULL; then the result is -EINVAL. Any other pointer must be valid as the header says.

mod error;

mod handles;

use std::ffi::{CStr, c_char, c_int, c_void};
use std::os::fd::{AsFd, AsRawFd};
use std::path::Path;

use nix::errno::Errno;
use nix::libc::{self, size_t, ssize_t};
use server::CloseCode;

use error::{Number, errno};
use handles::{WsClient, WsListener};

/// ws_listen(3): creates a listener.
///
/// # Safety
/// `listener` is NULL or may be written, `path` is NULL or ends with a NUL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ws_listen(
    listener: *mut *mut WsListener,
    path: *const c_char,
    mode: libc::c_uint,
    backlog: c_int,
) -> c_int {
    // SAFETY: NULL, or the caller's pointer to a pointer.
    let Some(listener) = (unsafe { listener.as_mut() }) else { return errno(Errno::EINVAL) };
    *listener = std::ptr::null_mut();
    if path.is_null() {
        return errno(Errno::EINVAL);
    }
    // SAFETY: not NULL, and a string, as the caller says.
    let path = unsafe { CStr::from_ptr(path) };
    let path: &Path = Path::new(<std::ffi::OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(path.to_bytes()));
    match WsListener::bind(path, mode, backlog) {
        Ok(new) => {
            *listener = Box::into_raw(Box::new(new));
            0
        }
        Err(error) => error.number(),
    }
}

/// ws_unlisten(3): frees a listener.
///
/// # Safety
/// `listener` is NULL, or came from `ws_listen` and is not used again.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ws_unlisten(listener: *mut WsListener) {
    if !listener.is_null() {
        // SAFETY: it came from Box::into_raw, and the caller returns it only once.
        drop(unsafe { Box::from_raw(listener) });
    }
}

/// ws_listener_fileno(3).
///
/// # Safety
/// `listener` is NULL or a listener.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ws_listener_fileno(listener: *const WsListener) -> c_int {
    // SAFETY: NULL or a listener, as the caller says.
    let listener = unsafe { listener.as_ref() };
    listener.map_or(errno(Errno::EINVAL), |listener| listener.inner.as_fd().as_raw_fd())
}

/// ws_listener_nonblock(3).
///
/// # Safety
/// `listener` is NULL or a listener that no other thread uses.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ws_listener_nonblock(listener: *mut WsListener, on: c_int) -> c_int {
    // SAFETY: NULL or a listener, as the caller says.
    let listener = unsafe { listener.as_mut() };
    done(listener.map(|listener| listener.inner.set_nonblocking(on != 0)))
}

/// ws_limit(3).
///
/// # Safety
/// `listener` is NULL or a listener that no other thread uses.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ws_limit(listener: *mut WsListener, message_size_max: size_t) -> c_int {
    // SAFETY: NULL or a listener, as the caller says.
    let listener = unsafe { listener.as_mut() };
    done(listener.map(|listener| listener.inner.set_message_size_max(message_size_max)))
}

/// ws_accept(3): the next client.
///
/// # Safety
/// `listener` is NULL or a listener that no other thread uses, `client` is NULL or may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ws_accept(listener: *mut WsListener, client: *mut *mut WsClient) -> c_int {
    // SAFETY: NULL, or the caller's pointer to a pointer.
    let Some(client) = (unsafe { client.as_mut() }) else { return errno(Errno::EINVAL) };
    *client = std::ptr::null_mut();
    // SAFETY: NULL or a listener, as the caller says.
    let Some(listener) = (unsafe { listener.as_mut() }) else { return errno(Errno::EINVAL) };
    match listener.inner.accept() {
        Ok(new) => {
            *client = Box::into_raw(Box::new(WsClient::new(new)));
            0
        }
        Err(error) => error.number(),
    }
}

/// ws_address(3): the client's address, as accept(2) gives it.
///
/// # Safety
/// `client` is NULL or a client, `size` is NULL or may be read and written, `address` has `*size` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ws_address(
    client: *const WsClient,
    address: *mut libc::sockaddr,
    size: *mut libc::socklen_t,
) -> c_int {
    // SAFETY: NULL or a client, as the caller says.
    let Some(client) = (unsafe { client.as_ref() }) else { return errno(Errno::EINVAL) };
    // SAFETY: NULL or the caller's number.
    let Some(size) = (unsafe { size.as_mut() }) else { return errno(Errno::EINVAL) };
    let bytes = client.inner.raw_address().as_bytes();
    if address.is_null() {
        return errno(Errno::EINVAL);
    }
    let fitting = bytes.len().min(*size as usize);
    // SAFETY: both the caller's buffer and the address have `fitting` bytes.
    unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), address.cast(), fitting) };
    *size = bytes.len() as libc::socklen_t;
    0
}

/// ws_hello(3): the hello record.
///
/// # Safety
/// `client` is NULL or a client, `hello` is NULL or may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ws_hello(client: *const WsClient, hello: *mut *const c_void) -> ssize_t {
    // SAFETY: NULL or a client, as the caller says.
    let client = unsafe { client.as_ref() };
    // SAFETY: NULL, or the caller's pointer to a pointer.
    let hello = unsafe { hello.as_mut() };
    let (Some(client), Some(hello)) = (client, hello) else { return errno(Errno::EINVAL) as ssize_t };
    *hello = client.inner.hello().as_ptr().cast();
    client.inner.hello().len() as ssize_t
}

/// ws_fileno(3).
///
/// # Safety
/// `client` is NULL or a client.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ws_fileno(client: *const WsClient) -> c_int {
    // SAFETY: NULL or a client, as the caller says.
    let client = unsafe { client.as_ref() };
    client.map_or(errno(Errno::EINVAL), |client| client.inner.as_fd().as_raw_fd())
}

/// ws_nonblock(3).
///
/// # Safety
/// `client` is NULL or a client that no other thread uses.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ws_nonblock(client: *mut WsClient, on: c_int) -> c_int {
    // SAFETY: NULL or a client, as the caller says.
    let client = unsafe { client.as_mut() };
    done(client.map(|client| client.inner.set_nonblocking(on != 0)))
}

/// ws_report_pongs(3).
///
/// # Safety
/// `client` is NULL or a client that no other thread uses.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ws_report_pongs(client: *mut WsClient, on: c_int) -> c_int {
    // SAFETY: NULL or a client, as the caller says.
    let client = unsafe { client.as_mut() };
    done(client.map(|client| client.inner.set_pongs_reported(on != 0)))
}

/// ws_recv(3): the next message, whole.
///
/// # Safety
/// `client` is NULL or a client that no other thread uses, `buffer` has `size` bytes, `opcode` is NULL or may be
/// written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ws_recv(
    client: *mut WsClient,
    buffer: *mut c_void,
    size: size_t,
    opcode: *mut c_int,
) -> ssize_t {
    // SAFETY: NULL or a client, as the caller says.
    let Some(client) = (unsafe { client.as_mut() }) else { return errno(Errno::EINVAL) as ssize_t };
    if buffer.is_null() && size > 0 {
        return errno(Errno::EINVAL) as ssize_t;
    }
    let received = client.receive(|payload| {
        if payload.len() > size {
            return false;
        }
        // SAFETY: the buffer has room for the message, and no part of the library lies in it.
        unsafe { std::ptr::copy_nonoverlapping(payload.as_ptr(), buffer.cast(), payload.len()) };
        true
    });
    match received {
        Ok((kind, size)) => {
            // SAFETY: NULL or the caller's number.
            if let Some(opcode) = unsafe { opcode.as_mut() } {
                *opcode = kind as c_int;
            }
            size as ssize_t
        }
        Err(number) => number as ssize_t,
    }
}

/// ws_next_size(3): the size of the message that did not fit.
///
/// # Safety
/// `client` is NULL or a client.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ws_next_size(client: *const WsClient) -> size_t {
    // SAFETY: NULL or a client, as the caller says.
    let client = unsafe { client.as_ref() };
    client.map_or(0, WsClient::next_size)
}

/// ws_buffered(3): whether there may be messages that poll(2) does not report.
///
/// # Safety
/// `client` is NULL or a client.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ws_buffered(client: *const WsClient) -> c_int {
    // SAFETY: NULL or a client, as the caller says.
    let client = unsafe { client.as_ref() };
    client.is_some_and(WsClient::has_buffered).into()
}

/// ws_send(3): sends a message, or lets it wait for the next.
///
/// # Safety
/// `client` is NULL or a client that no other thread uses, `bytes` has `size` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ws_send(
    client: *mut WsClient,
    opcode: c_int,
    bytes: *const c_void,
    size: size_t,
    flags: c_int,
) -> c_int {
    // SAFETY: NULL or a client, as the caller says.
    let client = unsafe { client.as_mut() };
    // SAFETY: `size` bytes, as the caller says.
    let payload = unsafe { payload(bytes, size) };
    let (Some(client), Some(payload)) = (client, payload) else { return errno(Errno::EINVAL) };
    client.send(opcode, payload, flags)
}

/// ws_ping(3).
///
/// # Safety
/// `client` is NULL or a client that no other thread uses, `bytes` has `size` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ws_ping(client: *mut WsClient, bytes: *const c_void, size: size_t) -> c_int {
    // SAFETY: NULL or a client, as the caller says.
    let client = unsafe { client.as_mut() };
    // SAFETY: `size` bytes, as the caller says.
    let payload = unsafe { payload(bytes, size) };
    let (Some(client), Some(payload)) = (client, payload) else { return errno(Errno::EINVAL) };
    error::result_of(client.inner.ping(payload))
}

/// ws_flush(3).
///
/// # Safety
/// `client` is NULL or a client that no other thread uses.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ws_flush(client: *mut WsClient) -> c_int {
    // SAFETY: NULL or a client, as the caller says.
    let client = unsafe { client.as_mut() };
    client.map_or(errno(Errno::EINVAL), |client| error::result_of(client.inner.flush()))
}

/// ws_wants_write(3).
///
/// # Safety
/// `client` is NULL or a client.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ws_wants_write(client: *const WsClient) -> c_int {
    // SAFETY: NULL or a client, as the caller says.
    let client = unsafe { client.as_ref() };
    client.is_some_and(|client| client.inner.wants_to_write()).into()
}

/// ws_close(3): sends a close frame. A NULL reason is empty.
///
/// # Safety
/// `client` is NULL or a client that no other thread uses, `reason` is NULL or ends with a NUL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ws_close(client: *mut WsClient, code: c_int, reason: *const c_char) -> c_int {
    // SAFETY: NULL or a client, as the caller says.
    let Some(client) = (unsafe { client.as_mut() }) else { return errno(Errno::EINVAL) };
    let Ok(code) = u16::try_from(code) else { return errno(Errno::EINVAL) };
    let reason = if reason.is_null() {
        c""
    } else {
        // SAFETY: not NULL, and a string, as the caller says.
        unsafe { CStr::from_ptr(reason) }
    };
    let Ok(reason) = reason.to_str() else { return error::TEXT };
    error::result_of(client.inner.close(CloseCode(code), reason))
}

/// ws_close_code(3): the code of the client's close frame.
///
/// # Safety
/// `client` is NULL or a client.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ws_close_code(client: *const WsClient) -> c_int {
    // SAFETY: NULL or a client, as the caller says.
    let client = unsafe { client.as_ref() };
    client.map_or(errno(Errno::EINVAL), |client| client.close_code().into())
}

/// ws_close_reason(3).
///
/// # Safety
/// `client` is NULL or a client.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ws_close_reason(client: *const WsClient) -> *const c_char {
    // SAFETY: NULL or a client, as the caller says.
    let client = unsafe { client.as_ref() };
    client.map_or(c"".as_ptr(), |client| client.close_reason().as_ptr())
}

/// ws_end(3): waits for the end of the connection, and frees the client.
///
/// # Safety
/// `client` is NULL, or came from `ws_accept` and is not used again.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ws_end(client: *mut WsClient, wait_ms: libc::c_uint) -> c_int {
    if client.is_null() {
        return errno(Errno::EINVAL);
    }
    // SAFETY: it came from Box::into_raw, and the caller returns it only once.
    let client = *unsafe { Box::from_raw(client) };
    client.inner.finish(wait_ms).into()
}

/// ws_strerror(3): the message of an error number.
#[unsafe(no_mangle)]
pub extern "C" fn ws_strerror(number: c_int) -> *const c_char {
    match error::sentence(number) {
        Some(sentence) => sentence.as_ptr(),
        // SAFETY: strerror(3) accepts any number and returns a string.
        None => unsafe { libc::strerror(number.saturating_neg()) },
    }
}

fn done(result: Option<()>) -> c_int {
    result.map_or(errno(Errno::EINVAL), |()| 0)
}

/// The caller's bytes. `bytes` may be NULL if `size` is 0.
///
/// # Safety
/// If `bytes` is not NULL, `size` bytes may be read there for `'a`.
unsafe fn payload<'a>(bytes: *const c_void, size: size_t) -> Option<&'a [u8]> {
    match (bytes.is_null(), size) {
        (_, 0) => Some(&[]),
        (true, _) => None,
        // A slice has at most isize::MAX bytes.
        (false, _) if isize::try_from(size).is_err() => None,
        // SAFETY: the caller guarantees `size` bytes.
        (false, _) => Some(unsafe { std::slice::from_raw_parts(bytes.cast(), size) }),
    }
}
