//! Flags and operands of a subcommand.

use std::ffi::OsString;

use lexopt::Arg;

/// A flag of some subcommands.
#[derive(Debug)]
pub(crate) struct Flag {
    /// Without the hyphens.
    pub(crate) name: &'static str,
    /// What the help calls its value; empty: a switch.
    pub(crate) value: &'static str,
    /// For the help.
    pub(crate) help: &'static str,
    /// Whether it may be given several times.
    pub(crate) is_list: bool,
}

/// The words of a command line, sorted.
#[derive(Debug, Default)]
pub(crate) struct Options {
    /// Flags and their values, in order.
    given: Vec<(&'static str, String)>,
    /// Words that are no flags.
    pub(crate) operands: Vec<String>,
    /// `--help`.
    pub(crate) wants_help: bool,
    /// `--version`.
    pub(crate) wants_version: bool,
}

impl Options {
    /// Sorts the words. `known` are all flags of all subcommands. The error is the operator's sentence.
    pub(crate) fn parse(words: impl Iterator<Item = OsString>, known: &'static [Flag]) -> Result<Options, String> {
        let mut parser = lexopt::Parser::from_args(words);
        let mut options = Options::default();
        let failed = |error: lexopt::Error| format!("{error}: see --help");
        while let Some(argument) = parser.next().map_err(failed)? {
            let name = match argument {
                Arg::Short('h') => "help",
                Arg::Short('V') => "version",
                Arg::Short(letter) => return Err(format!("-{letter} is not known: see --help")),
                Arg::Value(word) => {
                    options.operands.push(text(word)?);
                    continue;
                }
                Arg::Long(name) => name,
            };
            match name {
                "help" => options.wants_help = true,
                "version" => options.wants_version = true,
                _ => {
                    let flag = known.iter().find(|flag| flag.name == name);
                    let flag = flag.ok_or_else(|| format!("--{} is not known: see --help", name.escape_debug()))?;
                    if !flag.is_list && options.given.iter().any(|(given, _)| *given == flag.name) {
                        return Err(format!("--{} is given twice: see --help", flag.name));
                    }
                    let value =
                        if flag.value.is_empty() { String::new() } else { text(parser.value().map_err(failed)?)? };
                    options.given.push((flag.name, value));
                }
            }
        }
        Ok(options)
    }

    /// The first flag that is not among these.
    pub(crate) fn other_than(&self, names: &[&str]) -> Option<&'static str> {
        self.given.iter().map(|(name, _)| *name).find(|name| !names.contains(name))
    }

    /// Whether the switch is given.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.given.iter().any(|(given, _)| *given == name)
    }

    /// All values of a flag.
    pub(crate) fn all(&self, name: &str) -> impl Iterator<Item = &str> {
        self.given.iter().filter(move |(given, _)| *given == name).map(|(_, value)| value.as_str())
    }

    /// The value of a flag that is given once at most.
    pub(crate) fn value(&self, name: &str) -> Option<&str> {
        self.all(name).next()
    }

    /// The number of a flag.
    pub(crate) fn number(&self, name: &str) -> Result<Option<u32>, String> {
        let Some(value) = self.value(name) else { return Ok(None) };
        let number =
            value.parse().map_err(|_| format!("--{name} {} is no number: see --help", value.escape_debug()))?;
        Ok(Some(number))
    }
}

fn text(word: OsString) -> Result<String, String> {
    word.into_string().map_err(|word| format!("{} is no UTF-8: see --help", word.to_string_lossy().escape_debug()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const KNOWN: &[Flag] = &[
        Flag { name: "dir", value: "dir", help: "", is_list: false },
        Flag { name: "for", value: "host", help: "", is_list: true },
        Flag { name: "json", value: "", help: "", is_list: false },
    ];

    fn parsed(line: &str) -> Result<Options, String> {
        Options::parse(line.split(' ').filter(|word| !word.is_empty()).map(OsString::from), KNOWN)
    }

    #[test]
    fn flags_and_operands_in_any_order() {
        let options = parsed("--dir /a issue --for a gate --for=b --json -- --x -").unwrap();
        assert_eq!(options.value("dir"), Some("/a"));
        assert_eq!(options.all("for").collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!(options.operands, ["issue", "gate", "--x", "-"]);
        assert!(options.has("json") && options.other_than(&["dir", "for"]) == Some("json"));
        assert!(parsed("-h").unwrap().wants_help && parsed("x --version").unwrap().wants_version);
    }

    #[test]
    fn wrong_words_are_named() {
        for (line, part) in [
            ("--x", "--x is not known"),
            ("-x", "-x is not known"),
            ("--dir", "--dir"),
            ("--dir a --dir b", "--dir is given twice"),
            ("--json=1", "--json"),
        ] {
            let error = parsed(line).unwrap_err();
            assert!(error.contains(part) && error.ends_with("see --help"), "{line}: {error}");
        }
        assert!(parsed("--for x").unwrap().number("for").unwrap_err().contains("--for x is no number"));
    }
}
