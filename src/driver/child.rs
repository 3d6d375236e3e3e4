//! A program that runs as a child process, with an empty environment and standard input (fork(2), execve(2)). In place of
//! `std::process::Command`, which takes 35 kB of the binary.

use std::ffi::{CStr, c_char};
use std::os::fd::{BorrowedFd, OwnedFd, RawFd};
use std::ptr::null;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, FdFlag, OFlag, fcntl, open};
use nix::libc;
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::{SigHandler, SigSet, Signal, signal};
use nix::sys::stat::Mode;
use nix::unistd::{
    ForkResult, Gid, Pid, Uid, dup2_stderr, dup2_stdin, dup2_stdout, fork, getpid, getppid, pipe2, setgid, setgroups,
    setuid,
};

/// The exit status of a child that could not become the account, or execute the program.
pub(crate) const NOT_EXECUTED: i32 = 127;

/// Starts a program with these arguments, its own name first; as this account without supplementary groups, or as the
/// process's. Returns the child, which the caller waits for, and a pipe with its standard output and standard error.
/// Descriptors of the process are closed in it. It is killed when this thread ends (PR_SET_PDEATHSIG).
pub(crate) fn spawn(program: &CStr, arguments: &[&CStr], account: Option<(Uid, Gid)>) -> Result<(Pid, OwnedFd), Errno> {
    // A process whose parent ignores SIGCHLD ignores it too, and cannot wait for a child then (execve(2), wait(2)).
    // SAFETY: the default action runs no code of this process.
    unsafe { signal(Signal::SIGCHLD, SigHandler::SigDfl) }?;
    // This process opens all with close-on-exec. Others may have been left open in it by the program that started it.
    close_at_execution().or_else(|_| close_each_at_execution())?;
    let parent = getpid();
    let (output, writer) = pipe2(OFlag::O_CLOEXEC)?;
    let input = open("/dev/null", OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty())?;
    let arguments: Vec<*const c_char> = arguments.iter().map(|argument| argument.as_ptr()).chain([null()]).collect();
    // SAFETY: until it executes the program or exits, the child makes system calls only and allocates no memory, since
    // other threads may have held locks (signal-safety(7)).
    match unsafe { fork() }? {
        ForkResult::Parent { child } => Ok((child, output)),
        ForkResult::Child => {
            if prepare(parent, account, &input, &writer).is_ok() {
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

fn prepare(parent: Pid, account: Option<(Uid, Gid)>, input: &OwnedFd, output: &OwnedFd) -> Result<(), Errno> {
    // The event loop's thread blocks signals.
    SigSet::empty().thread_set_mask()?;
    dup2_stdin(input)?;
    dup2_stdout(output)?;
    dup2_stderr(output)?;
    if let Some((uid, gid)) = account {
        setgroups(&[])?;
        setgid(gid)?;
        setuid(uid)?;
    }
    // After setuid(2), which clears it.
    set_pdeathsig(Signal::SIGKILL)?;
    // The parent may have ended before.
    if getppid() == parent { Ok(()) } else { Err(Errno::ESRCH) }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::Read;
    use std::os::fd::AsRawFd;

    use nix::sys::wait::{WaitStatus, waitpid};

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
    fn a_program_that_cannot_be_executed() {
        for program in [c"/missing", c"/", c"/proc/version"] {
            assert_eq!(run(program, &[program]), (NOT_EXECUTED, String::new()));
        }
    }
}
