//! The log. `log` is its interface, and the only place that prints.

pub mod log;

mod record;

mod format;

mod lines;
mod sink;
mod writer;
