//! The reply to a plain HTTP request: a file in the www folder, or an error.

use std::borrow::Cow;

use super::head::RequestHead;
use super::{CloseTimeouts, Closing, Context, Effect, Ending, Folder, Input, Phase, Step, over};
use crate::access::AccessError;
use crate::driver::{FileKind, FileStatus, OpenCause, OpenError, OpenFor};
use crate::http::coding::{Coding, Codings, may_have_variants};
use crate::http::conditions::{Conditions, Selection};
use crate::http::representation::{Representation, Version};
use crate::http::{files, head, redirect, reply};
use crate::observe::log::{Level, Quoted};
use crate::route::Site;
use crate::types::{Address, Demand, End};

/// A request that is being answered.
#[derive(Debug)]
pub(crate) struct Reply {
    /// The method, quoted for the log.
    method: Cow<'static, str>,
    name: Box<str>,
    /// Path of the file, relative to the www folder.
    path: Box<str>,
    /// The request path ended with a slash: the file is in that folder.
    has_slash: bool,
    query: Option<Box<str>>,
    is_head: bool,
    conditions: Conditions,
    /// The precompressed variants that are still to be tried. The variant being tried is in `coding`.
    codings: Codings,
    coding: Option<Coding>,
    plain: Plain,
    keep_alive: bool,
    /// The request body is not read to its end: further bytes of the client are discarded.
    leaves_body: bool,
    has_client_ended: bool,
    /// All requests on this connection so far were OPTIONS.
    is_probe: bool,
    ending: Ending,
    timeouts: CloseTimeouts,
    stage: Stage,
    /// The client of a trusted proxy that has sent the request. None: the peer itself has.
    pub(crate) client: Option<Address>,
    /// It is that of an admitted user.
    pub(crate) is_admitted: bool,
    /// Header lines that are added to the reply.
    pub(crate) fields: Box<str>,
    /// Pipelined bytes after the request.
    pub(crate) input: Vec<u8>,
}

#[derive(Debug)]
enum Stage {
    /// The reply is this error; no file is opened.
    Refused(u16, &'static str),
    /// The file does not exist or is not allowed. The reply is this error, or 426 if a backend has the name.
    Missing(u16, &'static str),
    /// A socket with this name is being looked up.
    Looking(u16, &'static str),
    /// The reply leads the client to https, with this status and Location.
    Redirected(u16, Box<str>),
    /// The reply lists the allowed methods, whatever the name (RFC 9110 section 9.3.7).
    Options,
    /// A file is being opened.
    Opening,
    /// The file's bytes from `next` to `end` are still to be queued.
    Sending { next: u64, end: u64, is_reading: bool },
    /// The whole reply is queued.
    Finishing,
}

/// The modification time of the uncompressed file. It is looked up once a precompressed variant exists: a variant that
/// is older than the file is stale.
#[derive(Debug)]
enum Plain {
    Unknown,
    /// The lookup is in progress.
    Asked,
    /// Seconds and nanoseconds since 1970; None: only the variant exists.
    Modified(Option<(i64, u32)>),
}

impl Reply {
    /// The reply to a request for this name, not started yet. `is_probe`: all earlier requests on the connection were
    /// OPTIONS.
    pub(crate) fn new(head: &head::Head<'_>, name: &str, is_probe: bool, site: &Site) -> Reply {
        let is_head = head.method == "HEAD";
        let is_get = head.method == "GET";
        let is_options = head.method == "OPTIONS";
        let is_probe = is_probe && is_options;
        let has_slash = head.path.ends_with('/');
        let path = files::file_of(name, has_slash);
        let stage = match () {
            _ if is_options => Stage::Options,
            _ if !is_get && !is_head => Stage::Refused(405, "only GET, HEAD and OPTIONS are served"),
            _ if !site.has_www => Stage::Missing(404, "there are no pages here"),
            _ if files::is_hidden(name) => Stage::Missing(404, "there is no such page"),
            _ if !site.page_rules.permit_page(name, has_slash, &path) => {
                Stage::Missing(403, "this page is not allowed")
            }
            _ => Stage::Opening,
        };
        Reply {
            method: match (is_get, is_head) {
                (true, _) => "GET".into(),
                (_, true) => "HEAD".into(),
                _ => Quoted(head.method).to_string().into(),
            },
            name: name.into(),
            codings: if may_have_variants(&path) { Codings::read(&head.headers) } else { Codings::PLAIN },
            path: path.into(),
            has_slash,
            query: head.query.map(Into::into),
            is_head,
            conditions: Conditions::read(&head.headers, is_head),
            coding: None,
            plain: Plain::Unknown,
            // After CONNECT a client may send bytes that are not HTTP.
            keep_alive: head.keep_alive && site.limits.keepalive_ms > 0 && head.method != "CONNECT",
            leaves_body: false,
            has_client_ended: false,
            is_probe,
            ending: match () {
                _ if is_probe => Ending::Probed,
                _ if is_get || is_head || is_options => Ending::Served,
                _ => Ending::Method,
            },
            timeouts: CloseTimeouts { since_ms: 0, close_ms: site.limits.stall_ms, stall_ms: site.limits.stall_ms },
            stage,
            client: None,
            is_admitted: false,
            fields: "".into(),
            input: Vec::new(),
        }
    }

    /// Redirects the request to https, whatever its method and name.
    pub(crate) fn redirect(&mut self, method: &str, location: String) {
        self.stage = Stage::Redirected(redirect::status(method), location.into());
        if !self.is_probe {
            self.ending = Ending::Served;
        }
    }

    /// Refuses the request for what it shows, with these header lines.
    pub(crate) fn deny(&mut self, error: AccessError, fields: String) {
        self.stage = Stage::Refused(error.status(), error.sentence());
        (self.is_probe, self.ending, self.fields) = (false, Ending::Access(error), fields.into());
    }

    /// Leaves out the precompressed variants whose path may not be sent.
    pub(crate) fn retain_variants(&mut self, is_kept: impl Fn(&str) -> bool) {
        let path = &self.path;
        self.codings.retain(|coding| is_kept(&variant(path, coding)));
    }

    /// How long the client may accept no bytes.
    pub(crate) fn timeouts(&self) -> CloseTimeouts {
        self.timeouts
    }

    /// Whether the request method is HEAD.
    pub(crate) fn is_head(&self) -> bool {
        self.is_head
    }

    /// Closes the connection after the reply, since the request body is not read to its end.
    pub(crate) fn leave_body(&mut self) {
        self.leaves_body = true;
        self.keep_alive = false;
    }

    /// Whether further bytes of the client are discarded.
    pub(crate) fn leaves_body(&self) -> bool {
        self.leaves_body
    }

    /// Starts the reply.
    pub(crate) fn start(mut self: Box<Self>, context: &mut Context<'_>) -> Phase {
        // A client may send its whole body before it reads the first byte of a reply.
        let demand = if self.leaves_body { Demand::Flow } else { Demand::Nothing };
        context.out.push(Effect::Demand(End::Client, demand));
        match &self.stage {
            &Stage::Refused(status, sentence) => self.refuse(status, sentence, "", context),
            &Stage::Missing(status, sentence) => self.look_for_backend(status, sentence, context),
            Stage::Redirected(status, location) => {
                let (status, fields) = (*status, redirection(location));
                self.send(status, &fields, context);
            }
            Stage::Options => self.send(204, reply::ALLOW, context),
            _ => self.open_next(context),
        }
        self.wait(context);
        Phase::Reply(self)
    }

    /// Heap bytes held for the request.
    pub(crate) fn held_size(&self) -> usize {
        self.name.len() + self.path.len() + self.fields.len() + self.query.as_ref().map_or(0, |query| query.len())
    }

    /// Whether the tail of the send queue is file bytes, which can be read again.
    pub(crate) fn sends_page(&self) -> bool {
        matches!(self.stage, Stage::Sending { is_reading: false, .. })
    }

    /// Reads the last `size` queued bytes again; they were removed from the send queue unsent.
    pub(crate) fn take_back(&mut self, size: u64) {
        if let Stage::Sending { next, .. } = &mut self.stage {
            *next -= size;
        }
    }

    /// Handles an input. True: run the returned phase at once.
    pub(crate) fn step(mut self: Box<Self>, input: Option<Input<'_>>, context: &mut Context<'_>) -> (Phase, bool) {
        match input {
            Some(Input::Opened(opened)) => self.opened(opened, context),
            Some(Input::FileBytes(chunk)) => {
                if let Stage::Sending { next, end, is_reading } = &mut self.stage {
                    let take = (*end - *next).min((chunk.end - chunk.start) as u64);
                    if take == 0 {
                        // Content-Length was already sent: only closing the connection signals the truncation.
                        return (over(Ending::FileCutShort, context), false);
                    }
                    *next += take;
                    *is_reading = false;
                    let range = chunk.start..chunk.start + take as usize;
                    context.out.push(Effect::Forward { to: End::Client, range });
                }
            }
            Some(Input::Drained) => {
                self.wait(context);
                return self.drained(context);
            }
            Some(Input::Deadline) => return (over(Ending::TimedOut(Step::Reply), context), false),
            Some(Input::Ended(End::Client)) => self.has_client_ended = true,
            Some(Input::Stop) => self.keep_alive = false,
            _ => {}
        }
        (Phase::Reply(self), false)
    }

    /// Restarts the client's timeout.
    fn wait(&mut self, context: &mut Context<'_>) {
        self.timeouts.since_ms = context.now_ms;
        context.deadline_in(self.timeouts.stall_ms);
    }

    /// Tries the next precompressed variant, last the file itself.
    fn open_next(&mut self, context: &mut Context<'_>) {
        self.stage = Stage::Opening;
        self.coding = self.codings.pop();
        self.open(context);
    }

    fn open(&self, context: &mut Context<'_>) {
        let path = match self.coding {
            Some(coding) => Cow::Owned(variant(&self.path, coding)),
            None => Cow::Borrowed(&*self.path),
        };
        context.out.push(Effect::open(Folder::Www, &path, OpenFor::Reading));
    }

    /// A precompressed variant exists. It is sent unless the file itself is newer; equal times are accepted.
    fn opened_variant(&mut self, status: FileStatus, context: &mut Context<'_>) {
        match self.plain {
            Plain::Modified(Some(modified)) if modified > (status.modified_s, status.modified_ns) => {
                self.open_next(context);
            }
            Plain::Modified(_) => self.send_file(status, context),
            Plain::Unknown | Plain::Asked => {
                self.plain = Plain::Asked;
                context.out.push(Effect::open(Folder::Www, &self.path, OpenFor::Connecting));
            }
        }
    }

    /// A name that has a backend and no file is answered with 426 (RFC 9110 section 15.5.22). A denied name is not
    /// looked up, so that the reply does not reveal whether it exists.
    fn look_for_backend(&mut self, status: u16, sentence: &'static str, context: &mut Context<'_>) {
        let site = context.site();
        match site.rules.permit(&self.name) {
            true if site.link_of(&self.name).is_some() => self.require_upgrade(context),
            true if site.has_docroot && !self.name.is_empty() => {
                self.stage = Stage::Looking(status, sentence);
                context.out.push(Effect::open(Folder::Docroot, &self.name, OpenFor::Connecting));
            }
            _ => self.refuse(status, sentence, "", context),
        }
    }

    fn require_upgrade(&mut self, context: &mut Context<'_>) {
        self.refuse(426, "this name speaks WebSocket", "", context);
    }

    fn opened(&mut self, opened: Result<FileKind, OpenError>, context: &mut Context<'_>) {
        if let Stage::Looking(status, sentence) = self.stage {
            return match opened {
                Ok(FileKind::Socket(_)) => self.require_upgrade(context),
                Err(OpenError { cause: OpenCause::NoDescriptors, .. }) => {
                    self.refuse(503, "out of file descriptors", "", context)
                }
                _ => self.refuse(status, sentence, "", context),
            };
        }
        match (opened.map_err(|error| (error.cause, error.error)), self.coding) {
            (Err((OpenCause::NoDescriptors, _)), _) => self.refuse(503, "out of file descriptors", "", context),
            (_, Some(_)) if matches!(self.plain, Plain::Asked) => {
                let modified = match opened {
                    Ok(FileKind::Regular(status)) => Some((status.modified_s, status.modified_ns)),
                    _ => None,
                };
                self.plain = Plain::Modified(modified);
                self.open(context);
            }
            (Ok(FileKind::Regular(status)), Some(_)) => self.opened_variant(status, context),
            // A variant that cannot be opened counts as absent.
            (_, Some(_)) => self.open_next(context),
            (Ok(FileKind::Regular(status)), None) if self.codings.takes_plain => self.send_file(status, context),
            (Ok(FileKind::Regular(_)), None) => {
                self.refuse(406, "this page has no encoding that the client takes", "", context);
            }
            // The empty name is the index of the root itself: no redirection to a slash.
            (Ok(FileKind::Folder), None) if !self.has_slash && !self.name.is_empty() => {
                let location = files::location_of(&self.name, self.query.as_deref());
                self.send(301, &redirection(&location), context);
            }
            (Ok(_) | Err((OpenCause::NotFound | OpenCause::NoPeer, _)), None) => {
                self.look_for_backend(404, "there is no such page", context);
            }
            (Err((OpenCause::Forbidden, _)), None) => {
                self.refuse(403, "this page may not be read", "", context);
            }
            // The driver has already retried.
            (Err((OpenCause::TryAgain, error)), None) => {
                context.out.push(Effect::Log(Level::Warn, format!("{}: {error}", Quoted(&self.path))));
                self.refuse(503, "this page cannot be read now", "", context);
            }
            (Err((_, error)), None) => {
                context.out.push(Effect::Log(Level::Error, format!("{}: {error}", Quoted(&self.path))));
                self.refuse(500, "this page cannot be read", "", context);
            }
        }
    }

    fn send_file(&mut self, status: FileStatus, context: &mut Context<'_>) {
        let FileStatus { size, inode, file_system, mount, .. } = status;
        let (modified, changed) = ((status.modified_s, status.modified_ns), (status.changed_s, status.changed_ns));
        let version = Version { size, modified, changed, inode, file_system, mount };
        let (site, date) = (context.site(), context.date);
        let file = Representation::new(&version, context.tag_salt, self.coding);
        let part = match self.conditions.select(&file, date.unix_s()) {
            Selection::Whole => None,
            Selection::Part(first, last) => Some((first, last)),
            Selection::NotModified => return self.send(304, &self.cache_fields(&file, site), context),
            Selection::PreconditionFailed => {
                return self.refuse(412, "this page is not the one that is meant", "", context);
            }
            Selection::Unsatisfiable => {
                let fields = format!("Content-Range: bytes */{size}\r\n");
                return self.refuse(416, "this page has no such part", &fields, context);
            }
        };
        let content = file.content_fields(files::content_type(&self.path), part, date);
        let fields = self.cache_fields(&file, site) + &content;
        self.send(if part.is_some() { 206 } else { 200 }, &fields, context);
        let (next, end) = part.map_or((0, size), |(first, last)| (first, last + 1));
        if next < end && !self.is_head {
            self.stage = Stage::Sending { next, end, is_reading: false };
        }
    }

    fn cache_fields(&self, file: &Representation, site: &Site) -> String {
        file.cache_fields(may_have_variants(&self.path)) + &site.page_fields(&self.path)
    }

    fn send(&mut self, status: u16, fields: &str, context: &mut Context<'_>) {
        self.leave_replaced(context);
        let fields = format!("{}{}", self.fields, context.fields(fields));
        let bytes = reply::head(status, &fields, self.keep_alive, context.date).into_bytes().into();
        self.queue(status, bytes, context);
    }

    fn refuse(&mut self, status: u16, sentence: &str, fields: &str, context: &mut Context<'_>) {
        self.leave_replaced(context);
        let fields = format!("{}{}", self.fields, context.fields(fields));
        let bytes = reply::refusal(status, sentence, &fields, self.keep_alive, self.is_head, context.date);
        self.queue(status, bytes, context);
    }

    /// After a reload a client connects again, so that its further requests are judged by the new rules.
    fn leave_replaced(&mut self, context: &Context<'_>) {
        self.keep_alive &= !context.sites.are_replaced();
    }

    fn queue(&mut self, status: u16, bytes: Box<[u8]>, context: &mut Context<'_>) {
        *context.status = status;
        let client = self.client.map(|client| format!(" for {client}")).unwrap_or_default();
        let line = format!("{} {} {status}{client}", self.method, Quoted(&self.name));
        context.out.push(Effect::Log(Level::Debug, line));
        context.out.push(Effect::Send { to: End::Client, bytes });
        self.stage = Stage::Finishing;
    }

    /// The queued bytes are sent: reads the next part of the file, or waits for the next request.
    fn drained(mut self: Box<Self>, context: &mut Context<'_>) -> (Phase, bool) {
        match &mut self.stage {
            Stage::Sending { next, end, is_reading } if *next < *end => {
                if !std::mem::replace(is_reading, true) {
                    context.out.push(Effect::ReadFile { offset: *next });
                }
                return (Phase::Reply(self), false);
            }
            Stage::Opening
            | Stage::Looking(..)
            | Stage::Refused(..)
            | Stage::Missing(..)
            | Stage::Redirected(..)
            | Stage::Options => {
                return (Phase::Reply(self), false);
            }
            Stage::Sending { .. } | Stage::Finishing => {}
        }
        context.out.push(Effect::CloseFile);
        if self.keep_alive {
            context.deadline_in(context.site().limits.keepalive_ms);
            return (Phase::Head(RequestHead::next(self.is_probe, self.client, self.is_admitted, context)), true);
        }
        // A client that has already ended is not waited for.
        let last = match self.has_client_ended {
            true => over(self.ending, context),
            false => Phase::Closing(Box::new(Closing::of_reply(self.ending, context))),
        };
        (last, false)
    }
}

/// The path of a precompressed variant of a file.
fn variant(path: &str, coding: Coding) -> String {
    format!("{path}{}", coding.ending())
}

/// Header fields of a redirection. No-cache, because a folder may become a file, and the port of https may change.
fn redirection(location: &str) -> String {
    format!("Location: {location}\r\nCache-Control: no-cache\r\nContent-Length: 0\r\n")
}
