//! The check of `redirect` of a server.

use super::group::Group;
use crate::config::keys::DOCUMENT_GROUPS;
use crate::config::problem::{Location, Problems};
use crate::config::{Server, values};
use crate::http::redirect::Redirect;
use crate::types::ListenAddress;

/// A server without TLS whose requests are redirected to https. The port is found once all servers are known.
pub(crate) struct ToTls {
    /// Index of the server.
    number: usize,
    location: Location,
    /// The key in reported problems.
    path: String,
    /// `unprotected` lists `redirect`.
    is_consented: bool,
    /// The groups `document` and `websocket` of the server.
    unused: Vec<(Location, String)>,
}

/// Whether `options` has "hsts". Reports other options.
pub(crate) fn has_hsts(redirect: &Group<'_>, problems: &mut Problems) -> bool {
    let mut has_hsts = false;
    for word in redirect.text("options").into_iter().flat_map(values::elements) {
        match word {
            "hsts" => has_hsts = true,
            "generate_204" | "temporary" | "permanently" | "error" | "query" => {
                redirect.warn(problems, "options", format_args!("{word:?} is not served: it concerns links"));
            }
            // It may be a misspelt "hsts", without which the server is not protected.
            _ => redirect.error(problems, "options", format_args!("{word:?} is not known: write \"hsts\" or nothing")),
        }
    }
    has_hsts
}

impl ToTls {
    /// For the server `number`, whose `redirect` has "hsts".
    pub(crate) fn new(number: usize, server: &Group<'_>, redirect: &Group<'_>) -> ToTls {
        let unused = DOCUMENT_GROUPS.into_iter().chain(["websocket"]);
        ToTls {
            number,
            location: redirect.location_of("options").unwrap_or(redirect.location),
            path: redirect.path_of("options"),
            is_consented: server.texts("unprotected").iter().any(|(_, word)| *word == "redirect"),
            unused: unused.filter_map(|name| Some((server.location_of(name)?, server.path_of(name)))).collect(),
        }
    }

    /// Sets `Site::redirect`. False: there is no server to redirect to, and the server consents to being unprotected.
    pub(crate) fn lead(&self, servers: &mut [Server], problems: &mut Problems) -> bool {
        let Some((target, port)) = target(servers, servers[self.number].site.hostname.as_deref()) else {
            let sentence = "leads to no server with tls on a TCP port: write such a server; behind a TLS proxy write \
                trusted and let it send X-Forwarded-Proto, or leave \"hsts\" out, since requests would be redirected \
                for ever";
            // Without one of these groups it would serve nothing.
            let is_consented = self.is_consented && !self.unused.is_empty();
            if is_consented {
                let sentence = "is not served, and the server is unprotected: no server has tls on a TCP port";
                problems.warn(self.location, &self.path, sentence);
            } else {
                problems.error(self.location, &self.path, sentence);
            }
            return !is_consented;
        };
        if port == 0 {
            let sentence = format_args!("leads to servers[{target}], whose port is 0: write a port there");
            problems.error(self.location, &self.path, sentence);
            return true;
        }
        for (location, path) in &self.unused {
            problems.warn(*location, path, "has no effect: redirect leads every request to https");
        }
        let site = &mut servers[self.number].site;
        site.redirect = Some(Redirect { host: site.hostname.clone(), port });
        true
    }
}

/// The index and the port of the server with TLS that serves a host name: the one of this name, else the first without a
/// name, else the first.
fn target(servers: &[Server], hostname: Option<&str>) -> Option<(usize, u16)> {
    let port = |server: &Server| {
        server.listen.iter().find_map(|address| match address {
            ListenAddress::Tcp(address) => Some(address.port()),
            ListenAddress::Unix(_) => None,
        })
    };
    let rank = |server: &Server| match (server.site.hostname.as_deref(), hostname) {
        (Some(own), Some(other)) if own.eq_ignore_ascii_case(other) => 0,
        (None, _) => 1,
        _ => 2,
    };
    let with_tls = servers.iter().enumerate().filter(|(_, server)| server.tls.is_some());
    let (_, number, port) =
        with_tls.filter_map(|(number, server)| Some((rank(server), number, port(server)?))).min()?;
    Some((number, port))
}
