//! Other places where ouistiti defines servers: the key `server`, and the files of `config_d`.
#![forbid(unsafe_code)]

use super::problem::{Location, Problems};
use super::syntax::{self, Data, Element, Read, Setting};
use crate::limits::CONFIG_FILES_MAX;

/// Lists the files of `config_d`. The error is the reason for the operator, without the path.
pub(crate) type List<'a> = dyn FnMut(&str) -> Result<Vec<String>, String> + 'a;

/// Collects all servers in `servers`, in ouistiti's order: those of the file, then those of `config_d`. `file` is the
/// name of the main file.
pub(crate) fn merge(
    settings: &mut Vec<Setting>,
    file: &str,
    read: &mut Read<'_>,
    list: &mut List<'_>,
    problems: &mut Problems,
) {
    rename_server(settings, problems);
    let folder = settings.iter().find_map(|setting| match &setting.data {
        Data::Text(path) if setting.name == "config_d" && !path.trim().is_empty() => {
            Some((setting.location, path.clone()))
        }
        _ => None,
    });
    let Some((location, path)) = folder else { return };
    let files = match list(&path) {
        Ok(files) => files,
        Err(reason) => {
            let sentence = format!("{path} {reason}: correct that, or leave it out");
            return problems.error(location, "config_d", sentence);
        }
    };
    if files.is_empty() {
        problems.warn(location, "config_d", format_args!("{path} has no file whose name ends in .conf"));
    }
    if files.len() > CONFIG_FILES_MAX {
        problems.error(location, "config_d", format_args!("{path} has more than {CONFIG_FILES_MAX} files: join some"));
    }
    let more = files.iter().take(CONFIG_FILES_MAX).flat_map(|name| servers_of(name, file, read, problems)).collect();
    append(settings, location, more);
}

/// Renames `server` to `servers`. As in ouistiti, `server` is read only if `servers` is missing.
fn rename_server(settings: &mut Vec<Setting>, problems: &mut Problems) {
    if settings.iter().any(|setting| setting.name == "servers") {
        if let Some(at) = settings.iter().position(|setting| setting.name == "server") {
            problems.error(settings[at].location, "server", "servers is set too: keep one of them");
            settings.remove(at);
        }
        return;
    }
    if let Some(server) = settings.iter_mut().find(|setting| setting.name == "server") {
        server.name = "servers".to_owned();
        if let Data::Group(_) = server.data {
            let data = std::mem::replace(&mut server.data, Data::Bad);
            server.data = Data::List(vec![Element { location: server.location, data }]);
        }
    }
}

/// The servers of a file of `config_d`. As in ouistiti, other settings are ignored.
fn servers_of(name: &str, file: &str, read: &mut Read<'_>, problems: &mut Problems) -> Vec<Element> {
    let mut settings = syntax::parse(name, read, problems);
    rename_server(&mut settings, problems);
    let mut servers = Vec::new();
    for Setting { name, location, data } in settings {
        match (name.as_str(), data) {
            ("servers", Data::List(more)) => servers.extend(more),
            ("servers", Data::Bad) => {}
            ("servers", other) => {
                let sentence = format!("is {}: write a list of groups ( {{ }}, {{ }} )", other.kind());
                problems.error(location, "servers", sentence);
            }
            (key, _) => {
                let sentence = format!("is not used: a file of config_d sets servers only; write it in {file}");
                problems.warn(location, key, sentence);
            }
        }
    }
    servers
}

fn append(settings: &mut Vec<Setting>, location: Location, more: Vec<Element>) {
    match settings.iter_mut().find(|setting| setting.name == "servers") {
        Some(Setting { data: Data::List(servers), .. }) => servers.extend(more),
        // The check reports a value that is not a list.
        Some(_) => {}
        None if more.is_empty() => {}
        None => settings.push(Setting { name: "servers".to_owned(), location, data: Data::List(more) }),
    }
}
