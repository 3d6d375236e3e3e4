//! Libraries with ouistiti's interface: `jsonrpc_init` returns a table of methods, which take and return jansson values.
//! The jansson functions are those that the library itself is linked with.

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::ptr;
use std::sync::OnceLock;

use jsonrpc_library::abi::{INTERNAL_ERROR, INVALID_PARAMS, METHOD_NOT_FOUND};
use libloading::os::unix::{Library as Handle, RTLD_GLOBAL, RTLD_NOW};
use server::options::complain;

use crate::NAME;
use crate::limits::ANSWER_SIZE_MAX;
use crate::request::{Outcome, error, quoted};
use crate::wire::Connection;

/// Its soname since version 2.0.
const JANSSON: &str = "libjansson.so.4";
/// Flags of jansson.h.
const VALIDATE_ONLY: usize = 0x1;
const COMPACT: usize = 0x20;
const ENCODE_ANY: usize = 0x200;

/// `json_t`.
#[repr(C)]
pub(crate) struct Json {
    _private: [u8; 0],
}

/// `json_error_t`.
#[repr(C)]
struct JsonError {
    line: c_int,
    column: c_int,
    position: c_int,
    source: [c_char; 80],
    text: [c_char; 160],
}

/// `struct jsonrpc_method_entry_t`.
#[repr(C)]
struct Entry {
    name: *const c_char,
    function: Option<unsafe extern "C" fn(*mut Json, *mut *mut Json, *mut c_void) -> c_int>,
    params_spec: *const c_char,
}

type Init = unsafe extern "C" fn(*mut *const Entry, *mut c_char) -> *mut c_void;
type Release = unsafe extern "C" fn(*mut c_void);
type Sink = unsafe extern "C" fn(*const c_char, usize, *mut c_void) -> c_int;

/// The jansson functions that are used here.
struct Functions {
    loadb: unsafe extern "C" fn(*const c_char, usize, usize, *mut JsonError) -> *mut Json,
    dump_callback: unsafe extern "C" fn(*const Json, Sink, *mut c_void, usize) -> c_int,
    unpack_ex: unsafe extern "C" fn(*mut Json, *mut JsonError, usize, *const c_char, ...) -> c_int,
    object: unsafe extern "C" fn() -> *mut Json,
    object_set_new: unsafe extern "C" fn(*mut Json, *const c_char, *mut Json) -> c_int,
    array: unsafe extern "C" fn() -> *mut Json,
    array_append_new: unsafe extern "C" fn(*mut Json, *mut Json) -> c_int,
    integer: unsafe extern "C" fn(i64) -> *mut Json,
    string: unsafe extern "C" fn(*const c_char) -> *mut Json,
    delete: unsafe extern "C" fn(*mut Json),
}

/// Of the library of this process, for the functions below that the library calls.
static FUNCTIONS: OnceLock<Functions> = OnceLock::new();

pub(crate) struct Library {
    path: String,
    init: Init,
    release: Option<Release>,
    jansson: &'static Functions,
}

/// An open connection.
pub(crate) struct Session {
    release: Option<Release>,
    jansson: &'static Functions,
    entries: Vec<&'static Entry>,
    context: *mut c_void,
}

impl Library {
    /// None: the library has another interface.
    pub(crate) fn find(handle: &Handle, path: &str) -> Result<Option<Library>, String> {
        // SAFETY: ouistiti's libraries export this function by that name.
        let Ok(init) = (unsafe { handle.get::<Init>(b"jsonrpc_init\0") }) else { return Ok(None) };
        // SAFETY: as above.
        let release = unsafe { handle.get::<Release>(b"jsonrpc_release\0") };
        let functions = match Functions::find(handle) {
            // The library and its dependencies do not have them: it may leave that to the program that loads it.
            Err(_) => Functions::load(path)?,
            Ok(functions) => functions,
        };
        let jansson = FUNCTIONS.get_or_init(|| functions);
        Ok(Some(Library { path: path.to_owned(), init: *init, release: release.ok().map(|it| *it), jansson }))
    }

    /// The error is the JSON text of an error object.
    pub(crate) fn open(self, connection: &Connection) -> Result<Session, String> {
        let config = connection.config.as_deref().map(|text| CString::new(text).unwrap_or_default());
        // Leaked, since the library may store it.
        let config = config.map_or(ptr::null_mut(), CString::into_raw);
        let mut table = ptr::null();
        // SAFETY: it takes a place for its table, and a string or null.
        let context = unsafe { (self.init)(&mut table, config) };
        let mut entries = Vec::new();
        while !table.is_null() {
            // SAFETY: the table is static, and ends with an entry without a name.
            let entry: &'static Entry = unsafe { &*table };
            if entry.name.is_null() {
                return Ok(Session { release: self.release, jansson: self.jansson, entries, context });
            }
            entries.push(entry);
            // SAFETY: as above.
            table = unsafe { table.add(1) };
        }
        complain(NAME, format_args!("-L {}: its jsonrpc_init returns no table", self.path));
        Err(error(INTERNAL_ERROR, "", None))
    }
}

impl Session {
    pub(crate) fn call(&mut self, method: &str, params: Option<&str>) -> Outcome {
        let jansson = self.jansson;
        let entry = self.entries.iter().find(|entry| {
            // SAFETY: entries within the table have names.
            let name = unsafe { CStr::from_ptr(entry.name) };
            name.to_bytes() == method.as_bytes()
        });
        let Some((entry, function)) = entry.and_then(|entry| entry.function.map(|function| (entry, function))) else {
            return Outcome::Error(error(METHOD_NOT_FOUND, "", None));
        };
        let Some(values) = Values::new(jansson) else { return Outcome::Error(error(INTERNAL_ERROR, "", None)) };
        let params = match values.load(params).and_then(|value| values.check(value, params, entry.params_spec)) {
            Ok(params) => params,
            Err(why) => return Outcome::Error(error(INVALID_PARAMS, "", Some(&quoted(&why)))),
        };
        let mut result = ptr::null_mut();
        // SAFETY: it takes a value or null, a place for one, and its own context.
        let code = unsafe { function(params, &mut result, self.context) };
        let text = if values.add(result) { jansson.dump(result) } else { Some("null".to_owned()) };
        match text {
            Some(text) if code == 0 => Outcome::Result(text),
            Some(text) if text.starts_with('{') => Outcome::Error(text),
            _ => Outcome::Error(error(INTERNAL_ERROR, "", None)),
        }
    }

    pub(crate) fn close(self) {
        if let Some(release) = self.release {
            // SAFETY: the context is the library's, and not used after this.
            unsafe { release(self.context) };
        }
    }
}

/// Values that are freed together: the elements of a jansson array.
struct Values {
    jansson: &'static Functions,
    array: *mut Json,
}

impl Values {
    /// None: out of memory.
    fn new(jansson: &'static Functions) -> Option<Values> {
        // SAFETY: it takes no arguments.
        let array = unsafe { (jansson.array)() };
        (!array.is_null()).then_some(Values { jansson, array })
    }

    /// Parses a text; null if there is none. The error is jansson's message.
    fn load(&self, text: Option<&str>) -> Result<*mut Json, String> {
        let Some(text) = text else { return Ok(ptr::null_mut()) };
        let mut why = JsonError::new();
        // SAFETY: the size is that of the text, and `why` is a place for an error.
        let value = unsafe { (self.jansson.loadb)(text.as_ptr().cast(), text.len(), 0, &mut why) };
        if self.add(value) { Ok(value) } else { Err(why.text()) }
    }

    /// False: the value is null, or was freed since memory ran out.
    fn add(&self, value: *mut Json) -> bool {
        // SAFETY: it takes ownership of the reference, and rejects null.
        unsafe { (self.jansson.array_append_new)(self.array, value) == 0 }
    }

    /// Checks parameters against a method's specification. The error is a sentence for the caller.
    fn check(&self, value: *mut Json, text: Option<&str>, spec: *const c_char) -> Result<*mut Json, String> {
        if spec.is_null() {
            return Ok(value);
        }
        // SAFETY: the interface requires a string.
        let has_arguments = !unsafe { CStr::from_ptr(spec) }.is_empty();
        match text {
            None if has_arguments => Err("params are missing".to_owned()),
            Some(text) if !has_arguments && !is_empty(text) => Err("the method takes no arguments".to_owned()),
            Some(_) if has_arguments => {
                let mut why = JsonError::new();
                // A specification with an object's keys reads them from the variable arguments: it finds this null.
                let end: *const c_char = ptr::null();
                // SAFETY: with this flag only keys are read from the variable arguments, and nothing is stored.
                let code = unsafe { (self.jansson.unpack_ex)(value, &mut why, VALIDATE_ONLY, spec, end) };
                if code == 0 { Ok(value) } else { Err(why.text()) }
            }
            _ => Ok(value),
        }
    }
}

/// Whether an array or object has no elements.
fn is_empty(text: &str) -> bool {
    let inner = text.strip_prefix(['[', '{']).and_then(|text| text.strip_suffix([']', '}']));
    inner.is_some_and(|inner| inner.trim().is_empty())
}

impl Drop for Values {
    fn drop(&mut self) {
        // SAFETY: this is the only reference to it. It owns those to its elements.
        unsafe { (self.jansson.delete)(self.array) };
    }
}

impl JsonError {
    fn new() -> JsonError {
        JsonError { line: 0, column: 0, position: 0, source: [0; 80], text: [0; 160] }
    }

    fn text(&self) -> String {
        let bytes: Vec<u8> = self.text.iter().map(|byte| *byte as u8).take_while(|byte| *byte != 0).collect();
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

impl Functions {
    fn find(handle: &Handle) -> Result<Functions, libloading::Error> {
        macro_rules! find {
            ($name:literal) => {
                // SAFETY: the types are those of jansson.h.
                *unsafe { handle.get(concat!("json_", $name, "\0").as_bytes()) }?
            };
        }
        Ok(Functions {
            loadb: find!("loadb"),
            dump_callback: find!("dump_callback"),
            unpack_ex: find!("unpack_ex"),
            object: find!("object"),
            object_set_new: find!("object_set_new"),
            array: find!("array"),
            array_append_new: find!("array_append_new"),
            integer: find!("integer"),
            string: find!("string"),
            delete: find!("delete"),
        })
    }

    /// Loads jansson for a library that is not linked with it.
    fn load(path: &str) -> Result<Functions, String> {
        // SAFETY: loading jansson has no side effects.
        let handle = unsafe { Handle::open(Some(JANSSON), RTLD_NOW | RTLD_GLOBAL) };
        handle
            .and_then(|handle| Functions::find(Box::leak(Box::new(handle))))
            .map_err(|_| format!("-L {path}: it needs jansson, and there is no {JANSSON}: install libjansson4"))
    }

    /// JSON text of a value. None: it has none, or it is too long.
    fn dump(&self, value: *const Json) -> Option<String> {
        let mut text: Vec<u8> = Vec::new();
        // SAFETY: `collect` takes a `Vec<u8>`.
        let code = unsafe { (self.dump_callback)(value, collect, (&raw mut text).cast(), COMPACT | ENCODE_ANY) };
        if code == 0 { String::from_utf8(text).ok() } else { None }
    }
}

unsafe extern "C" fn collect(bytes: *const c_char, size: usize, text: *mut c_void) -> c_int {
    // SAFETY: `dump` passes it.
    let text = unsafe { &mut *text.cast::<Vec<u8>>() };
    if size > ANSWER_SIZE_MAX - text.len() {
        return -1;
    }
    // SAFETY: jansson passes the size of the bytes.
    text.extend_from_slice(unsafe { std::slice::from_raw_parts(bytes.cast(), size) });
    0
}

/// Keeps the linker from dropping them, as nothing in this program calls them.
#[used]
static EXPORTED: (ErrorObject, Predefined) = (jsonrpc_error_object, jsonrpc_error_object_predefined);

type ErrorObject = unsafe extern "C" fn(c_int, *const c_char, *mut Json) -> *mut Json;
type Predefined = unsafe extern "C" fn(c_int, *mut Json) -> *mut Json;

/// Makes an error object for a library. It takes ownership of the reference to `data`, which may be null.
///
/// # Safety
/// `data` is a jansson value or null, `message` a string or null.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jsonrpc_error_object(code: c_int, message: *const c_char, data: *mut Json) -> *mut Json {
    let Some(jansson) = FUNCTIONS.get() else { return ptr::null_mut() };
    // SAFETY: it takes no arguments.
    let object = unsafe { (jansson.object)() };
    // SAFETY: it takes any number.
    let code = unsafe { (jansson.integer)(code.into()) };
    let message = if message.is_null() { c"".as_ptr() } else { message };
    // SAFETY: by the function's contract.
    let message = unsafe { (jansson.string)(message) };
    for (name, value) in [(c"code", code), (c"message", message), (c"data", data)] {
        if !value.is_null() {
            // SAFETY: it takes ownership of the value, also when it fails.
            unsafe { (jansson.object_set_new)(object, name.as_ptr(), value) };
        }
    }
    object
}

/// As `jsonrpc_error_object`, with the usual message of the code.
///
/// # Safety
/// `data` is a jansson value or null.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jsonrpc_error_object_predefined(code: c_int, data: *mut Json) -> *mut Json {
    let message = match code {
        -32700 => c"Parse Error",
        -32600 => c"Invalid Request",
        -32601 => c"Method not found",
        -32602 => c"Invalid params",
        -32603 => c"Internal error",
        _ => c"",
    };
    // SAFETY: by the function's contract.
    unsafe { jsonrpc_error_object(code, message.as_ptr(), data) }
}
