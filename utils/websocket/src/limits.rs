//! Every limit of the package, with its unit in its name.

/// Bytes of a hello record: 16, and as many as two bytes can count (proxy-protocol.txt section 2.2).
pub const HELLO_SIZE_MAX: usize = 16 + 65_535;
/// Bytes for what may come beside a message: the sender's credentials where the server asked for them, and some file
/// descriptors. What does not fit the kernel closes.
pub const ANCILLARY_SIZE: usize = 128;
/// Parts of one write (writev(2)) that are sent at once: as many as the kernel takes (`IOV_MAX`), less those that go
/// before and between them.
pub const WRITE_PARTS_MAX: usize = 1024 - 6;
/// Memory that gathering begins with: for some short messages, and little enough that malloc(3) has it at hand (glibc:
/// up to 1032 bytes).
pub const GATHERED_SIZE: usize = 1024;
/// Bytes of a client's message, unless the server says otherwise: close code 1009 beyond.
pub const MESSAGE_SIZE_MAX: usize = 1024 * 1024;
/// Bytes received at once: a message of 64 KiB with its header.
pub const RECEIVE_SIZE: usize = 64 * 1024 + 14;
/// Receives in a row that bring no byte of a message, such as pings alone, before a server that does not wait is told to
/// see to its other clients.
pub const IDLE_RECEIVES_MAX: usize = 16;
/// Bytes of replies that are gathered before they are sent.
pub const GATHERED_SIZE_MAX: usize = 64 * 1024;
/// Bytes of a reply that is gathered; sending a longer one by itself costs less than copying it.
pub const COPIED_SIZE_MAX: usize = 16 * 1024;
/// Bytes that wait for a client who takes nothing, before a server that does not wait is told so.
pub const KEPT_SIZE_MAX: usize = 256 * 1024;
/// Connections waiting to be accepted, unless the server says otherwise.
pub const BACKLOG_MAX: i32 = 1024;
/// Accepted connections on which nothing has come yet. Whoever comes then waits in the backlog: a gateway connects all
/// clients of a moment before it hands the first of them over.
pub const SILENT_MAX: usize = 64;
/// From accept to the gateway's message. Who is silent for longer is a plain local client.
pub const HANDOVER_MS: u32 = 5_000;

/// Bytes of a character that is not whole: all but the last of four (RFC 3629 section 3).
pub const CUT_SIZE_MAX: usize = 3;
/// Answers to pings that wait for a client who takes nothing; of more, the newest stays.
pub const PONGS_SIZE_MAX: usize = 4 * 1024;

const _: () = assert!(RECEIVE_SIZE <= KEPT_SIZE_MAX, "the echo of one receive can wait");
const _: () = assert!(
    GATHERED_SIZE <= COPIED_SIZE_MAX && COPIED_SIZE_MAX <= GATHERED_SIZE_MAX && GATHERED_SIZE_MAX <= KEPT_SIZE_MAX
);
