//! The keys of ouistiti's that are not served. A file that has them still loads, with one warning for each.

use super::Scope::{Document, Server, Top, WebSocket};
use super::{Key, Kind, Scope};

const fn ignored(scopes: &'static [Scope], name: &'static str, meaning: &'static str) -> Key {
    Key { scopes, name, kind: Kind::Ignored, default: "", unit: "", meaning }
}

const fn refused(name: &'static str) -> Key {
    let meaning = "TLS is not there yet: remove the group, and put a TLS proxy in front.";
    Key { scopes: &[Server], name, kind: Kind::Refused, default: "", unit: "", meaning }
}

/// What a meaning says stands behind "is not served: ".
pub const KEYS: &[Key] = &[
    refused("tls"),
    refused("mbedtls"),
    refused("wolfssl"),
    refused("openssl"),
    ignored(&[Top], "config_d", "write @include \"FILE\" where a file of that folder is wanted."),
    ignored(&[Top], "init_d", "start those programs by other means."),
    ignored(&[Top], "mimetypes", "the types of pages are built in."),
    ignored(&[Top], "maxservers", "there may be 256 servers."),
    ignored(&[Server], "auth", "nobody is asked for a password."),
    ignored(&[Server], "authmngt", "there are no users to manage."),
    ignored(&[Server], "userfilter", "every path is open to all."),
    ignored(&[Server], "clientfilter", "every address may connect."),
    ignored(&[Server], "unlock_groups", "there are no groups of users."),
    ignored(&[Server], "security", "no such headers are sent."),
    ignored(&[Server], "signature", "pages are not signed."),
    ignored(&[Server], "cors", "pages of other sites may not read; see origins for WebSockets."),
    ignored(&[Server], "cgi", "no scripts are run."),
    ignored(&[Server], "python", "no scripts are run."),
    ignored(&[Server], "webstream", "no such streams are sent."),
    ignored(&[Server], "upgrade", "only WebSockets are upgraded to."),
    ignored(&[Server], "forward", "no requests are passed on."),
    ignored(&[Server], "redirect", "no requests are redirected."),
    ignored(&[Server], "redirect404", "what is not there is a 404."),
    ignored(&[Server], "error_redirection", "what is not there is a 404."),
    ignored(&[Server], "vhost", "write a server with the same port and another hostname."),
    ignored(&[Server], "vhosts", "write a server with the same port and another hostname."),
    ignored(&[Server], "filestorage", "files cannot be uploaded; document serves them."),
    ignored(&[Server], "static_file", "write document for it."),
    ignored(&[Server], "methodlock", "pages know GET and HEAD only."),
    ignored(&[Server], "tinysvcmdns", "the server is not announced."),
    ignored(&[Server], "service", "nothing is announced by that name."),
    ignored(&[Server], "server", "the Server header says uakari."),
    ignored(&[Server], "version", "HTTP/1.1 and 1.0 are spoken."),
    ignored(&[Server], "chunksize", "buffers have their own sizes; see pool-buffers."),
    ignored(&[Server], "keepalive", "keepalivetimeout says how long."),
    ignored(&[Server], "root", "write whole paths for docroot."),
    ignored(&[Document], "allow", "all files of docroot are sent."),
    ignored(&[Document], "deny", "all files of docroot are sent: move away those that must not be."),
    ignored(&[Document], "denylast", "all files of docroot are sent."),
    ignored(&[Document], "accepted_ext", "all files of docroot are sent."),
    ignored(&[Document], "ignored_ext", "all files of docroot are sent: move away those that must not be."),
    ignored(&[Document], "options", "files are sent whole, and folders are not listed."),
    ignored(&[Document], "transfer_type", "files are sent whole, and folders are not listed."),
    ignored(&[Document], "transfert_type", "files are sent whole, and folders are not listed."),
    ignored(&[Document], "defaultpage", "the page of a folder is index.html."),
    ignored(&[Document], "dochome", "users have no folders of their own."),
    ignored(&[WebSocket], "services", "allow says which names are served."),
    ignored(&[WebSocket], "protocols", "allow says which names are served."),
    ignored(&[WebSocket], "mode", "options says it."),
    ignored(&[WebSocket], "accepted_ext", "allow says which names are served."),
    ignored(&[WebSocket], "ignored_ext", "deny says which names are refused."),
];
