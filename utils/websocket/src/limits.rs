//! Every limit of the package, with its unit in its name.

/// Bytes of a hello record: 16, and as many as two bytes can count (proxy-protocol.txt section 2.2).
pub const HELLO_SIZE_MAX: usize = 16 + 65_535;
/// Bytes for what may come beside a message: the sender's credentials where the server asked for them, and some file
/// descriptors. What does not fit the kernel closes.
pub const ANCILLARY_SIZE: usize = 128;
/// Parts of one write (writev(2)) that are sent at once: as many as the kernel takes (`IOV_MAX`), less those that go
/// before and between them.
pub const WRITE_PARTS_MAX: usize = 1024 - 6;
/// Memory that gathering begins with: for some short messages.
pub const GATHERED_SIZE: usize = 2 * 1024;
