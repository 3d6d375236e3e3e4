//! Requests and answers of JSON-RPC 2.0 as texts. Numbers, strings and the order of keys go through as they came.

use std::borrow::Cow;
use std::collections::VecDeque;

use jsonrpc_library::abi::{INTERNAL_ERROR, INVALID_PARAMS, INVALID_REQUEST, METHOD_NOT_FOUND};
use serde::de::{Deserialize, Deserializer, IgnoredAny, SeqAccess, Visitor};
use serde_json::value::RawValue;

use crate::limits::BATCH_MAX;

/// What is no JSON (section 5.1); the others are the library's too.
pub const PARSE_ERROR: i32 = -32700;

/// A call or a notification.
#[derive(Debug)]
pub struct Call {
    /// The method.
    pub method: String,
    /// The text of an array or object.
    pub params: Option<Box<RawValue>>,
    /// As it was sent. None: a notification, which nothing is answered to.
    pub id: Option<Box<RawValue>>,
}

/// What stands where a request is due.
#[derive(Debug)]
pub enum Entry {
    /// A request.
    Call(Call),
    /// Something else, with its id where that could be told.
    Invalid(Option<Box<RawValue>>),
}

/// What one text asks for.
#[derive(Debug)]
pub struct Requests {
    /// In their order.
    pub entries: VecDeque<Entry>,
    /// Whether the answer is an array.
    pub is_batch: bool,
}

/// What came of a call.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// The result's text.
    Result(String),
    /// The text of the error object.
    Error(String),
}

/// The members of a request. Others do not matter.
#[derive(serde::Deserialize)]
struct Members<'a> {
    #[serde(borrow)]
    jsonrpc: Cow<'a, str>,
    method: String,
    #[serde(borrow, default, deserialize_with = "even_null")]
    params: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "even_null")]
    id: Option<&'a RawValue>,
}

/// A null is something, and not the absence of it.
fn even_null<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<&'de RawValue>, D::Error> {
    <&RawValue>::deserialize(deserializer).map(Some)
}

/// The elements of an array, as long as there are not too many.
struct Elements<'a>(Vec<&'a RawValue>);

impl<'de> Deserialize<'de> for Elements<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Collect;
        impl<'de> Visitor<'de> for Collect {
            type Value = Elements<'de>;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                write!(f, "an array of {BATCH_MAX} elements at most")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut array: A) -> Result<Self::Value, A::Error> {
                let mut elements = Vec::new();
                while elements.len() < BATCH_MAX {
                    match array.next_element()? {
                        Some(element) => elements.push(element),
                        None => return Ok(Elements(elements)),
                    }
                }
                match array.next_element::<IgnoredAny>()? {
                    Some(_) => Err(serde::de::Error::invalid_length(BATCH_MAX + 1, &self)),
                    None => Ok(Elements(elements)),
                }
            }
        }
        deserializer.deserialize_seq(Collect)
    }
}

/// Reads a text whose syntax the splitter has judged. The error is the text of an error object.
pub fn parse(text: &[u8]) -> Result<Requests, String> {
    let text = std::str::from_utf8(text).map_err(|_| error(PARSE_ERROR, "", None))?;
    if text.trim_start().starts_with('[') {
        let Ok(Elements(elements)) = serde_json::from_str(text) else {
            let data = format!("\"more than {BATCH_MAX} requests in a batch\"");
            return Err(error(INVALID_REQUEST, "", Some(&data)));
        };
        if elements.is_empty() {
            return Err(error(INVALID_REQUEST, "", None));
        }
        let entries = elements.into_iter().map(|element| entry(element.get())).collect();
        Ok(Requests { entries, is_batch: true })
    } else {
        Ok(Requests { entries: VecDeque::from([entry(text)]), is_batch: false })
    }
}

fn entry(text: &str) -> Entry {
    // Of an array, serde would take the members in their order.
    if !text.trim_start().starts_with('{') {
        return Entry::Invalid(None);
    }
    let Ok(Members { jsonrpc, method, params, id }) = serde_json::from_str(text) else {
        return Entry::Invalid(None);
    };
    let id_is_plain = id.is_none_or(|id| !id.get().starts_with(['{', '[', 't', 'f']));
    if jsonrpc != "2.0" || !id_is_plain {
        return Entry::Invalid(None);
    }
    let id = id.map(ToOwned::to_owned);
    if params.is_some_and(|params| !params.get().starts_with(['{', '['])) {
        return Entry::Invalid(id);
    }
    Entry::Call(Call { method, params: params.map(ToOwned::to_owned), id })
}

/// The text of an error object. Without a message it has the code's own; data is JSON text.
pub fn error(code: i32, message: &str, data: Option<&str>) -> String {
    let message = match (message, code) {
        ("", PARSE_ERROR) => "Parse Error",
        ("", INVALID_REQUEST) => "Invalid Request",
        ("", METHOD_NOT_FOUND) => "Method not found",
        ("", INVALID_PARAMS) => "Invalid params",
        ("", INTERNAL_ERROR) => "Internal error",
        ("", _) => "Server error",
        _ => message,
    };
    let message = quoted(message);
    match data {
        Some(data) => format!("{{\"code\":{code},\"message\":{message},\"data\":{data}}}"),
        None => format!("{{\"code\":{code},\"message\":{message}}}"),
    }
}

/// A text as JSON.
pub fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// The answer to one text, as it comes together.
#[derive(Debug)]
pub struct Answer {
    text: Vec<u8>,
    is_batch: bool,
    size_max: usize,
}

impl Answer {
    /// Nothing is answered yet; in all there may be so many bytes.
    pub fn new(is_batch: bool, size_max: usize) -> Answer {
        Answer { text: Vec::new(), is_batch, size_max }
    }

    /// The answer to what is not even a request.
    pub fn fault(error: &str) -> Vec<u8> {
        let mut answer = Answer::new(false, usize::MAX);
        answer.push(None, &Outcome::Error(error.to_owned()));
        answer.text
    }

    /// Bytes so far.
    pub fn size(&self) -> usize {
        self.text.len()
    }

    /// One more answer; one for which there is no room becomes an error.
    pub fn push(&mut self, id: Option<&RawValue>, outcome: &Outcome) {
        let no_room;
        let (name, text) = match outcome {
            Outcome::Result(text) | Outcome::Error(text)
                if text.len() > self.size_max.saturating_sub(self.text.len()) =>
            {
                no_room = error(INTERNAL_ERROR, "", Some("\"the answer is too long\""));
                ("error", &no_room)
            }
            Outcome::Result(text) => ("result", text),
            Outcome::Error(text) => ("error", text),
        };
        let id = id.map_or("null", RawValue::get);
        let begin = match (self.is_batch, self.text.is_empty()) {
            (false, _) => "",
            (true, true) => "[",
            (true, false) => ",",
        };
        for part in [begin, "{\"jsonrpc\":\"2.0\",\"", name, "\":", text, ",\"id\":", id, "}"] {
            self.text.extend_from_slice(part.as_bytes());
        }
    }

    /// All of it; None where nothing is answered.
    pub fn finish(mut self) -> Option<Vec<u8>> {
        if self.text.is_empty() {
            return None;
        }
        if self.is_batch {
            self.text.push(b']');
        }
        Some(self.text)
    }
}

#[cfg(test)]
mod tests;
