//! The answer to a plain request: a file under the pages' folder, or a refusal.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use super::head::Head;
use super::{Action, Closing, Context, Demand, Ending, Folder, Input, Phase, Side, Step};
use crate::driver::{Errno, FileKind, OpenFor};
use crate::http::{files, reply};
use crate::observe::log::{Level, Quoted};

/// What stays as it is in the path of a Location.
const PATH: &AsciiSet = &NON_ALPHANUMERIC.remove(b'/').remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// A request that is being answered.
#[derive(Debug)]
pub struct Reply {
    name: Box<str>,
    path: Box<str>,
    is_head: bool,
    keep_alive: bool,
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    /// The file is being opened.
    Opening,
    /// So many bytes of the file have been queued, of so many.
    Sending { done: u64, size: u64, is_reading: bool },
    /// All is queued.
    Finishing,
}

impl Reply {
    /// Begins to answer a GET or HEAD.
    pub fn start(name: &str, slash: bool, is_head: bool, keep_alive: bool, context: &mut Context<'_>) -> Phase {
        let path: Box<str> = files::file_of(name, slash).into();
        context.out.push(Action::Demand(Side::Client, Demand::Nothing));
        let mut reply = Reply { name: name.into(), path, is_head, keep_alive, stage: Stage::Opening };
        if context.site().has_www {
            context.out.push(Action::open(Folder::Www, &reply.path, OpenFor::Reading));
        } else {
            reply.refuse(404, "there are no pages here", context);
        }
        context.deadline_in(context.site().limits.stall_ms);
        Phase::Reply(reply)
    }

    /// Takes an input. True: the next phase wants a step.
    pub fn step(mut self, input: Option<Input<'_>>, context: &mut Context<'_>) -> (Phase, bool) {
        match input {
            Some(Input::Opened(opened)) => self.opened(opened, context),
            Some(Input::FileBytes(chunk)) => {
                if let Stage::Sending { done, size, is_reading } = &mut self.stage {
                    let take = (*size - *done).min((chunk.end - chunk.start) as u64);
                    if take == 0 {
                        // The length has been promised: only the connection's end tells that it was not kept.
                        context.out.push(Action::End(Ending::FileCutShort));
                        return (Phase::Over, false);
                    }
                    *done += take;
                    *is_reading = false;
                    let range = chunk.start..chunk.start + take as usize;
                    context.out.push(Action::Forward { to: Side::Client, range });
                }
            }
            Some(Input::Drained) => {
                context.deadline_in(context.site().limits.stall_ms);
                return self.drained(context);
            }
            Some(Input::Deadline) => {
                context.out.push(Action::End(Ending::TimedOut(Step::Reply)));
                return (Phase::Over, false);
            }
            Some(Input::Stop) => self.keep_alive = false,
            _ => {}
        }
        (Phase::Reply(self), false)
    }

    fn opened(&mut self, opened: Result<FileKind, Errno>, context: &mut Context<'_>) {
        match opened {
            Ok(FileKind::Regular(size)) => {
                let content_type = files::content_type(&self.path);
                let fields = format!(
                    "Content-Type: {content_type}\r\nContent-Length: {size}\r\nX-Content-Type-Options: nosniff\r\n"
                );
                self.send(200, reply::head(200, &fields, self.keep_alive).into_bytes().into(), context);
                if size > 0 && !self.is_head {
                    self.stage = Stage::Sending { done: 0, size, is_reading: false };
                }
            }
            Ok(FileKind::Folder) if !self.path.ends_with(files::INDEX) => {
                let location = utf8_percent_encode(&self.name, PATH);
                let fields = format!("Location: /{location}/\r\nContent-Length: 0\r\n");
                self.send(301, reply::head(301, &fields, self.keep_alive).into_bytes().into(), context);
            }
            Ok(_) | Err(Errno::ENOENT | Errno::ENOTDIR | Errno::ENAMETOOLONG | Errno::ENXIO) => {
                self.refuse(404, "there is no such page", context);
            }
            Err(Errno::EXDEV | Errno::ELOOP | Errno::EACCES | Errno::EPERM) => {
                self.refuse(403, "this page may not be read", context);
            }
            Err(Errno::EMFILE | Errno::ENFILE) => self.refuse(503, "out of file descriptors", context),
            Err(errno) => {
                context.out.push(Action::Log(Level::Error, format!("{}: {}", Quoted(&self.path), errno.desc())));
                self.refuse(500, "this page cannot be read", context);
            }
        }
    }

    fn send(&mut self, status: u16, bytes: Box<[u8]>, context: &mut Context<'_>) {
        *context.status = status;
        let method = if self.is_head { "HEAD" } else { "GET" };
        context.out.push(Action::Log(Level::Info, format!("{method} {} {status}", Quoted(&self.name))));
        context.out.push(Action::Send { to: Side::Client, bytes });
        self.stage = Stage::Finishing;
    }

    fn refuse(&mut self, status: u16, sentence: &str, context: &mut Context<'_>) {
        let bytes = reply::refusal(status, sentence, self.keep_alive, self.is_head);
        self.send(status, bytes, context);
    }

    /// One piece is on its way: time for the next, or for the next request.
    fn drained(mut self, context: &mut Context<'_>) -> (Phase, bool) {
        match &mut self.stage {
            Stage::Sending { done, size, is_reading } if *done < *size => {
                if !std::mem::replace(is_reading, true) {
                    context.out.push(Action::ReadFile { offset: *done });
                }
                (Phase::Reply(self), false)
            }
            Stage::Opening => (Phase::Reply(self), false),
            Stage::Sending { .. } | Stage::Finishing => {
                context.out.push(Action::CloseFile);
                if self.keep_alive {
                    context.deadline_in(context.site().limits.keepalive_ms);
                    (Phase::Head(Head::next()), true)
                } else {
                    (Phase::Closing(Box::new(Closing::client_only(Ending::Served, context))), false)
                }
            }
        }
    }
}
