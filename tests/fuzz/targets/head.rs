//! Requests: heads, bodies and the values in them, cut where the fuzzer wants. Accepted input has one meaning for
//! every reader, and is harmless to the next one.
#![no_main]

use libfuzzer_sys::fuzz_target;
use uakari::http::authority::Authority;
use uakari::http::body::{Body, BodyError, Framing};
use uakari::http::coding::Codings;
use uakari::http::conditions::{Conditions, Selection};
use uakari::http::date::{self, Date};
use uakari::http::fields;
use uakari::http::head::{self, Head, HeadError};
use uakari::http::range::{self, Part};
use uakari::http::representation::{Representation, Version};
use uakari::http::upgrade::{self, Origins};
use uakari::http::{files, target};
use uakari::limits::{self, Http, SUBPROTOCOLS_MAX, TARGET_SIZE_MAX};
use uakari::observe::log::Quoted;
use uakari::route::names;
use uakari_fuzz::choices::{Choices, cut};
use uakari_fuzz::request::{Ends, Request, chunks_end};

/// The time of all that is tested here.
const NOW_S: u64 = 784_111_777;
/// Heads up to this size are looked at after every byte.
const SHORT: usize = 400;

fuzz_target!(|data: &[u8]| {
    let mut choices = Choices::new(data);
    let way = choices.byte();
    let cuts = choices.counted();
    let bytes = choices.rest();
    let limits = match way >> 2 {
        0 => Http { head_size_max: limits::HEAD_SIZE_MAX.min, headers_max: limits::HEADERS_MAX.min, ..Http::default() },
        1 => Http { head_size_max: limits::HEAD_SIZE_MAX.max, headers_max: limits::HEADERS_MAX.max, ..Http::default() },
        _ => Http::default(),
    };
    match way & 3 {
        0 | 1 => check_request(bytes, cuts, &limits),
        2 => check_body(bytes, cuts, Framing::Chunked),
        _ => check_values(bytes),
    }
});

fn check_request(bytes: &[u8], cuts: &[u8], limits: &Http) {
    let whole = head::scan(bytes, 0);
    assert_eq!(gather(bytes, cuts), whole);
    let Ok(Some(end)) = whole else {
        return check_partial(bytes, limits, false);
    };
    let (bytes, behind) = bytes.split_at(end);
    match head::parse(&mut bytes.to_vec(), limits) {
        Ok(head) => {
            check_partial(bytes, limits, true);
            check_head(&head, bytes, limits);
            check_name(head.path, head.query);
            check_upgrade(&head);
            check_conditions(&head);
            check_body(behind, cuts, head.framing);
        }
        Err(error) => assert!((400..=505).contains(&error.status()) && !error.to_string().is_empty()),
    }
}

/// Looks for the end of a head that comes in pieces.
fn gather(bytes: &[u8], cuts: &[u8]) -> Result<Option<usize>, HeadError> {
    let (mut scanned, mut there) = (0, 0);
    for piece in cut(bytes, cuts) {
        there += piece.len();
        if let Some(end) = head::scan(&bytes[..there], scanned)? {
            return Ok(Some(end));
        }
        scanned = there;
    }
    Ok(None)
}

/// What is refused before it is whole is refused whatever follows, so that a good head is never refused.
fn check_partial(bytes: &[u8], limits: &Http, is_good: bool) {
    let mut is_refused = false;
    let few = (1..bytes.len().min(SHORT)).chain([bytes.len()]);
    for size in few {
        let is_wrong = head::check_partial(&bytes[..size], limits).is_err();
        assert!(is_wrong || !is_refused, "refused at first, not at {size}");
        is_refused = is_wrong;
    }
    assert!(!is_good || !is_refused, "refused before it was whole");
}

fn check_head(head: &Head<'_>, bytes: &[u8], limits: &Http) {
    let request = Request::of(bytes);
    let [method, target, version] = request.line;
    assert!(bytes.len() as u64 <= limits.head_size_max && target.len() <= TARGET_SIZE_MAX);
    assert!(head.headers.len() as u64 <= limits.headers_max);
    assert_eq!(head.method.as_bytes(), method);
    assert!(version.starts_with(b"HTTP/1.") && (version[7] == b'0') != head.http_1_1, "{version:?}");
    let fields: Vec<_> = head.headers.iter().map(|(name, value)| (name.as_bytes(), *value)).collect();
    assert_eq!(fields, request.fields);
    let is_token = |byte: u8| byte.is_ascii_graphic() && !b"\"(),/:;<=>?@[\\]{}".contains(&byte);
    let is_text = |byte: u8| byte == b'\t' || byte >= b' ' && byte != 0x7f;
    for (name, value) in request.fields.iter().chain([&(method, &[][..])]) {
        assert!(!name.is_empty() && name.iter().copied().all(is_token), "{name:?}");
        assert!(value.iter().copied().all(is_text), "{value:?}");
    }
    let query = head.query.map(|query| format!("?{query}")).unwrap_or_default();
    let shown = format!("{}{query}", head.path);
    // Of a URL without a path the path is "/".
    let is_its_end = target.ends_with(shown.as_bytes()) || head.path == "/" && target.ends_with(query.as_bytes());
    let has_no_path = head.method == "CONNECT" || target == b"*";
    assert!(has_no_path || is_its_end && (target[0] != b'/' || target == shown.as_bytes()), "{shown}");
    assert!(head.path.starts_with('/') && shown.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#'));
    let hosts = request.values("host");
    assert!(hosts.len() == 1 || hosts.is_empty() && !head.http_1_1, "{hosts:?}");
    assert!(head.host.is_empty() || Authority::parse(head.host).is_some());
    assert!(hosts.first().is_none_or(|host| target[0] != b'/' || *host == head.host.as_bytes()));
    let framing = match head.framing {
        Framing::Empty => Ends::Empty,
        Framing::Sized(size) => Ends::Sized(size),
        Framing::Chunked => Ends::Chunked,
    };
    assert_eq!(framing, request.ends());
    let stays = head.http_1_1 || request.has_option("keep-alive");
    assert_eq!(head.keep_alive, stays && !request.has_option("close"));
}

/// A name leads nowhere but into its folder, and neither it nor the query breaks a header or a line of the log.
fn check_name(path: &str, query: Option<&str>) {
    let Ok(name) = names::from_path(path) else { return };
    assert!(name.is_empty() || name.split('/').all(|part| !["", ".", ".."].contains(&part)), "{name:?}");
    assert!(!name.contains('\0'));
    assert!(!Quoted(&name).to_string().chars().any(char::is_control));
    let location = files::location_of(&name, query);
    assert!(location.bytes().all(|byte| byte.is_ascii_graphic()), "{location:?}");
    let again = location.split('?').next().unwrap_or_default();
    // Of the root there is none.
    assert!(name.is_empty() || !again.starts_with("//"), "another server: {location:?}");
    assert_eq!(names::from_path(again).as_ref(), Ok(&name));
    let file = files::file_of(&name, path.ends_with('/'));
    assert!(!file.is_empty() && !file.starts_with('/') && !files::content_type(&file).is_empty());
    let parts = format!("/{name}/");
    let is_hidden = parts.match_indices("/.").any(|(at, _)| !parts[at..].starts_with("/.well-known/"));
    assert_eq!(files::is_hidden(&name), is_hidden);
}

/// An allowed origin only ever makes of a yes a no.
fn check_upgrade(head: &Head<'_>) {
    if !upgrade::is_asked(&head.headers) {
        return;
    }
    let check = |is_tls, origins: &Origins| {
        upgrade::check(head.method, head.http_1_1, head.host, is_tls, &head.headers, origins)
    };
    let any = check(None, &Origins::Any);
    if let Ok(upgrade) = &any {
        assert!(head.method == "GET" && head.http_1_1);
        let all = &upgrade.subprotocols;
        assert!(all.len() <= SUBPROTOCOLS_MAX && (1..all.len()).all(|at| !all[..at].contains(&all[at])), "{all:?}");
        let is_value = |text: &String| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic());
        assert!(all.iter().all(is_value) && upgrade.accept.len() == 28);
    }
    for origins in [Origins::Same, Origins::List(vec!["https://a.example".into()])] {
        let [unknown, http, https] = [None, Some(false), Some(true)].map(|is_tls| check(is_tls, &origins));
        for judged in [&unknown, &http, &https] {
            assert!(*judged == any || *judged == Err(upgrade::UpgradeError::Origin));
        }
        let is_known = http == any || https == any;
        assert_eq!(unknown == any, is_known, "a scheme that is not known is either");
    }
}

fn version(size: u64) -> Version {
    let modified = (NOW_S as i64 - 10, 0);
    Version { size, modified, changed: modified, inode: 1, file_system: 1, mount: 1 }
}

fn check_conditions(head: &Head<'_>) {
    let mut codings = Codings::read(&head.headers);
    let (first, second) = (codings.pop(), codings.pop());
    assert!(codings.pop().is_none() && (first.is_none() || first != second));
    let mut date = Date::default();
    date.set(NOW_S);
    for size in [0, 1, 100, u64::MAX] {
        let file = Representation::new(&version(size), 0, first);
        let part = match Conditions::read(&head.headers, head.method == "HEAD").select(&file, NOW_S) {
            Selection::Part(first, last) => {
                assert!(first <= last && last < size && head.method != "HEAD", "{first}-{last} of {size}");
                Some((first, last))
            }
            Selection::Unsatisfiable => return assert!(fields::single(&head.headers, "range").is_some()),
            _ => None,
        };
        for line in file.content_fields("text/plain", part, &date).split_terminator("\r\n") {
            assert!(line.bytes().all(|byte| (b' '..=b'~').contains(&byte)) && line.contains(": "), "{line:?}");
        }
    }
}

/// A body ends where RFC 9112 says, wherever it is cut.
fn check_body(bytes: &[u8], cuts: &[u8], framing: Framing) {
    let whole = read_body(&[bytes], framing);
    assert_eq!(read_body(&cut(bytes, cuts), framing), whole);
    let Ok(Some(end)) = whole else { return };
    match framing {
        Framing::Empty => assert_eq!(end, 0),
        Framing::Sized(size) => assert_eq!(end as u64, size),
        Framing::Chunked => assert_eq!(Some(end), chunks_end(bytes)),
    }
}

fn read_body(pieces: &[&[u8]], framing: Framing) -> Result<Option<usize>, BodyError> {
    let mut body = Body::new(framing)?;
    let mut before = 0;
    for piece in pieces {
        if let Some(end) = body.read(piece)? {
            return Ok(Some(before + end));
        }
        before += piece.len();
    }
    Ok(None)
}

/// Values by themselves, which a head would have to be built around.
fn check_values(bytes: &[u8]) {
    if let Some(unix_s) = date::parse(bytes) {
        assert_eq!(date::parse(date::format(unix_s).as_bytes()), Some(unix_s));
    }
    if let Some(range) = range::parse(bytes) {
        for size in [0, 1, 2, 1_000, u64::MAX] {
            match range.of(size) {
                Part::Bytes(first, last) => assert!(first <= last && last < size),
                Part::Whole => assert_eq!(size, 0),
                Part::Unsatisfiable => {}
            }
        }
    }
    let fields: Vec<(&str, &[u8])> = bytes
        .split(|byte| *byte == b'\n')
        .zip(["if-none-match", "if-match", "if-range", "range", "accept-encoding", "if-modified-since"].iter().cycle())
        .map(|(value, name)| (*name, value))
        .collect();
    let head = Head {
        method: "GET",
        path: "/",
        query: None,
        has_path: true,
        http_1_1: true,
        host: "",
        headers: fields,
        keep_alive: true,
        framing: Framing::Empty,
        expects_continue: false,
    };
    check_conditions(&head);
    if let Ok(text) = std::str::from_utf8(bytes) {
        if let Some(target) = target::parse("GET", text) {
            assert!(
                target.path.starts_with('/') && target.authority.is_none_or(|(one, _)| Authority::parse(one).is_some())
            );
        }
        check_name(text, None);
    }
}
