//! The identities of the servers that share an address.

use std::sync::Arc;

use super::identity::{CurrentIdentity, Identity};

/// The servers of an address: the host name of each (None: no name), and its identity. Never empty.
#[derive(Debug)]
pub struct Hosts(Vec<(Option<Box<str>>, Arc<CurrentIdentity>)>);

impl Hosts {
    /// The servers, in the order of `route::Sites`. None: there is no server.
    pub fn new(servers: Vec<(Option<Box<str>>, Arc<CurrentIdentity>)>) -> Option<Hosts> {
        (!servers.is_empty()).then_some(Hosts(servers))
    }

    /// The index and the identity of the server that an SNI name selects; of the first one if none has that name.
    pub(crate) fn of_name(&self, name: Option<&str>) -> (u16, Arc<Identity>) {
        let is_named = |host: &Option<Box<str>>| {
            name.is_some_and(|name| host.as_ref().is_some_and(|host| host.eq_ignore_ascii_case(name)))
        };
        let index = self.0.iter().position(|(host, _)| is_named(host)).unwrap_or(0);
        (index as u16, self.0[index].1.get())
    }
}
