//! A file in one coding, as it was opened: its validators (RFC 9110 section 8.8) and the headers that describe it.

use std::fmt::Write as _;
use std::hash::{DefaultHasher, Hash, Hasher};

use super::coding::Coding;
use super::date::{self, Date};

/// 1990-01-01. No page of the web is older: an earlier date stands for none, such as 0, 1 (Nix), 1980-01-01 (ZIP) or
/// 1985-10-26 (npm).
const FIRST_DATE_S: i64 = 631_152_000;

/// What tells one version of a file from another (stat(2), statx(2)).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Version {
    /// Its bytes.
    pub size: u64,
    /// When it was last modified: seconds since 1970 and nanoseconds.
    pub modified: (i64, u32),
    /// When its content or its inode was last changed. No program can set this time.
    pub changed: (i64, u32),
    /// Its number in its file system.
    pub inode: u64,
    /// Its file system.
    pub file_system: u64,
    /// The mount that it was reached through.
    pub mount: u64,
}

impl Version {
    /// Whether its times may be those of an image (squashfs, erofs, ISO 9660), or of a file system that has no time of
    /// change: whole seconds, and both the same. There, another version may have the same times and the same inode.
    fn is_of_image(&self) -> bool {
        self.modified == self.changed && self.changed.1 == 0
    }

    /// The time of modification, where it says something about the content.
    fn date_s(&self) -> Option<u64> {
        let is_date = self.modified.0 >= FIRST_DATE_S && !self.is_of_image();
        u64::try_from(self.modified.0).ok().filter(|_| is_date)
    }

    /// What else belongs into a tag. The time of change differs wherever a file was written anew, whatever date it was
    /// given. Where there is no such time, the mount differs, and after a restart the salt.
    fn rest(&self, salt: u64) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.changed.hash(&mut hasher);
        if self.is_of_image() {
            (self.file_system, self.mount, salt).hash(&mut hasher);
        }
        hasher.finish()
    }
}

/// What is sent for a request: a file or one of its compressed neighbours.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Representation {
    /// Its bytes.
    pub size: u64,
    /// The strong entity tag, quotes included.
    pub etag: String,
    /// When it was modified, in seconds since 1970; None where that is not known, or HTTP has no date for it.
    pub modified_s: Option<u64>,
    /// Its coding.
    pub coding: Option<Coding>,
}

impl Representation {
    /// The representation that is this version of a file. Whatever replaces or changes the file changes the tag; two
    /// codings of the same bytes have different tags. `salt` is another number after a restart, and after the folder was
    /// replaced.
    pub fn new(version: &Version, salt: u64, coding: Option<Coding>) -> Representation {
        let Version { size, modified: (modified_s, modified_ns), inode, .. } = *version;
        let (rest, suffix) = (version.rest(salt), coding.map_or("", Coding::name));
        let etag = format!("\"{inode:x}-{size:x}-{modified_s:x}.{modified_ns:x}-{rest:x}{suffix}\"");
        Representation { size, etag, modified_s: version.date_s(), coding }
    }

    /// What a cache has to know whatever the answer is, each line with its CRLF (RFC 9110 section 15.4.5).
    pub fn cache_fields(&self, varies: bool) -> String {
        let mut fields = format!("ETag: {}\r\n", self.etag);
        if varies {
            fields.push_str("Vary: Accept-Encoding\r\n");
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

    const DATE_S: i64 = 784_111_776;
    const BASE: Version =
        Version { size: 1, modified: (DATE_S, 3), changed: (DATE_S, 4), inode: 5, file_system: 6, mount: 7 };
    /// Of an image: both times are the same, in whole seconds.
    const IMAGE: Version = Version { modified: (DATE_S, 0), changed: (DATE_S, 0), ..BASE };

    fn of(version: Version) -> Representation {
        Representation::new(&version, 1, None)
    }

    #[test]
    fn every_change_changes_the_tag() {
        let all = [
            of(BASE),
            of(Version { size: 2, ..BASE }),
            of(Version { modified: (DATE_S + 1, 3), ..BASE }),
            of(Version { modified: (DATE_S, 2), ..BASE }),
            of(Version { modified: (-DATE_S, 3), ..BASE }),
            of(Version { changed: (DATE_S, 5), ..BASE }),
            of(Version { changed: (DATE_S + 1, 4), ..BASE }),
            of(Version { inode: 4, ..BASE }),
            Representation::new(&BASE, 1, Some(Coding::Gzip)),
            Representation::new(&BASE, 1, Some(Coding::Brotli)),
            of(IMAGE),
            of(Version { file_system: 7, ..IMAGE }),
            of(Version { mount: 8, ..IMAGE }),
            Representation::new(&IMAGE, 2, None),
            of(Version { size: u64::MAX, modified: (i64::MIN, 999_999_999), inode: u64::MAX, ..BASE }),
        ];
        for (at, one) in all.iter().enumerate() {
            let inner = one.etag.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap();
            assert!(!inner.is_empty() && inner.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'"'));
            assert!(all[..at].iter().all(|other| other.etag != one.etag), "{one:?}");
        }
        // A restart, and another mount of the same disk, change nothing where times tell all.
        assert_eq!(Representation::new(&BASE, 2, None), of(BASE));
        assert_eq!(of(Version { mount: 8, file_system: 9, ..BASE }), of(BASE));
    }

    #[test]
    fn dates_that_say_nothing() {
        for (version, date_s) in [
            (BASE, Some(DATE_S as u64)),
            (IMAGE, None),
            (Version { modified: (DATE_S, 0), ..BASE }, Some(DATE_S as u64)),
            (Version { modified: (0, 0), ..BASE }, None),
            (Version { modified: (-1, 999_999_999), ..BASE }, None),
            (Version { modified: (499_162_500, 0), ..BASE }, None),
            (Version { modified: (FIRST_DATE_S - 1, 0), ..BASE }, None),
            (Version { modified: (FIRST_DATE_S, 0), ..BASE }, Some(FIRST_DATE_S as u64)),
        ] {
            assert_eq!(of(version).modified_s, date_s, "{version:?}");
        }
    }

    #[test]
    fn fields_of_a_whole_file_and_of_a_part() {
        let mut date = Date::default();
        date.set(784_111_777);
        let plain = of(Version { size: 5 << 32, ..BASE });
        let whole = plain.content_fields("text/plain", None, &date);
        assert_eq!(
            whole,
            "Content-Type: text/plain\r\nContent-Length: 21474836480\r\nAccept-Ranges: bytes\r\n\
             Last-Modified: Sun, 06 Nov 1994 08:49:36 GMT\r\nX-Content-Type-Options: nosniff\r\n"
        );
        let part = plain.content_fields("text/plain", Some((1, 1)), &date);
        assert!(part.contains("Content-Range: bytes 1-1/21474836480\r\nContent-Length: 1\r\n"), "{part}");
        assert_eq!(plain.cache_fields(false), format!("ETag: {}\r\n", plain.etag));
        // From the future, from before 1970, and compressed.
        let future = Representation::new(&Version { modified: (i64::MAX, 0), ..BASE }, 1, Some(Coding::Gzip));
        let fields = future.content_fields("x/y", None, &date);
        assert!(fields.contains("Last-Modified: Sun, 06 Nov 1994 08:49:37 GMT\r\n"), "{fields}");
        assert!(fields.contains("Content-Encoding: gzip\r\n"), "{fields}");
        let past = of(Version { modified: (-1, 999_999_999), ..BASE });
        assert!(!past.content_fields("x/y", None, &date).contains("Last-Modified"));
        assert!(past.cache_fields(true).ends_with("\r\nVary: Accept-Encoding\r\n"));
    }
}
