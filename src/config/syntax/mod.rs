//! libconfig's syntax: parses bytes into a tree of settings with their locations. Knows no keys.
//!
//! The grammar is that of the libconfig manual, appendix B. A valid file has the same meaning as in the C library;
//! the tests list the differences with their reasons.
#![forbid(unsafe_code)]

mod lexer;

mod parser;

pub use parser::parse;

use crate::config::problem::Location;

/// Reads a file by name. The error is the reason for the operator, without the name.
pub type Read<'a> = dyn FnMut(&str) -> Result<Vec<u8>, String> + 'a;

/// A name and its value.
#[derive(Clone, PartialEq, Debug)]
pub struct Setting {
    /// Unique in its group.
    pub name: String,
    /// Location of the name.
    pub location: Location,
    /// The value.
    pub data: Data,
}

/// An element of an array or a list.
#[derive(Clone, PartialEq, Debug)]
pub struct Element {
    /// Location of the first byte.
    pub location: Location,
    /// The value.
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
    /// `( )`: values of any type.
    List(Vec<Element>),
    /// `{ }`: settings.
    Group(Vec<Setting>),
    /// Not a value; the error has been reported.
    Bad,
}

impl Data {
    /// The name of its type, with article.
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

#[cfg(test)]
mod tests;

#[cfg(test)]
mod differential;
