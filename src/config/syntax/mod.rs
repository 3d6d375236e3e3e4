//! The syntax of configuration files, which is libconfig's: bytes in, a tree of settings with their places out.
//!
//! Nothing here knows a key. The grammar is that of the libconfig manual, appendix B. It is kept to wherever a good
//! file could tell the difference; what differs is listed with its reason in the tests.
#![forbid(unsafe_code)]

mod lexer;

mod parser;

use crate::config::problem::{Place, Problems};

/// Gives the bytes of the file with this name, or the reason why it cannot.
pub type Read<'a> = dyn FnMut(&str) -> Result<Vec<u8>, String> + 'a;

/// A name and its value.
#[derive(Clone, PartialEq, Debug)]
pub struct Setting {
    /// Unique in its group.
    pub name: String,
    /// Where the name stands.
    pub place: Place,
    /// What it is set to.
    pub data: Data,
}

/// An element of an array or a list.
#[derive(Clone, PartialEq, Debug)]
pub struct Element {
    /// Where it begins.
    pub place: Place,
    /// What it is.
    pub data: Data,
}

/// A value.
#[derive(Clone, PartialEq, Debug)]
pub enum Data {
    /// `true` or `false`.
    Bool(bool),
    /// Decimal, 0x, 0o or 0b.
    Integer(i64),
    /// With a point or an exponent; finite.
    Float(f64),
    /// UTF-8 without a NUL.
    Text(String),
    /// `[ ]`: scalars of one type.
    Array(Vec<Element>),
    /// `( )`: anything.
    List(Vec<Element>),
    /// `{ }`: settings.
    Group(Vec<Setting>),
    /// What is no value; its problem is noted.
    Bad,
}

impl Data {
    /// What it is, with its article.
    pub fn kind(&self) -> &'static str {
        match self {
            Data::Bool(_) => "a boolean",
            Data::Integer(_) => "an integer",
            Data::Float(_) => "a number with a fraction",
            Data::Text(_) => "a string",
            Data::Array(_) => "an array",
            Data::List(_) => "a list",
            Data::Group(_) => "a group",
            Data::Bad => "no value",
        }
    }
}

/// Reads a file and what it includes. Names of included files are relative to the folder of the file that
/// includes them.
pub fn parse(name: &str, read: &mut Read<'_>, problems: &mut Problems) -> Vec<Setting> {
    parser::parse(name, read, problems)
}

#[cfg(test)]
mod tests;

#[cfg(test)]
mod differential;
