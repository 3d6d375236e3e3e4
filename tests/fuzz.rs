//! What the fuzz targets in tests/fuzz have found, against the real daemon.

use std::fs::OpenOptions;
use std::io::Write;

use nix::sys::stat::Mode;
use nix::unistd::mkfifo;

use crate::links::configured_in;
use crate::process::Folder;

/// The gateway's own frames are for servers that can be told something: out of a pipe that is read, another client
/// would get them.
#[test]
fn no_frame_is_written_into_a_pipe_that_is_read() {
    let folder = Folder::new();
    let path = folder.path().join("pipe");
    mkfifo(&path, Mode::S_IRWXU).unwrap();
    let mut pipe = OpenOptions::new().read(true).write(true).open(&path).unwrap();
    let daemon = configured_in(
        folder,
        "links = ({ origin = \"^/pipe$\"; type = \"fifo\"; destination = \"@/pipe\"; protocol = \"frames\";
            limits = { clients = 2; }; });",
    );
    // Which of several that wait gets what is in the pipe is the kernel's choice.
    let mut stays = daemon.connect("/pipe");
    for _ in 0..4 {
        daemon.connect("/pipe").finish(1000);
    }
    pipe.write_all(b"\x81\x04text").unwrap();
    stays.expect_text("text");
    stays.finish(1000);
}
