//! Frames out of messages, and messages out of bytes that arrive in pieces.

use std::fmt;

use zeroize::{Zeroize, Zeroizing};

use crate::fields::{Fields, put};
use crate::limits::{FRAME_SIZE_MAX, RULES_SIZE_MAX};

/// Bytes of a frame's length.
const LENGTH_SIZE: usize = 4;

/// Why bytes are no frame, or a message cannot be one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum WireError {
    /// The frame exceeds its limit.
    TooLong,
    /// The frame has no kind, or one that is not known in this direction.
    Kind,
    /// A field ends after what contains it.
    Short,
    /// The field of this type is missing.
    Missing(u8),
    /// The field of this type is unknown here, or one too many.
    Surplus(u8),
    /// The field of this type has a value that is not valid.
    Value(u8),
}

impl fmt::Display for WireError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            WireError::TooLong => formatter.write_str("a frame is too long"),
            WireError::Kind => formatter.write_str("a frame's kind is not known"),
            WireError::Short => formatter.write_str("a field ends after its frame"),
            WireError::Missing(field) => write!(formatter, "a frame lacks the field {field}"),
            WireError::Surplus(field) => write!(formatter, "a frame has the field {field}, which is not expected"),
            WireError::Value(field) => write!(formatter, "a frame's field {field} is not valid"),
        }
    }
}

impl std::error::Error for WireError {}

/// A message of one direction.
pub trait Message: Sized {
    /// The kind of the frames that may have `RULES_SIZE_MAX` bytes.
    const LONG_KIND: Option<u8>;

    /// The kind of the frame, and its fields appended.
    fn write(&self, out: &mut Vec<u8>) -> u8;

    /// The message of a kind and fields.
    fn read(kind: u8, fields: Fields<'_>) -> Result<Self, WireError>;
}

/// Bytes of a frame of this kind after its length, at most.
fn size_max<M: Message>(kind: u8) -> usize {
    if M::LONG_KIND == Some(kind) { RULES_SIZE_MAX } else { FRAME_SIZE_MAX }
}

/// Appends the frame of a message. After an error `out` is as before.
pub fn encode<M: Message>(message: &M, out: &mut Vec<u8>) -> Result<(), WireError> {
    let start = out.len();
    out.extend([0; LENGTH_SIZE + 1]);
    let kind = message.write(out);
    let size = out.len() - start - LENGTH_SIZE;
    match u32::try_from(size) {
        Ok(length) if size <= size_max::<M>(kind) => {
            out[start..start + LENGTH_SIZE].copy_from_slice(&length.to_be_bytes());
            out[start + LENGTH_SIZE] = kind;
            Ok(())
        }
        _ => {
            out[start..].zeroize();
            out.truncate(start);
            Err(WireError::TooLong)
        }
    }
}

/// Collects the bytes of a stream. They are zeroed once they are decoded, as they may have passwords.
#[derive(Default)]
pub struct Decoder {
    bytes: Zeroizing<Vec<u8>>,
    /// Bytes at the beginning that are decoded.
    done: usize,
}

impl Decoder {
    /// Appends received bytes. Between two calls all messages are to be taken by `next`, so that it holds one frame and
    /// the bytes of one call at most.
    pub fn push(&mut self, bytes: &[u8]) {
        if self.done > 0 {
            self.bytes.copy_within(self.done.., 0);
            let left = self.bytes.len() - self.done;
            self.bytes[left..].zeroize();
            self.bytes.truncate(left);
            self.done = 0;
        }
        self.bytes.extend_from_slice(bytes);
    }

    /// The next message; None: more bytes are needed. After an error the stream is of no use.
    #[expect(clippy::should_implement_trait, reason = "the caller says which messages it expects")]
    pub fn next<M: Message>(&mut self) -> Result<Option<M>, WireError> {
        let Some((length, rest)) = self.bytes[self.done..].split_first_chunk::<LENGTH_SIZE>() else { return Ok(None) };
        let size = usize::try_from(u32::from_be_bytes(*length)).map_err(|_| WireError::TooLong)?;
        if size == 0 {
            return Err(WireError::Kind);
        }
        if size > RULES_SIZE_MAX {
            return Err(WireError::TooLong);
        }
        let Some((kind, rest)) = rest.split_first() else { return Ok(None) };
        if size > size_max::<M>(*kind) {
            return Err(WireError::TooLong);
        }
        let Some(fields) = rest.get(..size - 1) else { return Ok(None) };
        let message = M::read(*kind, Fields::parse(fields)?)?;
        self.done += LENGTH_SIZE + size;
        if self.done == self.bytes.len() {
            // Of a vector it clears all that is allocated, and empties it.
            self.bytes.zeroize();
            self.done = 0;
        }
        Ok(Some(message))
    }
}

impl fmt::Debug for Decoder {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Decoder({} bytes)", self.bytes.len() - self.done)
    }
}

/// Appends one field that contains fields.
pub(crate) fn nest(out: &mut Vec<u8>, field: u8, write: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    put(out, field, &[]);
    let inner = out.len();
    write(out);
    // The frame's limit is below 4 GiB, and `encode` enforces it.
    let length = u32::try_from(out.len() - inner).unwrap_or(u32::MAX);
    out[start + 1..inner].copy_from_slice(&length.to_be_bytes());
}
