//! The way to a node: the choice, an idle connection, or a new one; then the next address, then the next node.

use std::sync::Arc;

use crate::driver::{ConnectCause, ConnectError, FileKind, OpenCause, OpenError, OpenFor, SocketType};
use crate::exchange::{Context, Effect, Folder, Input};
use crate::limits::{CONNECT_SHARE_MS_MIN, NODE_SHARES_MAX};
use crate::observe::log::{Level, Quoted};
use crate::types::{Address, End};
use crate::upstream::{Choosing, NodeLink, NodeOutcome, NodePermit, NodePlace, Upstream, UpstreamError};

/// A request on its way to a node.
#[derive(Debug)]
pub(super) struct NodeSearch {
    upstream: Arc<Upstream>,
    client: Address,
    /// The route that its session names. None: it has none.
    route: Option<Box<str>>,
    /// The nodes that were tried, a bit for each.
    tried: u64,
    /// The node that is being tried, or has the request. None: it has let the request go.
    node: Option<(usize, NodePermit)>,
    /// Index of the address that is being tried.
    address: usize,
    /// When all attempts end, in milliseconds.
    give_up_ms: u64,
    /// How long an idle connection may have been idle, in milliseconds. None: idle connections are not used.
    idle_ms_max: Option<u64>,
    /// The connection was idle before.
    is_reused: bool,
    /// The idle connection that is being taken has ended.
    is_stale: bool,
    /// The connect in flight was cancelled, since its share of the time was over.
    is_cancelled: bool,
    /// It waits for room in the node's listen backlog.
    is_queued: bool,
    /// An open or a connect is in flight: its completion is awaited before another node is tried.
    is_connecting: bool,
    /// What the last node has shown.
    error: UpstreamError,
}

/// The result of a step.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Reached {
    /// An input is awaited.
    No,
    /// A node is connected.
    Node,
    /// No node can be connected.
    Nowhere(UpstreamError),
}

impl NodeSearch {
    pub(super) fn new(
        upstream: Arc<Upstream>,
        client: Address,
        route: Option<Box<str>>,
        idle_ms_max: u64,
        give_up_ms: u64,
    ) -> NodeSearch {
        NodeSearch {
            upstream,
            client,
            route,
            tried: 0,
            node: None,
            address: 0,
            give_up_ms,
            idle_ms_max: Some(idle_ms_max),
            is_reused: false,
            is_stale: false,
            is_cancelled: false,
            is_queued: false,
            is_connecting: false,
            error: UpstreamError::Unresolved,
        }
    }

    /// Heap bytes held.
    pub(super) fn held_size(&self) -> usize {
        self.route.as_ref().map_or(0, |route| route.len())
    }

    /// Whether the connection was used before by another request.
    pub(super) fn is_reused(&self) -> bool {
        self.is_reused
    }

    /// The connection to the node, as a link reaches it. None: there is none.
    pub(super) fn link(&self) -> Option<NodeLink> {
        let (_, node) = self.node.as_ref()?;
        Some(NodeLink { upstream: self.upstream.clone(), node: node.shared() })
    }

    /// The node's name, for the log.
    pub(super) fn name(&self) -> &str {
        self.node.as_ref().map_or("", |(_, node)| &node.name)
    }

    /// The node no longer has the request; its place among the busy ones is given on, or back.
    pub(super) fn leave(&mut self) -> Option<NodePermit> {
        self.node.take().map(|(_, permit)| permit)
    }

    /// Chooses the next node and begins to connect it.
    pub(super) fn next_node(&mut self, context: &mut Context<'_>) -> Reached {
        loop {
            let choosing = Choosing {
                client: self.client,
                route: self.route.as_deref(),
                tried: self.tried,
                now_ms: context.now_ms,
            };
            self.node = self.upstream.choose(&choosing);
            let Some((index, _)) = &self.node else { return Reached::Nowhere(self.error) };
            self.tried |= 1 << index;
            (self.address, self.is_reused, self.is_queued) = (0, false, false);
            self.share_time(context);
            if let (Some(idle_ms_max), Some(link)) = (self.idle_ms_max, self.link()) {
                context.out.push(Effect::TakeIdle { link, idle_ms_max });
                return Reached::No;
            }
            if self.connect(context) {
                return Reached::No;
            }
            self.give_up_node(UpstreamError::Unresolved, context);
        }
    }

    /// Gives the attempts that follow a time of their own.
    pub(super) fn restart(&mut self, give_up_ms: u64) {
        self.give_up_ms = give_up_ms;
    }

    /// Connects to the same node again, after an idle connection has ended in place of a reply.
    pub(super) fn again(&mut self, context: &mut Context<'_>) -> Reached {
        (self.idle_ms_max, self.is_reused, self.address) = (None, false, 0);
        self.share_time(context);
        match self.connect(context) {
            true => Reached::No,
            false => self.failed(UpstreamError::Unresolved, context),
        }
    }

    /// The node has failed with this error before it was connected, or before its reply: tries the next one.
    pub(super) fn failed(&mut self, error: UpstreamError, context: &mut Context<'_>) -> Reached {
        self.give_up_node(error, context);
        self.next_node(context)
    }

    /// Takes note of a node's failure.
    pub(super) fn give_up_node(&mut self, error: UpstreamError, context: &mut Context<'_>) {
        self.error = error;
        self.complain(error, context);
        let Some((index, _)) = self.node.take() else { return };
        self.note(index, NodeOutcome::Failed, context);
    }

    /// Logs what is wrong with a node.
    pub(super) fn complain(&self, error: UpstreamError, context: &mut Context<'_>) {
        if let Some((_, node)) = &self.node {
            let line = format!("node {} of {}: {error}", Quoted(&node.name), Quoted(&self.upstream.cluster.name));
            context.out.push(Effect::Log(Level::Warn, line));
        }
    }

    /// Takes note that the node has answered.
    pub(super) fn answered(&mut self, context: &mut Context<'_>) {
        if let Some((index, _)) = self.node {
            self.note(index, NodeOutcome::Answered, context);
        }
    }

    fn note(&self, index: usize, outcome: NodeOutcome, context: &mut Context<'_>) {
        if let Some(line) = self.upstream.cluster.note(index, outcome, context.now_ms) {
            context.out.push(Effect::Log(Level::Warn, line));
        }
    }

    /// Divides the time that is left by the nodes and addresses that may still be tried.
    fn share_time(&mut self, context: &mut Context<'_>) {
        let nodes = match self.upstream.node {
            Some(_) => 1,
            None => self.upstream.cluster.nodes.len() - (self.tried.count_ones() as usize).saturating_sub(1),
        };
        let shares = nodes.clamp(1, NODE_SHARES_MAX) + self.addresses().saturating_sub(self.address + 1);
        let left_ms = self.give_up_ms.saturating_sub(context.now_ms);
        let share_ms = (left_ms / shares as u64).max(CONNECT_SHARE_MS_MIN);
        context.set_deadline(Some(self.give_up_ms.min(context.now_ms + share_ms)));
    }

    fn addresses(&self) -> usize {
        match self.node.as_ref().map(|(_, node)| &node.place) {
            Some(NodePlace::Tcp(place)) => place.addresses().len(),
            Some(NodePlace::Unix(_)) | None => 1,
        }
    }

    /// Begins to connect to the current address of the node. False: it has no such address.
    fn connect(&mut self, context: &mut Context<'_>) -> bool {
        let Some((_, node)) = &self.node else { return false };
        match &node.place {
            NodePlace::Unix(path) => {
                context.out.push(Effect::open(Folder::Anywhere, path, OpenFor::Connecting));
                self.is_connecting = true;
                true
            }
            NodePlace::Tcp(place) if self.address < place.addresses().len() => {
                context.out.push(Effect::ConnectNode { node: node.shared(), address: self.address });
                self.is_connecting = true;
                true
            }
            NodePlace::Tcp(_) => false,
        }
    }

    /// Handles an input while no node is connected.
    pub(super) fn step(&mut self, input: &Input<'_>, context: &mut Context<'_>) -> Reached {
        match input {
            Input::TookIdle(true) if !self.is_stale => {
                self.is_reused = true;
                Reached::Node
            }
            // An idle connection that has ended in this turn, before it could be used.
            Input::Ended(End::Backend)
            | Input::Failed(End::Backend, _)
            | Input::Broken(End::Backend, _)
            | Input::Bytes(End::Backend, _) => {
                self.is_stale = true;
                Reached::No
            }
            Input::TookIdle(true) => {
                self.is_stale = false;
                if let Some(link) = self.link() {
                    context.out.push(Effect::LeaveNode { link, idle_ms: 0 });
                }
                self.again(context)
            }
            Input::TookIdle(false) => match self.connect(context) {
                true => Reached::No,
                false => self.failed(UpstreamError::Unresolved, context),
            },
            // A retry of a node that was given up comes too late.
            Input::Retry if !self.is_queued => Reached::No,
            Input::Opened(Ok(FileKind::Socket(_))) | Input::Retry => {
                (self.is_queued, self.is_connecting) = (false, true);
                context.out.push(Effect::Connect(SocketType::Stream));
                Reached::No
            }
            Input::Opened(Ok(_)) => self.not_opened(UpstreamError::NotASocket, context),
            Input::Opened(Err(OpenError { cause: OpenCause::NoDescriptors, .. })) => {
                Reached::Nowhere(UpstreamError::NoDescriptors)
            }
            Input::Opened(Err(error)) => self.not_opened(UpstreamError::Unreachable(error.error), context),
            Input::OpenedFull => {
                self.is_connecting = false;
                self.await_backlog(context)
            }
            Input::Connected(connected) => {
                self.is_connecting = false;
                self.connected(*connected, context)
            }
            Input::Deadline => self.on_deadline(context),
            _ => Reached::No,
        }
    }

    fn not_opened(&mut self, error: UpstreamError, context: &mut Context<'_>) -> Reached {
        self.is_connecting = false;
        self.failed(error, context)
    }

    fn await_backlog(&mut self, context: &mut Context<'_>) -> Reached {
        self.is_queued = true;
        context.out.push(Effect::AwaitBacklog);
        Reached::No
    }

    fn connected(&mut self, connected: Result<(), ConnectError>, context: &mut Context<'_>) -> Reached {
        let is_late = std::mem::take(&mut self.is_cancelled);
        let is_tcp = matches!(self.node.as_ref().map(|(_, node)| &node.place), Some(NodePlace::Tcp(_)));
        match connected.map_err(|error| (error.cause, error)) {
            Ok(()) => {
                context.out.push(Effect::CloseFile);
                if let Some(link) = self.link().filter(|link| link.upstream.tls.is_some()) {
                    context.out.push(Effect::Secure(link));
                }
                Reached::Node
            }
            Err((ConnectCause::NoRoom, _)) if !is_tcp => self.await_backlog(context),
            Err((ConnectCause::NoDescriptors, _)) => Reached::Nowhere(UpstreamError::NoDescriptors),
            Err((_, error)) => {
                self.address += 1;
                self.share_time(context);
                match is_tcp && self.connect(context) {
                    true => Reached::No,
                    false if context.now_ms >= self.give_up_ms => {
                        self.give_up_node(UpstreamError::ConnectTimeout, context);
                        Reached::Nowhere(UpstreamError::ConnectTimeout)
                    }
                    false if is_late => self.failed(UpstreamError::ConnectTimeout, context),
                    false => self.failed(UpstreamError::Unreachable(error.error), context),
                }
            }
        }
    }

    fn on_deadline(&mut self, context: &mut Context<'_>) -> Reached {
        let is_over = context.now_ms >= self.give_up_ms;
        if self.is_connecting {
            self.is_cancelled = true;
            context.out.push(Effect::CancelConnect);
        }
        match (is_over, self.is_connecting) {
            (true, _) => {
                self.give_up_node(UpstreamError::ConnectTimeout, context);
                Reached::Nowhere(UpstreamError::ConnectTimeout)
            }
            // The completion tries the next address.
            (false, true) => {
                context.set_deadline(Some(self.give_up_ms));
                Reached::No
            }
            (false, false) => self.failed(UpstreamError::ConnectTimeout, context),
        }
    }
}
