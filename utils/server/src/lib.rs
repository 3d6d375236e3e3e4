//! Shared by the sample servers, in the order in which a server uses it: options, start, the listening socket, the stop
//! signals, and the hello record of a client.

pub mod limits;

pub mod options;

pub mod start;

mod background;

pub mod listener;

pub mod stop;

pub mod record;
