//! Paths of requests to nodes. Rules and links see a path as `route::names::from_path` folds it, a node sees it as it was
//! sent: what both could read differently is refused.

use std::borrow::Cow;

use percent_encoding::percent_decode_str;

/// Whether a path, still encoded, means the same to the rules and to any node.
///
/// Not so are: an encoded slash; a backslash, also encoded; an empty segment, except the last one; a dot segment, also
/// encoded or with parameters (`..;x`); an encoded control character; what is not percent-encoded UTF-8. Parameters of a
/// segment are allowed: sessions are known by them.
pub(crate) fn is_unambiguous(path: &str) -> bool {
    let Some(rest) = path.strip_prefix('/') else { return false };
    if !is_encoded(path) || percent_decode_str(path).decode_utf8().is_err() {
        return false;
    }
    let mut segments = rest.split('/').peekable();
    while let Some(segment) = segments.next() {
        let is_last = segments.peek().is_none();
        let mut decoded = percent_decode_str(segment);
        if decoded.clone().any(|byte| byte.is_ascii_control() || matches!(byte, b'/' | b'\\')) {
            return false;
        }
        // The segment without its parameters.
        let mut dots = 0;
        let is_of_dots = loop {
            match decoded.next() {
                None | Some(b';') => break true,
                Some(b'.') => dots += 1,
                Some(_) => break false,
            }
        };
        if is_of_dots && (matches!(dots, 1 | 2) || dots == 0 && !is_last) {
            return false;
        }
    }
    true
}

/// Whether each percent sign begins an encoded byte.
fn is_encoded(path: &str) -> bool {
    let is_byte = |rest: &str| rest.len() >= 2 && rest.bytes().take(2).all(|byte| byte.is_ascii_hexdigit());
    path.split('%').skip(1).all(is_byte)
}

/// The path without the parameters of its segments (RFC 3986 section 3.3), as Java servers match it: the path or the name
/// up to the first ";" of each segment, which may be encoded.
pub(crate) fn without_parameters(path: &str) -> Cow<'_, str> {
    let is_any = path.bytes().any(|byte| byte == b';') || path.contains("%3b") || path.contains("%3B");
    if !is_any {
        return path.into();
    }
    let plain = |segment| {
        let end = [";", "%3b", "%3B"].iter().filter_map(|delimiter| str::find(segment, delimiter)).min();
        &segment[..end.unwrap_or(segment.len())]
    };
    let segments: Vec<&str> = path.split('/').map(plain).collect();
    segments.join("/").into()
}

/// A name (`route::names::from_path`) without the parameters of its segments.
pub(crate) fn plain_name(name: &str) -> Cow<'_, str> {
    match without_parameters(name) {
        Cow::Borrowed(name) => name.into(),
        Cow::Owned(name) => {
            let segments: Vec<&str> = name.split('/').filter(|segment| !segment.is_empty()).collect();
            segments.join("/").into()
        }
    }
}

/// The path for a node: `to` takes the place of `matched`, the decoded beginning of the path that the link's pattern has
/// matched. A slash at the end of either does not count. `path` is still encoded, and `is_unambiguous`; the rest of it is
/// not changed. Parameters of segments within the beginning are dropped; those of its last segment are kept.
pub(crate) fn rewritten(path: &str, matched: &str, to: &str) -> String {
    let matched = matched.strip_suffix('/').unwrap_or(matched);
    let base = to.strip_suffix('/').unwrap_or(to);
    let rest = after(path, matched).unwrap_or(path);
    let mut result = String::with_capacity(base.len() + rest.len() + 1);
    result.push_str(base);
    result.push_str(rest);
    // Two slashes at the beginning would be an authority to some parsers.
    let slashes = result.bytes().take_while(|byte| *byte == b'/').count();
    match slashes {
        0 => result.insert(0, '/'),
        1 => {}
        more => drop(result.drain(..more - 1)),
    }
    result
}

/// The raw rest of a path after a decoded beginning. None: it begins otherwise.
fn after<'p>(path: &'p str, matched: &str) -> Option<&'p str> {
    let mut rest = path;
    for expected in matched.bytes() {
        let (mut byte, mut size) = first(rest)?;
        if byte == b';' && expected == b'/' {
            rest = &rest[rest.find('/')?..];
            (byte, size) = first(rest)?;
        }
        if byte != expected {
            return None;
        }
        rest = rest.get(size..)?;
    }
    Some(rest)
}

/// The first byte, decoded, and the number of bytes that it takes.
fn first(path: &str) -> Option<(u8, usize)> {
    let bytes = path.as_bytes();
    match bytes.first()? {
        b'%' => u8::from_str_radix(path.get(1..3)?, 16).ok().map(|byte| (byte, 3)),
        byte => Some((*byte, 1)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ambiguous_paths() {
        for path in [
            "/",
            "/x",
            "/x/",
            "/x/y.html",
            "/x;jsessionid=1.node",
            "/x;a=b;c/y",
            "/;jsessionid=1",
            "/x/;jsessionid=1",
            "/x%3bjsessionid=1",
            "/.well-known/x",
            "/...",
            "/..x/y..",
            "/caf%C3%A9",
            "/%7Euser/%20",
            "/100%25",
            "/a%252fb",
            "/x|y\"<>^`{}",
        ] {
            assert!(is_unambiguous(path), "{path}");
        }
        for path in [
            "",
            "x",
            "//",
            "//x",
            "/x//",
            "/x//y",
            "/.",
            "/..",
            "/./x",
            "/x/../y",
            "/x/..",
            "/%2e/x",
            "/%2E%2e/x",
            "/.%2e/x",
            "/x/..;/y",
            "/x/..;a=b/y",
            "/x/.;/y",
            "/x/..%3b/y",
            "/x/%2e%2e;/y",
            "/x/..;",
            "/;/x",
            "/;a=b/x",
            "/%3b/x",
            "/x%2fy",
            "/x%2Fy",
            "/x%5cy",
            "/x%5Cy",
            "/x\\y",
            "/\\x",
            "/x%00",
            "/x%0d%0aX:y",
            "/x%1f",
            "/x%7f",
            "/x%ff",
            "/x%c0%ae",
            "/x%C3",
            "/x%c3/%a9",
            "/x%",
            "/x%4",
            "/x%zz",
            "/x%+1",
        ] {
            assert!(!is_unambiguous(path), "{path}");
        }
    }

    #[test]
    fn paths_without_parameters() {
        for (path, plain, name) in [
            ("/x/y", "/x/y", "/x/y"),
            ("/x;a=b/y;c", "/x/y", "x/y"),
            ("/x%3ba/y%3Bc", "/x/y", "x/y"),
            ("/;a", "/", ""),
            ("x;%3b", "x", "x"),
            ("/x;", "/x", "x"),
            ("/x/;y", "/x/", "x"),
        ] {
            assert_eq!((without_parameters(path).as_ref(), plain_name(path).as_ref()), (plain, name), "{path}");
        }
    }

    #[test]
    fn rewritten_paths() {
        for (path, matched, to, expected) in [
            ("/websocket/nodeID1", "/websocket/nodeID1", "/websocket", "/websocket"),
            ("/websocket/nodeID1/x", "/websocket/nodeID1", "/websocket", "/websocket/x"),
            ("/websocket/nodeID10", "/websocket/nodeID1", "/websocket", "/websocket0"),
            ("/web%73ocket/x", "/websocket", "/ws", "/ws/x"),
            ("/websocket/x%20y", "/websocket/", "/ws/", "/ws/x%20y"),
            ("/websocket", "/websocket", "/", "/"),
            ("/websocket/", "/websocket", "/ws", "/ws/"),
            ("/websocket/x", "/websocket", "", "/x"),
            ("/websocketx", "/websocket", "/", "/x"),
            ("/x/y", "/", "/app", "/app/x/y"),
            ("/x/y", "", "/app/", "/app/x/y"),
            ("/", "/", "/", "/"),
            ("/", "/", "/app", "/app/"),
            ("/caf%C3%A9/x", "/caf\u{e9}", "/c", "/c/x"),
            ("/rpc;rpcid=1.a", "/rpc", "/RPC", "/RPC;rpcid=1.a"),
            ("/rpc;rpcid=1.a", "/rpc", "/", "/;rpcid=1.a"),
            ("/a;p/b/c", "/a/b", "/x", "/x/c"),
            ("/a%3Bp/b/c", "/a/b/", "/x", "/x/c"),
            ("/a;p/b;q/c", "/a/b", "/x", "/x;q/c"),
            ("/a;p", "/a;p", "/x", "/x"),
            // Such a path is refused before; it is never an authority.
            ("/a//evil.example", "/a", "/", "/evil.example"),
            ("/a/x", "/a", "//evil.example", "/evil.example/x"),
        ] {
            assert_eq!(rewritten(path, matched, to), expected, "{path} {matched} {to}");
        }
    }
}
