//! Finds JSON objects in a byte stream, however it is divided into reads. Only braces and strings are looked at:
//! `message.rs` parses the object.

use super::limits::MESSAGE_SIZE_MAX;
use super::message::Refusal;

/// The incomplete object at the end of a stream.
#[derive(Debug, Default)]
pub struct Finder {
    text: Vec<u8>,
    /// Open braces.
    depth: usize,
    is_quoted: bool,
    is_escaped: bool,
}

impl Finder {
    /// The next object in `bytes[*at..]`; `at` is moved after the consumed bytes. None: all were consumed. After an
    /// error the start of the next object is unknown.
    pub fn next(&mut self, bytes: &[u8], at: &mut usize) -> Option<Result<Vec<u8>, Refusal>> {
        while let Some(byte) = bytes.get(*at).copied() {
            *at += 1;
            if self.depth == 0 {
                match byte {
                    b'{' => {}
                    b' ' | b'\t' | b'\r' | b'\n' | 0 => continue,
                    _ => return Some(Err(Refusal::Malformed)),
                }
            }
            if self.text.len() == MESSAGE_SIZE_MAX {
                return Some(Err(Refusal::TooLong));
            }
            self.text.push(byte);
            self.step(byte);
            if self.depth == 0 {
                return Some(Ok(std::mem::take(&mut self.text)));
            }
        }
        None
    }

    fn step(&mut self, byte: u8) {
        match byte {
            _ if self.is_escaped => self.is_escaped = false,
            b'\\' if self.is_quoted => self.is_escaped = true,
            b'"' => self.is_quoted = !self.is_quoted,
            b'{' if !self.is_quoted => self.depth += 1,
            b'}' if !self.is_quoted => self.depth -= 1,
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The objects in a stream that arrives `step` bytes at a time; false: it ends with an error.
    fn found(stream: &[u8], step: usize) -> (Vec<String>, bool) {
        let (mut finder, mut texts) = (Finder::default(), Vec::new());
        for piece in stream.chunks(step) {
            let mut at = 0;
            while let Some(result) = finder.next(piece, &mut at) {
                match result {
                    Ok(text) => texts.push(String::from_utf8(text).unwrap()),
                    Err(_) => return (texts, false),
                }
            }
        }
        (texts, true)
    }

    #[test]
    fn objects_are_found_however_they_are_divided() {
        for (stream, texts, is_good) in [
            ("", &[][..], true),
            (" \r\n\t\0", &[], true),
            ("{}", &["{}"], true),
            ("{\"a\":1}{\"b\":{}}\n\0 {}", &["{\"a\":1}", "{\"b\":{}}", "{}"], true),
            (r#"{"a":"}\"}"}"#, &[r#"{"a":"}\"}"}"#], true),
            (r#"{"a":"\\"}{}"#, &[r#"{"a":"\\"}"#, "{}"], true),
            ("{\"a\":[}{}", &["{\"a\":[}", "{}"], true),
            ("{\"a\":\"", &[], true),
            ("{}x{}", &["{}"], false),
            ("[]", &[], false),
            ("}", &[], false),
            ("GET / HTTP/1.1\r\n\r\n", &[], false),
        ] {
            for step in 1..=stream.len().max(1) {
                let (got, is_ok) = found(stream.as_bytes(), step);
                assert_eq!(
                    (got.as_slice(), is_ok),
                    (&texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>()[..], is_good),
                    "{stream} {step}"
                );
            }
        }
    }

    #[test]
    fn an_object_has_a_size_limit() {
        let object = |size: usize| format!("{{\"{}\"}}", "x".repeat(size - 4));
        for step in [1_000, MESSAGE_SIZE_MAX + 1] {
            assert_eq!(found(object(MESSAGE_SIZE_MAX).as_bytes(), step).0.len(), 1);
            assert_eq!(found(object(MESSAGE_SIZE_MAX + 1).as_bytes(), step), (vec![], false));
        }
    }
}
