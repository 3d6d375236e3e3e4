//! A program that runs as a child process, with an empty environment (fork(2), execve(2)). In place of
//! `std::process::Command`, which takes 35 kB of the binary.

use std::ffi::{CStr, c_char, c_ulong};
use std::fmt;
use std::io::stderr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd, RawFd};
use std::ptr::null;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, FdFlag, OFlag, fcntl, open};
use nix::libc;
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::{SigHandler, SigSet, Signal, kill, signal};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use nix::sys::stat::Mode;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{
    ForkResult, Gid, Pid, Uid, dup2_stderr, dup2_stdin, dup2_stdout, fork, getpid, getppid, pipe2, setgid, setgroups,
    setuid,
};

use crate::limits::CHILD_END_MS;

/// The exit status of a child that could not become the account, or execute the program.
pub(crate) const NOT_EXECUTED: i32 = 127;

/// The standard streams of a child.
struct Streams<'a> {
    input: BorrowedFd<'a>,
    output: BorrowedFd<'a>,
    error: BorrowedFd<'a>,
}

/// Starts a program with these arguments, its own name first, and an empty standard input; as this account without
/// supplementary groups, or as the process's. Returns the child, which the caller waits for, and a pipe with its standard
/// output and standard error. Descriptors of the process are closed in it. It is killed when this thread ends
/// (PR_SET_PDEATHSIG).
pub(crate) fn spawn(program: &CStr, arguments: &[&CStr], account: Option<(Uid, Gid)>) -> Result<(Pid, OwnedFd), Errno> {
    let (output, writer) = pipe2(OFlag::O_CLOEXEC)?;
    let input = open_null(OFlag::O_RDONLY)?;
    let streams = Streams { input: input.as_fd(), output: writer.as_fd(), error: writer.as_fd() };
    Ok((start(program, arguments, account, streams)?, output))
}

/// As `spawn`, with a connected stream socket as the standard input, whose other end is returned, and the standard error of
/// the process. What the program prints is dropped.
pub(crate) fn spawn_with_socket(
    program: &CStr,
    arguments: &[&CStr],
    account: Option<(Uid, Gid)>,
) -> Result<(Child, OwnedFd), Errno> {
    let (own, input) = socketpair(AddressFamily::Unix, SockType::Stream, None, SockFlag::SOCK_CLOEXEC)?;
    let output = open_null(OFlag::O_WRONLY)?;
    let error = stderr();
    let streams = Streams { input: input.as_fd(), output: output.as_fd(), error: error.as_fd() };
    Ok((Child(Some(start(program, arguments, account, streams)?)), own))
}

/// Killed children that had not ended in time.
static LEFT: Mutex<Vec<Pid>> = Mutex::new(Vec::new());

/// A child that is killed when it is dropped, and waited for.
#[derive(Debug)]
pub(crate) struct Child(Option<Pid>);

impl Child {
    /// Kills it unless it has ended. `ended` tells when it has, and how.
    pub(crate) fn kill(&mut self) {
        if let Some(pid) = self.0 {
            // It has not been waited for, so its number is not that of another process. If it has ended before, the signal
            // does not change how (kill(2)).
            let _ = kill(pid, Signal::SIGKILL);
        }
    }

    /// How it ended. None: it has not. Does not wait. After the first result it is not known.
    pub(crate) fn ended(&mut self) -> Option<ChildEnd> {
        let Some(pid) = self.0 else { return Some(ChildEnd::Unknown) };
        let end = match waitpid(pid, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::StillAlive) => return None,
            Ok(WaitStatus::Exited(_, NOT_EXECUTED)) => ChildEnd::NotExecuted,
            Ok(WaitStatus::Exited(_, status)) => ChildEnd::Exited(status),
            Ok(WaitStatus::Signaled(_, signal, _)) => ChildEnd::Signalled(signal),
            _ => ChildEnd::Unknown,
        };
        self.0 = None;
        Some(end)
    }

    /// Kills it unless it has ended, waits for its end, and tells how it ended. Not for the event loop: it takes up to
    /// 10 s.
    pub(crate) fn end(mut self) -> ChildEnd {
        self.leave()
    }

    fn leave(&mut self) -> ChildEnd {
        self.kill();
        let end = self.wait(Duration::from_millis(CHILD_END_MS));
        left().extend(self.0.take());
        end.unwrap_or(ChildEnd::Unknown)
    }

    fn wait(&mut self, time: Duration) -> Option<ChildEnd> {
        let until = Instant::now() + time;
        loop {
            let end = self.ended();
            if end.is_some() || Instant::now() >= until {
                return end;
            }
            sleep(Duration::from_millis(1));
        }
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        self.leave();
    }
}

fn left() -> MutexGuard<'static, Vec<Pid>> {
    LEFT.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Removes from the process table the children that were killed and have ended since.
fn reap_left() {
    left().retain(|pid| waitpid(*pid, Some(WaitPidFlag::WNOHANG)) == Ok(WaitStatus::StillAlive));
}

/// How a child ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum ChildEnd {
    /// It could not become the account, or the program was not executed.
    NotExecuted,
    /// With this status.
    Exited(i32),
    /// By this signal.
    Signalled(Signal),
    /// The process has no such child.
    Unknown,
}

impl fmt::Display for ChildEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ChildEnd::NotExecuted => f.write_str("it cannot be executed"),
            ChildEnd::Exited(status) => write!(f, "it exited with status {status}"),
            ChildEnd::Signalled(signal) => write!(f, "it was ended by signal {}", *signal as i32),
            ChildEnd::Unknown => f.write_str("its exit status is unknown"),
        }
    }
}

fn open_null(access: OFlag) -> Result<OwnedFd, Errno> {
    open("/dev/null", access | OFlag::O_CLOEXEC, Mode::empty())
}

fn start(program: &CStr, arguments: &[&CStr], account: Option<(Uid, Gid)>, streams: Streams<'_>) -> Result<Pid, Errno> {
    reap_left();
    // A process whose parent ignores SIGCHLD ignores it too, and cannot wait for a child then (execve(2), wait(2)).
    // SAFETY: the default action runs no code of this process.
    unsafe { signal(Signal::SIGCHLD, SigHandler::SigDfl) }?;
    // This process opens all with close-on-exec. Others may have been left open in it by the program that started it.
    close_at_execution().or_else(|_| close_each_at_execution())?;
    let parent = getpid();
    let arguments: Vec<*const c_char> = arguments.iter().map(|argument| argument.as_ptr()).chain([null()]).collect();
    // SAFETY: until it executes the program or exits, the child makes system calls only and allocates no memory, since
    // other threads may have held locks (signal-safety(7)).
    match unsafe { fork() }? {
        ForkResult::Parent { child } => Ok(child),
        ForkResult::Child => {
            if prepare(parent, account, streams).is_ok() {
                // SAFETY: the strings are borrowed by the caller's slices, and both arrays end with a null pointer.
                unsafe { libc::execve(program.as_ptr(), arguments.as_ptr(), [null()].as_ptr()) };
            }
            // SAFETY: _exit(2) runs no handlers of the process, and has no requirements.
            unsafe { libc::_exit(NOT_EXECUTED) }
        }
    }
}

/// Sets close-on-exec for all descriptors but standard input, output and error (close_range(2), Linux 5.11).
fn close_at_execution() -> Result<(), Errno> {
    // SAFETY: the call has no pointers, and closes nothing in this process.
    let result = unsafe { libc::syscall(libc::SYS_close_range, 3u32, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) };
    Errno::result(result).map(drop)
}

/// The same for older kernels.
fn close_each_at_execution() -> Result<(), Errno> {
    let listed = std::fs::read_dir("/proc/self/fd").map_err(|_| Errno::ENOSYS)?;
    let numbers = listed.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<RawFd>().ok());
    for number in numbers.filter(|number| *number > 2) {
        // SAFETY: the call does not outlive the descriptor: if another thread has closed it, the call has no effect, or
        // one on a descriptor that has close-on-exec already.
        let descriptor = unsafe { BorrowedFd::borrow_raw(number) };
        let _ = fcntl(descriptor, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC));
    }
    Ok(())
}

fn prepare(parent: Pid, account: Option<(Uid, Gid)>, streams: Streams<'_>) -> Result<(), Errno> {
    // The event loop's thread blocks signals.
    SigSet::empty().thread_set_mask()?;
    dup2_stdin(streams.input)?;
    dup2_stdout(streams.output)?;
    dup2_stderr(streams.error)?;
    if let Some((uid, gid)) = account {
        setgroups(&[])?;
        setgid(gid)?;
        setuid(uid)?;
    }
    // CAP_NET_BIND_SERVICE of a service manager (AmbientCapabilities=) is for the daemon alone. Without ambient ones, a user
    // other than root has no capabilities after execve(2), and no_new_privs adds none. Root keeps its own: it reads the
    // files of others.
    clear_ambient_capabilities()?;
    // After setuid(2), which clears it.
    set_pdeathsig(Signal::SIGKILL)?;
    // The parent may have ended before.
    if getppid() == parent { Ok(()) } else { Err(Errno::ESRCH) }
}

/// Empties the set of the capabilities that execve(2) passes on (capabilities(7)).
fn clear_ambient_capabilities() -> Result<(), Errno> {
    const NONE: c_ulong = 0;
    let operation = libc::PR_CAP_AMBIENT_CLEAR_ALL as c_ulong;
    // SAFETY: the call has no pointers.
    let result = unsafe { libc::prctl(libc::PR_CAP_AMBIENT, operation, NONE, NONE, NONE) };
    match Errno::result(result) {
        // Linux before 4.3 has no such set.
        Ok(_) | Err(Errno::EINVAL) => Ok(()),
        Err(errno) => Err(errno),
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::{Read, Write};
    use std::net::Shutdown;
    use std::os::fd::AsRawFd;
    use std::os::unix::net::UnixStream;

    use nix::sys::wait::{Id, WaitStatus, waitid, waitpid};

    use super::*;

    /// The exit status and the output.
    fn run(program: &CStr, arguments: &[&CStr]) -> (i32, String) {
        let (child, output) = spawn(program, arguments, None).unwrap();
        let mut text = String::new();
        File::from(output).read_to_string(&mut text).unwrap();
        match waitpid(child, None) {
            Ok(WaitStatus::Exited(_, status)) => (status, text),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_child_gets_nothing_but_its_arguments() {
        // This thread's alone.
        SigSet::from_iter([Signal::SIGTERM, Signal::SIGUSR2]).thread_block().unwrap();
        let (status, text) = run(c"/bin/cat", &[c"cat", c"/proc/self/environ", c"/proc/self/cmdline", c"-"]);
        assert_eq!((status, &*text), (0, "cat\0/proc/self/environ\0/proc/self/cmdline\0-\0"));
        let (status, text) = run(c"/bin/cat", &[c"cat", c"/proc/self/status"]);
        assert!(status == 0 && text.contains("SigBlk:\t0000000000000000\n"), "{text}");
        let (status, text) = run(c"/bin/ls", &[c"ls", c"/missing"]);
        assert!(status != 0 && text.contains("/missing"), "{text}");
    }

    /// As the program that starts the daemon may leave one open in it.
    #[test]
    fn descriptors_without_close_on_exec_do_not_reach_a_child() {
        for close in [close_at_execution, close_each_at_execution] {
            let file = File::open("/dev/zero").unwrap();
            fcntl(&file, FcntlArg::F_SETFD(FdFlag::empty())).unwrap();
            // An old kernel has no close_range(2).
            if close() != Err(Errno::ENOSYS) {
                assert_eq!(fcntl(&file, FcntlArg::F_GETFD), Ok(FdFlag::FD_CLOEXEC.bits()));
            }
            fcntl(&file, FcntlArg::F_SETFD(FdFlag::empty())).unwrap();
            let (status, text) = run(c"/bin/ls", &[c"ls", c"-l", c"/proc/self/fd"]);
            assert!(status == 0 && !text.contains("/dev/zero"), "{}: {text}", file.as_raw_fd());
        }
    }

    /// Otherwise its end could not be waited for. This test has a process of its own, since others wait for children too.
    #[test]
    fn a_process_that_ignores_the_end_of_children() {
        if std::env::var_os("UAKARI_TEST_CHILDREN").is_none() {
            let mut alone = std::process::Command::new(std::env::current_exe().unwrap());
            alone.args(["--exact", "driver::child::tests::a_process_that_ignores_the_end_of_children"]);
            let output = alone.env("UAKARI_TEST_CHILDREN", "").output().unwrap();
            let out = String::from_utf8_lossy(&output.stdout);
            return assert!(output.status.success() && out.contains("1 passed"), "{out}");
        }
        // SAFETY: no code of this process runs in a handler.
        unsafe { signal(Signal::SIGCHLD, SigHandler::SigIgn) }.unwrap();
        assert_eq!(run(c"/bin/true", &[c"true"]), (0, String::new()));
    }

    #[test]
    fn a_child_ends_with_the_thread_that_started_it() {
        let begin = || {
            let script = c"echo; exec sleep 1000";
            let (child, output) = spawn(c"/bin/sh", &[c"sh", c"-c", script], None).unwrap();
            // It has executed the program.
            File::from(output).read_exact(&mut [0]).unwrap();
            child
        };
        let child = std::thread::spawn(begin).join().unwrap();
        assert_eq!(waitpid(child, None), Ok(WaitStatus::Signaled(child, Signal::SIGKILL, false)));
    }

    #[test]
    fn a_child_with_a_socket() {
        let (child, socket) = spawn_with_socket(c"/bin/sh", &[c"sh", c"-c", c"cat >&0; exit 3"], None).unwrap();
        let mut stream = UnixStream::from(socket);
        stream.write_all(b"hello").unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        // It closes its end before its exit: it may be killed in between.
        let end = child.end();
        assert!(matches!(end, ChildEnd::Exited(3) | ChildEnd::Signalled(Signal::SIGKILL)), "{end}");
        assert_eq!(text, "hello");
        let (child, _socket) = spawn_with_socket(c"/bin/sleep", &[c"sleep", c"1000"], None).unwrap();
        assert_eq!(child.end(), ChildEnd::Signalled(Signal::SIGKILL));
        let (child, socket) = spawn_with_socket(c"/missing", &[c"missing"], None).unwrap();
        assert_eq!(UnixStream::from(socket).read(&mut [0]).unwrap(), 0);
        let end = child.end();
        assert!(matches!(end, ChildEnd::NotExecuted | ChildEnd::Signalled(Signal::SIGKILL)), "{end}");
    }

    #[test]
    fn the_end_of_a_child_that_is_killed_after_it() {
        let (mut child, _socket) = spawn_with_socket(c"/bin/sh", &[c"sh", c"-c", c"exit 3"], None).unwrap();
        // It has ended, and is not waited for.
        waitid(Id::Pid(child.0.unwrap()), WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT).unwrap();
        child.kill();
        assert_eq!(child.ended(), Some(ChildEnd::Exited(3)));
        let (child, _socket) = spawn_with_socket(c"/missing", &[c"missing"], None).unwrap();
        waitid(Id::Pid(child.0.unwrap()), WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT).unwrap();
        assert_eq!(child.end(), ChildEnd::NotExecuted);
    }

    /// The event loop never waits for a child, even if the kernel does not end it.
    #[test]
    fn a_killed_child_that_does_not_end_at_once() {
        let (mut child, _socket) = spawn_with_socket(c"/bin/sleep", &[c"sleep", c"1000"], None).unwrap();
        let pid = child.0.unwrap();
        assert_eq!(child.ended(), None, "it runs");
        child.kill();
        assert_eq!(child.wait(Duration::from_secs(60)), Some(ChildEnd::Signalled(Signal::SIGKILL)));
        assert_eq!((child.ended(), waitpid(pid, None)), (Some(ChildEnd::Unknown), Err(Errno::ECHILD)));
        // One whose end is not waited for is no zombie for ever.
        let (mut child, _socket) = spawn_with_socket(c"/bin/sleep", &[c"sleep", c"1000"], None).unwrap();
        let pid = child.0.take().unwrap();
        left().push(pid);
        reap_left();
        assert!(left().contains(&pid), "it runs");
        kill(pid, Signal::SIGKILL).unwrap();
        while left().contains(&pid) {
            reap_left();
        }
        assert_eq!(waitpid(pid, None), Err(Errno::ECHILD));
    }

    #[test]
    fn a_program_that_cannot_be_executed() {
        for program in [c"/missing", c"/", c"/proc/version"] {
            assert_eq!(run(program, &[program]), (NOT_EXECUTED, String::new()));
        }
    }
}
