//! Challenges of a 401 (RFC 9110 section 11.6.1).

use super::digest::{NonceKey, algorithm_name};
use super::error::AccessError;
use super::{Auth, AuthKind};

/// The header lines of all challenges. Empty: no credential in a request would help. `has_bearer`: the request has a
/// bearer token.
pub(crate) fn challenges(
    auths: &[&Auth],
    error: AccessError,
    has_bearer: bool,
    nonces: &NonceKey,
    unix_s: u64,
) -> String {
    let mut lines: Vec<String> = Vec::new();
    for auth in auths {
        let realm = quoted(&auth.realm);
        let value = match &auth.kind {
            AuthKind::Basic => format!("Basic realm={realm}, charset=\"UTF-8\""),
            AuthKind::Digest { opaque, algorithm } => {
                let nonce = nonces.nonce(&auth.realm, unix_s);
                let algorithm = algorithm_name(*algorithm);
                let opaque = if opaque.is_empty() { String::new() } else { format!(", opaque={}", quoted(opaque)) };
                let stale = if error.is_stale() { ", stale=true" } else { "" };
                format!(
                    "Digest realm={realm}, qop=\"auth\", algorithm={algorithm}, nonce=\"{nonce}\"{opaque}{stale}, \
                     charset=UTF-8"
                )
            }
            AuthKind::Bearer if has_bearer && matches!(error, AccessError::Wrong | AccessError::WrongAndStale) => {
                format!("Bearer realm={realm}, error=\"invalid_token\"")
            }
            // Each 401 needs a challenge. That of a bearer token opens no dialogue of browsers.
            AuthKind::Bearer | AuthKind::Query { .. } | AuthKind::Unix { .. } => format!("Bearer realm={realm}"),
            AuthKind::Cookie { .. } => format!("Cookie realm={realm}"),
            AuthKind::ClientCert { .. } | AuthKind::None => continue,
        };
        let line = format!("WWW-Authenticate: {value}\r\n");
        if !lines.contains(&line) {
            lines.push(line);
        }
    }
    lines.concat()
}

/// A quoted string (RFC 9110 section 5.6.4). The text has no control characters.
fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use auth_wire::DigestAlgorithm;

    use super::*;

    #[test]
    fn all_kinds() {
        let digest = |opaque: &str, algorithm| AuthKind::Digest { opaque: opaque.into(), algorithm };
        let name = || "token".into();
        for (kinds, error, has_bearer, expected) in [
            (vec![AuthKind::Basic], AccessError::Missing, false, &[r#"Basic realm="a\"b", charset="UTF-8""#][..]),
            (
                vec![AuthKind::Basic, AuthKind::Basic],
                AccessError::Wrong,
                true,
                &[r#"Basic realm="a\"b", charset="UTF-8""#],
            ),
            (
                vec![AuthKind::Bearer, AuthKind::Cookie { name: name() }],
                AccessError::Wrong,
                true,
                &[r#"Bearer realm="a\"b", error="invalid_token""#, r#"Cookie realm="a\"b""#],
            ),
            (vec![AuthKind::Bearer], AccessError::Wrong, false, &[r#"Bearer realm="a\"b""#]),
            (
                vec![
                    AuthKind::Bearer,
                    AuthKind::Query { name: name() },
                    AuthKind::Unix { server: Path::new("/s").into(), headers: Vec::new() },
                ],
                AccessError::Missing,
                true,
                &[r#"Bearer realm="a\"b""#],
            ),
            (
                vec![digest("", DigestAlgorithm::Sha256)],
                AccessError::Wrong,
                false,
                &[r#"Digest realm="a\"b", qop="auth", algorithm=SHA-256, nonce="NONCE", charset=UTF-8"#],
            ),
            (
                vec![digest("o", DigestAlgorithm::Md5)],
                AccessError::Stale,
                false,
                &[
                    r#"Digest realm="a\"b", qop="auth", algorithm=MD5, nonce="NONCE", opaque="o", stale=true, charset=UTF-8"#,
                ],
            ),
            (vec![AuthKind::ClientCert { users: Vec::new() }], AccessError::Missing, false, &[]),
        ] {
            let auths: Vec<Auth> = kinds.into_iter().map(|kind| Auth::new(0, "a\"b", kind)).collect();
            let lines = challenges(&auths.iter().collect::<Vec<_>>(), error, has_bearer, NonceKey::fixed(), 9);
            let lines = lines.replace(&NonceKey::fixed().nonce("a\"b", 9), "NONCE");
            let expected: String = expected.iter().map(|value| format!("WWW-Authenticate: {value}\r\n")).collect();
            assert_eq!(lines, expected, "{auths:?}");
        }
    }
}
