//! Idle connections to the nodes of upstreams, which later requests use. Each stays in its slot, with its receive in flight:
//! whatever arrives while it is idle ends it.

use std::collections::HashMap;
use std::sync::Arc;

use slab::Slab;

use super::slots::{Key, Slots};
use crate::driver::{Batch, Driver, Errno, Op, Received};
use crate::limits::POOL_LOOK_MS;
use crate::permit::Permit;
use crate::tls::UpstreamTls;
use crate::transport::{Arrival, Opposite, Settled, Transport};
use crate::upstream::{Cluster, Node, NodeLink};

/// To which node connections lead, and through which TLS.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
struct Route {
    /// Address of the `Node`, which the entries hold.
    node: usize,
    /// Address of the `UpstreamTls`. 0: plain HTTP.
    tls: usize,
}

impl Route {
    fn of(link: &NodeLink) -> Route {
        let tls = link.upstream.tls.as_ref().map_or(0, |tls| Arc::as_ptr(tls) as usize);
        Route { node: Arc::as_ptr(&link.node) as usize, tls }
    }
}

/// A connection that is idle, or is being closed.
#[derive(Debug)]
struct Idle {
    key: Key,
    route: Route,
    /// Keep the addresses in `route` valid.
    _node: Arc<Node>,
    _tls: Option<Arc<UpstreamTls>>,
    /// A place among the idle connections of the cluster. None: it is being closed.
    place: Option<Permit<Cluster>>,
    since_ms: u64,
    until_ms: u64,
}

/// All idle connections.
#[derive(Default, Debug)]
pub(super) struct IdlePool {
    entries: Slab<Idle>,
    /// The entries of each node, the latest last.
    of_node: HashMap<Route, Vec<usize>>,
    /// When entries expire, in milliseconds. None: there are none.
    look_ms: Option<u64>,
    /// The gateway stops: no connection is kept.
    is_stopped: bool,
}

impl IdlePool {
    /// Takes the connection to a node that has been idle for the shortest time, if that is at most `idle_ms_max`. Its slot
    /// still has to be given to a connection. None: there is none.
    pub(super) fn take(&mut self, link: &NodeLink, idle_ms_max: u64, now_ms: u64) -> Option<Key> {
        let route = Route::of(link);
        let list = self.of_node.get_mut(&route)?;
        let entry = self.entries.get(*list.last()?)?;
        if now_ms >= entry.until_ms || now_ms.saturating_sub(entry.since_ms) > idle_ms_max {
            return None;
        }
        let index = list.pop()?;
        if list.is_empty() {
            self.of_node.remove(&route);
        }
        Some(self.entries.remove(index).key)
    }

    /// Keeps a connection for at most `idle_ms`, or closes it.
    pub(super) fn put<D: Driver>(
        &mut self,
        key: Key,
        (link, idle_ms): (&NodeLink, u64),
        now_ms: u64,
        slots: &mut Slots<D::Handle>,
        driver: &mut D,
    ) {
        let is_idle = idle_ms > 0 && !self.is_stopped && slots.transport(Some(key)).is_some_and(Transport::may_idle);
        let cluster = &link.upstream.cluster;
        let place = if is_idle { Permit::take(cluster, cluster.keepalive_max) } else { None };
        let route = Route::of(link);
        let is_kept = place.is_some();
        let (node, tls) = (link.node.clone(), link.upstream.tls.clone());
        let until_ms = now_ms + idle_ms.min(cluster.keepalive_ms);
        let entry = Idle { key, route, _node: node, _tls: tls, place, since_ms: now_ms, until_ms };
        let index = self.entries.insert(entry);
        slots.give_to_pool(key, index);
        if is_kept {
            self.of_node.entry(route).or_default().push(index);
            self.look_ms = Some(self.look_ms.map_or(until_ms, |ms| ms.min(until_ms)));
            self.settle(index, slots, driver);
        } else {
            self.close(index, slots, driver);
        }
    }

    /// Handles a completed receive: nothing may arrive but what the stage needs.
    pub(super) fn on_received<D: Driver>(
        &mut self,
        index: usize,
        (result, more): (Received, bool),
        slots: &mut Slots<D::Handle>,
        driver: &mut D,
    ) {
        let Some(key) = self.entries.get(index).map(|entry| entry.key) else { return };
        let Some(transport) = slots.transport_mut(Some(key)) else { return };
        let arrival = transport.on_received(result, more, driver);
        let has_more = transport.has_arrivals();
        match arrival {
            None if !has_more => self.settle(index, slots, driver),
            arrival => {
                if let Some(Arrival::Lease(lease)) = arrival {
                    driver.release(lease);
                } else if arrival.is_some_and(|arrival| matches!(arrival, Arrival::End | Arrival::Failed(_))) {
                    transport.on_end();
                }
                self.close(index, slots, driver);
            }
        }
    }

    /// Handles a completed send: the last records of TLS.
    pub(super) fn on_sent<D: Driver>(
        &mut self,
        index: usize,
        (batch, result): (Batch, Result<usize, Errno>),
        slots: &mut Slots<D::Handle>,
        driver: &mut D,
    ) {
        let Some(key) = self.entries.get(index).map(|entry| entry.key) else { return };
        if let Some(transport) = slots.transport_mut(Some(key)) {
            transport.on_sent(batch, result, driver);
        }
        self.settle(index, slots, driver);
    }

    /// When `expire` has something to do, in milliseconds. None: never.
    pub(super) fn look_ms(&self) -> Option<u64> {
        self.look_ms
    }

    /// Closes the connections whose time is over.
    pub(super) fn expire<D: Driver>(&mut self, now_ms: u64, slots: &mut Slots<D::Handle>, driver: &mut D) {
        if self.look_ms.is_none_or(|ms| now_ms < ms) {
            return;
        }
        self.close_all(|entry| now_ms >= entry.until_ms, slots, driver);
        let kept = self.entries.iter().filter(|(_, entry)| entry.place.is_some());
        // Many connections may expire one after the other.
        self.look_ms = kept.map(|(_, entry)| entry.until_ms.max(now_ms + POOL_LOOK_MS)).min();
    }

    /// Closes the connections to clusters that are no longer configured.
    pub(super) fn retain<D: Driver>(
        &mut self,
        is_configured: impl Fn(&Cluster) -> bool,
        slots: &mut Slots<D::Handle>,
        driver: &mut D,
    ) {
        self.close_all(|entry| entry.place.as_ref().is_some_and(|place| !is_configured(place)), slots, driver);
    }

    /// Closes all connections.
    pub(super) fn stop<D: Driver>(&mut self, slots: &mut Slots<D::Handle>, driver: &mut D) {
        self.close_all(|_| true, slots, driver);
        (self.look_ms, self.is_stopped) = (None, true);
    }

    /// Whether there is no connection, not even one that is being closed.
    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    fn close_all<D: Driver>(&mut self, is_over: impl Fn(&Idle) -> bool, slots: &mut Slots<D::Handle>, driver: &mut D) {
        let over = self.entries.iter().filter(|(_, entry)| entry.place.is_some() && is_over(entry));
        let over: Vec<usize> = over.map(|(index, _)| index).collect();
        over.into_iter().for_each(|index| self.close(index, slots, driver));
    }

    fn close<D: Driver>(&mut self, index: usize, slots: &mut Slots<D::Handle>, driver: &mut D) {
        let Some(entry) = self.entries.get_mut(index) else { return };
        entry.place = None;
        if let Some(list) = self.of_node.get_mut(&entry.route) {
            list.retain(|other| *other != index);
            if list.is_empty() {
                self.of_node.remove(&entry.route);
            }
        }
        if let Some(transport) = slots.transport_mut(Some(entry.key)) {
            transport.abandon(driver);
        }
        self.settle(index, slots, driver);
    }

    /// Receives on, or closes what is abandoned.
    fn settle<D: Driver>(&mut self, index: usize, slots: &mut Slots<D::Handle>, driver: &mut D) {
        let Some(entry) = self.entries.get(index) else { return };
        let key = entry.key;
        let token = slots.token(key, Op::Receive);
        let Some(transport) = slots.transport_mut(Some(key)) else { return };
        let opposite = Opposite { queued_size: 0, queue_size_max: 1 };
        match transport.settle(token, opposite, driver) {
            Settled::Done => {}
            // What arrives would end it; without a receive its end is not noticed.
            Settled::Starved(_) => self.close(index, slots, driver),
            Settled::Closable => {
                self.entries.remove(index);
                if let Some(transport) = slots.remove_transport(key) {
                    transport.close(driver);
                }
            }
        }
    }
}
