//! Opens and reads of files. What the kernel has in its caches is taken at once; the rest is left to threads, since a
//! disk or a network file system may take any time.

use std::ffi::CString;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::libc;

use super::Epoll;
use super::sockets::SocketKind;
use super::workers::{Job, Outcome, read_at};
use crate::driver::opening::{LookupSupport, OpenRequest, openat2, with_kind};
use crate::driver::{Event, FileKind, Lease, OpenFor, Reach, Received, Share, Token};
use crate::limits::POOL_HEADROOM;

/// An open or a read that a thread performs.
pub(super) struct FileJob {
    token: Token,
    /// The buffer that is read into; None: an open.
    lease: Option<Lease>,
}

impl Epoll {
    /// Opens a path, at once if its components are in the kernel's cache.
    pub(super) fn begin_open(&mut self, token: Token, reach: Reach<'_, OwnedFd>, path: CString, purpose: OpenFor) {
        let lookup = OpenRequest::new(&reach, purpose);
        // A device's own open may take its time.
        if self.lookup_support == LookupSupport::Cached && !matches!(purpose, OpenFor::Speaking(_)) {
            match openat2(lookup.folder, &path, lookup.flags, lookup.resolve | libc::RESOLVE_CACHED) {
                Err(Errno::EAGAIN) => {}
                result => return self.push_opened(token, result.and_then(|fd| with_kind(fd, purpose))),
            }
        }
        let job = Job::Open { lookup, support: self.lookup_support, path, purpose };
        self.begin_job(FileJob { token, lease: None }, job);
    }

    /// Reads from a file, at once if the page cache has it.
    pub(super) fn begin_read(&mut self, token: Token, file: &OwnedFd, offset: u64) {
        let pool = &mut self.pools[Share::Requests as usize];
        let Some(lease) = pool.take() else {
            return self.push(token, Event::Received { result: Received::Failed(Errno::ENOBUFS), more: false });
        };
        let fd = file.as_raw_fd();
        match read_at(fd, &mut pool.buffer(&lease)[POOL_HEADROOM..], offset, Some(libc::RWF_NOWAIT)) {
            Ok(size @ 1..) => self.push_read(token, lease, Ok(size)),
            // Not cached, or not supported by the file system. Linux 5.9 and 5.10 may return 0 before the end of a file
            // (readv(2)).
            Ok(0) | Err(Errno::EAGAIN | Errno::EOPNOTSUPP | Errno::ENOSYS | Errno::EINVAL | Errno::EPERM) => {
                self.sockets.at(fd).kind = SocketKind::SlowFile;
                let Some(memory) = pool.lend_memory(&lease) else {
                    return self.push_read(token, lease, Err(Errno::EIO));
                };
                self.begin_job(FileJob { token, lease: Some(lease) }, Job::Read { fd, offset, memory });
            }
            Err(errno) => self.push_read(token, lease, Err(errno)),
        }
    }

    fn begin_job(&mut self, file_job: FileJob, job: Job) {
        let id = self.jobs.insert(file_job);
        let is_device = matches!(job, Job::Open { purpose: OpenFor::Speaking(_), .. });
        if is_device { &self.device_workers } else { &self.workers }.begin(id, job);
    }

    /// Completes the jobs that threads have finished.
    pub(super) fn take_finished(&mut self) {
        let finished = self.workers.take_finished().into_iter().chain(self.device_workers.take_finished());
        for (id, outcome) in finished {
            self.end_job(id, outcome);
        }
    }

    fn end_job(&mut self, id: usize, outcome: Outcome) {
        let FileJob { token, lease } = self.jobs.remove(id);
        match (outcome, lease) {
            (Outcome::Opened(opened), _) => {
                let number = opened.as_ref().ok().map(|(fd, kind)| (fd.as_raw_fd(), *kind));
                self.push_opened(token, opened);
                if let Some((number, FileKind::Regular(_))) = number {
                    self.sockets.at(number).kind = SocketKind::SlowFile;
                }
            }
            (Outcome::Read { memory, result }, Some(lease)) => {
                self.pools[lease.share as usize].return_memory(&lease, memory);
                self.push_read(token, lease, result);
            }
            (Outcome::Read { .. }, None) => {}
        }
    }

    /// Cancels a job that no thread has begun; another one completes with its result.
    pub(super) fn cancel_job(&mut self, token: Token) {
        let Some((id, _)) = self.jobs.iter().find(|(_, job)| job.token == token) else { return };
        if let Some(job) = self.workers.cancel(id).or_else(|| self.device_workers.cancel(id)) {
            self.end_job(id, job.failed(Errno::ECANCELED));
        }
    }

    fn push_opened(&mut self, token: Token, opened: Result<(OwnedFd, FileKind), Errno>) {
        if let Ok((fd, _)) = &opened {
            self.sockets.begin(fd.as_raw_fd(), SocketKind::default());
        }
        self.push(token, Event::Opened(opened));
    }

    fn push_read(&mut self, token: Token, mut lease: Lease, result: Result<usize, Errno>) {
        let result = match result {
            Ok(size @ 1..) => {
                lease.end += size as u32;
                Received::Data(lease)
            }
            other => {
                self.pools[lease.share as usize].release(lease);
                other.map_or_else(Received::Failed, |_| Received::End)
            }
        };
        self.push(token, Event::Received { result, more: false });
    }
}
