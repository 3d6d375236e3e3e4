//! Log formats: text and JSON, with a priority prefix for the journal.

use std::fmt::{self, Write as _};
use std::time::{SystemTime, UNIX_EPOCH};

use super::record::{AccessLine, Quoted, Record};
use crate::limits::{LOG_LINE_SIZE_MAX, LOG_VALUE_SIZE_MAX};

/// The format of log lines.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(crate) enum Format {
    /// Time, level and a sentence.
    #[default]
    Text,
    /// One JSON object (RFC 8259).
    Json,
}

/// How lines are written.
#[derive(Clone, Copy)]
pub(crate) struct Style {
    /// Text or JSON.
    pub(crate) format: Format,
    /// The journal adds the time and reads a priority prefix (sd-daemon(3)).
    pub(crate) is_journal: bool,
}

/// Formats a record into `line`, which is cleared first. The result ends in a newline and has at most
/// `LOG_LINE_SIZE_MAX` bytes.
pub(crate) fn write_line(line: &mut String, style: Style, wall: SystemTime, record: &Record<'_>) {
    line.clear();
    if style.is_journal {
        put(line, format_args!("<{}>", record.level().priority()));
    }
    match style.format {
        Format::Text => write_text(line, (!style.is_journal).then_some(wall), record),
        Format::Json => write_json(line, wall, record),
    }
    line.push('\n');
}

/// A line for standard output, newline included. Escaped like log lines, since it may quote paths and values.
pub(crate) fn plain_line(what: fmt::Arguments<'_>) -> String {
    let mut line = String::new();
    put_escaped(&mut line, Format::Text, usize::MAX, what);
    line.push('\n');
    line
}

fn write_text(line: &mut String, wall: Option<SystemTime>, record: &Record<'_>) {
    if let Some(wall) = wall {
        put(line, format_args!("{} ", Timestamp(wall)));
    }
    put(line, format_args!("{:5} ", record.level().name()));
    if let Some(id) = record.connection() {
        put(line, format_args!("c{id} "));
    }
    let size_max = LOG_LINE_SIZE_MAX - "\n".len();
    match record {
        Record::Event { what, .. } => put_escaped(line, Format::Text, size_max, *what),
        Record::End(access) => put_escaped(line, Format::Text, size_max, format_args!("{}", EndText(access))),
    }
}

/// The end of a connection as a sentence.
struct EndText<'a>(&'a AccessLine<'a>);

impl fmt::Display for EndText<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let access = self.0;
        write!(f, "end client={}", access.client)?;
        if !access.host.is_empty() {
            write!(f, " host={}", Quoted(access.host))?;
        }
        write!(f, " name={}", Quoted(access.name))?;
        if !access.user.is_empty() {
            write!(f, " user={}", Quoted(access.user))?;
        }
        if access.status != 0 {
            write!(f, " status={}", access.status)?;
        }
        if let Some(code) = access.code {
            write!(f, " code={code}")?;
        }
        write!(f, " lasted={}.{:03}s", access.lasted_ms / 1000, access.lasted_ms % 1000)?;
        write!(
            f,
            " up={}B/{} down={}B/{}",
            access.up_bytes, access.up_messages, access.down_bytes, access.down_messages
        )?;
        write!(f, ": {}", access.ending)
    }
}

/// The message is the last member, and the only one that is cut to fit the line, so that the object is always complete.
fn write_json(line: &mut String, wall: SystemTime, record: &Record<'_>) {
    put(line, format_args!(r#"{{"time":"{}","level":"{}""#, Timestamp(wall), record.level().name()));
    if let Some(id) = record.connection() {
        put(line, format_args!(r#","connection":{id}"#));
    }
    let message: &dyn fmt::Display = match record {
        Record::Event { what, .. } => {
            line.push_str(r#","event":"log""#);
            what
        }
        Record::End(access) => {
            write_json_end(line, access);
            access.ending
        }
    };
    line.push_str(r#","message":""#);
    put_escaped(line, Format::Json, LOG_LINE_SIZE_MAX - "\"}\n".len(), format_args!("{message}"));
    line.push_str("\"}");
}

fn write_json_end(line: &mut String, access: &AccessLine<'_>) {
    let value = |line: &mut String, key: &str, value: &dyn fmt::Display| {
        put(line, format_args!(",\"{key}\":\""));
        put_escaped(line, Format::Json, line.len() + LOG_VALUE_SIZE_MAX, format_args!("{value}"));
        line.push('"');
    };
    line.push_str(r#","event":"end""#);
    value(line, "client", access.client);
    if !access.host.is_empty() {
        value(line, "host", &access.host);
    }
    value(line, "name", &access.name);
    if !access.user.is_empty() {
        value(line, "user", &access.user);
    }
    let number = |line: &mut String, key: &str, number: u64| put(line, format_args!(",\"{key}\":{number}"));
    if access.status != 0 {
        number(line, "status", access.status.into());
    }
    if let Some(code) = access.code {
        number(line, "code", code.into());
    }
    number(line, "lasted_ms", access.lasted_ms);
    number(line, "up_bytes", access.up_bytes);
    number(line, "up_messages", access.up_messages);
    number(line, "down_bytes", access.down_bytes);
    number(line, "down_messages", access.down_messages);
}

fn put(line: &mut String, text: fmt::Arguments<'_>) {
    // Writing to a String cannot fail.
    let _ = line.write_fmt(text);
}

/// Appends escaped text. If the line would exceed `size_max` bytes, the text is cut and ends in "...".
fn put_escaped(line: &mut String, format: Format, size_max: usize, text: fmt::Arguments<'_>) {
    let mut escaped = Escaped { line, format, size_max: size_max - "...".len() };
    if escaped.write_fmt(text).is_err() {
        line.push_str("...");
    }
}

/// Escapes into a line. A write fails at the first character that does not fit.
struct Escaped<'a> {
    line: &'a mut String,
    format: Format,
    size_max: usize,
}

impl fmt::Write for Escaped<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for character in text.chars() {
            let size = self.line.len();
            match (self.format, character) {
                (Format::Json, '"' | '\\') => self.line.extend(['\\', character]),
                (_, '\n' | '\r' | '\t') => self.line.extend(character.escape_default()),
                (Format::Json, hidden) if is_hidden(hidden) => {
                    put(self.line, format_args!("\\u{:04x}", u32::from(hidden)));
                }
                (Format::Text, hidden) if is_hidden(hidden) => self.line.extend(hidden.escape_default()),
                (_, plain) => self.line.push(plain),
            }
            if self.line.len() > self.size_max {
                self.line.truncate(size);
                return Err(fmt::Error);
            }
        }
        Ok(())
    }
}

/// Control characters, line separators, and characters that change the direction of text. All have at most four
/// hexadecimal digits.
fn is_hidden(character: char) -> bool {
    let separators_and_directions =
        ['\u{61c}'..='\u{61c}', '\u{200e}'..='\u{200f}', '\u{2028}'..='\u{202e}', '\u{2066}'..='\u{2069}'];
    character.is_control() || separators_and_directions.iter().any(|range| range.contains(&character))
}

/// UTC with milliseconds (RFC 3339).
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

/// Year, month and day of a number of days since 1970-01-01. Years are counted from March, so that the leap day is the
/// last day of its year.
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
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;
    use crate::observe::record::Level;

    const TEXT: Style = Style { format: Format::Text, is_journal: false };
    const JSON: Style = Style { format: Format::Json, is_journal: false };

    fn line(style: Style, record: &Record<'_>) -> String {
        let mut line = "what was there before".to_owned();
        let wall = UNIX_EPOCH + Duration::from_millis(20_778 * 86_400_000 + 8 * 3_600_000 + 123);
        write_line(&mut line, style, wall, record);
        assert!(line.len() <= LOG_LINE_SIZE_MAX, "{} bytes", line.len());
        assert_eq!(line.find('\n'), Some(line.len() - 1), "{line:?}");
        line.pop();
        line
    }

    fn event(style: Style, what: &str) -> String {
        line(style, &Record::Event { level: Level::Info, connection: None, what: format_args!("{what}") })
    }

    fn access<'a>(host: &'a str, name: &'a str, code: Option<u16>) -> AccessLine<'a> {
        AccessLine {
            level: Level::Info,
            id: 12,
            client: &"127.0.0.1:5",
            host,
            name,
            user: "",
            status: if code.is_some() { 101 } else { 0 },
            code,
            lasted_ms: 61_007,
            up_bytes: 8,
            up_messages: 2,
            down_bytes: 3,
            down_messages: 1,
            ending: &"the client closed with 1000",
        }
    }

    #[test]
    fn plain_lines() {
        let said = plain_line(format_args!("{}", "/a\u{1b}[2J\r\n\u{9b}b\u{202e}\u{e9}"));
        assert_eq!(said, "/a\\u{1b}[2J\\r\\n\\u{9b}b\\u{202e}\u{e9}\n");
    }

    #[test]
    fn all_styles() {
        let (full, bare) = (access("a.example", "echo", Some(1000)), access("", "", None));
        let end = "up=8B/2 down=3B/1: the client closed with 1000";
        let json_end =
            r#""up_bytes":8,"up_messages":2,"down_bytes":3,"down_messages":1,"message":"the client closed with 1000"}"#;
        let time = "2026-11-21T08:00:00.123Z";
        for (record, text, json, priority) in [
            (
                Record::Event { level: Level::Error, connection: None, what: format_args!("stopped") },
                "error stopped".to_owned(),
                r#""level":"error","event":"log","message":"stopped"}"#.to_owned(),
                "<3>",
            ),
            (
                Record::Event { level: Level::Warn, connection: Some(7), what: format_args!("GET {}", Quoted("a\"")) },
                r#"warn  c7 GET "a\"""#.to_owned(),
                r#""level":"warn","connection":7,"event":"log","message":"GET \"a\\\"\""}"#.to_owned(),
                "<4>",
            ),
            (
                Record::End(&full),
                format!(
                    r#"info  c12 end client=127.0.0.1:5 host="a.example" name="echo" status=101 code=1000 lasted=61.007s {end}"#
                ),
                format!(
                    r#""level":"info","connection":12,"event":"end","client":"127.0.0.1:5","host":"a.example","name":"echo","status":101,"code":1000,"lasted_ms":61007,{json_end}"#
                ),
                "<6>",
            ),
            (
                Record::End(&bare),
                format!(r#"info  c12 end client=127.0.0.1:5 name="" lasted=61.007s {end}"#),
                format!(
                    r#""level":"info","connection":12,"event":"end","client":"127.0.0.1:5","name":"","lasted_ms":61007,{json_end}"#
                ),
                "<6>",
            ),
            (
                Record::Event { level: Level::Debug, connection: None, what: format_args!("") },
                "debug ".to_owned(),
                r#""level":"debug","event":"log","message":""}"#.to_owned(),
                "<7>",
            ),
        ] {
            let json = format!(r#"{{"time":"{time}",{json}"#);
            assert_eq!(line(TEXT, &record), format!("{time} {text}"));
            assert_eq!(line(JSON, &record), json);
            // The journal adds the time to text lines. A JSON object has all members everywhere.
            assert_eq!(line(Style { is_journal: true, ..TEXT }, &record), format!("{priority}{text}"));
            assert_eq!(line(Style { is_journal: true, ..JSON }, &record), format!("{priority}{json}"));
        }
    }

    #[test]
    fn control_characters_are_escaped() {
        for (what, text, json) in [
            ("plain ä \u{1f435}", "plain ä \u{1f435}", "plain ä \u{1f435}"),
            ("a\nb\r\tc", r"a\nb\r\tc", r"a\nb\r\tc"),
            ("\0\u{1b}[31m", r"\u{0}\u{1b}[31m", r"\u0000\u001b[31m"),
            ("\u{7f}\u{85}\u{9b}", r"\u{7f}\u{85}\u{9b}", r"\u007f\u0085\u009b"),
            ("\u{2028}\u{2029}\u{202e}\u{2066}", r"\u{2028}\u{2029}\u{202e}\u{2066}", r"\u2028\u2029\u202e\u2066"),
            ("\u{61c}\u{200e}\u{200f}", r"\u{61c}\u{200e}\u{200f}", r"\u061c\u200e\u200f"),
            // In text, the caller quotes values.
            (r#""x\y""#, r#""x\y""#, r#"\"x\\y\""#),
        ] {
            assert_eq!(event(TEXT, what), format!("2026-11-21T08:00:00.123Z info  {text}"));
            assert!(event(JSON, what).ends_with(&format!(r#""message":"{json}"}}"#)), "{what:?}");
        }
    }

    #[test]
    fn long_lines_are_cut_between_characters() {
        for (character, text, json) in [
            ('x', "x", "x"),
            ('ä', "ä", "ä"),
            ('\u{1f435}', "\u{1f435}", "\u{1f435}"),
            ('\n', r"\n", r"\n"),
            ('\u{1b}', r"\u{1b}", r"\u001b"),
            ('"', "\"", "\\\""),
        ] {
            let what = String::from(character).repeat(LOG_LINE_SIZE_MAX);
            for (style, escape, before, behind) in
                [(TEXT, text, " info  ", "..."), (JSON, json, r#""message":""#, r#"..."}"#)]
            {
                let line = event(style, &what);
                assert!(line.len() > LOG_LINE_SIZE_MAX - 16, "{character:?}: {} bytes", line.len());
                let body = line.split_once(before).unwrap().1.strip_suffix(behind).unwrap();
                assert_eq!(body, escape.repeat(body.len() / escape.len()), "{character:?}");
            }
        }
    }

    #[test]
    fn a_long_value_leaves_room_for_the_others() {
        let long = "\u{1}".repeat(10_000);
        let ending = long.as_str();
        let most = AccessLine {
            id: u64::MAX,
            client: &ending,
            lasted_ms: u64::MAX,
            up_bytes: u64::MAX,
            down_bytes: u64::MAX,
            ending: &ending,
            ..access(&long, &long, Some(u16::MAX))
        };
        let json = line(JSON, &Record::End(&most));
        assert!(json.contains(r#"\u0001...","status":101,"code":65535,"lasted_ms":18446744073709551615,"#), "{json}");
        assert!(json.ends_with(r#"\u0001..."}"#), "{json}");
        let text = line(TEXT, &Record::End(&access(&long, &long, Some(1000))));
        assert!(text.ends_with(": the client closed with 1000"), "{text}");
    }

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
}
