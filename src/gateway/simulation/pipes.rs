//! The named pipes of a run: `source` is only read, `sink` only written.

/// Bytes sent to each client of `source`.
const SOURCE_SIZE: usize = 3_000;

/// What `source` sends: byte `i` is `i` modulo 128, so that the data is valid UTF-8.
pub(super) fn source_bytes() -> Vec<u8> {
    (0..SOURCE_SIZE).map(|i| i as u8 & 0x7f).collect()
}

/// The message bytes that a client sent to `sink`.
pub(super) struct Sent<'a> {
    pub(super) bytes: &'a [u8],
    /// Whether the client closed in order, so that all bytes must reach `sink`.
    pub(super) is_whole: bool,
}

/// The bytes that `sink` received on one connection.
pub(super) struct Received<'a> {
    pub(super) bytes: &'a [u8],
    /// Whether the gateway was stopped before it had closed the connection.
    pub(super) is_cut: bool,
}

/// Asserts that `sink` received what its clients sent, completely for clients that closed in order. `is_stopped`: the
/// gateway was stopped or had tight limits, so that nothing must be complete.
pub(super) fn check_sink(sent: &[Sent<'_>], received: &[Received<'_>], is_stopped: bool) {
    for received in received {
        assert!(sent.iter().any(|sent| sent.bytes.starts_with(received.bytes)), "no client sent these bytes");
    }
    for Sent { bytes, .. } in sent.iter().filter(|sent| sent.is_whole && !is_stopped) {
        // The client closes before everything is written, and the gateway may be stopped then.
        let is_complete = |one: &Received<'_>| one.bytes == *bytes || one.is_cut && bytes.starts_with(one.bytes);
        assert!(received.iter().any(is_complete), "{} bytes did not arrive completely", bytes.len());
    }
}
