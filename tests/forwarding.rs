//! Requests and WebSockets that nodes answer, byte by byte: what a node sees of hostile clients, and what a client sees of
//! hostile nodes.

/// Nodes: one that records, and one that a test plays.
mod node;

/// Requests that hide others, and fields that lie.
mod smuggling;

/// Names that are spelled in other ways to avoid a password.
mod spellings;

/// WebSocket handshakes: nothing of the client reaches a node before its 101.
mod upgrades;

/// Replies that are malformed, ambiguous or too large.
mod replies;

/// Connections of the pool that end or that carry too much.
mod pool;

/// Bodies in both directions, and times.
mod transfers;

/// Back-pressure in both directions.
mod floods;

/// Reloads and stops with requests in progress.
mod changes;

/// Real proxies in the chain.
mod chains;
