//! Errors and warnings of a configuration, collected with their locations.
#![forbid(unsafe_code)]

use std::fmt;

use crate::limits::{PROBLEM_SIZE_MAX, PROBLEMS_MAX};
use crate::observe::log::Level;

/// A line of a source. Line 0 is the source as a whole: a file, or a flag.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Location {
    /// Index of the source in [`Problems`].
    pub source: u32,
    /// Counted from 1.
    pub line: u32,
}

/// An error or a warning. Display is one line for the operator: file, line, key, cause and remedy.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Problem {
    /// With an error the configuration is not used, with a warning it is.
    pub level: Level,
    text: String,
}

impl Problem {
    /// A problem without a location.
    pub(crate) fn new(level: Level, text: &str) -> Problem {
        Problem { level, text: text.to_owned() }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// The problems found so far, and the names of their sources.
#[derive(Default, Debug)]
pub struct Problems {
    sources: Vec<String>,
    found: Vec<(Location, Problem)>,
    left_out: usize,
    errors: usize,
    is_broken: bool,
}

impl Problems {
    /// Adds a source. Returns the location of the source as a whole.
    pub(crate) fn add_source(&mut self, name: &str) -> Location {
        self.sources.push(name.to_owned());
        Location { source: self.sources.len() as u32 - 1, line: 0 }
    }

    /// The name of the source of a location.
    pub(crate) fn source(&self, location: Location) -> &str {
        self.sources.get(location.source as usize).map_or("", String::as_str)
    }

    /// File, line and key, or the flag: the beginning of an error that is found after the check.
    pub(crate) fn describe(&self, location: Location, key: &str) -> String {
        match location.line {
            0 => self.source(location).trim_end_matches(':').to_owned(),
            line => format!("{}:{line}: {key}", self.source(location)),
        }
    }

    /// Reports an error. `key` is the path of a setting, or empty.
    pub(crate) fn error(&mut self, location: Location, key: &str, sentence: impl fmt::Display) {
        self.errors += 1;
        self.note(Level::Error, location, key, &sentence);
    }

    /// Reports an error that leaves the structure of the file ambiguous, so that checking it would report nonsense.
    pub(crate) fn broken(&mut self, location: Location, sentence: impl fmt::Display) {
        self.is_broken = true;
        self.error(location, "", sentence);
    }

    /// Reports a warning.
    pub(crate) fn warn(&mut self, location: Location, key: &str, sentence: impl fmt::Display) {
        self.note(Level::Warn, location, key, &sentence);
    }

    /// Whether there is an error.
    pub(crate) fn has_errors(&self) -> bool {
        self.errors > 0
    }

    /// Whether `broken` was called.
    pub(crate) fn is_broken(&self) -> bool {
        self.is_broken
    }

    /// The problems, ordered by file and line: at most `PROBLEMS_MAX`, of which errors come before warnings, and one
    /// line that counts the others.
    pub fn finish(mut self) -> Vec<Problem> {
        self.found.sort_by_key(|(location, _)| *location);
        // The errors among them, then the warnings for which there is room.
        let (before, mut shown) = (self.found.len(), self.errors.min(PROBLEMS_MAX));
        self.found.retain(|(_, problem)| {
            shown += usize::from(problem.level == Level::Warn);
            problem.level == Level::Error || shown <= PROBLEMS_MAX
        });
        self.left_out += before - self.found.len();
        let mut all: Vec<Problem> = self.found.into_iter().map(|(_, problem)| problem).collect();
        if self.left_out > 0 {
            let text = format!("{} more problems are not shown: correct those above first", self.left_out);
            all.push(Problem { level: if self.errors > 0 { Level::Error } else { Level::Warn }, text });
        }
        all
    }

    fn note(&mut self, level: Level, location: Location, key: &str, sentence: &dyn fmt::Display) {
        // Counted for each level, so that many warnings do not hide an error; finish() leaves the excess out.
        if self.found.iter().filter(|(_, problem)| problem.level == level).count() == PROBLEMS_MAX {
            self.left_out += 1;
            return;
        }
        let (source, line) = (self.source(location), location.line);
        let mut text = match (line, key) {
            (0, _) => format!("{source} {sentence}"),
            (_, "") => format!("{source}:{line}: {sentence}"),
            (_, key) => format!("{source}:{line}: {key}: {sentence}"),
        };
        text.truncate(text.floor_char_boundary(PROBLEM_SIZE_MAX));
        self.found.push((location, Problem { level, text }));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_keys_and_order() {
        let mut problems = Problems::default();
        let file = problems.add_source("a.conf");
        let flag = problems.add_source("--type");
        let line = |line| Location { line, ..file };
        problems.error(flag, "servers[0].websocket.type", "\"x\" is not known");
        problems.error(line(7), "port", "is a string");
        problems.warn(line(3), "auth", "is not served");
        assert!(!problems.is_broken() && problems.has_errors());
        problems.broken(line(7), "this } closes nothing");
        assert!(problems.is_broken());
        let lines: Vec<String> = problems.finish().iter().map(Problem::to_string).collect();
        assert_eq!(
            lines,
            [
                "a.conf:3: auth: is not served",
                "a.conf:7: port: is a string",
                "a.conf:7: this } closes nothing",
                "--type \"x\" is not known"
            ]
        );
    }

    #[test]
    fn their_number_is_limited() {
        let mut problems = Problems::default();
        let file = problems.add_source("a.conf");
        (0..1000).for_each(|_| problems.warn(file, "", "is odd".repeat(PROBLEM_SIZE_MAX)));
        assert!(!problems.has_errors());
        let all = problems.finish();
        assert_eq!(all.len(), PROBLEMS_MAX + 1);
        assert_eq!(all[0].to_string().len(), PROBLEM_SIZE_MAX);
        assert_eq!(all[PROBLEMS_MAX].level, Level::Warn);
        assert!(all[PROBLEMS_MAX].to_string().starts_with("900 more problems"));
    }

    #[test]
    fn errors_are_shown_before_warnings() {
        // Errors, warnings; of them shown.
        for (errors, warnings, errors_shown, warnings_shown) in [
            (0, PROBLEMS_MAX, 0, PROBLEMS_MAX),
            (1, PROBLEMS_MAX, 1, PROBLEMS_MAX - 1),
            (60, 90, 60, PROBLEMS_MAX - 60),
            (PROBLEMS_MAX, 1, PROBLEMS_MAX, 0),
            (500, 500, PROBLEMS_MAX, 0),
        ] {
            let mut problems = Problems::default();
            let file = problems.add_source("a.conf");
            for at in 0..warnings.max(errors) {
                let line = Location { line: at as u32 + 1, ..file };
                if at < warnings {
                    problems.warn(line, "", "is odd");
                }
                if at < errors {
                    problems.error(line, "", "is wrong");
                }
            }
            let mut all = problems.finish();
            let left_out = errors + warnings - errors_shown - warnings_shown;
            if left_out > 0 {
                let last = all.pop().map(|last| last.to_string()).unwrap_or_default();
                assert!(last.starts_with(&format!("{left_out} more problems")), "{last}");
            }
            let count = |level| all.iter().filter(|problem| problem.level == level).count();
            assert_eq!((count(Level::Error), count(Level::Warn)), (errors_shown, warnings_shown));
            let first = all.iter().find(|problem| problem.level == Level::Warn).map(ToString::to_string);
            assert!(warnings_shown == 0 || first.as_deref() == Some("a.conf:1: is odd"), "{first:?}");
        }
    }
}
