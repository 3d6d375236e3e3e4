//! A file in one coding, as it was opened: its validators (RFC 9110 section 8.8) and the headers that describe it.

use std::fmt::Write as _;

use super::coding::Coding;
use super::date::{self, Date};

/// What is sent for a request: a file or one of its compressed neighbours.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Representation {
    /// Its bytes.
    pub size: u64,
    /// The strong entity tag, quotes included.
    pub etag: String,
    /// When it was modified, in seconds since 1970; None where HTTP has no date for that.
    pub modified_s: Option<u64>,
    /// Its coding.
    pub coding: Option<Coding>,
}

impl Representation {
    /// The representation that is a file of this size, time of modification and number. Whatever replaces or
    /// changes the file changes one of these; two codings of the same bytes have different tags.
    pub fn new(size: u64, modified_s: i64, modified_ns: u32, inode: u64, coding: Option<Coding>) -> Representation {
        let suffix = coding.map_or("", Coding::name);
        let etag = format!("\"{inode:x}-{size:x}-{modified_s:x}.{modified_ns:x}{suffix}\"");
        Representation { size, etag, modified_s: u64::try_from(modified_s).ok(), coding }
    }

    /// What a cache has to know whatever the answer is, each line with its CRLF (RFC 9110 section 15.4.5).
    pub fn cache_fields(&self, varies: bool, cache_control: Option<&str>) -> String {
        let mut fields = format!("ETag: {}\r\n", self.etag);
        if varies {
            fields.push_str("Vary: Accept-Encoding\r\n");
        }
        if let Some(value) = cache_control {
            // Writing to a string cannot fail.
            let _ = write!(fields, "Cache-Control: {value}\r\n");
        }
        fields
    }

    /// What describes the content of a 200 or a 206: `part` is the first and the last byte of a range.
    pub fn content_fields(&self, content_type: &str, part: Option<(u64, u64)>, date: &Date) -> String {
        let mut fields = format!("Content-Type: {content_type}\r\n");
        let length = match part {
            Some((first, last)) => {
                let _ = write!(fields, "Content-Range: bytes {first}-{last}/{}\r\n", self.size);
                last - first + 1
            }
            None => self.size,
        };
        let _ = write!(fields, "Content-Length: {length}\r\nAccept-Ranges: bytes\r\n");
        if let Some(coding) = self.coding {
            let _ = write!(fields, "Content-Encoding: {}\r\n", coding.name());
        }
        if let Some(modified_s) = self.modified_s {
            // Never later than Date (RFC 9110 section 8.8.2.1).
            let modified = date::format(modified_s.min(date.unix_s()));
            let _ = write!(fields, "Last-Modified: {modified}\r\n");
        }
        fields.push_str("X-Content-Type-Options: nosniff\r\n");
        fields
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_change_changes_the_tag() {
        let all = [
            Representation::new(1, 2, 3, 4, None),
            Representation::new(2, 2, 3, 4, None),
            Representation::new(1, 3, 3, 4, None),
            Representation::new(1, 2, 4, 4, None),
            Representation::new(1, 2, 3, 5, None),
            Representation::new(1, 2, 3, 4, Some(Coding::Gzip)),
            Representation::new(1, 2, 3, 4, Some(Coding::Brotli)),
            Representation::new(1, -2, 3, 4, None),
            Representation::new(u64::MAX, i64::MIN, 999_999_999, u64::MAX, None),
        ];
        for (at, one) in all.iter().enumerate() {
            let inner = one.etag.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap();
            assert!(!inner.is_empty() && inner.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'"'));
            assert!(all[..at].iter().all(|other| other.etag != one.etag), "{one:?}");
        }
    }

    #[test]
    fn fields_of_a_whole_file_and_of_a_part() {
        let mut date = Date::default();
        date.set(784_111_777);
        let plain = Representation::new(5 << 32, 784_111_776, 0, 1, None);
        let whole = plain.content_fields("text/plain", None, &date);
        assert_eq!(
            whole,
            "Content-Type: text/plain\r\nContent-Length: 21474836480\r\nAccept-Ranges: bytes\r\n\
             Last-Modified: Sun, 06 Nov 1994 08:49:36 GMT\r\nX-Content-Type-Options: nosniff\r\n"
        );
        let part = plain.content_fields("text/plain", Some((1, 1)), &date);
        assert!(part.contains("Content-Range: bytes 1-1/21474836480\r\nContent-Length: 1\r\n"), "{part}");
        assert_eq!(plain.cache_fields(false, None), format!("ETag: {}\r\n", plain.etag));
        // From the future, from before 1970, and compressed.
        let future = Representation::new(1, i64::MAX, 0, 1, Some(Coding::Gzip));
        let fields = future.content_fields("x/y", None, &date);
        assert!(fields.contains("Last-Modified: Sun, 06 Nov 1994 08:49:37 GMT\r\n"), "{fields}");
        assert!(fields.contains("Content-Encoding: gzip\r\n"), "{fields}");
        let past = Representation::new(1, -1, 999_999_999, 1, None);
        assert!(!past.content_fields("x/y", None, &date).contains("Last-Modified"));
        let cache = past.cache_fields(true, Some("max-age=60"));
        assert!(cache.ends_with("\r\nVary: Accept-Encoding\r\nCache-Control: max-age=60\r\n"), "{cache}");
    }
}
