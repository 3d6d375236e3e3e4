//! Libraries with the interface of `uakari_rpc.h`.

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::ptr;

use jsonrpc_library::abi::{self, INTERNAL_ERROR, OK};
use libloading::os::unix::Library as Handle;
use serde_json::value::RawValue;
use server::options::complain;

use crate::NAME;
use crate::limits::{ANSWER_SIZE_MAX, SHOWN_SIZE_MAX};
use crate::request::{Outcome, error, quoted};
use crate::wire::Connection;

pub(crate) struct Library {
    path: String,
    table: &'static abi::Library,
    call: abi::Call,
}

/// An open connection.
pub(crate) struct Session {
    library: Library,
    context: *mut c_void,
}

/// The answer that a function of the library has written.
#[derive(Default)]
struct Written {
    text: Vec<u8>,
    failure: Option<Failure>,
}

struct Failure {
    code: c_int,
    message: String,
    data: Option<String>,
}

impl Library {
    /// None: the library has another interface.
    pub(crate) fn find(handle: &Handle, path: &str) -> Result<Option<Library>, String> {
        // SAFETY: libraries export this function by that name.
        let Ok(entry) = (unsafe { handle.get::<abi::Entry>(b"uakari_rpc\0") }) else { return Ok(None) };
        // SAFETY: it takes no arguments.
        let table = unsafe { entry() };
        // SAFETY: the table is null or static, and the library is never unloaded.
        let Some(table) = (unsafe { table.as_ref() }) else {
            return Err(format!("-L {path}: its uakari_rpc returns no table: it has to return one"));
        };
        let (wanted, have) = (table.version, abi::VERSION);
        if wanted == 0 || wanted > have {
            return Err(format!(
                "-L {path}: it is made for version {wanted} of uakari_rpc.h, this server has {have}: install a newer \
                 websocket_jsonrpc, or build the library with the header of this one"
            ));
        }
        let Some(call) = table.call else {
            return Err(format!("-L {path}: its table has no function `call`: it has to have one"));
        };
        Ok(Some(Library { path: path.to_owned(), table, call }))
    }

    /// The error is the operator's sentence.
    pub(crate) fn start(&self, connection: &Connection) -> Result<(), String> {
        let Some(start) = self.table.start else { return Ok(()) };
        let config = config(connection);
        // SAFETY: both arguments outlive the call.
        let (code, written) = ask(|reply| unsafe { start(config.as_ptr(), reply) });
        let failure = match (code, written.failure) {
            (OK, None) => return Ok(()),
            (_, Some(failure)) if !failure.message.is_empty() => failure.message,
            (code, _) => format!("its `start` returns {code}: give another -C"),
        };
        Err(format!("-L {} -C {:?}: {failure}", self.path, connection.config.as_deref().unwrap_or_default()))
    }

    /// The error is the JSON text of an error object.
    pub(crate) fn open(self, connection: &Connection) -> Result<Session, String> {
        let mut context = ptr::null_mut();
        if let Some(open) = self.table.open {
            let config = config(connection);
            let strings = [&connection.address, &connection.id].map(|text| text.as_deref().map(c_string));
            let [address, id] = strings.each_ref().map(|text| text.as_ref().map_or(ptr::null(), |text| text.as_ptr()));
            let peer = abi::Peer { address, id };
            // SAFETY: all arguments outlive the call.
            let (code, written) = ask(|reply| unsafe { open(&mut context, config.as_ptr(), &peer, reply) });
            written.success(code)?;
        }
        Ok(Session { library: self, context })
    }
}

impl Session {
    pub(crate) fn call(&mut self, method: &str, params: Option<&str>) -> Outcome {
        let (call, context) = (self.library.call, self.context);
        let (c_method, c_params) = (c_string(method), params.map(c_string));
        let text = c_params.as_ref().map_or(ptr::null(), |text| text.as_ptr());
        let size = c_params.as_ref().map_or(0, |text| text.count_bytes());
        // SAFETY: all arguments outlive the call, and the context is the library's.
        let (code, written) = ask(|reply| unsafe { call(context, c_method.as_ptr(), text, size, reply) });
        match written.success(code) {
            Ok(text) if text.is_empty() => Outcome::Result("null".to_owned()),
            Ok(text) => match one_line(&text) {
                Some(text) => Outcome::Result(text),
                None => {
                    let path = &self.library.path;
                    // Clients choose the method.
                    let method: String = method.chars().take(SHOWN_SIZE_MAX).collect();
                    complain(NAME, format_args!("-L {path}: the result of {method:?} is not JSON"));
                    Outcome::Error(error(INTERNAL_ERROR, "", None))
                }
            },
            Err(text) => Outcome::Error(text),
        }
    }

    pub(crate) fn close(self) {
        if let Some(close) = self.library.table.close {
            // SAFETY: the context is the library's, and not used after this.
            unsafe { close(self.context) };
        }
    }
}

impl Written {
    /// The JSON text, or that of an error object.
    fn success(self, code: c_int) -> Result<Vec<u8>, String> {
        match self.failure {
            None if code == OK => Ok(self.text),
            None => Err(error(code, "", None)),
            Some(Failure { code, message, data }) => {
                let data = data.map(|data| one_line(data.as_bytes()).unwrap_or_else(|| quoted(&data)));
                Err(error(code, &message, data.as_deref()))
            }
        }
    }

    /// Whether `size` more bytes fit; if not, the answer becomes an error.
    fn has_room(&mut self, size: usize) -> bool {
        let has_room = size <= ANSWER_SIZE_MAX - self.text.len();
        if !has_room {
            *self = Written::default();
            let data = Some("\"the answer is too long\"".to_owned());
            self.failure = Some(Failure { code: INTERNAL_ERROR, message: String::new(), data });
        }
        has_room
    }
}

/// Calls a function with a reply. Returns its code and the answer.
fn ask(function: impl FnOnce(*mut abi::Reply) -> c_int) -> (c_int, Written) {
    let mut written = Written::default();
    let mut reply = abi::Reply { server: (&raw mut written).cast(), write, quote, fail };
    let code = function(&mut reply);
    (code, written)
}

/// JSON text without surrounding space and line breaks; None: it is not JSON.
fn one_line(text: &[u8]) -> Option<String> {
    let text = serde_json::from_slice::<&RawValue>(text).ok()?.get();
    // Strings contain none, so that each is white space.
    Some(text.replace(['\n', '\r'], " "))
}

fn config(connection: &Connection) -> CString {
    c_string(connection.config.as_deref().unwrap_or_default())
}

/// No text here contains a NUL: command lines, addresses, checked method names, JSON.
fn c_string(text: &str) -> CString {
    CString::new(text).unwrap_or_default()
}

unsafe extern "C" fn write(reply: *mut abi::Reply, text: *const c_char, size: usize) -> c_int {
    // SAFETY: libraries pass the reply that `ask` has made.
    let written = unsafe { written(reply) };
    // SAFETY: the interface requires `size` bytes at `text`.
    let bytes = unsafe { bytes(text, size) };
    if !written.has_room(bytes.len()) {
        return INTERNAL_ERROR;
    }
    written.text.extend_from_slice(bytes);
    OK
}

unsafe extern "C" fn quote(reply: *mut abi::Reply, text: *const c_char, size: usize) -> c_int {
    // SAFETY: libraries pass the reply that `ask` has made.
    let written = unsafe { written(reply) };
    // SAFETY: the interface requires `size` bytes at `text`.
    let text = quoted(&String::from_utf8_lossy(unsafe { bytes(text, size) }));
    if !written.has_room(text.len()) {
        return INTERNAL_ERROR;
    }
    written.text.extend_from_slice(text.as_bytes());
    OK
}

unsafe extern "C" fn fail(reply: *mut abi::Reply, code: c_int, message: *const c_char, data: *const c_char) -> c_int {
    // SAFETY: libraries pass the reply that `ask` has made.
    let written = unsafe { written(reply) };
    let code = if code == OK { INTERNAL_ERROR } else { code };
    // SAFETY: the interface requires a string or null.
    let message = unsafe { string(message) }.unwrap_or_default();
    // SAFETY: as above.
    let data = unsafe { string(data) };
    *written = Written::default();
    if written.has_room(message.len() + data.as_ref().map_or(0, String::len)) {
        written.failure = Some(Failure { code, message, data });
    }
    code
}

/// # Safety
/// `reply` was made by `ask`, which has not returned yet.
unsafe fn written<'a>(reply: *mut abi::Reply) -> &'a mut Written {
    // SAFETY: by the function's contract.
    let server = unsafe { (*reply).server };
    // SAFETY: `ask` has stored it there, and nothing else uses it during the call.
    unsafe { &mut *server.cast() }
}

/// # Safety
/// There are `size` bytes at `text`, as long as the result is used.
unsafe fn bytes<'a>(text: *const c_char, size: usize) -> &'a [u8] {
    if text.is_null() {
        return &[];
    }
    // SAFETY: by the function's contract.
    unsafe { std::slice::from_raw_parts(text.cast(), size) }
}

/// # Safety
/// `text` is null or a string that ends with a NUL.
unsafe fn string(text: *const c_char) -> Option<String> {
    if text.is_null() {
        return None;
    }
    // SAFETY: by the function's contract.
    Some(unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned())
}
