//! For servers behind uakari's direct mode: the gateway does the handshake and hands the client's own connection
//! over; from then on server and client talk without it. The modules in the order in which a client meets them.

pub mod limits;

pub mod deadline;

pub mod handover;

pub mod outgoing;
