//! Log lines to standard error: the one place that prints. One line an event, no byte of a client's choosing
//! unescaped.

use std::fmt;
use std::io::Write as _;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::limits::LOG_VALUE_SIZE_MAX;

/// How much an event matters; a level shows itself and all before it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[repr(u8)]
pub enum Level {
    /// The daemon cannot do what it was asked to.
    Error,
    /// Something that the operator may want to mend.
    Warn,
    /// Beginnings and ends.
    Info,
    /// Every step.
    Debug,
}

impl Level {
    /// The name that `--log-level` takes.
    pub fn name(self) -> &'static str {
        match self {
            Level::Error => "error",
            Level::Warn => "warn",
            Level::Info => "info",
            Level::Debug => "debug",
        }
    }
}

/// How a line is written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Format {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// What is logged, how and where to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Settings {
    /// The last level that is shown.
    pub level: Level,
    /// How a line is written.
    pub format: Format,
    /// The file; none: standard error.
    pub file: Option<String>,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings { level: Level::Info, format: Format::Text, file: None }
    }
}

static LEVEL: AtomicU8 = AtomicU8::new(Level::Info as u8);

/// Sets what is shown from now on.
pub fn set_level(level: Level) {
    LEVEL.store(level as u8, Ordering::Relaxed);
}

/// Whether events of this level are shown.
pub fn is_on(level: Level) -> bool {
    level as u8 <= LEVEL.load(Ordering::Relaxed)
}

/// Writes one event, if its level is shown. A log that cannot be written is no reason to stop serving.
pub fn event(level: Level, what: fmt::Arguments<'_>) {
    if is_on(level) {
        let line = format!("{} {:5} {what}\n", Timestamp(SystemTime::now()), level.name());
        let _ = std::io::stderr().write_all(line.as_bytes());
    }
}

/// Prints a line meant for scripts, such as the address of a listener, to standard output.
pub fn announce(line: fmt::Arguments<'_>) {
    let mut out = std::io::stdout();
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}

/// A value that a peer chose: quoted, escaped, cut at a limit.
pub struct Quoted<'a>(pub &'a str);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let cut = &self.0[..self.0.floor_char_boundary(LOG_VALUE_SIZE_MAX)];
        let more = if cut.len() < self.0.len() { "..." } else { "" };
        write!(f, "\"{}{more}\"", cut.escape_default())
    }
}

/// UTC, to the millisecond, as RFC 3339 writes it.
struct Timestamp(SystemTime);

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let since = self.0.duration_since(UNIX_EPOCH).unwrap_or_default();
        let (days, second) = (since.as_secs() / 86_400, since.as_secs() % 86_400);
        let (year, month, day) = civil(days);
        let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
        write!(f, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{:03}Z", since.subsec_millis())
    }
}

/// Year, month and day of a day counted from 1970-01-01, in the Gregorian calendar: years are counted from
/// March, so that the leap day is the last of its year.
fn civil(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let (shown, carry) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    (year + era * 400 + carry, shown, day - (153 * month + 2) / 5 + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates() {
        for (days, date) in [
            (0, (1970, 1, 1)),
            (59, (1970, 3, 1)),
            (11_016, (2000, 2, 29)),
            (19_782, (2024, 2, 29)),
            (20_778, (2026, 11, 21)),
        ] {
            assert_eq!(civil(days), date);
        }
    }

    #[test]
    fn quoting() {
        assert_eq!(Quoted("a\r\nb\"\u{1b}").to_string(), r#""a\r\nb\"\u{1b}""#);
        assert!(Quoted(&"x".repeat(1000)).to_string().len() < LOG_VALUE_SIZE_MAX + 10);
    }
}
