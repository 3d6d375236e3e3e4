//! The check of ouistiti's keys that protect a server and are not served.

use std::path::{Component, Path, PathBuf};

use super::group::Group;
use crate::config::keys::{self, DOCUMENT_GROUPS, Scope};
use crate::config::problem::Problems;
use crate::config::syntax::{Data, Setting};

/// Reports keys of ouistiti that protect the server and are not supported: an error, or a warning if `unprotected` lists
/// the key. True: a protection is missing. `redirects`: all requests of the server are redirected to https.
/// `uses_tls`: none is served unencrypted.
pub(crate) fn check(
    server: &Group<'_>,
    redirect: Option<&Group<'_>>,
    redirects: bool,
    uses_tls: bool,
    problems: &mut Problems,
) -> bool {
    let consented = server.texts("unprotected");
    for (location, word) in &consented {
        if keys::consents().all(|consent| consent != *word) {
            let known: Vec<&str> = keys::consents().collect();
            let sentence = format!("{word:?} is not known: write one of {}", known.join(", "));
            problems.error(*location, &server.path_of("unprotected"), sentence);
        }
    }
    let mut is_unprotected = false;
    for (guard, consent) in keys::guards() {
        let (name, meaning) = (guard.name, guard.meaning.trim_end_matches('.'));
        let group = if guard.scopes.contains(&Scope::Server) { Some(server) } else { redirect };
        let set = group.filter(|group| group.has(name));
        let loss = set.and_then(|group| loss(name, meaning, group.data(name), server, uses_tls));
        let place = consented.iter().find(|(_, word)| *word == consent);
        match (set.zip(loss), place) {
            (Some((group, loss)), None) => group.error(
                problems,
                name,
                format_args!(
                    "is not served: {loss}: protect the server by other means, then write unprotected = (\"{consent}\");"
                ),
            ),
            (Some((group, loss)), Some(_)) => {
                is_unprotected = true;
                group.warn(problems, name, format_args!("is not served, and the server is unprotected: {loss}"));
            }
            (None, place) => {
                if let Some(group) = set {
                    group.warn(problems, name, format_args!("is not served: {meaning}"));
                }
                // Whether the option "hsts" finds a server with TLS is known later.
                if let Some((location, _)) = place.filter(|_| consent != "redirect" || !redirects) {
                    let sentence = format!("{consent} protects nothing here: leave it out");
                    problems.warn(*location, &server.path_of("unprotected"), sentence);
                }
            }
        }
    }
    is_unprotected
}

/// The consequence of not serving a protecting key that is set to `data`. None: its value protects nothing.
fn loss(
    name: &str,
    meaning: &'static str,
    data: Option<&Data>,
    server: &Group<'_>,
    uses_tls: bool,
) -> Option<&'static str> {
    match name {
        "links" if uses_tls => None,
        // Pages that ouistiti redirects to TLS are not served over plain HTTP by it.
        "links" => leads_to_tls(data?).then_some("requests that it redirects to https are served unencrypted"),
        "cgi" | "python" => {
            let (scripts, pages) = (docroot_of(data?)?, docroot_of(document(server)?)?);
            folded(scripts).starts_with(folded(pages)).then_some("its scripts are sent as pages of document")
        }
        _ => Some(meaning),
    }
}

/// Removes empty segments and dot segments from a path. Does not resolve symbolic links.
fn folded(path: &str) -> PathBuf {
    let mut folded = PathBuf::new();
    for component in Path::new(path).components() {
        match component {
            Component::ParentDir => drop(folded.pop()),
            Component::CurDir => {}
            other => folded.push(other),
        }
    }
    folded
}

/// Whether `links` of `redirect` lead to https: by a destination, or by the option "hsts".
fn leads_to_tls(data: &Data) -> bool {
    match data {
        Data::Text(text) => text.trim_start().get(..6).is_some_and(|start| start.eq_ignore_ascii_case("https:")),
        Data::Array(all) | Data::List(all) => all.iter().any(|one| leads_to_tls(&one.data)),
        Data::Group(settings) => settings.iter().any(|Setting { name, data, .. }| {
            let is_hsts = |text: &str| text.to_ascii_lowercase().contains("hsts");
            leads_to_tls(data) || matches!(data, Data::Text(text) if name == "options" && is_hsts(text))
        }),
        _ => false,
    }
}

fn document<'t>(server: &Group<'t>) -> Option<&'t Data> {
    DOCUMENT_GROUPS.iter().find_map(|name| server.data(name))
}

fn docroot_of(group: &Data) -> Option<&str> {
    let Data::Group(settings) = group else { return None };
    settings.iter().find_map(|Setting { name, data, .. }| match data {
        Data::Text(path) if name == "docroot" => Some(path.as_str()),
        _ => None,
    })
}
