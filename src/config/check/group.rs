//! The settings of one group, checked against the table of keys.

use crate::config::keys::{self, ConfigKey, Kind, Limits, Scope};
use crate::config::problem::{Location, Problems};
use crate::config::syntax::{Data, Element, Setting};
use crate::config::values;

/// A group of settings, checked against the table of keys.
pub(crate) struct Group<'t> {
    /// Path of the group, the prefix of its keys in reported problems. Empty for the file itself.
    path: String,
    /// Where the group begins.
    pub(crate) location: Location,
    found: Vec<Field<'t>>,
    /// Known keys that misspelt keys of the group resemble.
    meant: Vec<&'static str>,
}

struct Field<'t> {
    key: &'static ConfigKey,
    setting: &'t Setting,
    is_good: bool,
}

impl<'t> Group<'t> {
    /// Checks the settings of the group `path`: keys, types and bounds.
    pub(crate) fn read(
        scope: Scope,
        path: String,
        location: Location,
        settings: &'t [Setting],
        problems: &mut Problems,
    ) -> Group<'t> {
        let mut group = Group { path, location, found: Vec::new(), meant: Vec::new() };
        for setting in settings {
            let path = group.path_of(&setting.name);
            let Some(key) = keys::find(scope, &setting.name) else {
                let (sentence, meant) = keys::unknown(scope, &setting.name);
                problems.error(setting.location, &path, sentence);
                group.meant.extend(meant);
                continue;
            };
            let meaning = key.meaning.trim_end_matches('.');
            match key.kind {
                Kind::Ignored => problems.warn(setting.location, &path, format_args!("is not served: {meaning}")),
                Kind::Renamed(new) if settings.iter().any(|setting| setting.name == new) => {
                    problems.warn(setting.location, &path, format_args!("has no effect: {new}, its new name, is set"));
                }
                Kind::Renamed(_) => problems.error(setting.location, &path, meaning),
                // Checked with the whole server (server.rs).
                Kind::Guard(_) => group.found.push(Field { key, setting, is_good: setting.data != Data::Bad }),
                _ => {
                    let is_good = match fault(key, &setting.data) {
                        Some(fault) => {
                            problems.error(setting.location, &path, fault);
                            false
                        }
                        None => setting.data != Data::Bad,
                    };
                    group.found.push(Field { key, setting, is_good });
                }
            }
        }
        group
    }

    /// The full name of a key in this group.
    pub(crate) fn path_of(&self, name: &str) -> String {
        if self.path.is_empty() { name.to_owned() } else { format!("{}.{name}", self.path) }
    }

    /// Whether a key is set, correctly or not.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.found.iter().any(|field| field.key.name == name)
    }

    /// Whether a key is set, or a misspelt form of it.
    pub(crate) fn means(&self, name: &str) -> bool {
        self.has(name) || self.meant.contains(&name)
    }

    /// None: the key is not set.
    pub(crate) fn location_of(&self, name: &str) -> Option<Location> {
        self.found.iter().find(|field| field.key.name == name).map(|field| field.setting.location)
    }

    /// Reports an error of a key, or of the whole group if the key is not set.
    pub(crate) fn error(&self, problems: &mut Problems, name: &str, sentence: impl std::fmt::Display) {
        match self.location_of(name) {
            Some(location) => problems.error(location, &self.path_of(name), sentence),
            None => problems.error(self.location, &self.path, sentence),
        }
    }

    /// Reports a warning about a key that is set.
    pub(crate) fn warn(&self, problems: &mut Problems, name: &str, sentence: impl std::fmt::Display) {
        if let Some(location) = self.location_of(name) {
            problems.warn(location, &self.path_of(name), sentence);
        }
    }

    /// The file, line and key of the first of these keys that is set, else of the whole group: the beginning of an error
    /// that is found after the check.
    pub(crate) fn describe(&self, problems: &Problems, names: &[&str]) -> String {
        match names.iter().find_map(|name| Some((self.location_of(name)?, name))) {
            Some((location, name)) => problems.describe(location, &self.path_of(name)),
            None => problems.describe(self.location, &self.path),
        }
    }

    /// Reports a missing key, unless a misspelt form of it is set.
    pub(crate) fn require(&self, problems: &mut Problems, name: &str) {
        if !self.means(name) {
            problems.error(self.location, &self.path, format_args!("{name} is missing: write {name} = VALUE;"));
        }
    }

    /// The first of several names of a key that is set. Reports the others.
    pub(crate) fn one_of(&self, names: &[&'static str], problems: &mut Problems) -> Option<&'static str> {
        let mut set = names.iter().filter(|name| self.has(name));
        let first = *set.next()?;
        for other in set {
            self.error(problems, other, format_args!("{first} is set too: keep one of them"));
        }
        Some(first)
    }

    /// Reports an error if two keys of the same meaning are both set.
    pub(crate) fn exclude(&self, problems: &mut Problems, name: &str, other: &str) {
        if self.has(name) && self.has(other) {
            let by_flag = self.location_of(other).filter(|location| location.line == 0);
            let other = by_flag.map_or(other.to_owned(), |location| problems.describe(location, other));
            self.error(problems, name, format_args!("{other} is set too: keep one of them"));
        }
    }

    /// The string that a key is set to. None: the key is not set, or not to a string. The methods below are alike.
    pub(crate) fn text(&self, name: &str) -> Option<&'t str> {
        match self.data(name)? {
            Data::Text(text) => Some(text),
            _ => None,
        }
    }

    /// A string parsed by a function, whose error is reported.
    pub(crate) fn parsed<T>(
        &self,
        problems: &mut Problems,
        name: &str,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<T> {
        parse(self.text(name)?).map_err(|sentence| self.error(problems, name, sentence)).ok()
    }

    /// One or more strings with their locations.
    pub(crate) fn texts(&self, name: &str) -> Vec<(Location, &'t str)> {
        let text = |location, data: &'t Data| match data {
            Data::Text(text) => Some((location, text.as_str())),
            _ => None,
        };
        match (self.data(name), self.location_of(name)) {
            (Some(Data::Array(all) | Data::List(all)), _) => {
                all.iter().filter_map(|one| text(one.location, &one.data)).collect()
            }
            (Some(data), Some(location)) => text(location, data).into_iter().collect(),
            _ => Vec::new(),
        }
    }

    /// Adds each element of a key that is one or more comma-separated lists. False: one of them, or their number, is wrong.
    pub(crate) fn each(
        &self,
        name: &str,
        most: usize,
        problems: &mut Problems,
        mut add: impl FnMut(&str) -> Result<(), String>,
    ) -> bool {
        let (mut count, mut is_good) = (0, true);
        for (location, text) in self.texts(name) {
            for element in values::elements(text) {
                count += 1;
                if let Err(sentence) = add(element) {
                    problems.error(location, &self.path_of(name), sentence);
                    is_good = false;
                }
            }
        }
        if count > most {
            self.error(problems, name, format_args!("has more than {most} elements: leave some out"));
        } else if count == 0 && self.data(name).is_some() {
            self.error(problems, name, "is empty: write a value, or leave it out");
        }
        is_good && (1..=most).contains(&count)
    }

    /// The meaning of the word that a key is set to.
    pub(crate) fn word<T: Copy>(&self, name: &str, words: &[(&str, T)]) -> Option<T> {
        values::word(words, self.text(name)?)
    }

    pub(crate) fn flag(&self, name: &str) -> Option<bool> {
        match self.data(name)? {
            Data::Bool(value) => Some(*value),
            _ => None,
        }
    }

    /// An integer, or the digits of one in a string.
    pub(crate) fn number(&self, name: &str) -> Option<u64> {
        number(self.data(name)?)
    }

    pub(crate) fn group(&self, name: &str, problems: &mut Problems) -> Option<Group<'t>> {
        let field = self.field(name)?;
        match (field.key.kind, &field.setting.data) {
            (Kind::Group(scope), Data::Group(settings)) => {
                Some(Group::read(scope, self.path_of(name), field.setting.location, settings, problems))
            }
            _ => None,
        }
    }

    /// The groups of a list, or the one group of `Kind::OneOrMore`. Elements beyond `most` are an error.
    pub(crate) fn groups(&self, name: &str, most: usize, problems: &mut Problems) -> Vec<Group<'t>> {
        let Some(field) = self.field(name) else { return Vec::new() };
        let (scope, elements) = match (field.key.kind, &field.setting.data) {
            (Kind::Groups(scope) | Kind::OneOrMore(scope), Data::List(elements)) => (scope, elements),
            (Kind::OneOrMore(scope), Data::Group(settings)) => {
                return vec![Group::read(scope, self.path_of(name), field.setting.location, settings, problems)];
            }
            _ => return Vec::new(),
        };
        let mut groups = Vec::new();
        for (number, Element { location, data }) in elements.iter().enumerate() {
            let path = format!("{}[{number}]", self.path_of(name));
            match data {
                _ if number >= most => {
                    problems.error(*location, &path, format_args!("is beyond the maximum of {most}: leave it out"));
                    break;
                }
                Data::Group(settings) => groups.push(Group::read(scope, path, *location, settings, problems)),
                Data::Bad => {}
                other => problems.error(*location, &path, format_args!("is {}: write a group {{ }}", other.kind())),
            }
        }
        groups
    }

    /// Applies the group `limits`. Limits that it does not set are unchanged.
    pub(crate) fn limits(&self, limits: &mut Limits, problems: &mut Problems) -> Option<Group<'t>> {
        let own = self.group("limits", problems)?;
        for field in own.found.iter().filter(|field| field.is_good) {
            if let (Kind::Limit(_, set), Some(value)) = (field.key.kind, number(&field.setting.data)) {
                set(limits, value);
            }
        }
        if let Some(when_over) = own.word("when-over", &values::WHEN_OVERS) {
            limits.websocket.when_over = when_over;
        }
        Some(own)
    }

    fn field(&self, name: &str) -> Option<&Field<'t>> {
        self.found.iter().find(|field| field.key.name == name && field.is_good)
    }

    pub(crate) fn data(&self, name: &str) -> Option<&'t Data> {
        self.field(name).map(|field| &field.setting.data)
    }
}

/// A number, or a string of its digits.
fn number(data: &Data) -> Option<u64> {
    match data {
        Data::Integer(value) => u64::try_from(*value).ok(),
        Data::Text(digits) => digits.parse().ok(),
        _ => None,
    }
}

/// The error of a value whose type or bounds are wrong. None: the value is valid.
fn fault(key: &ConfigKey, data: &Data) -> Option<String> {
    let is_text = |one: &Element| matches!(one.data, Data::Text(_) | Data::Bad);
    match (key.kind, data) {
        (_, Data::Bad) => None,
        (Kind::Text, Data::Text(text)) if text.trim().is_empty() => {
            Some("is empty: write a value, or leave it out".to_owned())
        }
        (Kind::Text | Kind::Commas | Kind::Texts, Data::Text(_)) => None,
        (Kind::Texts, Data::Array(all) | Data::List(all)) if all.iter().all(is_text) => {
            all.is_empty().then(|| "is empty: write a value, or leave it out".to_owned())
        }
        (Kind::Texts, Data::Array(all) | Data::List(all)) => {
            let odd = all.iter().find(|one| !is_text(one)).map_or("no value", |one| one.data.kind());
            Some(format!("contains {odd}: write {key}"))
        }
        (Kind::Word(words), Data::Text(word)) if !words.contains(&word.as_str()) => {
            Some(format!("{word:?} is not known: write one of {}", words.join(", ")))
        }
        (Kind::Word(_), Data::Text(_)) | (Kind::Flag, Data::Bool(_)) => None,
        (Kind::Number(bounds) | Kind::Digits(bounds) | Kind::Limit(bounds, _), Data::Integer(value)) => {
            let is_within = u64::try_from(*value).is_ok_and(|value| (bounds.min..=bounds.max).contains(&value));
            (!is_within).then(|| format!("{value} is out of bounds: write {key}"))
        }
        (Kind::Digits(bounds), Data::Text(digits)) => {
            let is_within = digits.parse().is_ok_and(|value: u64| (bounds.min..=bounds.max).contains(&value));
            (!is_within).then(|| format!("{digits:?} is out of bounds: write {key}"))
        }
        (Kind::Group(_) | Kind::OneOrMore(_), Data::Group(_)) | (Kind::Groups(_), Data::List(_)) => None,
        (Kind::OneOrMore(_), Data::List(all)) if !all.is_empty() => None,
        (Kind::OneOrMore(_), Data::List(_)) => Some("is empty: write a value, or leave it out".to_owned()),
        _ => Some(format!("is {}: write {key}", data.kind())),
    }
}
