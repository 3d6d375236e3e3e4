//! The interface of the log, and the only place that prints. Each event is one line. Values from clients are escaped.
//!
//! Lines are buffered, and written by `flush` once each turn of the event loop; errors at once, and before `start` all
//! lines at once. Writes do not block: lines that cannot be written are dropped, counted and reported later.

use std::fmt;
use std::io::Write as _;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::{Instant, SystemTime};

pub use super::record::{Level, Quoted};

pub(crate) use super::format::Format;
pub(crate) use super::record::AccessLine;
pub(crate) use super::sink::LogError;
pub(crate) use super::writer::Settings;

use super::format::plain_line;
use super::record::Record;
use super::sink::Sink;
use super::writer::{Now, Writer};

static LEVEL: AtomicU8 = AtomicU8::new(Level::Info as u8);
static LOG: LazyLock<Mutex<Writer>> = LazyLock::new(|| Mutex::new(Writer::new(Sink::standard_error())));
/// The epoch of the log's monotonic clock.
static BEGIN: LazyLock<Instant> = LazyLock::new(Instant::now);

#[cfg(any(test, feature = "sim"))]
thread_local! {
    /// Access lines of this thread as JSON, for the simulations. Neither the level nor the rate limit, which depends on
    /// real time, applies to them.
    static ACCESS_LINES: std::cell::RefCell<Vec<String>> = const { std::cell::RefCell::new(Vec::new()) };
}

/// Applies settings and opens their file. May be called again; an error changes nothing.
pub(crate) fn start(settings: &Settings) -> Result<(), LogError> {
    log().start(settings, now())?;
    set_level(settings.level);
    Ok(())
}

/// Reopens the file after logrotate(8) renamed it; after an error the old file remains in use. Does nothing for standard
/// error.
pub(crate) fn reopen() -> Result<(), LogError> {
    log().reopen(now())
}

/// Sets the least severe level that is logged.
pub fn set_level(level: Level) {
    LEVEL.store(level as u8, Ordering::Relaxed);
}

/// Whether events of this level are logged.
fn is_on(level: Level) -> bool {
    level as u8 <= LEVEL.load(Ordering::Relaxed)
}

/// Logs an event that concerns no single connection, if its level is logged.
pub fn event(level: Level, what: fmt::Arguments<'_>) {
    if is_on(level) {
        log().add(&Record::Event { level, connection: None, what }, now());
    }
}

/// Logs an event of the connection `c<id>`, if its level is logged.
pub(crate) fn connection_event(level: Level, id: u64, what: fmt::Arguments<'_>) {
    if is_on(level) {
        log().add(&Record::Event { level, connection: Some(id), what }, now());
    }
}

/// Logs the end of a connection, if its level is logged.
pub(crate) fn access(access: &AccessLine<'_>) {
    #[cfg(any(test, feature = "sim"))]
    keep_access_line(access);
    if is_on(access.level) {
        log().add(&Record::End(access), now());
    }
}

#[cfg(any(test, feature = "sim"))]
fn keep_access_line(access: &AccessLine<'_>) {
    let (mut line, style) = (String::new(), super::format::Style { format: Format::Json, is_journal: false });
    super::format::write_line(&mut line, style, SystemTime::UNIX_EPOCH, &Record::End(access));
    ACCESS_LINES.with_borrow_mut(|lines| lines.push(line));
}

/// Removes and returns the access lines of this thread, for the simulations.
#[cfg(any(test, feature = "sim"))]
pub fn take_access_lines() -> Vec<String> {
    ACCESS_LINES.take()
}

/// As `flush`, at the end of the process: reports dropped lines even if the report is not due.
pub(crate) fn finish() {
    log().finish(now());
}

/// Writes buffered lines without blocking. Call it at the end of a turn, and before fork(2), which would duplicate the
/// buffer. False: lines or a report remain.
pub(crate) fn flush() -> bool {
    let mut log = log();
    if !log.is_idle() {
        log.flush(now());
    }
    log.is_idle()
}

/// Prints a line meant for scripts, such as the address of a listener, to standard output. Control characters are
/// escaped: paths and values of a configuration must not command a terminal.
pub fn announce(line: fmt::Arguments<'_>) {
    let mut out = std::io::stdout();
    let _ = out.write_all(plain_line(line).as_bytes()).and_then(|()| out.flush());
}

/// Ignores poisoning: the log stays usable after a panic.
fn log() -> MutexGuard<'static, Writer> {
    LOG.lock().unwrap_or_else(PoisonError::into_inner)
}

fn now() -> Now {
    Now { ms: BEGIN.elapsed().as_millis() as u64, wall: SystemTime::now() }
}
