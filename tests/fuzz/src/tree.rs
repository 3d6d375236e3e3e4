//! A configuration's tree: looked through, and written down again.

use uakari::config::problem::Location;
use uakari::config::syntax::{Data, Element, Setting};

/// Shows every value of a tree with its location and the number of brackets around it, from the outside in.
pub fn walk(settings: &[Setting], depth: usize, visit: &mut impl FnMut(Location, &Data, usize)) {
    for setting in settings {
        walk_data(setting.location, &setting.data, depth, visit);
    }
}

fn walk_data(location: Location, data: &Data, depth: usize, visit: &mut impl FnMut(Location, &Data, usize)) {
    visit(location, data, depth);
    match data {
        Data::Array(elements) | Data::List(elements) => {
            for element in elements {
                walk_data(element.location, &element.data, depth + 1, visit);
            }
        }
        Data::Group(settings) => walk(settings, depth + 1, visit),
        _ => {}
    }
}

/// The text of a tree without a bad value. What it means does not depend on how it was written before.
pub fn print(settings: &[Setting]) -> String {
    settings.iter().map(|setting| format!("{} = {};\n", setting.name, print_data(&setting.data))).collect()
}

fn print_data(data: &Data) -> String {
    let all = |elements: &[Element]| elements.iter().map(|one| print_data(&one.data)).collect::<Vec<_>>().join(",");
    match data {
        Data::Bool(value) => value.to_string(),
        Data::Integer(value) => value.to_string(),
        // With a point or an exponent, so that it is no integer.
        Data::Float(value) => format!("{value:?}"),
        Data::Text(text) => format!("\"{}\"", text.bytes().map(print_byte).collect::<String>()),
        Data::Array(elements) => format!("[{}]", all(elements)),
        Data::List(elements) => format!("({})", all(elements)),
        Data::Group(settings) => format!("{{{}}}", print(settings)),
        Data::Bad => "bad".to_owned(),
    }
}

/// A byte of a string; all that could be something else is escaped.
fn print_byte(byte: u8) -> String {
    match byte {
        b'"' | b'\\' => format!("\\{}", char::from(byte)),
        b' '..=b'~' => char::from(byte).to_string(),
        _ => format!("\\x{byte:02x}"),
    }
}
