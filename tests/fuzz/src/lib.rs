//! What the fuzz targets share. Nothing here asks the code under test what would be right.

/// What a fuzzer's bytes are taken for.
pub mod choices;

/// RFC 6455, read the slow and plain way.
pub mod reference;

/// Trees of configurations.
pub mod tree;

/// Access lines of the log.
pub mod access;

/// A gateway on a simulated kernel, and the two ends of its connection.
pub mod gateway;

/// What it answers over HTTP.
pub mod replies;

/// What went through it.
pub mod conversation;

/// HTTP/1.1, read the slow and plain way.
pub mod request;
