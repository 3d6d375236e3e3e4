//! Messages between the server and a worker process: size, kind, body. The server opens a connection and sends calls;
//! each call has one answer.

use std::io::{self, ErrorKind, Read};

use crate::limits::{ANSWER_SIZE_MAX, MESSAGE_SIZE_MAX, READ_SIZE};

/// Bytes before a body: its size and the kind.
pub(crate) const HEAD_SIZE: usize = 5;

const BODY_SIZE_MAX: usize = if ANSWER_SIZE_MAX > MESSAGE_SIZE_MAX { ANSWER_SIZE_MAX } else { MESSAGE_SIZE_MAX };

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    /// To the worker: a `Connection`, to check the configuration with. Answered like a call, but an error is a sentence.
    Start,
    /// To the worker: a `Connection`, before the first call. Not answered.
    Open,
    /// To the worker: a method, a NUL, and the JSON text of the parameters, or nothing.
    Call,
    /// From the worker: the JSON text of the result.
    Result,
    /// From the worker: the JSON text of the error object.
    Error,
    /// As `Result`, and the worker exits.
    LastResult,
    /// As `Error`, and the worker exits.
    LastError,
}

const KINDS: [Kind; 7] =
    [Kind::Start, Kind::Open, Kind::Call, Kind::Result, Kind::Error, Kind::LastResult, Kind::LastError];

/// What a worker process is told about its connection.
#[derive(Clone, PartialEq, Eq, Debug, Default, serde::Serialize, serde::Deserialize)]
pub(crate) struct Connection {
    /// The option -C.
    pub(crate) config: Option<String>,
    /// The server's first working directory, for relative paths in -C.
    pub(crate) folder: Option<String>,
    /// User to become first.
    pub(crate) user: Option<String>,
    /// The client's address, without a port.
    pub(crate) address: Option<String>,
    /// The connection's name in the gateway's log.
    pub(crate) id: Option<String>,
}

/// Appends a message whose body is these parts.
pub(crate) fn put(bytes: &mut Vec<u8>, kind: Kind, parts: &[&[u8]]) {
    let size: usize = parts.iter().map(|part| part.len()).sum();
    // It fits, since no body is longer than a message or an answer.
    bytes.extend_from_slice(&(size as u32).to_le_bytes());
    bytes.push(kind as u8);
    parts.iter().for_each(|part| bytes.extend_from_slice(part));
}

/// Kind and body size of the message that these bytes start with. None: the head is incomplete. Error: it is invalid.
pub(crate) fn head(bytes: &[u8]) -> Result<Option<(Kind, usize)>, ()> {
    let Some(([one, two, three, four, kind], _)) = bytes.split_first_chunk::<HEAD_SIZE>() else { return Ok(None) };
    let size = u32::from_le_bytes([*one, *two, *three, *four]) as usize;
    match KINDS.get(usize::from(*kind)) {
        Some(kind) if size <= BODY_SIZE_MAX => Ok(Some((*kind, size))),
        _ => Err(()),
    }
}

/// Blocks for a whole message. None: the connection has ended.
pub(crate) fn receive(stream: &mut impl Read) -> io::Result<Option<(Kind, Vec<u8>)>> {
    let mut bytes = Vec::with_capacity(HEAD_SIZE);
    read_exactly(stream, HEAD_SIZE, &mut bytes)?;
    let (kind, size) = match head(&bytes) {
        Ok(Some(head)) => head,
        Ok(None) => return Ok(None),
        Err(()) => return Err(ErrorKind::InvalidData.into()),
    };
    bytes.clear();
    read_exactly(stream, size, &mut bytes)?;
    Ok((bytes.len() == size).then_some((kind, bytes)))
}

/// Reads up to `size` bytes, less at the end of the stream. Memory is allocated as they arrive.
fn read_exactly(stream: &mut impl Read, size: usize, bytes: &mut Vec<u8>) -> io::Result<()> {
    while bytes.len() < size {
        let begin = bytes.len();
        bytes.resize(size.min(begin + READ_SIZE), 0);
        let count = stream.read(&mut bytes[begin..]);
        bytes.truncate(begin + *count.as_ref().unwrap_or(&0));
        match count {
            Ok(0) => break,
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_encoded_and_decoded() {
        let mut bytes = Vec::new();
        put(&mut bytes, Kind::Call, &[b"sum", b"\0", b"[1]"]);
        put(&mut bytes, Kind::LastError, &[]);
        for cut in 0..HEAD_SIZE {
            assert_eq!(head(&bytes[..cut]), Ok(None));
        }
        assert_eq!(head(&bytes), Ok(Some((Kind::Call, 7))));
        let mut stream = &bytes[..];
        assert_eq!(receive(&mut stream).unwrap(), Some((Kind::Call, b"sum\0[1]".to_vec())));
        assert_eq!(receive(&mut stream).unwrap(), Some((Kind::LastError, Vec::new())));
        assert_eq!(receive(&mut stream).unwrap(), None);
        assert_eq!(receive(&mut &bytes[..9]).unwrap(), None, "the end within a message");
        assert!(KINDS.iter().enumerate().all(|(number, kind)| *kind as usize == number));
        assert_eq!(head(&[0, 0, 0, 0, 7]), Err(()), "an unknown kind");
        assert_eq!(head(&[0, 0, 0, 5, 0]), Err(()), "an impossible size");
    }
}
