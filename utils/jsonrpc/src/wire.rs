//! What the server and a connection's process say to each other: each message has its size, its kind and a body. The
//! server opens a connection and calls; each call has one answer.

use std::io::{self, ErrorKind, Read};

use crate::limits::{ANSWER_SIZE_MAX, MESSAGE_SIZE_MAX, READ_SIZE};

/// Bytes before a body: its size, then its kind.
pub const HEAD_SIZE: usize = 5;

const BODY_SIZE_MAX: usize = if ANSWER_SIZE_MAX > MESSAGE_SIZE_MAX { ANSWER_SIZE_MAX } else { MESSAGE_SIZE_MAX };

/// What a message is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// To the process: an `Opening`, to look at the configuration with. Answered like a call, an error by a sentence.
    Start,
    /// To the process: an `Opening`, before the first call. Not answered.
    Open,
    /// To the process: a method, a NUL, and the text of the parameters, if there are any.
    Call,
    /// From it: the text of the result.
    Result,
    /// From it: the text of the error object.
    Error,
    /// From it: as `Result`, and the process ends.
    LastResult,
    /// From it: as `Error`, and the process ends.
    LastError,
}

const KINDS: [Kind; 7] =
    [Kind::Start, Kind::Open, Kind::Call, Kind::Result, Kind::Error, Kind::LastResult, Kind::LastError];

/// What the process is to know of its connection.
#[derive(Clone, PartialEq, Eq, Debug, Default, serde::Serialize, serde::Deserialize)]
pub struct Opening {
    /// What the server was started with, as -C.
    pub config: Option<String>,
    /// The folder that names in it begin at.
    pub folder: Option<String>,
    /// Whom to become first.
    pub user: Option<String>,
    /// The client's address, without a port.
    pub address: Option<String>,
    /// The connection's name in the gateway's log.
    pub id: Option<String>,
}

/// Appends a message with a body of these parts.
pub fn put(bytes: &mut Vec<u8>, kind: Kind, parts: &[&[u8]]) {
    let size: usize = parts.iter().map(|part| part.len()).sum();
    // No body is longer than a message or an answer.
    bytes.extend_from_slice(&(size as u32).to_le_bytes());
    bytes.push(kind as u8);
    parts.iter().for_each(|part| bytes.extend_from_slice(part));
}

/// The kind of the message that these bytes begin with and the size of its body; None: not even that is known yet.
/// The error: it is no message.
pub fn head(bytes: &[u8]) -> Result<Option<(Kind, usize)>, ()> {
    let Some(([one, two, three, four, kind], _)) = bytes.split_first_chunk::<HEAD_SIZE>() else { return Ok(None) };
    let size = u32::from_le_bytes([*one, *two, *three, *four]) as usize;
    match KINDS.get(usize::from(*kind)) {
        Some(kind) if size <= BODY_SIZE_MAX => Ok(Some((*kind, size))),
        _ => Err(()),
    }
}

/// Receives a whole message, for whoever may wait for it. None: there are no more.
pub fn receive(stream: &mut impl Read) -> io::Result<Option<(Kind, Vec<u8>)>> {
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

/// What there is of so many bytes. Memory is taken as they come.
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
    fn messages_there_and_back() {
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
        assert_eq!(receive(&mut &bytes[..9]).unwrap(), None, "cut within a message");
        assert!(KINDS.iter().enumerate().all(|(number, kind)| *kind as usize == number));
        assert_eq!(head(&[0, 0, 0, 0, 7]), Err(()), "a kind that there is not");
        assert_eq!(head(&[0, 0, 0, 5, 0]), Err(()), "a size that there is not");
    }
}
