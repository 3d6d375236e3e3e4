//! Static files: index, content types, Location.

use percent_encoding::{AsciiSet, CONTROLS, NON_ALPHANUMERIC, utf8_percent_encode};

/// The file served for a folder.
const INDEX: &str = "index.html";

/// Characters encoded in the path of a Location.
const PATH: &AsciiSet = &NON_ALPHANUMERIC.remove(b'/').remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Characters encoded in the query of a Location, which the client has encoded already: those that a query must not
/// contain (RFC 3986 section 3.4).
const NOT_QUERY: &AsciiSet = &CONTROLS
    .add(b' ')
    .add(b'"')
    .add(b'#')
    .add(b'<')
    .add(b'>')
    .add(b'[')
    .add(b'\\')
    .add(b']')
    .add(b'^')
    .add(b'`')
    .add(b'{')
    .add(b'|')
    .add(b'}');

const TYPES: [(&str, &str); 58] = [
    ("html", "text/html; charset=utf-8"),
    ("htm", "text/html; charset=utf-8"),
    ("css", "text/css; charset=utf-8"),
    ("js", "text/javascript; charset=utf-8"),
    ("mjs", "text/javascript; charset=utf-8"),
    ("json", "application/json"),
    ("map", "application/json"),
    ("webmanifest", "application/manifest+json"),
    ("txt", "text/plain; charset=utf-8"),
    ("md", "text/markdown; charset=utf-8"),
    ("csv", "text/csv; charset=utf-8"),
    ("xml", "application/xml"),
    ("xhtml", "application/xhtml+xml"),
    ("rss", "application/rss+xml"),
    ("atom", "application/atom+xml"),
    ("svg", "image/svg+xml"),
    ("png", "image/png"),
    ("apng", "image/apng"),
    ("jpg", "image/jpeg"),
    ("jpeg", "image/jpeg"),
    ("gif", "image/gif"),
    ("webp", "image/webp"),
    ("avif", "image/avif"),
    ("bmp", "image/bmp"),
    ("ico", "image/x-icon"),
    ("tif", "image/tiff"),
    ("tiff", "image/tiff"),
    ("woff", "font/woff"),
    ("woff2", "font/woff2"),
    ("ttf", "font/ttf"),
    ("otf", "font/otf"),
    ("wasm", "application/wasm"),
    ("pdf", "application/pdf"),
    ("zip", "application/zip"),
    ("gz", "application/gzip"),
    ("br", "application/octet-stream"),
    ("tar", "application/x-tar"),
    ("xz", "application/x-xz"),
    ("zst", "application/zstd"),
    ("7z", "application/x-7z-compressed"),
    ("mp3", "audio/mpeg"),
    ("ogg", "audio/ogg"),
    ("oga", "audio/ogg"),
    ("opus", "audio/ogg"),
    ("wav", "audio/wav"),
    ("flac", "audio/flac"),
    ("m4a", "audio/mp4"),
    ("aac", "audio/aac"),
    ("mp4", "video/mp4"),
    ("m4v", "video/mp4"),
    ("webm", "video/webm"),
    ("ogv", "video/ogg"),
    ("mpeg", "video/mpeg"),
    ("ts", "video/mp2t"),
    ("m3u8", "application/vnd.apple.mpegurl"),
    ("yaml", "application/yaml"),
    ("yml", "application/yaml"),
    ("rtf", "application/rtf"),
];

/// The content type by file name extension.
pub fn content_type(name: &str) -> &'static str {
    let ending = name.rsplit_once('.').map_or("", |(_, ending)| ending);
    TYPES
        .iter()
        .find(|(other, _)| other.eq_ignore_ascii_case(ending))
        .map_or("application/octet-stream", |(_, content_type)| content_type)
}

/// The file for a name: the folder's index where the name is empty or the path ended with a slash.
pub fn file_of(name: &str, ends_with_slash: bool) -> String {
    match (name, ends_with_slash) {
        ("", _) => INDEX.to_owned(),
        (name, true) => format!("{name}/{INDEX}"),
        (name, false) => name.to_owned(),
    }
}

/// Whether a segment of a name begins with a dot, other than `.well-known` (RFC 8615). Such files are not served.
pub fn is_hidden(name: &str) -> bool {
    name.split('/').any(|segment| segment.starts_with('.') && segment != ".well-known")
}

/// The Location for a folder that was requested without a final slash: its path with the slash, and the query.
pub fn location_of(folder: &str, query: Option<&str>) -> String {
    let mut location = format!("/{}/", utf8_percent_encode(folder, PATH));
    if let Some(query) = query {
        location.push('?');
        location.extend(utf8_percent_encode(query, NOT_QUERY));
    }
    location
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hidden_names() {
        for name in [".git", ".htaccess", "a/.b", ".a/b", "a/.b/c", ".well-known2", "..a", ".well-known/.a"] {
            assert!(is_hidden(name), "{name}");
        }
        for name in ["", "a", "a.b", "a./b", ".well-known", ".well-known/acme", "sub/.well-known"] {
            assert!(!is_hidden(name), "{name}");
        }
    }

    #[test]
    fn locations() {
        for (folder, query, location) in [
            ("sub", None, "/sub/"),
            ("sub", Some(""), "/sub/?"),
            ("sub/x", Some("a=1&b=%20?/:@!$'()*+,;~"), "/sub/x/?a=1&b=%20?/:@!$'()*+,;~"),
            ("a b", Some("<\"{|}\\^`[]>"), "/a%20b/?%3C%22%7B%7C%7D%5C%5E%60%5B%5D%3E"),
            ("caf\u{e9}", None, "/caf%C3%A9/"),
            ("a?b#c%d\r\n", None, "/a%3Fb%23c%25d%0D%0A/"),
            ("evil.example:80@x", None, "/evil.example%3A80%40x/"),
        ] {
            assert_eq!(location_of(folder, query), location);
        }
    }

    #[test]
    fn types_and_names() {
        assert_eq!(content_type("a/page.HTML"), "text/html; charset=utf-8");
        assert_eq!(content_type("Makefile"), "application/octet-stream");
        assert_eq!(file_of("", true), "index.html");
        assert_eq!(file_of("sub", true), "sub/index.html");
        assert_eq!(file_of("sub/x.js", false), "sub/x.js");
    }
}
