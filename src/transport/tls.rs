//! The TLS stage (RFC 8446, RFC 5246): the records between a socket and its exchange. The gateway is the server of a
//! client, and the client of a node. This is the only module that knows the types of rustls' unbuffered connections.
//!
//! Records are decrypted in the pool buffer that received them; rustls 0.23 returns their payload in a buffer of its own,
//! which is copied back. The bytes of an incomplete record are copied to the heap, so that a slow client holds no pool
//! buffer. rustls keeps positions in the bytes that it was given and has not consumed, those of an incomplete handshake
//! message: it panics if it does not see them again, even when it is asked to send. `held` counts them.
//!
//! | state | received bytes | becomes |
//! |---|---|---|
//! | Hello | the ClientHello is incomplete | Open, once its server name is known; Http, if the first byte is a letter; Failed |
//! | Open, handshaking | wait for a step, which the gateway grants (`TLS_STEPS_PER_TURN_MAX`) | Open, secured; Failed |
//! | Open, secured | are decrypted at once | Kernel; Failed |
//! | Kernel | pass unchanged: the kernel opens the records (`tls::kernel`) | Failed |
//! | Http | pass unchanged | |
//! | Connecting | wait for a step | Connected; Failed |
//! | Connected | are decrypted at once; tickets and changes of keys deliver nothing | Failed |
//! | Failed | are discarded | |
//!
//! A client may end its stream without a close_notify. A node may not: its stream is truncated.

mod kernel;

use std::fmt;
use std::mem;
use std::ops::Range;
use std::sync::Arc;

use rustls::client::{ClientConnectionData, UnbufferedClientConnection};
use rustls::server::{Acceptor, ServerConnectionData, UnbufferedServerConnection};
use rustls::unbuffered::{
    ConnectionState, EncodeError, EncodeTlsData, EncryptError, UnbufferedConnectionCommon, UnbufferedStatus,
    WriteTraffic,
};
use rustls::{CipherSuite, HandshakeKind, ProtocolVersion};

use super::Arrival;
use super::header::Introduction;
use crate::driver::{Driver, Lease};
use crate::limits::{
    POOL_BUFFER_SIZE, POOL_HEADROOM, SEAL_IN_PLACE_SIZE_MIN, TLS_PARTIAL_SIZE_MAX, TLS_PAYLOAD_SIZE_MAX,
};
use crate::tls::{ClientFacts, Hosts, Identity, NodeRules, Offload, Security, TlsFacts, TlsFailure, UpstreamTls};

/// Bytes of a record's header: content type, version, length (RFC 8446 section 5.1).
const HEADER_SIZE: usize = 5;
/// Size of an encrypted payload from which on rustls refuses a record, in bytes (RFC 5246 section 6.2.3).
const RECORD_SIZE_LIMIT: usize = TLS_PAYLOAD_SIZE_MAX + 2048;
/// At least the bytes that a record is longer than its payload: header, explicit nonce, content type and tag.
const OVERHEAD_SIZE: usize = 32;
/// ContentType handshake (RFC 8446 section 5.1).
const HANDSHAKE: u8 = 22;
/// ContentType change_cipher_spec, alert, handshake and application_data.
const RECORD_TYPES: Range<u8> = 20..24;
/// A fatal alert in clear: internal_error (RFC 8446 section 6.2).
const INTERNAL_ERROR: [u8; 7] = [21, 3, 3, 0, 2, 2, 80];
/// As INTERNAL_ERROR: decode_error.
const DECODE_ERROR: [u8; 7] = [21, 3, 3, 0, 2, 2, 50];
/// As INTERNAL_ERROR: unexpected_message.
const UNEXPECTED_MESSAGE: [u8; 7] = [21, 3, 3, 0, 2, 2, 10];

/// The TLS state of one connection.
pub(super) struct Session {
    state: State,
    /// Received bytes of incomplete records and incomplete handshake messages.
    partial: Vec<u8>,
    /// Bytes at the beginning of `partial` that `process` has been given and has not consumed, as whole records.
    held: usize,
    /// Records to be sent before everything that is not sealed yet.
    output: Vec<u8>,
    /// A fatal alert or a close_notify was made: nothing is sealed after it.
    is_closed: bool,
    /// The peer's close_notify was received, or the connection failed: later bytes are discarded.
    has_ended: bool,
    /// Bytes of the handshake wait for a step.
    is_waiting: bool,
    /// Why nothing can be sent. None: the exchange was told, or there is nothing to tell.
    failure: Option<TlsFailure>,
    /// Bytes of the peer's certificates, which rustls keeps.
    certificates_size: u32,
    /// When the kernel is to make the records. Off: it cannot.
    offload: Offload,
}

enum State {
    Hello(Arc<Hosts>),
    Handshaking(Box<Handshaking>),
    Secured(Box<UnbufferedServerConnection>, Box<TlsFacts>),
    /// The kernel makes and opens the records.
    Kernel(Box<TlsFacts>),
    Http,
    /// A node's handshake.
    Connecting(Box<Connecting>),
    /// A node's connection is secured.
    Connected(Box<UnbufferedClientConnection>),
    /// With the facts of a connection that failed after its handshake: bytes before the failure may still be delivered.
    Failed(Option<Box<TlsFacts>>),
}

/// The handshake with a node.
struct Connecting {
    connection: UnbufferedClientConnection,
    rules: Arc<NodeRules>,
    /// The name that the node's certificate has to have.
    name: Box<str>,
}

/// A handshake after its ClientHello.
struct Handshaking {
    connection: Box<UnbufferedServerConnection>,
    identity: Arc<Identity>,
    /// Index of the server that the client has named.
    site: u16,
    /// The server name of the client. Empty: none.
    sni: Box<str>,
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match &self.state {
            State::Hello(_) => "Hello",
            State::Handshaking(_) => "Handshaking",
            State::Secured(..) => "Secured",
            State::Kernel(_) => "Kernel",
            State::Http => "Http",
            State::Connecting(_) => "Connecting",
            State::Connected(_) => "Connected",
            State::Failed(_) => "Failed",
        };
        f.debug_struct("Session").field("state", &state).field("partial", &self.partial.len()).finish_non_exhaustive()
    }
}

/// What received bytes lead to.
#[derive(Default, Debug)]
pub(super) struct Taken {
    /// What the connection begins with, once that is known. It precedes all bytes.
    pub(super) introduction: Option<Introduction>,
    /// The decrypted bytes. None: there are none.
    pub(super) bytes: Option<Arrival>,
    /// The end or the failure that follows them. None: neither.
    pub(super) end: Option<Arrival>,
}

impl Session {
    /// The session of a client that has sent nothing yet.
    pub(super) fn new(hosts: Arc<Hosts>) -> Session {
        Session::of(State::Hello(hosts))
    }

    /// The session of a client that is refused before its handshake: it gets an alert.
    pub(super) fn refused() -> Session {
        Session { output: INTERNAL_ERROR.into(), is_closed: true, ..Session::of(State::Failed(None)) }
    }

    /// The session with a node, whose ClientHello is to be sent. `host`: of the node's address.
    pub(super) fn to_node(tls: &UpstreamTls, host: &str) -> Session {
        let name = tls.name_of(host);
        let rules = tls.rules().ok_or(TlsFailure::Internal);
        let connecting = rules.and_then(|rules| {
            let name_of_node = NodeRules::server_name(name).ok_or(TlsFailure::Internal)?;
            let connection = UnbufferedClientConnection::new(rules.config().clone(), name_of_node);
            let connection = connection.map_err(|error| TlsFailure::of(&error))?;
            Ok(Box::new(Connecting { connection, rules, name: name.into() }))
        });
        match connecting {
            Ok(connecting) => {
                let mut session = Session::of(State::Failed(None));
                session.connect(connecting);
                session
            }
            Err(failure) => {
                Session { is_closed: true, has_ended: true, failure: Some(failure), ..Session::of(State::Failed(None)) }
            }
        }
    }

    fn of(state: State) -> Session {
        Session {
            state,
            partial: Vec::new(),
            held: 0,
            output: Vec::new(),
            is_closed: false,
            has_ended: false,
            is_waiting: false,
            failure: None,
            certificates_size: 0,
            offload: Offload::Off,
        }
    }

    /// How the client's connection is protected. That of a node is not known here.
    pub(super) fn security(&self) -> Security<'_> {
        match &self.state {
            State::Secured(_, facts) | State::Kernel(facts) | State::Failed(Some(facts)) => Security::Tls(facts),
            State::Http => Security::HttpOnTlsPort,
            State::Hello(_) | State::Handshaking(_) | State::Failed(None) => Security::Handshaking,
            State::Connecting(_) | State::Connected(_) => Security::Handshaking,
        }
    }

    /// Bytes held outside the pool, without what every session holds (`TLS_CLIENT_SIZE`).
    pub(super) fn heap_size(&self) -> usize {
        self.partial.capacity() + self.output.capacity() + self.idle_size()
    }

    /// The part of `heap_size` that an idle connection holds.
    pub(super) fn idle_size(&self) -> usize {
        self.certificates_size as usize
    }

    /// Whether bytes of the handshake wait for a step.
    pub(super) fn is_waiting(&self) -> bool {
        self.is_waiting
    }

    /// Whether bytes can be sealed now.
    pub(super) fn may_seal(&self) -> bool {
        let is_open = matches!(self.state, State::Secured(..) | State::Kernel(_) | State::Http | State::Connected(_));
        is_open && !self.is_closed
    }

    /// Whether nothing can be sealed any more.
    pub(super) fn is_closed(&self) -> bool {
        self.is_closed
    }

    /// Why nothing can be sent any more, once.
    pub(super) fn take_failure(&mut self) -> Option<Arrival> {
        self.failure.take().map(Arrival::Broken)
    }

    /// Removes the records to be sent first. None: there are none.
    pub(super) fn take_output(&mut self) -> Option<Box<[u8]>> {
        (!self.output.is_empty()).then(|| mem::take(&mut self.output).into())
    }

    /// Handles received bytes.
    pub(super) fn receive<D: Driver>(&mut self, lease: Lease, driver: &mut D) -> Taken {
        match &mut self.state {
            _ if self.has_ended => {}
            State::Kernel(_) | State::Http => return Taken { bytes: Some(Arrival::Lease(lease)), ..Taken::default() },
            State::Secured(..) | State::Connected(_) => {
                let (partial, held, output) = (&mut self.partial, &mut self.held, &mut self.output);
                let (bytes, end) = match &mut self.state {
                    State::Secured(connection, _) => {
                        Traffic { connection, partial, held, output }.receive(lease, driver)
                    }
                    State::Connected(connection) => {
                        Traffic { connection, partial, held, output }.receive(lease, driver)
                    }
                    _ => return Taken::default(),
                };
                // Nothing follows a close_notify, neither an alert nor the answer to a KeyUpdate.
                if self.is_closed {
                    self.output.clear();
                }
                return Taken { bytes, end: end.map(|end| self.end(end)), ..Taken::default() };
            }
            State::Hello(_) | State::Handshaking(_) | State::Connecting(_) => {
                self.partial.extend_from_slice(&driver.buffer(&lease)[lease.range()]);
                self.is_waiting = true;
            }
            State::Failed(_) => {}
        }
        driver.release(lease);
        Taken::default()
    }

    /// Handles the end of the peer's stream. None: its close_notify has told it.
    pub(super) fn receive_end(&mut self) -> Option<Arrival> {
        self.is_waiting = false;
        let end = match &self.state {
            State::Failed(_) => return Some(Arrival::End),
            _ if self.has_ended => return None,
            State::Hello(_) if self.partial.is_empty() => End::Closed,
            State::Hello(_) | State::Handshaking(_) | State::Connecting(_) => End::Failed(TlsFailure::Left),
            State::Connected(_) => End::Failed(TlsFailure::Truncated),
            State::Secured(..) | State::Kernel(_) | State::Http => End::Closed,
        };
        Some(self.end(end))
    }

    /// Continues the handshake with the bytes that wait. The handshake may be complete after it: see `security`.
    pub(super) fn step(&mut self) -> Taken {
        self.is_waiting = false;
        match mem::replace(&mut self.state, State::Failed(None)) {
            State::Hello(hosts) => self.read_hello(hosts),
            State::Handshaking(handshaking) => self.shake_hands(handshaking),
            State::Connecting(connecting) => self.connect(connecting),
            state => {
                self.state = state;
                Taken::default()
            }
        }
    }

    /// Reads the ClientHello, which selects the server.
    fn read_hello(&mut self, hosts: Arc<Hosts>) -> Taken {
        match self.partial.first() {
            Some(&HANDSHAKE) | None => {}
            Some(first) if first.is_ascii_alphabetic() || *first == b'\r' || *first == b'\n' => {
                self.state = State::Http;
                let bytes = Some(Arrival::copy(&mem::take(&mut self.partial)));
                return Taken { bytes, ..Taken::default() };
            }
            Some(_) => return self.fail(TlsFailure::NotTls, &UNEXPECTED_MESSAGE),
        }
        if !may_be_hello(&self.partial) {
            return self.await_hello(hosts);
        }
        let mut acceptor = Acceptor::default();
        let mut rest = &self.partial[..];
        let accepted = loop {
            match acceptor.read_tls(&mut rest) {
                Ok(1..) => {}
                Ok(0) => break Ok(None),
                Err(_) => return self.fail(TlsFailure::TooLarge, &INTERNAL_ERROR),
            }
            match acceptor.accept() {
                Ok(None) => {}
                accepted => break accepted,
            }
        };
        match accepted {
            Ok(None) => self.await_hello(hosts),
            Ok(Some(accepted)) => {
                let hello = accepted.client_hello();
                let sni = hello.server_name();
                let (site, identity) = hosts.of_name(sni);
                match UnbufferedServerConnection::new(identity.config.clone()) {
                    Ok(connection) => {
                        let (connection, sni) = (Box::new(connection), sni.unwrap_or_default().into());
                        self.shake_hands(Box::new(Handshaking { connection, identity, site, sni }))
                    }
                    Err(_) => self.fail(TlsFailure::Internal, &INTERNAL_ERROR),
                }
            }
            Err((error, mut alert)) => {
                let mut bytes = Vec::new();
                // Writing to memory cannot fail. Some errors have no alert.
                let _ = alert.write_all(&mut bytes);
                if bytes.is_empty() {
                    bytes.extend(DECODE_ERROR);
                }
                self.fail(TlsFailure::of(&error), &bytes)
            }
        }
    }

    fn await_hello(&mut self, hosts: Arc<Hosts>) -> Taken {
        if self.partial.len() > TLS_PARTIAL_SIZE_MAX {
            return self.fail(TlsFailure::TooLarge, &INTERNAL_ERROR);
        }
        self.state = State::Hello(hosts);
        Taken::default()
    }

    fn shake_hands(&mut self, mut handshaking: Box<Handshaking>) -> Taken {
        let mut plain = vec![0; POOL_HEADROOM];
        let (partial, held, output) = (&mut self.partial, &mut self.held, &mut self.output);
        let end =
            Traffic { connection: &mut handshaking.connection, partial, held, output }.process_partial(&mut plain);
        let end = match handshaking.connection.is_handshaking() {
            true => {
                self.state = State::Handshaking(handshaking);
                end
            }
            false => match self.secure(*handshaking) {
                Some(failure) => {
                    // The client may not be served.
                    plain.clear();
                    Some(End::Failed(failure))
                }
                None => end,
            },
        };
        let bytes = (plain.len() > POOL_HEADROOM).then(|| Arrival::Copy(plain.into()));
        Taken { bytes, end: end.map(|end| self.end(end)), ..Taken::default() }
    }

    /// Leaves the handshake. Some: the session may not be resumed after all, since a ticket does not tell whether the
    /// client's certificate is still valid.
    fn secure(&mut self, handshaking: Handshaking) -> Option<TlsFailure> {
        let Handshaking { connection, identity, site, sni } = handshaking;
        let certificates = connection.peer_certificates().unwrap_or_default();
        let is_resumed = connection.handshake_kind() == Some(HandshakeKind::Resumed);
        let failure = match identity.config.time_provider.current_time() {
            Some(now) if is_resumed => identity.still_valid(certificates, now).err(),
            _ => None,
        };
        self.offload = identity.offload;
        self.certificates_size = certificates.iter().map(|certificate| certificate.len() as u32).sum();
        let facts = TlsFacts {
            site,
            version: version_of(&connection),
            cipher: cipher_of(&connection),
            sni,
            alpn: String::from_utf8_lossy(connection.alpn_protocol().unwrap_or_default()).into(),
            is_resumed,
            client: certificates.first().map(ClientFacts::of),
        };
        self.partial.shrink_to_fit();
        self.state = State::Secured(connection, Box::new(facts));
        if failure.is_some() {
            self.close();
        }
        failure.map(|error| TlsFailure::of(&error))
    }

    /// Continues the handshake with a node.
    fn connect(&mut self, mut connecting: Box<Connecting>) -> Taken {
        // At first rustls has nothing, and at the border of records it begins with a content type.
        let is_tls = self.held > 0 || self.partial.first().is_none_or(|kind| RECORD_TYPES.contains(kind));
        let mut plain = vec![0; POOL_HEADROOM];
        let (partial, held, output) = (&mut self.partial, &mut self.held, &mut self.output);
        let end = Traffic { connection: &mut connecting.connection, partial, held, output }.process_partial(&mut plain);
        let end = match (connecting.connection.is_handshaking(), end) {
            (true, end) => {
                self.state = State::Connecting(connecting);
                end.map(|end| if is_tls { end } else { End::Failed(TlsFailure::NotTls) })
            }
            (false, end) => match self.trust(*connecting) {
                Some(failure) => {
                    plain.clear();
                    Some(End::Failed(failure))
                }
                None => end,
            },
        };
        let bytes = (plain.len() > POOL_HEADROOM).then(|| Arrival::Copy(plain.into()));
        Taken { bytes, end: end.map(|end| self.end(end)), ..Taken::default() }
    }

    /// Leaves the handshake with a node. Some: its session may not be resumed after all, since a ticket does not tell
    /// whether the node's certificate is still valid.
    fn trust(&mut self, connecting: Connecting) -> Option<TlsFailure> {
        let Connecting { connection, rules, name } = connecting;
        let certificates = connection.peer_certificates().unwrap_or_default();
        let is_resumed = connection.handshake_kind() == Some(HandshakeKind::Resumed);
        let failure = if is_resumed { rules.still_valid(certificates, &name).err() } else { None };
        self.certificates_size = certificates.iter().map(|certificate| certificate.len() as u32).sum();
        self.partial.shrink_to_fit();
        self.state = State::Connected(Box::new(connection));
        if failure.is_some() {
            self.close();
        }
        failure.map(|error| TlsFailure::of(&error))
    }

    /// Ends a session before there is a connection that makes its alert.
    fn fail(&mut self, error: TlsFailure, alert: &[u8]) -> Taken {
        self.output.extend_from_slice(alert);
        Taken { end: Some(self.end(End::Failed(error))), ..Taken::default() }
    }

    fn end(&mut self, end: End) -> Arrival {
        self.has_ended = true;
        match end {
            End::Closed => {
                // rustls keeps positions in what is held, and the client may still be sent to.
                self.partial.truncate(self.held);
                Arrival::End
            }
            End::Failed(error) => {
                (self.partial, self.held) = (Vec::new(), 0);
                self.is_closed = true;
                self.state = match mem::replace(&mut self.state, State::Failed(None)) {
                    State::Secured(_, facts) | State::Kernel(facts) | State::Failed(Some(facts)) => {
                        State::Failed(Some(facts))
                    }
                    _ => State::Failed(None),
                };
                Arrival::Broken(error)
            }
        }
    }

    /// Encrypts bytes to send. None: nothing can be sent any more. In TLS 1.2, AES-GCM keys are exhausted after 2^24
    /// records (RFC 9325 section 4.4), and there are no new ones.
    pub(super) fn seal(&mut self, bytes: &[u8]) -> Option<Box<[u8]>> {
        let sealed = match &self.state {
            State::Secured(..) | State::Connected(_) if !self.is_closed => {
                let records = bytes.len() / TLS_PAYLOAD_SIZE_MAX + 1;
                let sealed = self.write(Content::Data(bytes), bytes.len() + records * OVERHEAD_SIZE);
                match self.take_output() {
                    // Made before them.
                    Some(output) => sealed.map(|sealed| [output, sealed].concat().into()),
                    None => sealed,
                }
            }
            State::Kernel(_) | State::Http => Some(bytes.into()),
            _ => None,
        };
        if sealed.is_none() && !self.is_closed {
            self.is_closed = true;
            self.failure = Some(TlsFailure::Exhausted);
        }
        sealed
    }

    /// As `seal`, for bytes in a pool buffer, which are replaced: the records begin in the headroom. Returns their range.
    pub(super) fn seal_in_place(&mut self, buffer: &mut [u8], range: Range<usize>) -> Option<Range<usize>> {
        let start = range.start.checked_sub(headroom_for(range.len()))?;
        let (mut end, mut payload) = (start, Vec::with_capacity(range.len().min(TLS_PAYLOAD_SIZE_MAX)));
        for at in range.clone().step_by(TLS_PAYLOAD_SIZE_MAX) {
            let next = range.end.min(at + TLS_PAYLOAD_SIZE_MAX);
            payload.clear();
            payload.extend_from_slice(&buffer[at..next]);
            match self.write_to(&mut buffer[end..next], Content::Data(&payload)) {
                Ok(size) => end += size,
                Err(_) => {
                    (self.is_closed, self.failure) = (true, Some(TlsFailure::Exhausted));
                    return None;
                }
            }
        }
        Some(start..end)
    }

    /// Whether `seal_in_place` may be called for this range: it is long enough to be worth it, there is room before it, and
    /// no record precedes it.
    pub(super) fn seals_in_place(&self, range: &Range<usize>) -> bool {
        let is_ready = match &self.state {
            State::Secured(connection, _) => !connection.wants_write(),
            State::Connected(connection) => !connection.wants_write(),
            _ => false,
        };
        is_ready
            && self.may_seal()
            && self.output.is_empty()
            && range.len() >= SEAL_IN_PLACE_SIZE_MIN
            && range.start >= headroom_for(range.len())
    }

    /// Makes the close_notify, unless the connection has failed.
    pub(super) fn close(&mut self) {
        if !self.is_closed {
            let bytes = self.write(Content::CloseNotify, 2 + OVERHEAD_SIZE);
            self.output.extend_from_slice(&bytes.unwrap_or_default());
        }
        // The kernel's is sent by `close_by_kernel`.
        self.is_closed |= !self.is_offloaded();
    }

    /// Makes records in a new buffer. `size` is the one to try first. None: nothing can be sent, or not any more.
    fn write(&mut self, content: Content<'_>, size: usize) -> Option<Box<[u8]>> {
        let mut records = vec![0; size];
        loop {
            match self.write_to(&mut records, content) {
                Ok(size) => {
                    records.truncate(size);
                    return Some(records.into());
                }
                Err(WriteError::TooSmall(size)) if size > records.len() => records.resize(size, 0),
                Err(_) => return None,
            }
        }
    }

    /// Makes records of a secured connection in `records`, and returns their size.
    fn write_to(&mut self, records: &mut [u8], content: Content<'_>) -> Result<usize, WriteError> {
        let (held, output) = (&mut self.partial[..self.held], &mut self.output);
        match &mut self.state {
            State::Secured(connection, _) => write_to(records, connection, held, content, output),
            State::Connected(connection) => write_to(records, connection, held, content, output),
            _ => Err(WriteError::Never),
        }
    }
}

/// How the peer's stream ends.
#[derive(Debug)]
enum End {
    /// By close_notify or the end of the stream.
    Closed,
    Failed(TlsFailure),
}

/// The end that the gateway is, as a type of rustls.
trait Side: Sized {
    /// Handles the next of these records.
    fn process<'c, 'i>(
        connection: &'c mut UnbufferedConnectionCommon<Self>,
        bytes: &'i mut [u8],
    ) -> UnbufferedStatus<'c, 'i, Self>;
}

impl Side for ServerConnectionData {
    fn process<'c, 'i>(
        connection: &'c mut UnbufferedConnectionCommon<Self>,
        bytes: &'i mut [u8],
    ) -> UnbufferedStatus<'c, 'i, Self> {
        connection.process_tls_records(bytes)
    }
}

impl Side for ClientConnectionData {
    fn process<'c, 'i>(
        connection: &'c mut UnbufferedConnectionCommon<Self>,
        bytes: &'i mut [u8],
    ) -> UnbufferedStatus<'c, 'i, Self> {
        connection.process_tls_records(bytes)
    }
}

/// A connection that receives.
struct Traffic<'a, S> {
    connection: &'a mut UnbufferedConnectionCommon<S>,
    partial: &'a mut Vec<u8>,
    held: &'a mut usize,
    output: &'a mut Vec<u8>,
}

impl<S: Side> Traffic<'_, S> {
    /// Decrypts the records of a buffer into that buffer.
    fn receive<D: Driver>(mut self, mut lease: Lease, driver: &mut D) -> (Option<Arrival>, Option<End>) {
        let range = lease.range();
        let buffer = driver.buffer(&lease);
        let mut first = Vec::new();
        let (place, end) = self.decrypt(&mut buffer[range.clone()], &mut first);
        let size = first.len() + place.len();
        if size == 0 {
            driver.release(lease);
            return (None, end);
        }
        let mut place = range.start + place.start..range.start + place.end;
        if POOL_HEADROOM + size > POOL_BUFFER_SIZE {
            let bytes = Arrival::copy(&[&first, &buffer[place]].concat());
            driver.release(lease);
            return (Some(bytes), end);
        }
        if place.start < POOL_HEADROOM + first.len() {
            let start = POOL_HEADROOM + first.len();
            buffer.copy_within(place.clone(), start);
            place = start..start + place.len();
        }
        place.start -= first.len();
        buffer[place.start..place.start + first.len()].copy_from_slice(&first);
        (lease.start, lease.end) = (place.start as u32, place.end as u32);
        (Some(Arrival::Lease(lease)), end)
    }

    /// Decrypts received records in place, and returns where the payload is. The payload of what was incomplete before goes
    /// to `first` and precedes it.
    fn decrypt(&mut self, received: &mut [u8], first: &mut Vec<u8>) -> (Range<usize>, Option<End>) {
        let mut at = 0;
        while !self.partial.is_empty() && at < received.len() {
            // The first record alone is completed on the heap. An incomplete handshake message stays there.
            let missing = if *self.held > 0 { usize::MAX } else { missing_size(self.partial) };
            let size = missing.min(received.len() - at);
            self.partial.extend_from_slice(&received[at..at + size]);
            at += size;
            if *self.held > 0 || missing_size(self.partial) == 0 {
                let end = self.process_partial(first);
                if end.is_some() {
                    return (at..at, end);
                }
            }
        }
        if !self.partial.is_empty() {
            return (at..at, None);
        }
        let rest = &mut received[at..];
        let whole = whole_size(rest);
        let (mut plain, mut size) = (Vec::new(), 0);
        // A record is longer than its payload, so that there is room in what is consumed.
        let (used, end) = process(self.connection, rest, &mut plain, self.output, |bytes, used, plain| {
            debug_assert!(size + plain.len() <= used);
            bytes[size..size + plain.len()].copy_from_slice(plain);
            size += plain.len();
            plain.clear();
        });
        *self.partial = rest[used..].to_vec();
        let end = self.hold(whole, used, end);
        (at..at + size, end)
    }

    /// Passes the bytes of `partial` to the connection.
    fn process_partial(&mut self, plain: &mut Vec<u8>) -> Option<End> {
        let whole = *self.held + whole_size(&self.partial[*self.held..]);
        let (used, end) = process(self.connection, self.partial, plain, self.output, |_, _, _| ());
        self.partial.drain(..used);
        self.hold(whole, used, end)
    }

    /// Notes that the connection was given `whole` bytes of whole records, and has consumed `used` bytes.
    fn hold(&mut self, whole: usize, used: usize, end: Option<End>) -> Option<End> {
        *self.held = whole.saturating_sub(used);
        let is_too_large = self.partial.len() > TLS_PARTIAL_SIZE_MAX;
        end.or(is_too_large.then_some(End::Failed(TlsFailure::TooLarge)))
    }
}

/// Bytes before `size` bytes of payload in which the records of these are longer, and a key update (RFC 8446 section 4.6.3).
fn headroom_for(size: usize) -> usize {
    (size.div_ceil(TLS_PAYLOAD_SIZE_MAX) + 1) * OVERHEAD_SIZE
}

/// Bytes without which the record at the beginning is incomplete. A record that is too large needs none: rustls refuses it
/// by its header, and its payload is not waited for.
fn missing_size(partial: &[u8]) -> usize {
    match payload_size(partial) {
        Some(RECORD_SIZE_LIMIT..) => 0,
        Some(size) => (HEADER_SIZE + size).saturating_sub(partial.len()),
        None => HEADER_SIZE - partial.len(),
    }
}

/// The size of the payload that the header at the beginning announces. None: the header is incomplete.
fn payload_size(bytes: &[u8]) -> Option<usize> {
    let [_, _, _, high, low, ..] = bytes else { return None };
    Some(u16::from_be_bytes([*high, *low]).into())
}

/// Whether the record at the beginning is larger than any may be.
fn is_too_large(bytes: &[u8]) -> bool {
    payload_size(bytes).is_some_and(|size| size >= RECORD_SIZE_LIMIT)
}

/// Whether the records have a whole ClientHello, or are none of one. The acceptor reads all records from the first one on,
/// which would take long for a client that sends them byte by byte.
fn may_be_hello(bytes: &[u8]) -> bool {
    let (mut rest, mut message) = (bytes, Vec::new());
    while missing_size(rest) == 0 && rest[0] == HANDSHAKE && !is_too_large(rest) {
        let (record, others) = rest.split_at(whole_record_size(rest));
        message.extend_from_slice(&record[HEADER_SIZE..]);
        rest = others;
    }
    let is_other = rest.first().is_some_and(|kind| *kind != HANDSHAKE) || is_too_large(rest);
    match message[..] {
        [_, 0, high, low, ref body @ ..] => is_other || body.len() >= usize::from(u16::from_be_bytes([high, low])),
        // rustls refuses a message of 64 KiB by its size.
        [_, _, _, _, ..] => true,
        _ => is_other,
    }
}

/// The size of the whole record at the beginning: all bytes if it is too large.
fn whole_record_size(bytes: &[u8]) -> usize {
    bytes.len().min(HEADER_SIZE + payload_size(bytes).unwrap_or_default())
}

/// The size of the whole records at the beginning.
fn whole_size(bytes: &[u8]) -> usize {
    let mut size = 0;
    while missing_size(&bytes[size..]) == 0 {
        size += whole_record_size(&bytes[size..]);
    }
    size
}

/// Passes bytes to a connection. Appends payload to `plain` and records to `output`; `on_progress` is called with all
/// bytes, the number of those that are consumed, and `plain`. Returns this number at the end, and the end of the peer's
/// stream if it was reached.
fn process<S: Side>(
    connection: &mut UnbufferedConnectionCommon<S>,
    bytes: &mut [u8],
    plain: &mut Vec<u8>,
    output: &mut Vec<u8>,
    mut on_progress: impl FnMut(&mut [u8], usize, &mut Vec<u8>),
) -> (usize, Option<End>) {
    let (mut used, mut end) = (0, None);
    loop {
        let UnbufferedStatus { mut discard, state } = S::process(connection, &mut bytes[used..]);
        match state {
            Ok(ConnectionState::ReadTraffic(mut traffic)) => {
                while let Some(Ok(record)) = traffic.next_record() {
                    plain.extend_from_slice(record.payload);
                    discard += record.discard;
                }
            }
            Ok(ConnectionState::EncodeTlsData(mut data)) => encode(&mut data, output),
            Ok(ConnectionState::TransmitTlsData(data)) => data.done(),
            Ok(ConnectionState::PeerClosed) => end = Some(End::Closed),
            Ok(_) => return (used + discard, end),
            Err(error) => {
                drain_output(connection, output);
                return (used + discard, Some(End::Failed(TlsFailure::of(&error))));
            }
        }
        used += discard;
        on_progress(bytes, used, plain);
    }
}

/// Takes the records that the connection has made by itself. After an error, rustls must not see the same bytes again.
fn drain_output<S: Side>(connection: &mut UnbufferedConnectionCommon<S>, output: &mut Vec<u8>) {
    while connection.wants_write()
        && let Ok(ConnectionState::EncodeTlsData(mut data)) = S::process(connection, &mut []).state
    {
        encode(&mut data, output);
    }
}

fn encode<T>(data: &mut EncodeTlsData<'_, T>, output: &mut Vec<u8>) {
    let start = output.len();
    let mut size = 0;
    loop {
        output.resize(start + size, 0);
        match data.encode(&mut output[start..]) {
            Ok(written) => return output.truncate(start + written),
            Err(EncodeError::InsufficientSize(error)) if error.required_size > size => size = error.required_size,
            Err(_) => return output.truncate(start),
        }
    }
}

/// What records are made of.
#[derive(Clone, Copy)]
enum Content<'a> {
    Data(&'a [u8]),
    CloseNotify,
}

impl Content<'_> {
    fn write<S>(self, traffic: &mut WriteTraffic<'_, S>, records: &mut [u8]) -> Result<usize, EncryptError> {
        match self {
            Content::Data(bytes) => traffic.encrypt(bytes, records),
            Content::CloseNotify => traffic.queue_close_notify(records),
        }
    }
}

/// Why records cannot be made.
enum WriteError {
    /// They need a buffer of this size.
    TooSmall(usize),
    /// Nothing can be sent any more.
    Never,
}

/// Makes records of a secured connection in `records`, and returns their size. `held`: what `process` has not consumed, in
/// which rustls keeps the positions of an incomplete handshake message; without these bytes it panics.
fn write_to<S: Side>(
    records: &mut [u8],
    connection: &mut UnbufferedConnectionCommon<S>,
    held: &mut [u8],
    content: Content<'_>,
    output: &mut Vec<u8>,
) -> Result<usize, WriteError> {
    loop {
        match S::process(connection, held).state {
            Ok(ConnectionState::WriteTraffic(mut traffic)) => {
                return content.write(&mut traffic, records).map_err(|error| match error {
                    EncryptError::InsufficientSize(error) => WriteError::TooSmall(error.required_size),
                    EncryptError::EncryptExhausted => WriteError::Never,
                });
            }
            Ok(ConnectionState::EncodeTlsData(mut data)) => encode(&mut data, output),
            Ok(ConnectionState::TransmitTlsData(data)) => data.done(),
            Ok(ConnectionState::PeerClosed) => {}
            _ => return Err(WriteError::Never),
        }
    }
}

fn version_of(connection: &UnbufferedServerConnection) -> &'static str {
    match connection.protocol_version() {
        Some(ProtocolVersion::TLSv1_3) => "TLSv1.3",
        _ => "TLSv1.2",
    }
}

/// The IANA name of the cipher suite. rustls has names of its own for those of TLS 1.3.
fn cipher_of(connection: &UnbufferedServerConnection) -> &'static str {
    match connection.negotiated_cipher_suite().map(|suite| suite.suite()) {
        Some(CipherSuite::TLS13_AES_128_GCM_SHA256) => "TLS_AES_128_GCM_SHA256",
        Some(CipherSuite::TLS13_AES_256_GCM_SHA384) => "TLS_AES_256_GCM_SHA384",
        Some(CipherSuite::TLS13_CHACHA20_POLY1305_SHA256) => "TLS_CHACHA20_POLY1305_SHA256",
        Some(suite) => suite.as_str().unwrap_or_default(),
        None => "",
    }
}

#[cfg(test)]
mod counterpart;
#[cfg(test)]
mod nodes;
#[cfg(test)]
mod tests;
