//! Servers that listen and take nobody: the kernel passes no more descriptors on for the gateway's user.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;

use super::{DIRECT, converse};
use crate::client::{Client, Frame};
use crate::daemon::Daemon;
use crate::process::{eventually, skipped};
use crate::receiver::take;
use crate::server::{Kind, Listener};

const FILES: u32 = 128;

/// A server that every user may connect to.
fn open_to_all(daemon: &Daemon, name: &str) -> Listener {
    let path = daemon.socket(name);
    let server = Listener::bind(&path, Kind::Stream);
    std::fs::set_permissions(path, Permissions::from_mode(0o777)).unwrap();
    server
}

#[test]
fn too_many_are_told_so() {
    // The kernel counts the descriptors in flight of a user, and those of the other tests would be among them. A user
    // without CAP_SYS_RESOURCE cannot go around its limit.
    let Some(daemon) = Daemon::start_lone_with_few_fds(FILES, DIRECT) else {
        return skipped("only root can start a daemon as a user of its own");
    };
    let (never, well) = (open_to_all(&daemon, "never"), open_to_all(&daemon, "well"));
    let (mut first, mut given) = (daemon.connect("/well"), take(&well));
    converse(&mut first, &mut given);
    // One of them is told behind its 101, since only then it is known.
    let mut waiting: Vec<Client> = Vec::new();
    eventually("one is refused", || {
        let mut wire = daemon.wire();
        let response = wire.upgrade("/never", &[]);
        match response.status {
            101 => waiting.push(Client::new(wire)),
            status => assert_eq!(status, 503, "{response:?}"),
        }
        response.status == 503
    });
    let last = waiting.last_mut().unwrap();
    assert_eq!(last.expect_close(1011), "too many clients wait for servers");
    last.wire.expect_end();
    waiting.pop();
    assert!(waiting.len() > FILES as usize / 2, "{} wait", waiting.len());
    daemon.log().wait_for(&["warn", "status=101", "not handed over (1011): too many clients"]);
    daemon.log().wait_for(&["warn", "status=503", "too many clients that servers in direct mode do not take"]);
    // It is the same for all servers, and those who are there do not notice.
    let response = daemon.upgrade("/well", &[]);
    assert!(response.status == 503 && !response.field("Retry-After").is_empty(), "{response:?}");
    converse(&mut first, &mut given);
    // Who waits is still there for a server that comes to its senses, and then there is room again at once.
    take(&never).client.send_frame(&Frame::close(1000, "late"));
    assert_eq!(waiting[0].expect_close(1000), "late");
    drop((take(&never), take(&never)));
    converse(&mut daemon.connect("/well"), &mut take(&well));
}
