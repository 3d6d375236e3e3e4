//! Every limit of the package, with its unit in its name.

/// Bytes of a hello record: 16, and as many as two bytes can count (proxy-protocol.txt section 2.2).
pub const HELLO_SIZE_MAX: usize = 16 + 65_535;
/// Bytes for what may come beside a message: the sender's credentials where the server asked for them, and some file
/// descriptors. What does not fit the kernel closes.
pub const ANCILLARY_SIZE: usize = 128;
