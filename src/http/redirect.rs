//! The redirection of a request to https.

use super::authority::Authority;

/// Where the requests of a server are redirected to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Redirect {
    /// The host. None: that of the request.
    pub host: Option<Box<str>>,
    /// The port of https.
    pub port: u16,
}

impl Redirect {
    /// The value of Location. `host` is the request's authority, `path` and `query` are those of its target, which are
    /// not decoded. None: the request names no host.
    pub fn location(&self, host: &str, path: &str, query: Option<&str>) -> Option<String> {
        let requested = Authority::parse(host);
        let host = self.host.as_deref().or(requested.as_ref().map(Authority::host))?;
        let port = if self.port == 443 { String::new() } else { format!(":{}", self.port) };
        let query = query.map(|query| format!("?{query}")).unwrap_or_default();
        Some(format!("https://{host}{port}{path}{query}"))
    }
}

/// The status of the redirection: a client may repeat a request as GET after a 301, but not after a 308 (RFC 9110 section
/// 15.4).
pub(crate) fn status(method: &str) -> u16 {
    if matches!(method, "GET" | "HEAD") { 301 } else { 308 }
}

/// The field that makes browsers use https for this host from now on, for a year (RFC 6797 section 6.1). It must not be
/// sent over plain HTTP (section 7.2).
pub(crate) const HSTS: &str = "Strict-Transport-Security: max-age=31536000; includeSubDomains\r\n";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::target;

    #[test]
    fn locations() {
        let to = |host: Option<&str>, port| Redirect { host: host.map(Into::into), port };
        let (any, named) = (to(None, 443), to(Some("www.example"), 8443));
        for (redirect, host, target, expected) in [
            (&any, "Gate.example:80", "/", Some("https://gate.example/")),
            (&any, "gate.example.:8080", "/a%20b/?x=%2F", Some("https://gate.example/a%20b/?x=%2F")),
            (&any, "[0:0::1]:80", "/", Some("https://[::1]/")),
            (&to(None, 80), "[::1]", "/x", Some("https://[::1]:80/x")),
            (&named, "evil.example", "/x?", Some("https://www.example:8443/x?")),
            (&named, "", "/", Some("https://www.example:8443/")),
            // A path that begins with two slashes, a backslash or a user is still a path.
            (&any, "h", "//evil.example/", Some("https://h//evil.example/")),
            (&any, "h", "/\\evil.example", Some("https://h/\\evil.example")),
            (&any, "h", "/@evil.example", Some("https://h/@evil.example")),
            (&any, "h", "/.evil.example:1/", Some("https://h/.evil.example:1/")),
            (&any, "h", "/../?//evil.example", Some("https://h/../?//evil.example")),
            (&any, "h", "/%0d%0aX:%20y", Some("https://h/%0d%0aX:%20y")),
            (&any, "h", "http://h/x?y", Some("https://h/x?y")),
            (&any, "h", "http://h?y", Some("https://h/?y")),
            // A request of HTTP/1.0 may have no host, and other hosts are not valid.
            (&any, "", "/", None),
            (&any, "user@h", "/", None),
            (&any, "h/evil", "/", None),
        ] {
            let target = target::parse("GET", target).unwrap();
            let location = redirect.location(host, target.path, target.query);
            assert_eq!(location.as_deref(), expected, "{host:?} {target:?} {redirect:?}");
        }
    }

    #[test]
    fn statuses_keep_the_method() {
        let methods = ["GET", "HEAD", "POST", "OPTIONS", "PUT", "get"];
        assert_eq!(methods.map(status), [301, 301, 308, 308, 308, 308]);
    }
}
