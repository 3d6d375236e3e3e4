//! The keys of ouistiti's that are not served. A file that has them still loads, with one warning for each, unless
//! they protect something.

use super::Scope::{Document, Server, Top, WebSocket};
use super::{ConfigKey, Kind, Scope};

const fn ignored(scopes: &'static [Scope], name: &'static str, meaning: &'static str) -> ConfigKey {
    ConfigKey { scopes, name, kind: Kind::Ignored, default: "", unit: "", meaning }
}

const fn refused(scopes: &'static [Scope], name: &'static str, meaning: &'static str) -> ConfigKey {
    ConfigKey { scopes, name, kind: Kind::Refused, default: "", unit: "", meaning }
}

const fn guard(name: &'static str, meaning: &'static str) -> ConfigKey {
    ConfigKey { scopes: &[Server], name, kind: Kind::Guard, default: "", unit: "", meaning }
}

const NO_TLS: &str = "TLS is not there yet: remove the group, and put a TLS proxy in front.";

/// What a meaning says stands behind "is not served: ".
pub(crate) const KEYS: &[ConfigKey] = &[
    refused(&[Server], "tls", NO_TLS),
    refused(&[Server], "mbedtls", NO_TLS),
    refused(&[Server], "wolfssl", NO_TLS),
    refused(&[Server], "openssl", NO_TLS),
    ignored(&[Top], "init_d", "start those programs by other means."),
    ignored(&[Top], "mimetypes", "the types of pages are built in."),
    ignored(&[Top], "maxservers", "there may be 256 servers."),
    guard("auth", "nobody is asked for a password."),
    ignored(&[Server], "authmngt", "there are no users to manage."),
    guard("userfilter", "every path is open to all."),
    guard("clientfilter", "every address may connect."),
    ignored(&[Server], "unlock_groups", "there are no groups of users."),
    ignored(&[Server], "security", "X-Content-Type-Options is sent; the others by headers of document."),
    ignored(&[Server], "signature", "pages are not signed."),
    ignored(&[Server], "cors", "pages of other sites may not read; see origins for WebSockets."),
    guard("cgi", "no scripts are run."),
    guard("python", "no scripts are run."),
    ignored(&[Server], "webstream", "no such streams are sent."),
    ignored(&[Server], "upgrade", "only WebSockets are upgraded to."),
    ignored(&[Server], "forward", "no requests are passed on."),
    guard("redirect", "no requests are redirected."),
    ignored(&[Server], "redirect404", "what is not there is a 404."),
    ignored(&[Server], "error_redirection", "what is not there is a 404."),
    ignored(&[Server], "vhost", "write a server with the same port and another hostname."),
    ignored(&[Server], "vhosts", "write a server with the same port and another hostname."),
    ignored(&[Server], "filestorage", "files cannot be uploaded; document serves them."),
    ignored(&[Server], "static_file", "write document for it."),
    ignored(&[Server], "methodlock", "pages know GET, HEAD and OPTIONS only."),
    ignored(&[Server], "tinysvcmdns", "the server is not announced."),
    ignored(&[Server], "service", "nothing is announced by that name."),
    ignored(&[Server], "server", "the Server header says uakari."),
    ignored(&[Server], "version", "HTTP/1.1 and 1.0 are spoken."),
    ignored(&[Server], "chunksize", "buffers have their own sizes; see pool-buffers."),
    ignored(&[Server], "keepalive", "keepalivetimeout says how long."),
    ignored(&[Server], "root", "write whole paths for docroot."),
    refused(&[Document], "accepted_ext", "ouistiti calls it allow by now: write allow in its place."),
    refused(&[Document], "ignored_ext", "ouistiti calls it deny by now: write deny in its place."),
    ignored(&[Document], "transfer_type", "files are sent in one way only."),
    ignored(&[Document], "transfert_type", "files are sent in one way only."),
    ignored(&[Document], "defaultpage", "the page of a folder is index.html."),
    ignored(&[Document], "dochome", "users have no folders of their own."),
    refused(&[WebSocket], "services", "ouistiti calls it allow by now: write allow in its place."),
    refused(&[WebSocket], "protocols", "ouistiti calls it allow by now: write allow in its place."),
    ignored(&[WebSocket], "mode", "options says it."),
    refused(&[WebSocket], "accepted_ext", "ouistiti calls it allow by now: write allow in its place."),
    refused(&[WebSocket], "ignored_ext", "ouistiti calls it deny by now: write deny in its place."),
];
