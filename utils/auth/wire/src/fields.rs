//! Fields: a type (u8), a length (u32, big-endian) and a value.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::Secret;
use crate::codec::WireError;

/// Appends a field.
pub(crate) fn put(out: &mut Vec<u8>, field: u8, value: &[u8]) {
    out.push(field);
    // The frame's limit is below 4 GiB, and `encode` enforces it.
    out.extend(u32::try_from(value.len()).unwrap_or(u32::MAX).to_be_bytes());
    out.extend_from_slice(value);
}

/// Appends a field unless it is None.
pub(crate) fn put_optional(out: &mut Vec<u8>, field: u8, value: Option<&[u8]>) {
    if let Some(value) = value {
        put(out, field, value);
    }
}

/// Appends a field for each text.
pub(crate) fn put_texts(out: &mut Vec<u8>, field: u8, texts: &[String]) {
    for text in texts {
        put(out, field, text.as_bytes());
    }
}

/// Appends a field for each name and its value: the length of the name (u32), the name, the value.
pub(crate) fn put_pairs(out: &mut Vec<u8>, field: u8, pairs: &[(String, String)]) {
    for (name, value) in pairs {
        let length = u32::try_from(name.len()).unwrap_or(u32::MAX).to_be_bytes();
        put(out, field, &[&length, name.as_bytes(), value.as_bytes()].concat());
    }
}

/// The bytes of a path.
pub(crate) fn path_bytes(path: &Path) -> &[u8] {
    path.as_os_str().as_bytes()
}

/// Fields that are not read yet, in order.
#[derive(Debug)]
pub struct Fields<'a>(Vec<(u8, &'a [u8])>);

impl<'a> Fields<'a> {
    /// The fields of a frame or of a field.
    pub(crate) fn parse(mut bytes: &'a [u8]) -> Result<Fields<'a>, WireError> {
        let mut fields = Vec::new();
        while let Some((field, rest)) = bytes.split_first() {
            let (length, rest) = rest.split_first_chunk::<4>().ok_or(WireError::Short)?;
            let length = usize::try_from(u32::from_be_bytes(*length)).map_err(|_| WireError::Short)?;
            let (value, rest) = rest.split_at_checked(length).ok_or(WireError::Short)?;
            fields.push((*field, value));
            bytes = rest;
        }
        Ok(Fields(fields))
    }

    /// Removes all fields of a type.
    pub(crate) fn all(&mut self, field: u8) -> Vec<&'a [u8]> {
        let mut found = Vec::new();
        self.0.retain(|(other, value)| {
            if *other == field {
                found.push(*value);
            }
            *other != field
        });
        found
    }

    /// Removes the field of a type, of which there is one at most.
    pub(crate) fn optional(&mut self, field: u8) -> Result<Option<&'a [u8]>, WireError> {
        match self.all(field)[..] {
            [] => Ok(None),
            [value] => Ok(Some(value)),
            _ => Err(WireError::Surplus(field)),
        }
    }

    /// Removes the field of a type.
    pub(crate) fn one(&mut self, field: u8) -> Result<&'a [u8], WireError> {
        self.optional(field)?.ok_or(WireError::Missing(field))
    }

    /// Removes the text of a type.
    pub(crate) fn text(&mut self, field: u8) -> Result<String, WireError> {
        text(field, self.one(field)?)
    }

    /// Removes the secret text of a type.
    pub(crate) fn secret(&mut self, field: u8) -> Result<Secret, WireError> {
        self.text(field).map(Secret::from)
    }

    /// Removes the text of a type, of which there is one at most.
    pub(crate) fn optional_text(&mut self, field: u8) -> Result<Option<String>, WireError> {
        self.optional(field)?.map(|value| text(field, value)).transpose()
    }

    /// Removes all texts of a type.
    pub(crate) fn texts(&mut self, field: u8) -> Result<Vec<String>, WireError> {
        self.all(field).into_iter().map(|value| text(field, value)).collect()
    }

    /// Removes the pairs of a type.
    pub(crate) fn pairs(&mut self, field: u8) -> Result<Vec<(String, String)>, WireError> {
        let pair = |value: &[u8]| {
            let (length, rest) = value.split_first_chunk::<4>()?;
            let (name, value) = rest.split_at_checked(usize::try_from(u32::from_be_bytes(*length)).ok()?)?;
            Some((text(field, name).ok()?, text(field, value).ok()?))
        };
        self.all(field).into_iter().map(|value| pair(value).ok_or(WireError::Value(field))).collect()
    }

    /// Removes the path of a type.
    pub(crate) fn path(&mut self, field: u8) -> Result<PathBuf, WireError> {
        path(field, self.one(field)?)
    }

    /// Removes the path of a type, of which there is one at most.
    pub(crate) fn optional_path(&mut self, field: u8) -> Result<Option<PathBuf>, WireError> {
        self.optional(field)?.map(|value| path(field, value)).transpose()
    }

    /// Removes the byte of a type.
    pub(crate) fn byte(&mut self, field: u8) -> Result<u8, WireError> {
        match self.one(field)? {
            [byte] => Ok(*byte),
            _ => Err(WireError::Value(field)),
        }
    }

    /// Removes the byte of a type, of which there is one at most.
    pub(crate) fn optional_byte(&mut self, field: u8) -> Result<Option<u8>, WireError> {
        if self.0.iter().any(|(other, _)| *other == field) { self.byte(field).map(Some) } else { Ok(None) }
    }

    /// Removes the u32 of a type.
    pub(crate) fn u32(&mut self, field: u8) -> Result<u32, WireError> {
        let bytes = self.one(field)?.try_into().map_err(|_| WireError::Value(field))?;
        Ok(u32::from_be_bytes(bytes))
    }

    /// Removes the u64 of a type.
    pub(crate) fn u64(&mut self, field: u8) -> Result<u64, WireError> {
        self.optional_u64(field)?.ok_or(WireError::Missing(field))
    }

    /// Removes the u64 of a type, of which there is one at most.
    pub(crate) fn optional_u64(&mut self, field: u8) -> Result<Option<u64>, WireError> {
        let number = |bytes: &[u8]| bytes.try_into().map(u64::from_be_bytes).map_err(|_| WireError::Value(field));
        self.optional(field)?.map(number).transpose()
    }

    /// That no field is left.
    pub(crate) fn end(self) -> Result<(), WireError> {
        self.0.first().map_or(Ok(()), |(field, _)| Err(WireError::Surplus(*field)))
    }
}

fn text(field: u8, value: &[u8]) -> Result<String, WireError> {
    std::str::from_utf8(value).map(str::to_owned).map_err(|_| WireError::Value(field))
}

/// A path is absolute and has no NUL.
fn path(field: u8, value: &[u8]) -> Result<PathBuf, WireError> {
    if value.first() != Some(&b'/') || value.contains(&0) {
        return Err(WireError::Value(field));
    }
    Ok(PathBuf::from(OsStr::from_bytes(value)))
}
