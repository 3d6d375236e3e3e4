//! Sockets inherited through LISTEN_FDS (sd_listen_fds(3)): no client is refused during a restart, and ports below 1024
//! need no privileges.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::sys::socket::{SockType, SockaddrStorage, UnixAddr, getsockname, getsockopt, setsockopt, sockopt};

use crate::driver::inherit::take_sockets;
use crate::observe::log::Quoted;
use crate::types::ListenAddress;

/// An inherited listening socket.
#[derive(Debug)]
pub struct Inherited {
    /// The descriptor.
    pub fd: OwnedFd,
    /// Its local address; an abstract UNIX address begins with @.
    pub address: ListenAddress,
    /// FileDescriptorName=; empty if unset.
    name: String,
    /// Whether an IPv6 socket accepts IPv4 too (IPV6_V6ONLY is off).
    is_dual: bool,
}

/// An inherited socket that cannot be used. Display names it, the cause and the remedy.
#[derive(Debug)]
pub enum InheritError {
    /// An environment variable is invalid.
    Variable(&'static str, String),
    /// A descriptor is not a listening stream socket.
    Unfit(RawFd, &'static str),
    /// A system call on a descriptor failed.
    Failed(RawFd, Errno),
}

impl fmt::Display for InheritError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            InheritError::Variable(name, value) => {
                write!(f, "{name}={value:?} is not a number: unset it, or start the daemon through its socket unit")
            }
            InheritError::Unfit(number, fault) => {
                write!(f, "the inherited file descriptor {number} {fault}: write ListenStream= in the socket unit")
            }
            InheritError::Failed(number, errno) => write!(
                f,
                "the inherited file descriptor {number} cannot be used: {}: correct the socket unit, or unset LISTEN_FDS",
                errno.desc()
            ),
        }
    }
}

/// Its address, and its name where it has one.
impl fmt::Display for Inherited {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name.as_str() {
            "" => self.address.fmt(f),
            name => write!(f, "{} ({})", self.address, Quoted(name)),
        }
    }
}

impl Inherited {
    /// Whether this is the socket that was asked for: it has this address, or it listens on all addresses of IPv6
    /// and IPv4 where all of one of them were asked for, as `ListenStream=80` does.
    pub fn is_for(&self, wanted: &ListenAddress) -> bool {
        match (&self.address, wanted) {
            (ListenAddress::Tcp(here), ListenAddress::Tcp(wanted)) if self.is_dual => {
                here.port() == wanted.port() && (here.ip() == wanted.ip() || wanted.ip().is_unspecified())
            }
            (here, wanted) => here == wanted,
        }
    }
}

/// The sockets that were opened for this process; none where nothing was. They can be taken once, before the
/// process opens anything itself. Nobody but their owner removes the files of those that are UNIX sockets.
pub fn inherited_listeners() -> Result<Vec<Inherited>, InheritError> {
    let variable = |name| std::env::var(name).ok();
    let count = announced(variable("LISTEN_PID").as_deref(), variable("LISTEN_FDS").as_deref(), std::process::id())?;
    if count == 0 {
        return Ok(Vec::new());
    }
    let names = variable("LISTEN_FDNAMES").unwrap_or_default();
    let names = names.split(':').chain(std::iter::repeat(""));
    let fds = take_sockets(count).map_err(|(number, errno)| match errno {
        Errno::ENOTSOCK => InheritError::Unfit(number, "is not a socket"),
        errno => InheritError::Failed(number, errno),
    })?;
    fds.into_iter().zip(names).map(|(fd, name)| inspect(fd, name)).collect()
}

/// The number of sockets for this process.
fn announced(for_process: Option<&str>, count: Option<&str>, this_process: u32) -> Result<u16, InheritError> {
    let (Some(for_process), Some(count)) = (for_process, count) else { return Ok(0) };
    let id: u32 = for_process.parse().map_err(|_| InheritError::Variable("LISTEN_PID", for_process.to_owned()))?;
    // A child of the one that they were meant for has inherited the variables alone.
    if id != this_process {
        return Ok(0);
    }
    count.parse().map_err(|_| InheritError::Variable("LISTEN_FDS", count.to_owned()))
}

fn inspect(fd: OwnedFd, name: &str) -> Result<Inherited, InheritError> {
    let number = fd.as_raw_fd();
    let failed = |errno| InheritError::Failed(number, errno);
    if getsockopt(&fd, sockopt::SockType) != Ok(SockType::Stream) {
        return Err(InheritError::Unfit(number, "is not a stream socket"));
    }
    if !getsockopt(&fd, sockopt::AcceptConn).map_err(failed)? {
        return Err(InheritError::Unfit(number, "does not listen"));
    }
    let bound: SockaddrStorage = getsockname(number).map_err(failed)?;
    let address = if let Some(v4) = bound.as_sockaddr_in() {
        ListenAddress::Tcp(SocketAddrV4::from(*v4).into())
    } else if let Some(v6) = bound.as_sockaddr_in6() {
        ListenAddress::Tcp(SocketAddrV6::from(*v6).into())
    } else if let Some(unix) = bound.as_unix_addr() {
        ListenAddress::Unix(unix_name(unix))
    } else {
        return Err(InheritError::Unfit(number, "is a socket of neither IPv4, IPv6 nor UNIX"));
    };
    let mut is_dual = false;
    if let ListenAddress::Tcp(tcp) = address {
        // As for the gateway's own listeners; accepted sockets inherit it.
        setsockopt(&fd, sockopt::TcpNoDelay, &true).map_err(failed)?;
        is_dual = is_all_of_ipv6(tcp) && !getsockopt(&fd, sockopt::Ipv6V6Only).map_err(failed)?;
    }
    Ok(Inherited { fd, address, name: name.to_owned(), is_dual })
}

fn is_all_of_ipv6(address: SocketAddr) -> bool {
    address.ip() == IpAddr::V6(Ipv6Addr::UNSPECIFIED)
}

fn unix_name(address: &UnixAddr) -> String {
    match (address.path(), address.as_abstract()) {
        (Some(path), _) => path.to_string_lossy().into_owned(),
        (None, name) => format!("@{}", String::from_utf8_lossy(name.unwrap_or_default())),
    }
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, UdpSocket};
    use std::os::linux::net::SocketAddrExt;
    use std::os::unix::net::{self as unix, UnixListener, UnixStream};
    use std::process::{Command, Stdio};

    use nix::fcntl::{FcntlArg, fcntl};

    use super::*;

    #[test]
    fn announcements() {
        for (for_process, count, expected) in [
            (None, None, Some(0)),
            (Some("7"), None, Some(0)),
            (None, Some("2"), Some(0)),
            (Some("7"), Some("2"), Some(2)),
            (Some("8"), Some("2"), Some(0)),
            (Some("8"), Some("many"), Some(0)),
            (Some("7"), Some("many"), None),
            (Some("7"), Some("-1"), None),
            (Some("7"), Some("4000000000"), None),
            (Some("self"), Some("2"), None),
        ] {
            let got = announced(for_process, count, 7);
            assert_eq!(got.as_ref().ok(), expected.as_ref(), "{for_process:?} {count:?}");
            if let Err(error) = got {
                assert!(error.to_string().contains("is not a number"), "{error}");
            }
        }
    }

    #[test]
    fn what_listens_is_known_by_its_address() {
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = ListenAddress::Tcp(tcp.local_addr().unwrap());
        let inherited = inspect(tcp.into(), "web").unwrap();
        assert_eq!((&inherited.address, inherited.name.as_str()), (&address, "web"));
        assert!(inherited.is_for(&address) && !inherited.is_for(&ListenAddress::Tcp(([127, 0, 0, 1], 1).into())));
        assert!(getsockopt(&inherited.fd, sockopt::TcpNoDelay).unwrap());

        let name = format!("uakari-test-{}-inherited", std::process::id());
        let unix = UnixListener::bind_addr(&unix::SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
        assert_eq!(inspect(unix.into(), "").unwrap().address, ListenAddress::Unix(format!("@{name}")));

        let path = std::env::temp_dir().join(&name);
        let unix = UnixListener::bind(&path).unwrap();
        let address = inspect(unix.into(), "").unwrap().address;
        std::fs::remove_file(&path).unwrap();
        assert_eq!(address, ListenAddress::Unix(path.to_str().unwrap().to_owned()));
    }

    #[test]
    fn all_addresses_of_ipv6_may_stand_for_those_of_ipv4() {
        // The standard library leaves IPV6_V6ONLY off.
        let Ok(tcp) = TcpListener::bind("[::]:0") else { return };
        let port = tcp.local_addr().unwrap().port();
        let only = tcp.try_clone().unwrap();
        let dual = inspect(tcp.into(), "").unwrap();
        let any4 = ListenAddress::Tcp(([0, 0, 0, 0], port).into());
        let any6 = ListenAddress::Tcp((Ipv6Addr::UNSPECIFIED, port).into());
        let one4 = ListenAddress::Tcp(([127, 0, 0, 1], port).into());
        assert_eq!([&any4, &any6, &one4].map(|wanted| dual.is_for(wanted)), [true, true, false]);
        assert!(!dual.is_for(&ListenAddress::Tcp(([0, 0, 0, 0], port ^ 1).into())));
        let only6 = Inherited { fd: only.into(), address: any6.clone(), name: String::new(), is_dual: false };
        assert_eq!([&any4, &any6, &one4].map(|wanted| only6.is_for(wanted)), [false, true, false]);
    }

    #[test]
    fn what_nobody_can_be_accepted_from() {
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = std::net::TcpStream::connect(tcp.local_addr().unwrap()).unwrap();
        let faults: [(OwnedFd, &str); 4] = [
            (UdpSocket::bind("127.0.0.1:0").unwrap().into(), "is not a stream socket"),
            (std::io::pipe().unwrap().0.into(), "is not a stream socket"),
            (client.into(), "does not listen"),
            (UnixStream::pair().unwrap().0.into(), "does not listen"),
        ];
        for (fd, fault) in faults {
            let number = fd.as_raw_fd();
            let sentence = inspect(fd, "").unwrap_err().to_string();
            assert!(sentence.contains(&format!("{number} {fault}")), "{sentence}");
        }
    }

    /// Starts itself once more as a service manager would, with sockets from 3 on. What the second one finds there
    /// is told to it by the first.
    #[test]
    fn sockets_are_inherited_from_3_on() {
        if let Ok(expected) = std::env::var("UAKARI_TEST_INHERITED") {
            return expect_inherited(&expected);
        }
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = tcp.local_addr().unwrap().to_string();
        for (count, opened, expected) in [
            ("1", "3<&0", address.as_str()),
            ("2", "3<&0 4<&0", "two"),
            ("1", "3</dev/null", "not a socket"),
            ("2", "3<&0 4<&-", "Bad file number"),
        ] {
            let script =
                format!("LISTEN_PID=$$ LISTEN_FDS={count} LISTEN_FDNAMES=web:more exec \"$0\" \"$@\" {opened}");
            let output = Command::new("sh")
                .args(["-c", &script])
                .arg(std::env::current_exe().unwrap())
                .args(["--exact", "process::inherited::tests::sockets_are_inherited_from_3_on"])
                .env("UAKARI_TEST_INHERITED", expected)
                .stdin(Stdio::from(OwnedFd::from(tcp.try_clone().unwrap())))
                .output()
                .unwrap();
            let out = String::from_utf8_lossy(&output.stdout);
            assert!(output.status.success() && out.contains("1 passed"), "{opened}: {out}");
        }
    }

    fn expect_inherited(expected: &str) {
        match (inherited_listeners(), expected) {
            (Ok(all), "two") => {
                let names: Vec<&str> = all.iter().map(|one| one.name.as_str()).collect();
                assert_eq!(names, ["web", "more"]);
            }
            (Ok(all), address) => {
                let [one] = all.as_slice() else { panic!("{all:?}") };
                assert_eq!((one.address.clone(), one.name.as_str()), (address.parse().unwrap(), "web"));
                assert_eq!(one.fd.as_raw_fd(), 3);
                let flags = fcntl(&one.fd, FcntlArg::F_GETFD).unwrap();
                assert_eq!(flags, nix::libc::FD_CLOEXEC);
                assert!(inherited_listeners().unwrap().is_empty(), "they are handed out once");
            }
            (Err(error), part) => assert!(error.to_string().contains(part), "{error}"),
        }
    }
}
