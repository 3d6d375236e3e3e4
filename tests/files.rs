//! Pages: dates and tags, ranges, precompressed variants.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::daemon::{Daemon, patient};
use crate::foreign;
use crate::http::{noise, put};
use crate::process::{DEADLINE, Folder, run};
use crate::wire::{Response, Wire, handshake, request};

const TEXT: &str = "0123456789";
const MODIFIED: &str = "Sun, 06 Nov 1994 08:49:37 GMT";
const BEFORE: &str = "Sun, 06 Nov 1994 08:49:36 GMT";
const MODIFIED_S: u64 = 784_111_777;

/// A daemon with a page of ten digits.
fn daemon() -> Daemon {
    let daemon = Daemon::start(&[]);
    put(&daemon, "text.txt", TEXT);
    set_modified(&daemon, "text.txt", UNIX_EPOCH + Duration::from_millis(MODIFIED_S * 1000 + 500));
    daemon
}

fn path(daemon: &Daemon, name: &str) -> PathBuf {
    daemon.folder().path().join("www").join(name)
}

fn set_modified(daemon: &Daemon, name: &str, time: SystemTime) {
    File::options().write(true).open(path(daemon, name)).unwrap().set_modified(time).unwrap();
}

/// The response to a request that may have no body.
fn ask(wire: &mut Wire, method: &str, path: &str, fields: &[&str]) -> Response {
    wire.send(request(method, path, fields));
    let mut response = wire.response_head();
    if method != "HEAD" && response.status != 304 {
        let size = response.field("Content-Length").parse().unwrap();
        response.body = wire.take(size);
    }
    response
}

/// Seconds since 1970 of a date, computed by date(1).
fn seconds(date: &str) -> u64 {
    let finished = run(Command::new("date").args(["-u", "-d", date, "+%s"]), DEADLINE);
    finished.out.trim().parse().unwrap_or_else(|_| panic!("{date:?} is no date: {finished:?}"))
}

#[test]
fn every_reply_has_a_date() {
    let daemon = daemon();
    fs::create_dir(path(&daemon, "sub")).unwrap();
    // The gateway's clock may be late by a tick of the kernel, which a busy host may hold up.
    let before = (SystemTime::now() - DEADLINE).duration_since(UNIX_EPOCH).unwrap().as_secs();
    for (status, text) in [
        (200, request("GET", "/text.txt", &[])),
        (206, request("GET", "/text.txt", &["Range: bytes=0-0"])),
        (301, request("GET", "/sub", &[])),
        (304, request("GET", "/text.txt", &["If-None-Match: *"])),
        (400, request("GET", "x", &[])),
        (403, handshake("/x", &[], &["Origin: null"])),
        (404, request("GET", "/none", &[])),
        (404, handshake("/none", &[], &[])),
        (405, request("POST", "/", &[])),
        (412, request("GET", "/text.txt", &["If-Match: \"x\""])),
        (414, request("GET", &format!("/{}", "x".repeat(9000)), &[])),
        (416, request("GET", "/text.txt", &["Range: bytes=10-"])),
        (417, request("GET", "/", &["Expect: cake"])),
        (426, handshake("/x", &["Sec-WebSocket-Version"], &[])),
        (431, request("GET", "/", &["X: y"; 100])),
        (501, request("GET", "/", &["Transfer-Encoding: gzip, chunked"])),
        (505, request("GET", "/", &[]).replace("HTTP/1.1", "HTTP/2.0")),
    ] {
        let mut wire = daemon.wire();
        wire.send(&text);
        let response = wire.response_head();
        assert_eq!(response.status, status, "{text:?}");
        let date = response.field("Date");
        // IMF-fixdate (RFC 9110 section 5.6.7).
        assert!(date.len() == 29 && date.ends_with(" GMT") && date.as_bytes()[3] == b',', "{status}: {date:?}");
        let after = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        assert!((before..=after).contains(&seconds(date)), "{status}: {date:?}");
    }
}

#[test]
fn head_has_the_same_headers_as_get() {
    let daemon = daemon();
    put(&daemon, "both.js", "plain");
    put(&daemon, "both.js.gz", "compressed");
    let mut wire = daemon.wire();
    for (path, fields, status) in [
        ("/text.txt", &[][..], 200),
        ("/both.js", &["Accept-Encoding: gzip"], 200),
        ("/both.js", &["Accept-Encoding: identity;q=0, br"], 406),
        ("/text.txt", &["If-None-Match: *"], 304),
        ("/text.txt", &["If-Match: \"x\""], 412),
        ("/none", &[], 404),
        ("/.hidden", &[], 404),
    ] {
        let get = ask(&mut wire, "GET", path, fields);
        let head = ask(&mut wire, "HEAD", path, fields);
        assert_eq!((get.status, head.status), (status, status), "{path} {fields:?}");
        let without_date = |response: &Response| {
            response.head.lines().filter(|line| !line.starts_with("Date: ")).map(str::to_owned).collect::<Vec<_>>()
        };
        assert_eq!(without_date(&get), without_date(&head), "{path} {fields:?}");
    }
    // A range is for GET alone (RFC 9110 section 14.2).
    let head = ask(&mut wire, "HEAD", "/text.txt", &["Range: bytes=0-0"]);
    assert_eq!((head.status, head.field("Content-Length")), (200, "10"));
}

#[test]
fn validators_and_conditional_requests() {
    let daemon = daemon();
    let mut wire = daemon.wire();
    let response = wire.get("/text.txt");
    assert_eq!((response.field("Last-Modified"), response.field("Accept-Ranges")), (MODIFIED, "bytes"));
    assert_eq!(response.field("X-Content-Type-Options"), "nosniff");
    let own = response.field("ETag").to_owned();
    assert!(own.len() > 4 && own.starts_with('"') && own.ends_with('"'), "{own}");
    let (same, other) = (format!("If-Match: {own}"), "If-Match: \"other\"");
    let (has, has_not) = (format!("If-None-Match: \"a\", W/{own}"), "If-None-Match: \"other\"");
    let since = |name: &str, date: &str| format!("{name}: {date}");
    let (unmodified, modified) = (since("If-Unmodified-Since", MODIFIED), since("If-Unmodified-Since", BEFORE));
    let (fresh, stale) = (since("If-Modified-Since", MODIFIED), since("If-Modified-Since", BEFORE));
    let (range, for_this) = ("Range: bytes=2-3", format!("If-Range: {own}"));
    for (fields, status, body) in [
        (&[same.as_str()][..], 200, TEXT),
        (&[other], 412, ""),
        (&[&has], 304, ""),
        (&[has_not], 200, TEXT),
        (&[&fresh], 304, ""),
        (&[&stale], 200, TEXT),
        (&[&unmodified], 200, TEXT),
        (&[&modified], 412, ""),
        // The order of RFC 9110 section 13.2.2.
        (&[&same, &modified, has_not, &fresh], 200, TEXT),
        (&[other, &unmodified, &has], 412, ""),
        (&[&same, &has, &stale], 304, ""),
        (&[&unmodified, &has], 304, ""),
        (&[&has, range], 304, ""),
        (&[range], 206, "23"),
        (&[range, &for_this], 206, "23"),
        (&[range, "If-Range: \"other\""], 200, TEXT),
        (&[range, &since("If-Range", MODIFIED)], 206, "23"),
        (&[range, &since("If-Range", BEFORE)], 200, TEXT),
        // Conditions without effect.
        (&["If-Modified-Since: yesterday"], 200, TEXT),
        (&["If-None-Match: nonsense"], 200, TEXT),
    ] {
        let response = ask(&mut wire, "GET", "/text.txt", fields);
        assert_eq!(response.status, status, "{fields:?}");
        assert!(status == 412 || response.text() == body, "{fields:?}: {response:?}");
        assert!(status == 412 || response.field("ETag") == own, "{fields:?}: {response:?}");
    }
}

#[test]
fn cache_control_is_configurable() {
    let folder = Folder::new();
    let file = folder.join("pages.conf");
    let headers =
        "headers = ({ path = \"^/assets/\"; name = \"Cache-Control\"; value = \"max-age=31536000, immutable\"; },
        { name = \"X-Frame-Options\"; value = \"DENY\"; });";
    let docroot = folder.join("www");
    let document = format!("docroot = \"{docroot}\"; cache-control = \"public, max-age=60\"; {headers}");
    fs::write(&file, format!("limits = {{ {} }}; servers = ({{ document = {{ {document} }}; }});", patient("")))
        .unwrap();
    let daemon = Daemon::start_in(folder, &["-f", &file]);
    put(&daemon, "text.txt", TEXT);
    put(&daemon, "assets/app.js", TEXT);
    let mut wire = daemon.wire();
    for fields in [&[][..], &["If-None-Match: *"]] {
        let response = ask(&mut wire, "GET", "/assets/app.js", fields);
        assert_eq!(response.all("Cache-Control"), ["max-age=31536000, immutable"], "{fields:?}");
        assert_eq!(response.all("X-Frame-Options"), ["DENY"], "{fields:?}");
    }
    for (path, fields, status, value) in [
        ("/text.txt", &[][..], 200, "public, max-age=60"),
        ("/text.txt", &["Range: bytes=1-2"], 206, "public, max-age=60"),
        ("/text.txt", &["If-None-Match: *"], 304, "public, max-age=60"),
        ("/none", &[], 404, ""),
    ] {
        let response = ask(&mut wire, "GET", path, fields);
        assert_eq!((response.status, response.field("Cache-Control")), (status, value), "{path} {fields:?}");
    }
}

#[test]
pub fn byte_ranges() {
    let daemon = daemon();
    let mut wire = daemon.wire();
    for (range, content_range, body) in [
        ("bytes=0-0", "bytes 0-0/10", "0"),
        ("bytes=2-", "bytes 2-9/10", "23456789"),
        ("bytes=8-100", "bytes 8-9/10", "89"),
        ("bytes=-3", "bytes 7-9/10", "789"),
        ("bytes=-30", "bytes 0-9/10", TEXT),
        // Several ranges, or none: the whole.
        ("bytes=0-0,2-3", "", TEXT),
        ("bytes=3-2", "", TEXT),
        ("lines=1-2", "", TEXT),
    ] {
        let response = ask(&mut wire, "GET", "/text.txt", &[&format!("Range: {range}")]);
        let status = if content_range.is_empty() { 200 } else { 206 };
        let got = (response.status, response.field("Content-Range"), response.text());
        assert_eq!(got, (status, content_range, body.to_owned()), "{range}");
    }
    for range in ["bytes=10-", "bytes=-0", "bytes=99999999999999999999-"] {
        let response = ask(&mut wire, "GET", "/text.txt", &[&format!("Range: {range}")]);
        let got = (response.status, response.field("Content-Range"), response.field("Connection"));
        assert_eq!(got, (416, "bytes */10", "keep-alive"), "{range}");
    }
    let bytes = noise(1_000_000);
    put(&daemon, "noise.bin", &bytes);
    for (first, last) in [(0, 999_999), (1, 65_535), (65_500, 131_071), (999_998, 999_999), (70_000, 70_000)] {
        let response = ask(&mut wire, "GET", "/noise.bin", &[&format!("Range: bytes={first}-{last}")]);
        assert!(response.body == bytes[first..=last], "{first}-{last}: the bytes differ");
    }
}

#[test]
fn files_beyond_4_gib() {
    let daemon = daemon();
    let size: u64 = (5 << 30) + 3;
    let file = File::create(path(&daemon, "large.bin")).unwrap();
    file.set_len(size).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, b"end", size - 3).unwrap();
    let mut wire = daemon.wire();
    let head = ask(&mut wire, "HEAD", "/large.bin", &[]);
    assert_eq!(head.field("Content-Length"), size.to_string());
    let content_range = format!("bytes {}-{}/{size}", size - 4, size - 1);
    for range in [format!("bytes={}-", size - 4), "bytes=-4".to_owned()] {
        let response = ask(&mut wire, "GET", "/large.bin", &[&format!("Range: {range}")]);
        assert_eq!(response.field("Content-Range"), content_range, "{range}");
        assert_eq!(response.body, b"\0end", "{range}");
    }
}

#[test]
fn a_changed_file_has_a_new_entity_tag() {
    let daemon = daemon();
    let mut wire = daemon.wire();
    let mut seen = vec![wire.get("/text.txt").field("ETag").to_owned()];
    let time = UNIX_EPOCH + Duration::from_millis(MODIFIED_S * 1000 + 500);
    let other_time = time + Duration::from_nanos(1);
    let changes: [(&str, &dyn Fn()); 3] = [
        ("another size", &|| {
            put(&daemon, "text.txt", "012345678");
            set_modified(&daemon, "text.txt", time);
        }),
        ("a nanosecond later", &|| set_modified(&daemon, "text.txt", other_time)),
        ("another file of the same size and time", &|| {
            put(&daemon, "other.txt", "abcdefghi");
            set_modified(&daemon, "other.txt", other_time);
            fs::rename(path(&daemon, "other.txt"), path(&daemon, "text.txt")).unwrap();
        }),
    ];
    for (what, change) in changes {
        change();
        let last = seen.last().unwrap().clone();
        let tag = ask(&mut wire, "GET", "/text.txt", &[&format!("If-None-Match: {last}")]).field("ETag").to_owned();
        assert!(!seen.contains(&tag), "{what}: {tag} of {seen:?}");
        seen.push(tag);
    }
}

/// Builds that give all files one date (SOURCE_DATE_EPOCH), unpacked by an archiver.
#[test]
fn files_that_all_have_one_date() {
    let daemon = daemon();
    let mut wire = daemon.wire();
    for (time, last_modified) in [
        (UNIX_EPOCH, &[][..]),
        (UNIX_EPOCH + Duration::from_secs(315_532_800), &[]),
        (UNIX_EPOCH + Duration::from_secs(MODIFIED_S), &[MODIFIED]),
    ] {
        let mut write = |text: &str| {
            // In the same inode, with the same size and date.
            put(&daemon, "page.html", text);
            set_modified(&daemon, "page.html", time);
            ask(&mut wire, "GET", "/page.html", &[])
        };
        let tag = write("version 1").field("ETag").to_owned();
        let second = write("version 2");
        assert_eq!((second.text().as_str(), second.all("Last-Modified")), ("version 2", last_modified.to_vec()));
        let known = ask(&mut wire, "GET", "/page.html", &[&format!("If-None-Match: {tag}")]);
        assert_eq!((known.status, known.text().as_str()), (200, "version 2"), "{time:?}: {tag}");
        assert_eq!(second.field("Cache-Control"), "no-cache");
        if last_modified.is_empty() {
            let since = ask(&mut wire, "GET", "/page.html", &["If-Modified-Since: Thu, 01 Jan 1970 00:00:00 GMT"]);
            assert_eq!(since.status, 200, "{time:?}");
        }
    }
}

#[test]
fn a_precompressed_variant_older_than_its_file_is_ignored() {
    let daemon = daemon();
    let mut wire = daemon.wire();
    let time = |ns: u64| UNIX_EPOCH + Duration::from_secs(MODIFIED_S) + Duration::from_nanos(ns);
    for name in ["app.js", "app.js.gz", "app.js.br"] {
        put(&daemon, name, name);
    }
    for (plain, gzip, brotli, expected) in [
        (5, 5, 5, "app.js.br"),
        (5, 5, 4, "app.js.gz"),
        (5, 6, 4, "app.js.gz"),
        (5, 4, 4, "app.js"),
        (5, 4, 6, "app.js.br"),
    ] {
        for (name, ns) in [("app.js", plain), ("app.js.gz", gzip), ("app.js.br", brotli)] {
            set_modified(&daemon, name, time(ns));
        }
        let response = ask(&mut wire, "GET", "/app.js", &["Accept-Encoding: gzip, br"]);
        assert_eq!((response.status, response.text().as_str()), (200, expected), "{plain} {gzip} {brotli}");
    }
    // A stale variant is not sent, even if the client accepts nothing else.
    let response = ask(&mut wire, "GET", "/app.js", &["Accept-Encoding: gzip, identity;q=0"]);
    assert_eq!(response.status, 406);
}

#[test]
fn modification_times_outside_the_range_of_http_dates() {
    let daemon = daemon();
    let mut wire = daemon.wire();
    set_modified(&daemon, "text.txt", UNIX_EPOCH - Duration::from_secs(100_000));
    let response = ask(&mut wire, "GET", "/text.txt", &["If-Modified-Since: Thu, 01 Jan 1970 00:00:00 GMT"]);
    assert_eq!((response.status, response.all("Last-Modified")), (200, vec![]));
    // A date in the future is sent as now (RFC 9110 section 8.8.2.1).
    set_modified(&daemon, "text.txt", SystemTime::now() + Duration::from_secs(100_000));
    let response = wire.get("/text.txt");
    assert_eq!((response.status, response.field("Last-Modified")), (200, response.field("Date")));
}

#[test]
pub fn precompressed_variants() {
    let daemon = daemon();
    put(&daemon, "app.js", "plain");
    put(&daemon, "app.js.gz", "gzipped");
    put(&daemon, "app.js.br", "br");
    put(&daemon, "app.js.gz.gz", "packed twice");
    put(&daemon, "sub/index.html", "page");
    put(&daemon, "sub/index.html.gz", "packed");
    put(&daemon, "only.css.gz", "stored packed");
    put(&daemon, "odd.txt", "odd");
    fs::create_dir(path(&daemon, "odd.txt.br")).unwrap();
    std::os::unix::fs::symlink("/etc/passwd", path(&daemon, "odd.txt.gz")).unwrap();
    let mut wire = daemon.wire();
    let mut tags = Vec::new();
    for (name, accept, coding, content_type, body) in [
        ("/app.js", "", "", "text/javascript; charset=utf-8", "plain"),
        ("/app.js", "deflate", "", "text/javascript; charset=utf-8", "plain"),
        ("/app.js", "gzip", "gzip", "text/javascript; charset=utf-8", "gzipped"),
        ("/app.js", "gzip, deflate, br", "br", "text/javascript; charset=utf-8", "br"),
        ("/app.js", "br;q=0.5, gzip;q=0.6", "gzip", "text/javascript; charset=utf-8", "gzipped"),
        ("/app.js", "br;q=0, gzip;q=0", "", "text/javascript; charset=utf-8", "plain"),
        ("/app.js", "gzip;q=0.5, identity", "", "text/javascript; charset=utf-8", "plain"),
        ("/app.js", "*", "br", "text/javascript; charset=utf-8", "br"),
        ("/app.js", "identity;q=0, gzip", "gzip", "text/javascript; charset=utf-8", "gzipped"),
        ("/sub/", "br, gzip", "gzip", "text/html; charset=utf-8", "packed"),
        ("/only.css", "gzip", "gzip", "text/css; charset=utf-8", "stored packed"),
        ("/odd.txt", "br, gzip", "", "text/plain; charset=utf-8", "odd"),
        ("/text.txt", "br, gzip", "", "text/plain; charset=utf-8", TEXT),
    ] {
        let field = format!("Accept-Encoding: {accept}");
        let fields: &[&str] = if accept.is_empty() { &[] } else { &[&field] };
        let response = ask(&mut wire, "GET", name, fields);
        let got = (response.status, response.field("Content-Encoding"), response.field("Content-Type"));
        assert_eq!(got, (200, coding, content_type), "{name} {accept:?}");
        assert_eq!((response.text().as_str(), response.field("Vary")), (body, "Accept-Encoding"), "{name} {accept:?}");
        tags.push((name, body, response.field("ETag").to_owned()));
        let again = ask(&mut wire, "GET", name, &[fields, &["If-None-Match: *"]].concat());
        assert_eq!((again.status, again.field("Vary")), (304, "Accept-Encoding"), "{name} {accept:?}");
    }
    // Each representation has a tag of its own.
    for (name, body, tag) in &tags {
        assert!(tags.iter().all(|other| (other.2 == *tag) == ((other.0, other.1) == (*name, *body))), "{tags:?}");
    }
    // Ranges and tags are those of the coding that is sent.
    let gzip = tags.iter().find(|(_, body, _)| *body == "gzipped").unwrap().2.clone();
    let fields = ["Accept-Encoding: gzip", "Range: bytes=0-3", &format!("If-Range: {gzip}")];
    let response = ask(&mut wire, "GET", "/app.js", &fields);
    let got = (response.status, response.field("Content-Range"), response.field("Content-Encoding"));
    assert_eq!((got, response.text().as_str()), ((206, "bytes 0-3/7", "gzip"), "gzip"));
    assert_eq!(ask(&mut wire, "GET", "/app.js", &fields[1..]).text(), "plain");
    // A compressed file that is asked for by name has no coding.
    let response = ask(&mut wire, "GET", "/app.js.gz", &["Accept-Encoding: gzip"]);
    let got = (response.field("Content-Type"), response.field("Content-Encoding"), response.field("Vary"));
    assert_eq!((got, response.text().as_str()), (("application/gzip", "", ""), "gzipped"));
    for (name, accept, status) in [
        ("/app.js", "identity;q=0", 406),
        ("/app.js", "*;q=0", 406),
        ("/text.txt", "gzip, identity;q=0", 406),
        ("/only.css", "br", 404),
        ("/only.css", "identity;q=0, br", 404),
        ("/none", "gzip, br", 404),
        ("/sub", "gzip, br", 301),
    ] {
        assert_eq!(ask(&mut wire, "GET", name, &[&format!("Accept-Encoding: {accept}")]).status, status, "{name}");
    }
}

/// Files as curl asks for them.
#[test]
#[ignore = "needs curl"]
fn curl_and_gzip_agree() {
    let daemon = daemon();
    let text = "a line that is worth packing\n".repeat(500);
    put(&daemon, "page.html", &text);
    let script =
        "import gzip, sys; open(sys.argv[1] + '.gz', 'wb').write(gzip.compress(open(sys.argv[1], 'rb').read()))";
    let page = path(&daemon, "page.html");
    assert!(run(foreign::command("python3").args(["-c", script]).arg(&page), DEADLINE).status.success());
    let packed = fs::read(page.with_extension("html.gz")).unwrap();
    let out = daemon.folder().join("answer");
    let curl_into = |out: &str, name: &str, arguments: &[&str]| {
        let mut command = foreign::command("curl");
        command.args(["-sS", "--http1.1", "--noproxy", "*", "-o", out, "-w"]);
        command.arg("%{http_code} %{size_download}\n").args(arguments);
        let finished = run(command.arg(format!("http://127.0.0.1:{}/{name}", daemon.port)), DEADLINE);
        assert!(finished.status.success(), "{finished:?}");
        (finished.out.trim().to_owned(), fs::read_to_string(out).unwrap_or_default())
    };
    let curl = |name: &str, arguments: &[&str]| {
        let _ = fs::remove_file(&out);
        curl_into(&out, name, arguments)
    };
    let packed_size = packed.len();
    assert_eq!(curl("page.html", &["--compressed"]), (format!("200 {packed_size}"), text.clone()));
    assert_eq!(curl("page.html", &[]), (format!("200 {}", text.len()), text.clone()));
    assert_eq!(curl("text.txt", &["-r", "2-5"]), ("206 4".to_owned(), "2345".to_owned()));
    assert_eq!(curl("text.txt", &["-r", "-2"]), ("206 2".to_owned(), "89".to_owned()));
    assert_eq!(curl("text.txt", &["-r", "10-"]).0.split(' ').next(), Some("416"));
    assert_eq!(curl("text.txt", &["-z", MODIFIED]).0, "304 0");
    assert_eq!(curl("text.txt", &["-z", BEFORE]), ("200 10".to_owned(), TEXT.to_owned()));
    assert_eq!(curl("text.txt", &["-z", &format!("-{BEFORE}")]).0.split(' ').next(), Some("412"));
    // Resumes a download.
    fs::write(daemon.folder().join("part"), "0123").unwrap();
    let part = daemon.folder().join("part");
    assert_eq!(curl_into(&part, "text.txt", &["-C", "-"]), ("206 6".to_owned(), TEXT.to_owned()));
    assert_eq!(curl("text.txt", &["-d", "a body"]).0.split(' ').next(), Some("405"));
}
