//! `-D`: the server runs in a child process. The parent exits when the child is ready, so that the socket accepts
//! connections when the command returns; else with the child's status (daemon(7), steps 5, 14 and 15 of SysV daemons).

use std::io::{PipeWriter, Read, Write, pipe};
use std::process::exit;

use nix::errno::Errno;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, chdir, dup2_stderr, dup2_stdin, dup2_stdout, fork, setsid};

/// A child process whose parent waits until it is ready.
pub(crate) struct Background {
    parent: PipeWriter,
}

impl Background {
    /// Continues in a child process, in a session of its own. Call it before other threads start. The error is the
    /// operator's sentence.
    pub(crate) fn enter() -> Result<Background, String> {
        let (mut child_reader, parent) = pipe().map_err(|error| format!("-D: {error}"))?;
        // SAFETY: this process has one thread, so that the child may call any function (fork(2)).
        match unsafe { fork() }.map_err(failed)? {
            ForkResult::Parent { child } => {
                drop(parent);
                let is_ready = child_reader.read_exact(&mut [0]).is_ok();
                exit(if is_ready { 0 } else { exit_status(child) })
            }
            ForkResult::Child => {
                setsid().map_err(failed)?;
                Ok(Background { parent })
            }
        }
    }

    /// Changes to /, replaces the standard streams by /dev/null, and tells the parent that the server is ready.
    pub(crate) fn announce(mut self) -> Result<(), String> {
        let null = std::fs::File::options().read(true).write(true).open("/dev/null");
        let null = null.map_err(|error| format!("-D: /dev/null: {error}"))?;
        chdir("/").map_err(failed)?;
        dup2_stdin(&null).and_then(|()| dup2_stdout(&null)).and_then(|()| dup2_stderr(&null)).map_err(failed)?;
        // It fails if the parent was killed, which does not concern the server.
        let _ = self.parent.write_all(&[0]);
        Ok(())
    }
}

fn failed(errno: Errno) -> String {
    format!("-D: {}", errno.desc())
}

/// Exit status of a child that ended before it was ready. It has printed why.
fn exit_status(child: Pid) -> i32 {
    match waitpid(child, None) {
        Ok(WaitStatus::Exited(_, status)) if status != 0 => status,
        _ => 1,
    }
}
