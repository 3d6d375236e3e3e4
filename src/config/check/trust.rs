//! The check of `trusted`, `proxy`, `forwarded` and `hostnames` of a server.

use super::group::Group;
use crate::clients::{ForwardedFields, HeaderUse, Networks, Trust};
use crate::config::problem::Problems;
use crate::config::values;
use crate::http::hostnames::Hostnames;
use crate::limits::{HOSTNAMES_MAX, TRUSTED_MAX};
use crate::types::{Address, ListenAddress};

/// Fields that are believed unless `forwarded` names others: proxies that forward one of them replace what a client has
/// sent, or add to it.
const DEFAULT_FIELDS: ForwardedFields = ForwardedFields::XForwarded { for_: true, proto: true, host: false };

/// Checks the keys about proxies. `listen` are the addresses of the server.
pub(crate) fn trust<'a>(
    server: &Group<'_>,
    mut listen: impl Iterator<Item = &'a ListenAddress>,
    problems: &mut Problems,
) -> Trust {
    let header = server.word("proxy", &values::PROXIES).unwrap_or_default();
    let fields = fields(server, problems);
    if !server.means("trusted") {
        let sentence = "has no effect without trusted: write trusted = \"ADDRESS\"; with the address of the proxy";
        if header != HeaderUse::Off {
            server.error(problems, "proxy", sentence);
        }
        if fields.is_some_and(|fields| fields != ForwardedFields::None) {
            server.error(problems, "forwarded", sentence);
        }
        return Trust::default();
    }
    let mut proxies = Networks::default();
    server.each("trusted", TRUSTED_MAX, problems, |text| proxies.add(text));
    let fields = fields.unwrap_or(DEFAULT_FIELDS);
    match (header, fields) {
        (HeaderUse::Off, ForwardedFields::None) => {
            let sentence = "has no effect: proxy is \"off\", and forwarded is \"none\"";
            server.warn(problems, "trusted", sentence);
        }
        (HeaderUse::Optional, _) if proxies.has_everyone() => {
            let sentence = "lists every address, so that each client could claim another's with a PROXY header: list \
                the proxies only, or write proxy = \"required\"";
            server.error(problems, "trusted", sentence);
        }
        _ if proxies.has_everyone() => {
            let sentence =
                "lists every address: whoever reaches this server may claim another's: list the proxies only";
            server.warn(problems, "trusted", sentence);
        }
        _ => {}
    }
    let has_unix_only = listen.all(|address| matches!(address, ListenAddress::Unix(_)));
    if has_unix_only && !proxies.is_empty() && !proxies.has(Address::Unix) {
        let sentence = "has no effect: this server listens on unix: addresses only: add \"unix:\"";
        server.warn(problems, "trusted", sentence);
    }
    Trust { header, proxies, fields }
}

/// The fields of `forwarded`. None: the key is not set, or wrong.
fn fields(server: &Group<'_>, problems: &mut Problems) -> Option<ForwardedFields> {
    let texts: Vec<&str> = server.texts("forwarded").into_iter().map(|(_, text)| text).collect();
    if texts.is_empty() {
        return None;
    }
    values::forwarded(&texts.join(",")).map_err(|sentence| server.error(problems, "forwarded", sentence)).ok()
}

/// Whether it can be known that a client uses https to a proxy.
pub(crate) fn knows_scheme(trust: &Trust) -> bool {
    let has_proto = match trust.fields {
        ForwardedFields::XForwarded { proto, .. } => proto,
        ForwardedFields::Forwarded => true,
        ForwardedFields::None => false,
    };
    !trust.proxies.is_empty() && (has_proto || trust.header != HeaderUse::Off)
}

/// The key in which two servers differ. None: they believe the same.
pub(crate) fn difference(one: &Trust, other: &Trust) -> Option<&'static str> {
    let differ = [
        ("trusted", one.proxies != other.proxies),
        ("proxy", one.header != other.header),
        ("forwarded", one.fields != other.fields),
    ];
    differ.into_iter().find(|(_, differs)| *differs).map(|(key, _)| key)
}

/// Checks `hostnames`. `hostname` is that of the server.
pub(crate) fn hostnames(server: &Group<'_>, hostname: Option<&str>, problems: &mut Problems) -> Hostnames {
    let mut hostnames = Hostnames::default();
    let is_good = server.each("hostnames", HOSTNAMES_MAX, problems, |text| hostnames.add(text));
    if let Some(own) = hostname.filter(|own| is_good && !hostnames.has(own)) {
        let sentence = format_args!("{own:?}, the hostname of this server, is not listed: add it");
        server.error(problems, "hostnames", sentence);
    }
    hostnames
}
