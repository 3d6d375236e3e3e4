//! Requests and answers of JSON-RPC 2.0 as JSON texts. Numbers, strings and the order of keys are passed on unchanged.

use std::borrow::Cow;
use std::collections::VecDeque;

use jsonrpc_library::abi::{INTERNAL_ERROR, INVALID_PARAMS, INVALID_REQUEST, METHOD_NOT_FOUND};
use serde::de::{Deserialize, Deserializer, IgnoredAny, SeqAccess, Visitor};
use serde_json::value::RawValue;

use crate::limits::BATCH_MAX;

/// Invalid JSON (JSON-RPC 2.0 section 5.1). The other codes are in `jsonrpc_library::abi`.
pub(crate) const PARSE_ERROR: i32 = -32700;

/// A call or a notification.
#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) method: String,
    /// JSON text of an array or object.
    pub(crate) params: Option<Box<RawValue>>,
    /// As it was sent. None: a notification, which has no answer.
    pub(crate) id: Option<Box<RawValue>>,
}

/// An element of a batch, or a single request.
#[derive(Debug)]
pub(crate) enum Entry {
    Call(Call),
    /// Not a request; its id if it is known.
    Invalid(Option<Box<RawValue>>),
}

/// The requests in one JSON text.
#[derive(Debug)]
pub(crate) struct Requests {
    pub(crate) entries: VecDeque<Entry>,
    /// Whether the answer is an array.
    pub(crate) is_batch: bool,
}

/// Result of a call.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Outcome {
    /// JSON text of the result.
    Result(String),
    /// JSON text of the error object.
    Error(String),
}

/// The members of a request. Others are ignored.
#[derive(serde::Deserialize)]
struct Members<'a> {
    #[serde(borrow)]
    jsonrpc: Cow<'a, str>,
    method: String,
    #[serde(borrow, default, deserialize_with = "present")]
    params: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    id: Option<&'a RawValue>,
}

/// Some for null too, which is not the same as absent.
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<&'de RawValue>, D::Error> {
    <&RawValue>::deserialize(deserializer).map(Some)
}

/// The elements of an array, `BATCH_MAX` at most.
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

/// Parses a text whose syntax the splitter has checked. The error is the JSON text of an error object.
pub(crate) fn parse(text: &[u8]) -> Result<Requests, String> {
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
    // serde would accept an array as the members in their order.
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

/// JSON text of an error object. An empty message becomes the usual one of the code; data is JSON text.
pub(crate) fn error(code: i32, message: &str, data: Option<&str>) -> String {
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

/// A JSON string.
pub(crate) fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// The answer to the requests of one text, built up call by call.
#[derive(Debug)]
pub(crate) struct Answer {
    text: Vec<u8>,
    is_batch: bool,
    size_max: usize,
}

impl Answer {
    /// An empty answer that may grow to `size_max` bytes.
    pub(crate) fn new(is_batch: bool, size_max: usize) -> Answer {
        Answer { text: Vec::new(), is_batch, size_max }
    }

    /// The answer to a text without a valid request.
    pub(crate) fn invalid(error: &str) -> Vec<u8> {
        let mut answer = Answer::new(false, usize::MAX);
        answer.push(None, &Outcome::Error(error.to_owned()));
        answer.text
    }

    pub(crate) fn size(&self) -> usize {
        self.text.len()
    }

    /// Adds the outcome of a call; one that exceeds the size becomes an error.
    pub(crate) fn push(&mut self, id: Option<&RawValue>, outcome: &Outcome) {
        let too_long;
        let (name, text) = match outcome {
            Outcome::Result(text) | Outcome::Error(text)
                if text.len() > self.size_max.saturating_sub(self.text.len()) =>
            {
                too_long = error(INTERNAL_ERROR, "", Some("\"the answer is too long\""));
                ("error", &too_long)
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

    /// The JSON text; None: there were only notifications.
    pub(crate) fn finish(mut self) -> Option<Vec<u8>> {
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
