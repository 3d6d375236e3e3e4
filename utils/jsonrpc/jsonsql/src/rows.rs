//! Rows as a JSON array of objects, limited in number and size.

use std::collections::{HashMap, HashSet};

use crate::limits::{ROWS_MAX, ROWS_SIZE_MAX};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rusqlite::types::ValueRef;
use rusqlite::{Row, Statement};
use serde_json::Value;

/// The rows of an answer.
#[derive(Debug)]
pub(crate) struct Rows {
    /// The names of the columns as JSON strings.
    names: Vec<String>,
    /// The array without its end.
    json: String,
    count: usize,
}

impl Rows {
    /// Columns of the same name are numbered as SQLite does it: `id`, `id:1`.
    pub(crate) fn new(statement: &Statement<'_>) -> Rows {
        let mut taken: HashSet<String> = HashSet::new();
        // The next number of each name, so that many columns of one name take linear time.
        let mut numbers: HashMap<&str, usize> = HashMap::new();
        let mut names = Vec::new();
        for name in statement.column_names() {
            let mut unique = name.to_owned();
            let number = numbers.entry(name).or_insert(1);
            while taken.contains(&unique) {
                unique = format!("{name}:{number}");
                *number += 1;
            }
            names.push(Value::from(unique.as_str()).to_string());
            taken.insert(unique);
        }
        Rows { names, json: "[".to_owned(), count: 0 }
    }

    /// Adds a row. False: it does not fit.
    pub(crate) fn take(&mut self, row: &Row<'_>) -> Result<bool, rusqlite::Error> {
        let before = self.json.len();
        if self.count > 0 {
            self.json.push(',');
        }
        self.json.push('{');
        for (index, name) in self.names.iter().enumerate() {
            if index > 0 {
                self.json.push(',');
            }
            self.json.push_str(name);
            self.json.push(':');
            append(&mut self.json, row.get_ref(index)?);
            if self.json.len() > ROWS_SIZE_MAX {
                break;
            }
        }
        self.json.push('}');
        let has_room = self.count < ROWS_MAX && self.json.len() <= ROWS_SIZE_MAX;
        if has_room {
            self.count += 1;
        } else {
            self.json.truncate(before);
        }
        Ok(has_room)
    }

    pub(crate) fn count(&self) -> usize {
        self.count
    }

    /// The complete array.
    pub(crate) fn close(mut self) -> String {
        self.json.push(']');
        self.json
    }
}

/// Integers keep all 64 bits. Infinities become null, as JSON has none.
fn append(json: &mut String, value: ValueRef<'_>) {
    let text = match value {
        ValueRef::Null => Value::Null.to_string(),
        ValueRef::Integer(number) => number.to_string(),
        ValueRef::Real(number) => Value::from(number).to_string(),
        ValueRef::Text(text) => Value::from(String::from_utf8_lossy(text)).to_string(),
        ValueRef::Blob(bytes) => format!("\"{}\"", STANDARD.encode(bytes)),
    };
    json.push_str(&text);
}
