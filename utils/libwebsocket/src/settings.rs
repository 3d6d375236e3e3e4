//! The environment variables: which listeners are served, their message types, and how long accept(2) waits.
//!
//! They are read when the library is loaded, before the server can change them. Errors are reported on standard error
//! by a process when it first accepts on a served listener, so not by every program that inherits the environment.

use std::ffi::CStr;
use std::fs::File;
use std::mem::ManuallyDrop;
use std::os::fd::{FromRawFd, RawFd};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::MetadataExt;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::libc;
use server::outgoing::WriteType;

use crate::limits::WAIT_MS;
use crate::real;

/// Where ld.so(8) finds libraries to preload into every program.
const PRELOAD_FILE: &str = "/etc/ld.so.preload";

/// The settings of a process.
pub(crate) struct Settings {
    /// Patterns of listeners that are served; None: all listeners.
    sockets: Option<Vec<Vec<u8>>>,
    /// Patterns and message types; the first match applies.
    types: Vec<(Vec<u8>, WriteType)>,
    /// The library was preloaded, so the server was not written for it.
    is_preloaded: bool,
    /// How long accept(2) waits for a hand-over.
    pub(crate) wait_ms: u32,
    /// Errors in the variables.
    complaints: Vec<String>,
    /// Device and inode of standard error at the start.
    standard_error: Option<(u64, u64)>,
    is_reported: AtomicBool,
}

/// The settings. The first call reads them.
pub(crate) fn get() -> &'static Settings {
    static SETTINGS: OnceLock<Settings> = OnceLock::new();
    SETTINGS.get_or_init(|| Settings {
        is_preloaded: own_path().is_some_and(|path| is_preloaded(path, &variable("LD_PRELOAD").unwrap_or_default())),
        standard_error: file_of(libc::STDERR_FILENO),
        ..Settings::read(&variable)
    })
}

fn variable(name: &str) -> Option<Vec<u8>> {
    std::env::var_os(name).map(OsStringExt::into_vec)
}

impl Settings {
    /// Parses the variables, whose values `value_of` returns.
    fn read(value_of: &dyn Fn(&str) -> Option<Vec<u8>>) -> Settings {
        let mut complaints = Vec::new();
        let sockets = value_of("WEBSOCKET_SOCKETS");
        let mut types = Vec::new();
        for element in value_of("WEBSOCKET_TYPE").unwrap_or_default().split(|byte| *byte == b',') {
            match parse_type(element.trim_ascii()) {
                Ok(parsed) => types.extend(parsed),
                Err(complaint) => complaints.push(complaint),
            }
        }
        let mut wait_ms = WAIT_MS;
        if let Some(value) = value_of("WEBSOCKET_WAIT_MS").filter(|value| !value.is_empty()) {
            match std::str::from_utf8(&value).ok().and_then(|text| text.parse().ok()) {
                Some(number) => wait_ms = number,
                None => complaints.push(format!(
                    "WEBSOCKET_WAIT_MS: {} is not a number of milliseconds: {WAIT_MS} is used",
                    quoted(&value)
                )),
            }
        }
        Settings {
            sockets: sockets.map(|paths| paths.split(|byte| *byte == b':').map(<[u8]>::to_vec).collect()),
            types,
            is_preloaded: false,
            wait_ms,
            complaints,
            standard_error: None,
            is_reported: AtomicBool::new(false),
        }
    }

    /// Whether a listener at this path is served. `others`: the result without `WEBSOCKET_SOCKETS`.
    pub(crate) fn is_served(&self, path: &[u8], others: bool) -> bool {
        match &self.sockets {
            Some(patterns) => patterns.iter().any(|pattern| names(pattern, path)),
            None => others,
        }
    }

    /// The message type of the listener at this path. `asks_for_text`: the server has set protocol 153 in socket(2).
    pub(crate) fn write_type(&self, path: &[u8], asks_for_text: bool) -> WriteType {
        match self.types.iter().find(|(pattern, _)| names(pattern, path)) {
            Some((_, kind)) => *kind,
            None if asks_for_text => WriteType::UncheckedText,
            // Like a proxied server, it does not know message types.
            None if self.is_preloaded => WriteType::Auto,
            // Linked to the library, so written for it.
            None => WriteType::Binary,
        }
    }

    /// Reports the errors, once, unless standard error was replaced since the start: it may be a client's socket.
    pub(crate) fn complain(&self) {
        if self.complaints.is_empty() || self.is_reported.swap(true, Ordering::Relaxed) {
            return;
        }
        if file_of(libc::STDERR_FILENO).is_none_or(|file| Some(file) != self.standard_error) {
            return;
        }
        for complaint in &self.complaints {
            let line = format!("libwebsocket: {complaint}\n");
            // SAFETY: pointer and length are those of `line`. A write error is ignored.
            let _ = unsafe { real::write(libc::STDERR_FILENO, line.as_ptr().cast(), line.len()) };
        }
    }
}

/// One element of `WEBSOCKET_TYPE`: a type, or a pattern, "=" and a type. None: empty.
fn parse_type(element: &[u8]) -> Result<Option<(Vec<u8>, WriteType)>, String> {
    if element.is_empty() {
        return Ok(None);
    }
    let (pattern, name) = match element.iter().rposition(|byte| *byte == b'=') {
        Some(at) => (element[..at].trim_ascii(), element[at + 1..].trim_ascii()),
        None => (&b"*"[..], element),
    };
    let kind = match name {
        b"auto" => WriteType::Auto,
        b"text" => WriteType::Text,
        b"binary" => WriteType::Binary,
        _ => {
            return Err(format!(
                "WEBSOCKET_TYPE: {} is not auto, text or binary: {} is left out",
                quoted(name),
                quoted(element)
            ));
        }
    };
    Ok(Some((pattern.to_vec(), kind)))
}

fn quoted(value: &[u8]) -> String {
    format!("{:?}", String::from_utf8_lossy(value))
}

/// Whether a pattern matches the path as bound by the server, or its last component.
fn names(pattern: &[u8], path: &[u8]) -> bool {
    matches(pattern, path) || matches(pattern, last_component(path))
}

/// Glob match; only `*` is special, and also matches "/".
fn matches(pattern: &[u8], text: &[u8]) -> bool {
    match (pattern, text) {
        ([], _) => text.is_empty(),
        ([b'*', rest @ ..], _) => (0..=text.len()).any(|size| matches(rest, &text[size..])),
        ([wanted, pattern @ ..], [byte, text @ ..]) => wanted == byte && matches(pattern, text),
        _ => false,
    }
}

/// The path of the library's own file (dladdr(3)).
fn own_path() -> Option<&'static [u8]> {
    // SAFETY: a `Dl_info` may be all zeros.
    let mut info: libc::Dl_info = unsafe { std::mem::zeroed() };
    let address: fn() -> &'static Settings = get;
    // SAFETY: dladdr(3) accepts any address, and `info` may be written.
    let is_found = unsafe { libc::dladdr(address as *const libc::c_void, &raw mut info) };
    if is_found == 0 || info.dli_fname.is_null() {
        return None;
    }
    // SAFETY: the name is NUL-terminated and valid while the library is loaded.
    let name = unsafe { CStr::from_ptr(info.dli_fname) };
    Some(name.to_bytes())
}

/// Whether the library at this path was preloaded, by `LD_PRELOAD` or by `/etc/ld.so.preload`. Otherwise the server is
/// linked to it or has loaded it with dlopen(3).
fn is_preloaded(path: &[u8], variable: &[u8]) -> bool {
    has_library(variable, path)
        || std::fs::read_to_string(PRELOAD_FILE).is_ok_and(|list| has_library(list.as_bytes(), path))
}

fn has_library(list: &[u8], path: &[u8]) -> bool {
    let mut names = list.split(|byte| matches!(byte, b' ' | b':' | b'\n' | b'\t'));
    names.any(|name| last_component(name) == last_component(path))
}

fn last_component(path: &[u8]) -> &[u8] {
    path.rsplit(|byte| *byte == b'/').next().unwrap_or_default()
}

/// Device and inode.
fn file_of(fd: RawFd) -> Option<(u64, u64)> {
    // SAFETY: used for fstat(2) only; ManuallyDrop prevents the close.
    let file = ManuallyDrop::new(unsafe { File::from_raw_fd(fd) });
    file.metadata().ok().map(|metadata| (metadata.dev(), metadata.ino()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(variables: &[(&str, &str)]) -> Settings {
        Settings::read(&|name| {
            let found = variables.iter().find(|(variable, _)| *variable == name);
            found.map(|(_, value)| value.as_bytes().to_vec())
        })
    }

    #[test]
    fn patterns() {
        for (pattern, path, expected) in [
            ("/run/a", "/run/a", true),
            ("/run/a", "/run/ab", false),
            ("/run/*", "/run/ab", true),
            ("*/ws_*", "/run/x/ws_gps", true),
            ("*/ws_*", "/run/x/gps", false),
            ("gps", "/run/x/gps", true),
            ("gps", "gps", true),
            ("gps", "/run/gps/other", false),
            ("ws_*", "/run/ws_gps", true),
            ("*", "", true),
            ("", "a", false),
        ] {
            assert_eq!(names(pattern.as_bytes(), path.as_bytes()), expected, "{pattern} {path}");
        }
    }

    #[test]
    fn the_first_type_that_fits_is_taken() {
        use WriteType::{Auto, Binary, Text, UncheckedText};
        for (value, path, is_preloaded, asks_for_text, expected) in [
            ("", "/run/a", true, false, Auto),
            ("", "/run/a", false, false, Binary),
            ("", "/run/a", true, true, UncheckedText),
            ("", "/run/a", false, true, UncheckedText),
            ("text", "/run/a", true, false, Text),
            ("text", "/run/a", false, true, Text),
            ("binary", "/run/a", true, true, Binary),
            ("auto", "/run/a", false, false, Auto),
            ("a=binary,text", "/run/a", true, false, Binary),
            ("a=binary,text", "/run/b", true, false, Text),
            (" /run/* = text , b=binary ", "/run/b", false, false, Text),
            ("*=x=text", "/run/a=x", false, false, Text),
            ("b=text", "/run/a", true, false, Auto),
            ("b=text", "/run/a", false, false, Binary),
            ("nonsense,binary", "/run/a", true, false, Binary),
        ] {
            let settings = Settings { is_preloaded, ..settings(&[("WEBSOCKET_TYPE", value)]) };
            let kind = settings.write_type(path.as_bytes(), asks_for_text);
            assert_eq!(kind, expected, "{value:?} {path} preloaded: {is_preloaded} asks: {asks_for_text}");
        }
    }

    #[test]
    fn what_is_wrong_has_a_sentence() {
        for (name, value, expected) in [
            ("WEBSOCKET_TYPE", "auto,gps=text,,", None),
            ("WEBSOCKET_TYPE", "txt", Some("\"txt\" is not auto, text or binary: \"txt\" is left out")),
            ("WEBSOCKET_TYPE", "gps=", Some("\"\" is not auto, text or binary: \"gps=\" is left out")),
            ("WEBSOCKET_TYPE", "a=text,b=bin", Some("\"bin\" is not auto, text or binary: \"b=bin\" is left out")),
            ("WEBSOCKET_TYPE", "\u{7}", Some("\"\\u{7}\" is not auto, text or binary: \"\\u{7}\" is left out")),
            ("WEBSOCKET_WAIT_MS", "250", None),
            ("WEBSOCKET_WAIT_MS", "", None),
            ("WEBSOCKET_WAIT_MS", "-1", Some("\"-1\" is not a number of milliseconds: 100 is used")),
        ] {
            let complaints = settings(&[(name, value)]).complaints;
            let expected: Vec<String> = expected.iter().map(|sentence| format!("{name}: {sentence}")).collect();
            assert_eq!(complaints, expected, "{value:?}");
        }
        assert_eq!(settings(&[("WEBSOCKET_WAIT_MS", "250")]).wait_ms, 250);
    }

    #[test]
    fn preloaded_or_linked() {
        for (list, expected) in [
            ("", false),
            ("/usr/lib/libother.so", false),
            ("libwebsocket.so.1", true),
            ("/usr/lib/libother.so:/opt/libwebsocket.so.1", true),
            ("libother.so libwebsocket.so.1", true),
        ] {
            let has_it = has_library(list.as_bytes(), b"/usr/local/lib/libwebsocket.so.1");
            assert_eq!(has_it, expected, "{list:?}");
        }
    }
}
