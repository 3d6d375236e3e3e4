//! What the operator sees.

pub mod log;

mod record;

mod format;
mod timestamp;

mod lines;
mod sink;
mod writer;
