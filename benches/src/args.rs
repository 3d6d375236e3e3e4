//! The command line: `--name value` options and `--name` flags, in any order.

use crate::Result;
use std::collections::HashMap;
use std::fmt::Display;
use std::str::FromStr;

/// A parsed command line.
pub struct Args {
    values: HashMap<String, String>,
    flags: Vec<String>,
}

impl Args {
    /// Parses the process's arguments; every option must be named in `valued` or `flags`.
    pub fn from_env(valued: &[&str], flags: &[&str]) -> Result<Args> {
        Args::parse(std::env::args().skip(1), valued, flags)
    }

    fn parse(mut words: impl Iterator<Item = String>, valued: &[&str], flags: &[&str]) -> Result<Args> {
        let mut args = Args { values: HashMap::new(), flags: Vec::new() };
        while let Some(word) = words.next() {
            let name = word.strip_prefix("--").unwrap_or("");
            if flags.contains(&name) {
                args.flags.push(name.to_owned());
            } else if valued.contains(&name) {
                let value = words.next().ok_or(format!("--{name} needs a value"))?;
                args.values.insert(name.to_owned(), value);
            } else {
                return Err(format!("unknown argument {word}").into());
            }
        }
        Ok(args)
    }

    /// Whether `--name` was given.
    pub fn flag(&self, name: &str) -> bool {
        self.flags.iter().any(|flag| flag == name)
    }

    /// The value of `--name`, if it was given.
    pub fn value(&self, name: &str) -> Option<&str> {
        self.values.get(name).map(String::as_str)
    }

    /// The value of `--name`; an error if it was not given.
    pub fn required(&self, name: &str) -> Result<&str> {
        self.value(name).ok_or_else(|| format!("--{name} is missing").into())
    }

    /// The value of `--name` as a number, or `default` if it was not given.
    pub fn number<T: FromStr<Err: Display>>(&self, name: &str, default: T) -> Result<T> {
        match self.value(name) {
            None => Ok(default),
            Some(text) => text.parse().map_err(|error| format!("--{name} {text}: {error}").into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Args> {
        let words = line.split_whitespace().map(str::to_owned);
        Args::parse(words, &["size", "addr"], &["raw"])
    }

    #[test]
    fn values_flags_and_defaults() {
        let args = parse("--raw --size 64").unwrap();
        assert!(args.flag("raw"));
        assert_eq!(args.number("size", 1).unwrap(), 64);
        assert_eq!(args.number("seconds", 2.5).unwrap(), 2.5);
        assert!(args.required("addr").is_err());
    }

    #[test]
    fn mistakes_are_named() {
        assert!(parse("--wrong 1").is_err());
        assert!(parse("size 1").is_err());
        assert!(parse("--size").is_err());
        assert!(parse("--size x").unwrap().number("size", 1).is_err());
    }
}
