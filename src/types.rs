//! Plain words that several modules use.

/// The two ends that a gateway connects.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum End {
    /// The HTTP client: browser, app or device.
    Client,
    /// The UNIX server, TCP server or device that a name leads to.
    Backend,
}

impl End {
    /// Both, the client first.
    pub const BOTH: [End; 2] = [End::Client, End::Backend];

    /// The other one.
    pub fn opposite(self) -> End {
        match self {
            End::Client => End::Backend,
            End::Backend => End::Client,
        }
    }
}

/// What is to be received.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Demand {
    /// Nothing for now.
    Nothing,
    /// One receive, then Nothing again.
    Once,
    /// All that comes.
    Flow,
    /// All that comes, packet by packet.
    Packets,
}
