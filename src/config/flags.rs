//! Applies command-line flags to the settings of a file. The check follows, and covers both.
#![forbid(unsafe_code)]

use super::keys::{DOCUMENT_GROUPS, Scope, TLS_GROUPS};
use super::problem::{Location, Problems};
use super::syntax::{Data, Element, Setting};

/// A flag as a setting.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Flag {
    /// The flag in reported problems.
    pub label: &'static str,
    /// The group of the key. Flags of a server require a configuration with one server.
    pub scope: Scope,
    /// The key that it sets.
    pub key: &'static str,
    /// The value that it sets.
    pub value: Value,
}

/// The value that a flag sets.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Value {
    /// True.
    On,
    /// A string.
    One(String),
    /// A string, unless the file sets the key.
    Default(String),
    /// An array: one string for each use of the flag.
    Several(Vec<String>),
}

impl Value {
    fn at(&self, location: Location) -> Data {
        let text = |text: &String| Data::Text(text.clone());
        match self {
            Value::On => Data::Bool(true),
            Value::One(one) | Value::Default(one) => text(one),
            Value::Several(all) => Data::Array(all.iter().map(|one| Element { location, data: text(one) }).collect()),
        }
    }
}

/// Replaces settings by those of the flags. If the file defines no server, the flags define one. `whole` is the location
/// of the file.
pub(crate) fn apply(settings: &mut Vec<Setting>, flags: &[Flag], whole: Location, problems: &mut Problems) {
    let names_server =
        settings.iter().any(|setting| setting.name == "servers" && setting.data != Data::List(Vec::new()));
    for flag in flags {
        let location = problems.add_source(flag.label);
        if flag.scope == Scope::Top {
            set(settings, flag.key, location, flag.value.at(location));
            continue;
        }
        let servers = match descend(settings, "servers", whole, Data::List(Vec::new())) {
            Data::List(servers) => servers,
            _ => continue,
        };
        if servers.len() > 1 {
            let count = servers.len();
            let sentence = format_args!("applies to one server only, and the file has {count}: write it in the file");
            // A default belongs to another flag, which has the same error.
            if !matches!(flag.value, Value::Default(_)) {
                problems.error(location, "", sentence);
            }
            continue;
        }
        if servers.is_empty() {
            servers.push(Element { location: whole, data: Data::Group(Vec::new()) });
        }
        let Some(Element { data: Data::Group(server), .. }) = servers.first_mut() else { continue };
        if !names_server && !server.iter().any(|setting| setting.name == "listen") {
            set(server, "listen", whole, Data::Text("127.0.0.1:8080".to_owned()));
        }
        let names: &[&str] = match flag.scope {
            Scope::Tls => &TLS_GROUPS,
            Scope::Document => &DOCUMENT_GROUPS,
            Scope::WebSocket => &["websocket"],
            _ => {
                server.retain(|setting| flag.key != "listen" || (setting.name != "addr" && setting.name != "port"));
                set(server, flag.key, location, flag.value.at(location));
                continue;
            }
        };
        let is_set = |name: &&&str| server.iter().any(|setting| setting.name == **name);
        let name = names.iter().find(is_set).unwrap_or(&names[0]);
        if let Data::Group(group) = descend(server, name, location, Data::Group(Vec::new())) {
            for (key, other) in [("type", "message-type"), ("keyfile", "pemfile")] {
                group.retain(|setting| flag.key != key || setting.name != other);
            }
            if matches!(flag.value, Value::Default(_)) && group.iter().any(|setting| setting.name == flag.key) {
                continue;
            }
            set(group, flag.key, location, flag.value.at(location));
        }
    }
}

/// The value of a setting, which is inserted with the value `data` if it is missing.
fn descend<'s>(settings: &'s mut Vec<Setting>, name: &str, location: Location, data: Data) -> &'s mut Data {
    let at = settings.iter().position(|setting| setting.name == name).unwrap_or_else(|| {
        settings.push(Setting { name: name.to_owned(), location, data });
        settings.len() - 1
    });
    &mut settings[at].data
}

fn set(settings: &mut Vec<Setting>, name: &str, location: Location, data: Data) {
    settings.retain(|setting| setting.name != name);
    settings.push(Setting { name: name.to_owned(), location, data });
}
