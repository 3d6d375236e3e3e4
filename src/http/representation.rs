//! An opened file in one coding: its validators (RFC 9110 section 8.8) and header fields.

use std::fmt::Write as _;
use std::hash::{DefaultHasher, Hash, Hasher};

use super::coding::Coding;
use super::date::{self, Date};

/// 1990-01-01. The web is younger: an earlier mtime is a placeholder, such as 0, 1 (Nix), 1980-01-01 (ZIP) or
/// 1985-10-26 (npm).
const FIRST_DATE_S: i64 = 631_152_000;

/// The metadata that distinguishes versions of a file (statx(2)).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Version {
    /// Bytes.
    pub size: u64,
    /// mtime: seconds since 1970 and nanoseconds.
    pub modified: (i64, u32),
    /// ctime, in the same units. Programs cannot set it.
    pub changed: (i64, u32),
    /// The inode number.
    pub inode: u64,
    /// The device number of its file system.
    pub file_system: u64,
    /// The mount ID.
    pub mount: u64,
}

impl Version {
    /// Whether mtime equals ctime in whole seconds, as on images (squashfs, erofs, ISO 9660) and file systems without a
    /// ctime. Two versions may have the same times and the same inode there.
    fn is_of_image(&self) -> bool {
        self.modified == self.changed && self.changed.1 == 0
    }

    /// mtime in seconds since 1970. None: a placeholder, or the time of an image.
    fn date_s(&self) -> Option<u64> {
        let is_date = self.modified.0 >= FIRST_DATE_S && !self.is_of_image();
        u64::try_from(self.modified.0).ok().filter(|_| is_date)
    }

    /// The hashed part of the entity tag. ctime changes with each write, even where mtime is set back. Without a ctime,
    /// the mount distinguishes versions, and the salt does after a restart.
    fn rest(&self, salt: u64) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.changed.hash(&mut hasher);
        if self.is_of_image() {
            (self.file_system, self.mount, salt).hash(&mut hasher);
        }
        hasher.finish()
    }
}

/// The selected representation: a file or one of its precompressed variants.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Representation {
    /// Bytes.
    pub(crate) size: u64,
    /// The strong entity tag, quotes included.
    pub(crate) etag: String,
    /// Last-Modified in seconds since 1970. None: mtime is a placeholder, or the time of an image.
    pub(crate) modified_s: Option<u64>,
    /// None: the file itself.
    pub(crate) coding: Option<Coding>,
}

impl Representation {
    /// Builds the validators. The tag changes with every replacement or change of the file, and differs between codings.
    /// `salt` changes with each restart and each replacement of the folder.
    pub fn new(version: &Version, salt: u64, coding: Option<Coding>) -> Representation {
        let Version { size, modified: (modified_s, modified_ns), inode, .. } = *version;
        let (rest, suffix) = (version.rest(salt), coding.map_or("", Coding::name));
        let etag = format!("\"{inode:x}-{size:x}-{modified_s:x}.{modified_ns:x}-{rest:x}{suffix}\"");
        Representation { size, etag, modified_s: version.date_s(), coding }
    }

    /// The fields sent with 200, 206 and 304 alike, each line with its CRLF (RFC 9110 section 15.4.5).
    pub(crate) fn cache_fields(&self, varies: bool) -> String {
        let mut fields = format!("ETag: {}\r\n", self.etag);
        if varies {
            fields.push_str("Vary: Accept-Encoding\r\n");
        }
        fields
    }

    /// The content fields of a 200 or 206. `part`: first and last byte of the range, inclusive.
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
    /// A file of an image: both times are the same, in whole seconds.
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
        // With a ctime, neither the salt nor the mount changes the tag.
        assert_eq!(Representation::new(&BASE, 2, None), of(BASE));
        assert_eq!(of(Version { mount: 8, file_system: 9, ..BASE }), of(BASE));
    }

    #[test]
    fn placeholder_dates() {
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
        // A compressed variant with a date in the future, and a date before 1970.
        let future = Representation::new(&Version { modified: (i64::MAX, 0), ..BASE }, 1, Some(Coding::Gzip));
        let fields = future.content_fields("x/y", None, &date);
        assert!(fields.contains("Last-Modified: Sun, 06 Nov 1994 08:49:37 GMT\r\n"), "{fields}");
        assert!(fields.contains("Content-Encoding: gzip\r\n"), "{fields}");
        let past = of(Version { modified: (-1, 999_999_999), ..BASE });
        assert!(!past.content_fields("x/y", None, &date).contains("Last-Modified"));
        assert!(past.cache_fields(true).ends_with("\r\nVary: Accept-Encoding\r\n"));
    }
}
