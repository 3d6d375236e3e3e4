//! JSON objects of others (RFC 8259) whose members are unique at every level. With a member twice, two parsers may
//! see two different texts, and one of them is what was checked.

use std::fmt;

use auth_wire::Zeroizing;
use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

/// Parses an object and nothing else. None: it is no JSON, no object, or has a member twice. A nesting of more than 128
/// levels is refused too.
pub(crate) fn object(text: &[u8]) -> Option<Map<String, Value>> {
    match serde_json::from_slice(text) {
        Ok(Unique(Value::Object(members))) => Some(members),
        _ => None,
    }
}

/// Zeroes all texts of a value but the names of members, as they may be secrets.
pub(crate) fn zero(value: &mut Value) {
    match value {
        Value::String(text) => drop(Zeroizing::new(std::mem::take(text))),
        Value::Array(values) => values.iter_mut().for_each(zero),
        Value::Object(members) => members.values_mut().for_each(zero),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// A value without a member twice.
struct Unique(Value);

impl<'de> Deserialize<'de> for Unique {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Unique, D::Error> {
        deserializer.deserialize_any(Collect).map(Unique)
    }
}

struct Collect;

impl<'de> Visitor<'de> for Collect {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value whose members are unique")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Value, E> {
        Number::from_f64(value).map(Value::Number).ok_or_else(|| E::custom("not finite"))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut array: A) -> Result<Value, A::Error> {
        let mut elements = Vec::new();
        while let Some(Unique(element)) = array.next_element()? {
            elements.push(element);
        }
        Ok(Value::Array(elements))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<Value, A::Error> {
        let mut members = Map::new();
        while let Some(name) = object.next_key::<String>()? {
            let Unique(value) = object.next_value()?;
            if members.insert(name, value).is_some() {
                return Err(A::Error::custom("a member twice"));
            }
        }
        Ok(Value::Object(members))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_are_parsed() {
        let text = r#"{"a":[1,-1,1.5,"x",null,true,{"a":{}}],"b":"A"}"#;
        assert_eq!(object(text.as_bytes()).map(Value::Object), Some(serde_json::from_str(text).unwrap()));
        let deep = |levels: usize| format!("{}0{}", r#"{"a":"#.repeat(levels), "}".repeat(levels));
        assert!(object(deep(100).as_bytes()).is_some());
        for text in [
            "",
            "1",
            "[]",
            "{",
            "{} {}",
            "{}x",
            r#"{"a":1,"a":1}"#,
            // The same name in another spelling.
            r#"{"a":1,"\u0061":1}"#,
            r#"{"b":[{"c":{"a":1,"a":1}}]}"#,
            r#"{"a":1e999}"#,
            r#"{"a":NaN}"#,
            "{\"a\":\"\u{1}\"}",
            &deep(200),
            &"[".repeat(100_000),
        ] {
            assert_eq!(object(text.as_bytes()), None, "{}", text.get(..40).unwrap_or(text));
        }
        assert_eq!(object(b"{\"a\":\"\xff\"}"), None, "no UTF-8");
        assert_eq!(object(b"\xef\xbb\xbf{}"), None, "a byte order mark");
    }

    #[test]
    fn zeroed_values_have_no_text() {
        let mut value = serde_json::json!({ "a": ["x", { "b": "y" }], "c": "z", "d": 1, "e": null });
        zero(&mut value);
        assert_eq!(value, serde_json::json!({ "a": ["", { "b": "" }], "c": "", "d": 1, "e": null }));
    }
}
