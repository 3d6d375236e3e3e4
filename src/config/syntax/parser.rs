//! Builds a tree from tokens. After an error it continues at the next setting, so that one run reports all errors.

use std::collections::{HashMap, VecDeque};

use super::lexer::{Bracket, Lexer, SyntaxToken};
use super::{Data, Element, Read, Setting};
use crate::config::problem::{Location, Problems};
use crate::limits::CONFIG_DEPTH_MAX;

/// Reads a file and its includes. Names of included files are relative to the folder of the including file.
pub fn parse(name: &str, read: &mut Read<'_>, problems: &mut Problems) -> Vec<Setting> {
    let lexer = Lexer::new(name, read, problems);
    let mut parser =
        Parser { lexer, problems, ahead: VecDeque::new(), open: Vec::new(), path: String::new(), long_text: None };
    parser.settings()
}

struct Parser<'a, 'r> {
    lexer: Lexer<'a, 'r>,
    problems: &'a mut Problems,
    ahead: VecDeque<(Location, SyntaxToken)>,
    /// The open brackets, the innermost last. Their number is the recursion depth.
    open: Vec<(Bracket, Location)>,
    /// The key of the current value.
    path: String,
    /// First and last location of the last multi-line string.
    long_text: Option<(Location, Location)>,
}

impl Parser<'_, '_> {
    /// The settings up to the closing bracket of their group, or to the end of the input.
    fn settings(&mut self) -> Vec<Setting> {
        let mut settings: Vec<Setting> = Vec::new();
        let mut locations: HashMap<String, Location> = HashMap::new();
        loop {
            let (location, token) = self.next();
            let name = match token {
                SyntaxToken::Name(name) => name,
                SyntaxToken::Close(bracket) if self.leaves(bracket, location) => return settings,
                SyntaxToken::Close(_) => continue,
                SyntaxToken::End => {
                    self.expect_closed();
                    return settings;
                }
                other => {
                    self.broken(location, &format!("expected a name, found {other}"));
                    match other {
                        SyntaxToken::Semicolon | SyntaxToken::Comma => {}
                        SyntaxToken::Open(_) => self.skip_brackets(1),
                        _ => self.recover(),
                    }
                    continue;
                }
            };
            let Some(data) = self.value_of(&name) else { continue };
            if let Some(first) = locations.get(&name) {
                let (file, line) = (self.problems.source(*first), first.line);
                let other = if first.source == location.source { String::new() } else { format!(" of {file}") };
                let sentence = format!("is set twice: line {line}{other} sets it too");
                self.problems.error(location, &self.key(&name), sentence);
            } else {
                locations.insert(name.clone(), location);
                settings.push(Setting { name, location, data });
            }
        }
    }

    fn value_of(&mut self, name: &str) -> Option<Data> {
        let (location, token) = self.peek(0);
        let data = if *token == SyntaxToken::Equals {
            self.next();
            Some(self.value_at(self.key(name)))
        } else {
            let sentence = format!("{name:?} is followed by {token}: write {name} = VALUE;");
            let location = *location;
            self.broken(location, &sentence);
            None
        };
        if matches!(data, None | Some(Data::Bad)) {
            self.recover();
        } else {
            self.skip_terminator();
        }
        data
    }

    /// The full key of a name in the current group.
    fn key(&self, name: &str) -> String {
        if self.path.is_empty() { name.to_owned() } else { format!("{}.{name}", self.path) }
    }

    fn value_at(&mut self, key: String) -> Data {
        let outer = std::mem::replace(&mut self.path, key);
        let data = self.value();
        self.path = outer;
        data
    }

    fn value(&mut self) -> Data {
        if self.is_at_setting() {
            return self.no_value();
        }
        match self.peek(0).1 {
            SyntaxToken::Close(_)
            | SyntaxToken::Comma
            | SyntaxToken::Semicolon
            | SyntaxToken::Equals
            | SyntaxToken::End => return self.no_value(),
            _ => {}
        }
        match self.next() {
            (_, SyntaxToken::Bool(value)) => Data::Bool(value),
            (_, SyntaxToken::Integer(value)) => Data::Integer(value),
            (_, SyntaxToken::Float(value)) => Data::Float(value),
            (location, SyntaxToken::Text(bytes)) => self.text(location, bytes),
            (location, SyntaxToken::Open(bracket)) => self.aggregate(location, bracket),
            (location, SyntaxToken::Junk(text, remedy)) => {
                self.bad(location, &format!("{text:?} is not a value: {remedy}"))
            }
            (location, other) => self.bad(location, &format!("{other} is not a value: write strings in double quotes")),
        }
    }

    fn bad(&mut self, location: Location, sentence: &str) -> Data {
        self.problems.error(location, &self.path, sentence);
        Data::Bad
    }

    fn no_value(&mut self) -> Data {
        let (location, token) = self.peek(0);
        let (location, sentence) = (*location, format!("a value is missing before {token}"));
        self.broken(location, &sentence);
        Data::Bad
    }

    /// Adjacent strings are joined.
    fn text(&mut self, location: Location, mut bytes: Vec<u8>) -> Data {
        while let (_, SyntaxToken::Text(_)) = self.peek(0) {
            if let (_, SyntaxToken::Text(more)) = self.next() {
                bytes.extend(more);
            }
        }
        if bytes.contains(&b'\n') {
            self.long_text = Some((location, self.peek(0).0));
        }
        match String::from_utf8(bytes) {
            Ok(text) if text.contains('\0') => self.bad(location, "the string contains a NUL: leave \\x00 out"),
            Ok(text) => Data::Text(text),
            Err(_) => self.bad(location, "the string is not UTF-8: save the file as UTF-8"),
        }
    }

    fn aggregate(&mut self, location: Location, bracket: Bracket) -> Data {
        if self.open.len() == CONFIG_DEPTH_MAX {
            self.broken(location, &format!("brackets are nested more than {CONFIG_DEPTH_MAX} deep"));
            self.skip_brackets(1);
            return Data::Bad;
        }
        if let Some((Bracket::Array, _)) = self.open.last() {
            self.problems.error(
                location,
                &self.path,
                "an array cannot contain groups, lists or arrays: write a list, ( ) in place of [ ]",
            );
        }
        self.open.push((bracket, location));
        match bracket {
            Bracket::Group => Data::Group(self.settings()),
            Bracket::List => Data::List(self.elements()),
            Bracket::Array => self.array(),
        }
    }

    fn array(&mut self) -> Data {
        let elements = self.elements();
        let mut good = elements.iter().filter(|element| element.data != Data::Bad);
        let Some(first) = good.next() else { return Data::Array(elements) };
        let kind = first.data.kind();
        match good.find(|element| element.data.kind() != kind) {
            Some(other) => {
                let (location, other) = (other.location, other.data.kind());
                self.bad(location, &format!("the elements of an array have one type, and these are {kind} and {other}: write a list, ( ) in place of [ ]"))
            }
            None => Data::Array(elements),
        }
    }

    /// The elements up to the closing bracket.
    fn elements(&mut self) -> Vec<Element> {
        let mut elements = Vec::new();
        loop {
            let (location, token) = self.peek(0).clone();
            match token {
                SyntaxToken::Close(bracket) => {
                    self.next();
                    if self.leaves(bracket, location) {
                        return elements;
                    }
                    continue;
                }
                SyntaxToken::End => {
                    self.expect_closed();
                    return elements;
                }
                _ if self.is_at_setting() => {
                    self.expect_closed();
                    return elements;
                }
                _ => {}
            }
            let data = self.value_at(format!("{}[{}]", self.path, elements.len()));
            let is_bad = data == Data::Bad;
            elements.push(Element { location, data });
            if is_bad {
                self.recover();
                continue;
            }
            match self.peek(0).clone() {
                (_, SyntaxToken::Comma) => drop(self.next()),
                (_, SyntaxToken::Close(_) | SyntaxToken::End) => {}
                _ if self.is_at_setting() => {}
                (location, token) => {
                    self.broken(location, &format!("expected a comma between two elements, found {token}"));
                    self.recover();
                }
            }
        }
    }

    /// Whether a closing bracket ends the current group or list. The bracket of an outer group or list does too: then the
    /// closing bracket of the inner one is missing.
    fn leaves(&mut self, bracket: Bracket, location: Location) -> bool {
        match self.open.last().copied() {
            Some((open, _)) if open == bracket => {
                self.open.pop();
                true
            }
            Some((inner, at)) if self.open.iter().any(|(open, _)| *open == bracket) => {
                let ((begin, end), found) = (inner.pair(), bracket.pair().1);
                let line = location.line;
                self.broken(at, &format!("{begin} is not closed: {end} is missing before the {found} of line {line}"));
                self.open.pop();
                self.ahead.push_front((location, SyntaxToken::Close(bracket)));
                true
            }
            _ => {
                self.broken(location, &format!("{} closes nothing", bracket.pair().1));
                false
            }
        }
    }

    /// Reports brackets that are open at the end of the input, or where a list cannot continue.
    fn expect_closed(&mut self) {
        if let Some((bracket, at)) = self.open.pop() {
            let (location, token) = self.peek(0).clone();
            let ((begin, end), line) = (bracket.pair(), location.line);
            let sentence = match token {
                SyntaxToken::End => format!("{begin} is not closed: {end} is missing"),
                _ => format!("{begin} is not closed: {end} is missing before {token} in line {line}"),
            };
            self.broken(at, &sentence);
            if token == SyntaxToken::End {
                self.open.clear();
            }
        }
    }

    /// Skips to the next setting of this group, or the next element of this list.
    fn recover(&mut self) {
        while !self.is_at_setting() {
            match self.peek(0).1 {
                SyntaxToken::Semicolon | SyntaxToken::Comma => return self.skip_terminator(),
                SyntaxToken::Close(_) | SyntaxToken::End => return,
                SyntaxToken::Open(_) => self.skip_brackets(0),
                _ => drop(self.next()),
            }
        }
    }

    /// Skips until only `depth` brackets are open.
    fn skip_brackets(&mut self, mut depth: usize) {
        loop {
            match self.next().1 {
                SyntaxToken::Open(_) => depth += 1,
                SyntaxToken::Close(_) => depth = depth.saturating_sub(1),
                SyntaxToken::End => return,
                _ => {}
            }
            if depth == 0 {
                return;
            }
        }
    }

    fn skip_terminator(&mut self) {
        if matches!(self.peek(0).1, SyntaxToken::Semicolon | SyntaxToken::Comma) {
            self.next();
        }
    }

    fn is_at_setting(&mut self) -> bool {
        matches!(self.peek(0).1, SyntaxToken::Name(_)) && self.peek(1).1 == SyntaxToken::Equals
    }

    /// Reports a structural error. A missing quote causes errors after the next quote, so a multi-line string that ends
    /// right before the error is named.
    fn broken(&mut self, location: Location, sentence: &str) {
        match self.long_text {
            Some((from, to)) if to == location && from.line < to.line => {
                let line = from.line;
                self.problems.broken(
                    location,
                    format_args!("{sentence}; does the string of line {line} lack its closing quote?"),
                );
            }
            _ => self.problems.broken(location, sentence),
        }
    }

    fn peek(&mut self, ahead: usize) -> &(Location, SyntaxToken) {
        while self.ahead.len() <= ahead {
            let token = self.lexer.next(self.problems);
            self.ahead.push_back(token);
        }
        &self.ahead[ahead]
    }

    fn next(&mut self) -> (Location, SyntaxToken) {
        self.ahead.pop_front().unwrap_or_else(|| self.lexer.next(self.problems))
    }
}
