//! Keys of ouistiti that protect a server and are not supported: an error, unless the server lists them in
//! `unprotected`.

use std::path::{Component, Path, PathBuf};

use super::group::Group;
use crate::config::keys;
use crate::config::problem::Problems;
use crate::config::syntax::{Data, Setting};

/// Checks them against `unprotected`. True: the server runs without a protection that it had.
pub(crate) fn check(server: &Group<'_>, problems: &mut Problems) -> bool {
    let consented = server.texts("unprotected");
    for (location, word) in &consented {
        if keys::guards().all(|guard| guard.name != *word) {
            let known: Vec<&str> = keys::guards().map(|guard| guard.name).collect();
            let sentence = format!("{word:?} is not known: write one of {}", known.join(", "));
            problems.error(*location, &server.path_of("unprotected"), sentence);
        }
    }
    let mut is_unprotected = false;
    for guard in keys::guards() {
        let (name, meaning) = (guard.name, guard.meaning.trim_end_matches('.'));
        let loss = if server.has(name) { loss(name, meaning, server) } else { None };
        match (loss, consented.iter().find(|(_, word)| *word == name)) {
            (Some(loss), None) => server.error(
                problems,
                name,
                format_args!(
                    "is not served: {loss}: protect the server by other means, then write unprotected = (\"{name}\");"
                ),
            ),
            (Some(loss), Some(_)) => {
                is_unprotected = true;
                server.warn(problems, name, format_args!("is not served, and the server is unprotected: {loss}"));
            }
            (None, consent) => {
                server.warn(problems, name, format_args!("is not served: {meaning}"));
                if let Some((location, _)) = consent {
                    let sentence = format!("{name} protects nothing here: leave it out");
                    problems.warn(*location, &server.path_of("unprotected"), sentence);
                }
            }
        }
    }
    is_unprotected
}

/// What is open to everybody without a key that is set. None: it protects nothing.
fn loss(name: &str, meaning: &'static str, server: &Group<'_>) -> Option<&'static str> {
    match name {
        // ouistiti does not serve over plain HTTP what it redirects to TLS.
        "redirect" => leads_to_tls(server.data(name)?).then_some("what it sends to https is served in clear"),
        "cgi" | "python" => {
            let (scripts, pages) = (docroot(server.data(name)?)?, docroot(server.data("document")?)?);
            folded(scripts).starts_with(folded(pages)).then_some("its scripts are sent as pages of document")
        }
        _ => Some(meaning),
    }
}

/// Removes empty segments and dot segments from a path. Symbolic links are not resolved.
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

/// Whether it redirects to https: by its destination, or by the option "hsts".
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

fn docroot(group: &Data) -> Option<&str> {
    let Data::Group(settings) = group else { return None };
    settings.iter().find_map(|Setting { name, data, .. }| match data {
        Data::Text(path) if name == "docroot" => Some(path.as_str()),
        _ => None,
    })
}
