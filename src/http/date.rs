//! Dates of HTTP (RFC 9110 section 5.6.7). The only file that uses httpdate.

use std::time::{Duration, SystemTime};

/// The last second of the year 9999, the latest date that HTTP can express.
const UNIX_S_MAX: u64 = 253_402_300_799;

/// The current time for Date fields, formatted once a second. The caller sets it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Date {
    unix_s: u64,
    text: String,
}

impl Default for Date {
    /// 1970-01-01, until `set` is called.
    fn default() -> Date {
        Date { unix_s: 0, text: format(0) }
    }
}

impl Date {
    /// Sets the time in seconds since 1970; formats only when it has changed.
    pub fn set(&mut self, unix_s: u64) {
        if self.unix_s != unix_s {
            *self = Date { unix_s, text: format(unix_s) };
        }
    }

    /// Seconds since 1970.
    pub(crate) fn unix_s(&self) -> u64 {
        self.unix_s
    }

    /// The value of a Date header.
    pub(crate) fn text(&self) -> &str {
        &self.text
    }
}

/// IMF-fixdate, as in "Sun, 06 Nov 1994 08:49:37 GMT"; later dates are capped at the end of the year 9999.
pub fn format(unix_s: u64) -> String {
    httpdate::fmt_http_date(SystemTime::UNIX_EPOCH + Duration::from_secs(unix_s.min(UNIX_S_MAX)))
}

/// Parses any of the three HTTP date formats to seconds since 1970. None: invalid, or before 1970.
pub fn parse(value: &[u8]) -> Option<u64> {
    let date = httpdate::parse_http_date(std::str::from_utf8(value).ok()?).ok()?;
    date.duration_since(SystemTime::UNIX_EPOCH).ok().map(|since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_formats_are_parsed_and_one_is_written() {
        for (unix_s, text) in [
            (0, "Thu, 01 Jan 1970 00:00:00 GMT"),
            (784_111_777, "Sun, 06 Nov 1994 08:49:37 GMT"),
            (951_782_400, "Tue, 29 Feb 2000 00:00:00 GMT"),
            (UNIX_S_MAX, "Fri, 31 Dec 9999 23:59:59 GMT"),
        ] {
            assert_eq!((format(unix_s).as_str(), parse(text.as_bytes())), (text, Some(unix_s)));
        }
        assert_eq!(format(u64::MAX), format(UNIX_S_MAX));
        for old in ["Sunday, 06-Nov-94 08:49:37 GMT", "Sun Nov  6 08:49:37 1994"] {
            assert_eq!(parse(old.as_bytes()), Some(784_111_777), "{old}");
        }
    }

    #[test]
    fn invalid_dates() {
        let wrong: [&[u8]; 9] = [
            b"",
            b"0",
            b"Mon, 06 Nov 1994 08:49:37 GMT",
            b"Sun, 06 Nov 1994 08:49:37 UTC",
            b"Sun, 31 Feb 2021 00:00:00 GMT",
            b"Sun, 06 Nov 1994 24:00:00 GMT",
            b"Wed, 31 Dec 1969 23:59:59 GMT",
            b"Sun, 06 Nov 1994 08:49:37 GMT, Sun, 06 Nov 1994 08:49:37 GMT",
            b"\xff\xff\xff",
        ];
        for value in wrong {
            assert_eq!(parse(value), None, "{}", value.escape_ascii());
        }
    }

    #[test]
    fn setting_the_time_formats_it() {
        let mut date = Date::default();
        assert_eq!(date.text(), "Thu, 01 Jan 1970 00:00:00 GMT");
        for unix_s in [784_111_777, 784_111_777, 784_111_776, u64::MAX, 0] {
            date.set(unix_s);
            assert_eq!((date.unix_s(), date.text()), (unix_s, format(unix_s).as_str()));
        }
    }
}
