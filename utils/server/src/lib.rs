//! What the sample servers have in common, in the order in which a server needs it: its options, its place with the
//! rights that go with it, signals, and who its clients are. What it does for them is its own.

pub mod limits;

pub mod options;

pub mod start;

mod background;

pub mod stop;

pub mod record;
