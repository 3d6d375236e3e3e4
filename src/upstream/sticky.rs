//! Sessions that are bound to a node.

use crate::http::fields::{Fields, values};

/// How the node of a session is known: the value of a cookie, of a parameter of the query, or of a parameter of the path
/// ends with a route, as in `JSESSIONID=0123.node1`.
///
/// Names are compared exactly, and nothing is percent-decoded. The route is what follows the last separator: session
/// identifiers that are signed or structured contain dots, and names of nodes need not. Jetty and the map of nginx's
/// documentation read it so; Apache takes what follows the first one. A route that contains the separator matches nothing.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Sticky {
    /// The names of cookies and parameters, in the order in which they are tried; at most `limits::STICKY_NAMES_MAX`.
    pub names: Vec<Box<str>>,
    /// What precedes a parameter of the path. Not `/`.
    pub path_delimiter: char,
    /// What precedes the route in the value.
    pub route_separator: char,
}

impl Sticky {
    /// The route that a request names. None: it names none. For each name in order: the cookies, the query, the path. A
    /// value without a route is passed over. The work is linear in the request for each name.
    pub(crate) fn route<'a>(&self, path: &'a str, query: Option<&'a str>, headers: &Fields<'a>) -> Option<&'a str> {
        self.names.iter().find_map(|name| {
            let mut cookies = cookies(headers, name);
            let mut query = query.into_iter().flat_map(|query| query.split('&')).filter_map(|part| value(part, name));
            let parameters = path.split('/').flat_map(|segment| segment.split(self.path_delimiter).skip(1));
            let mut path = parameters.filter_map(|part| value(part, name));
            cookies
                .find_map(|value| self.route_of(value))
                .or_else(|| query.find_map(|value| self.route_of(value)))
                .or_else(|| path.find_map(|value| self.route_of(value)))
        })
    }

    fn route_of<'a>(&self, value: &'a str) -> Option<&'a str> {
        value.rsplit_once(self.route_separator).map(|(_, route)| route).filter(|route| !route.is_empty())
    }
}

/// The values of the cookies of this name (RFC 6265 section 4.2.1), without quotes.
fn cookies<'a>(headers: &Fields<'a>, name: &str) -> impl Iterator<Item = &'a str> {
    values(headers, "cookie")
        .flat_map(|field| field.split(|byte| *byte == b';'))
        .filter_map(|pair| std::str::from_utf8(pair.trim_ascii()).ok())
        .filter_map(move |pair| value(pair, name))
        .map(|value| value.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(value))
}

/// The value of `name=value`, if it has this name.
fn value<'a>(pair: &'a str, name: &str) -> Option<&'a str> {
    pair.strip_prefix(name)?.strip_prefix('=')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sticky(path_delimiter: char, route_separator: char) -> Sticky {
        let names = ["rpcid", "JSESSIONID", "jsessionid"].map(Into::into).to_vec();
        Sticky { names, path_delimiter, route_separator }
    }

    #[test]
    fn routes_of_requests() {
        let sticky = sticky(';', '.');
        for (path, query, cookie, route) in [
            // No session, or one without a route.
            ("/", None, "", None),
            ("/", None, "JSESSIONID=0123", None),
            ("/", None, "JSESSIONID=0123.", None),
            ("/", None, "JSESSIONID", None),
            ("/", None, "JSESSIONID=", None),
            // Cookies.
            ("/", None, "JSESSIONID=0123.n1", Some("n1")),
            ("/", None, "a=b; JSESSIONID=0123.n1; c=d.e", Some("n1")),
            ("/", None, "a=b;JSESSIONID=0123.n1", Some("n1")),
            ("/", None, "JSESSIONID=\"0123.n1\"", Some("n1")),
            ("/", None, "JSESSIONID=\"", None),
            ("/", None, "JSESSIONID=.n1", Some("n1")),
            ("/", None, "JSESSIONID=a.b.n1", Some("n1")),
            ("/", None, "JSESSIONID=a=b.n1", Some("n1")),
            ("/", None, "JSESSIONID=0123; JSESSIONID=4.n2", Some("n2")),
            ("/", None, "jSessionId=0123.n1", None),
            ("/", None, "XJSESSIONID=0123.n1", None),
            ("/", None, "JSESSIONIDX=0123.n1", None),
            // The query.
            ("/", Some("rpcid=0.n1"), "", Some("n1")),
            ("/", Some("a=b&rpcid=0.n1&c"), "", Some("n1")),
            ("/", Some("xrpcid=0.n1"), "", None),
            ("/", Some(""), "", None),
            // The path.
            ("/rpc;jsessionid=0.n1", None, "", Some("n1")),
            ("/rpc;v=1;jsessionid=0.n1;w=2/x.y", None, "", Some("n1")),
            ("/a;jsessionid=0.n1/b", None, "", Some("n1")),
            ("/jsessionid=0.n1", None, "", None),
            ("/a;/jsessionid=0.n1", None, "", None),
            // The order: names first, then places.
            ("/a;rpcid=0.n1", Some("rpcid=0.n2"), "rpcid=0.n3", Some("n3")),
            ("/a;rpcid=0.n1", Some("rpcid=0.n2"), "JSESSIONID=0.n3", Some("n2")),
            ("/a;rpcid=0.n1", None, "JSESSIONID=0.n3", Some("n1")),
            ("/a;rpcid=0", None, "JSESSIONID=0.n3", Some("n3")),
        ] {
            let headers = [("Host", &b"x"[..]), ("cookie", cookie.as_bytes())];
            assert_eq!(sticky.route(path, query, &headers), route, "{path} {query:?} {cookie}");
        }
    }

    #[test]
    fn other_delimiters_and_bytes() {
        let sticky = sticky(',', '!');
        assert_eq!(sticky.route("/a,rpcid=0.1!n1", None, &[]), Some("n1"));
        assert_eq!(sticky.route("/a;rpcid=0!n1", None, &[]), None);
        // Each Cookie field counts (RFC 9113 section 8.2.3). One that is not UTF-8 hides no other.
        let headers = [("Cookie", &b"a=\xff; rpcid=\xff!n0"[..]), ("Cookie", b"b=\xff; rpcid=0!n2")];
        assert_eq!(sticky.route("/", None, &headers), Some("n2"));
    }

    /// Many cookies and parameters that have no route are each looked at once for each name.
    #[test]
    fn large_requests() {
        let sticky = sticky(';', '.');
        let (path, query) = ("/;rpcid=0".repeat(100_000), "rpcid=0&".repeat(100_000));
        let cookies = "rpcid=0;".repeat(100_000) + "jsessionid=1.n1";
        let headers = [("Cookie", cookies.as_bytes())];
        assert_eq!(sticky.route(&path, Some(&query), &headers), Some("n1"));
    }
}
