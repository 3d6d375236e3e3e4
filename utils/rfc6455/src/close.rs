//! Close codes and the payload of close frames (RFC 6455 sections 5.5.1 and 7.4).

use std::fmt;

/// The status code of a close frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CloseCode(pub u16);

impl CloseCode {
    /// Normal closure.
    pub const NORMAL: CloseCode = CloseCode(1000);
    /// The endpoint is going away.
    pub const GOING_AWAY: CloseCode = CloseCode(1001);
    /// The peer violated the protocol.
    pub const PROTOCOL_ERROR: CloseCode = CloseCode(1002);
    /// The endpoint does not accept this type of data.
    pub const UNSUPPORTED_DATA: CloseCode = CloseCode(1003);
    /// The close frame had no code. Never sent.
    pub const NO_STATUS: CloseCode = CloseCode(1005);
    /// The connection ended without a close frame. Never sent.
    pub const ABNORMAL: CloseCode = CloseCode(1006);
    /// A text message was not UTF-8.
    pub const INVALID_PAYLOAD: CloseCode = CloseCode(1007);
    /// The message violates the endpoint's policy.
    pub const POLICY_VIOLATION: CloseCode = CloseCode(1008);
    /// A message exceeds the endpoint's limit.
    pub const TOO_BIG: CloseCode = CloseCode(1009);
    /// An unexpected condition in the server.
    pub const INTERNAL_ERROR: CloseCode = CloseCode(1011);
    /// The client may connect again (IANA registry).
    pub const SERVICE_RESTART: CloseCode = CloseCode(1012);

    /// Whether a close frame may have this code. 1004, 1005, 1006 and 1015 are reserved; codes below 1000, above 4999
    /// and unassigned ones are errors (RFC 6455 section 7.4, IANA registry).
    pub fn may_be_sent(self) -> bool {
        matches!(self.0, 1000..=1003 | 1007..=1014 | 3000..=4999)
    }
}

impl fmt::Display for CloseCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// Why the payload of a close frame is invalid.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CloseError {
    /// One byte, too short for a code.
    Short,
    /// A code that may not be sent.
    Code(u16),
    /// A reason that is not UTF-8.
    Reason,
}

/// The code and the reason of a close frame's payload; None: empty (1005).
pub fn parse(payload: &[u8]) -> Result<Option<(CloseCode, &str)>, CloseError> {
    let (code, reason) = match payload {
        [] => return Ok(None),
        [_] => return Err(CloseError::Short),
        [high, low, reason @ ..] => (CloseCode(u16::from_be_bytes([*high, *low])), reason),
    };
    if !code.may_be_sent() {
        return Err(CloseError::Code(code.0));
    }
    match std::str::from_utf8(reason) {
        Ok(reason) => Ok(Some((code, reason))),
        Err(_) => Err(CloseError::Reason),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_that_may_be_sent() {
        for (code, good) in [
            (0, false),
            (999, false),
            (1000, true),
            (1001, true),
            (1003, true),
            (1004, false),
            (1005, false),
            (1006, false),
            (1007, true),
            (1011, true),
            (1014, true),
            (1015, false),
            (1016, false),
            (2999, false),
            (3000, true),
            (4999, true),
            (5000, false),
            (65535, false),
        ] {
            assert_eq!(CloseCode(code).may_be_sent(), good, "{code}");
        }
    }

    #[test]
    fn payloads() {
        assert_eq!(parse(b""), Ok(None));
        assert_eq!(parse(b"\x03"), Err(CloseError::Short));
        assert_eq!(parse(b"\x03\xe8"), Ok(Some((CloseCode::NORMAL, ""))));
        assert_eq!(parse(b"\x03\xe8bye"), Ok(Some((CloseCode::NORMAL, "bye"))));
        assert_eq!(parse(b"\x03\xed"), Err(CloseError::Code(1005)));
        assert_eq!(parse(b"\x03\xe8\xff"), Err(CloseError::Reason));
    }
}
