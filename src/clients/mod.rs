//! Who a client is: its address and that of the proxy before it, as the PROXY protocol and forwarded fields give them.
#![forbid(unsafe_code)]

mod counts;
pub mod forwarded;
pub mod header;
mod networks;

use std::str::FromStr;

pub(crate) use counts::{AddressCounts, AddressUnit, ClientPlace};
pub use forwarded::ForwardedFields;
pub use networks::Networks;

/// What the servers of an address believe about their clients.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Trust {
    /// Whether connections begin with a PROXY header.
    pub header: HeaderUse,
    /// The proxies that are believed.
    pub proxies: Networks,
    /// The fields that give the client of each request.
    pub fields: ForwardedFields,
}

/// Whether connections of trusted proxies begin with a PROXY header.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum HeaderUse {
    /// Never: such bytes are no HTTP.
    #[default]
    Off,
    /// Those that begin with one of the signatures.
    Optional,
    /// Always. Connections of other peers are closed.
    Required,
}

/// A decimal number without a sign and without leading zeros.
fn decimal<N: FromStr>(text: &str) -> Option<N> {
    let is_number = text.bytes().all(|byte| byte.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    is_number.then(|| text.parse().ok())?
}
