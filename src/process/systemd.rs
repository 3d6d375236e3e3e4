//! Notifications to the service manager (sd_notify(3), sd_watchdog_enabled(3)): one datagram per event, sent without
//! blocking. Without a service manager all calls do nothing.

use std::ffi::OsStr;
use std::fmt;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use nix::time::{ClockId, clock_gettime};

/// Why the service manager cannot be notified. Display names its address and the remedy.
#[derive(Debug)]
pub struct NotifyError {
    address: String,
    cause: io::Error,
}

impl fmt::Display for NotifyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let NotifyError { address, cause } = self;
        write!(f, "NOTIFY_SOCKET={address}: the service manager cannot be told: {cause}: correct or unset it")
    }
}

/// The connection to the service manager, if there is one.
pub struct Notifier {
    to: Option<Manager>,
}

struct Manager {
    socket: UnixDatagram,
    address: SocketAddr,
    name: String,
}

impl Notifier {
    /// The service manager that started this process, found by NOTIFY_SOCKET.
    pub fn from_env() -> Result<Notifier, NotifyError> {
        Notifier::new(std::env::var_os("NOTIFY_SOCKET").as_deref())
    }

    /// The service manager at `address`: an absolute path, or @ and an abstract name. None or empty: there is none.
    pub fn new(address: Option<&OsStr>) -> Result<Notifier, NotifyError> {
        let Some(address) = address.filter(|address| !address.is_empty()) else { return Ok(Notifier { to: None }) };
        let name = address.to_string_lossy().into_owned();
        let open = || {
            let to = match address.as_bytes() {
                [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
                [b'/', ..] => SocketAddr::from_pathname(address)?,
                _ => return Err(io::Error::other("it is neither a path from / on nor @ and a name")),
            };
            let socket = UnixDatagram::unbound()?;
            // The event loop must not block on the service manager.
            socket.set_nonblocking(true)?;
            Ok((socket, to))
        };
        match open() {
            Ok((socket, address)) => Ok(Notifier { to: Some(Manager { socket, address, name }) }),
            Err(cause) => Err(NotifyError { address: name, cause }),
        }
    }

    /// Startup or a reload has completed. `systemctl status` shows `status`.
    pub fn ready(&self, status: &str) -> Result<(), NotifyError> {
        self.send(&format!("READY=1\nSTATUS={}\n", one_line(status)))
    }

    /// A reload begins. `ready` must follow, whether the reload changed anything or not.
    pub fn reloading(&self) -> Result<(), NotifyError> {
        // The manager ignores a notification that is older than its own request.
        let now = clock_gettime(ClockId::CLOCK_MONOTONIC).map_or(0, |time| Duration::from(time).as_micros());
        self.send(&format!("RELOADING=1\nMONOTONIC_USEC={now}\n"))
    }

    /// Shutdown begins.
    pub fn stopping(&self) -> Result<(), NotifyError> {
        self.send("STOPPING=1\n")
    }

    /// Sets the text that `systemctl status` shows.
    pub fn status(&self, status: &str) -> Result<(), NotifyError> {
        self.send(&format!("STATUS={}\n", one_line(status)))
    }

    /// The watchdog notification, due every `watchdog_interval_ms`.
    pub fn watchdog(&self) -> Result<(), NotifyError> {
        self.send("WATCHDOG=1\n")
    }

    fn send(&self, message: &str) -> Result<(), NotifyError> {
        let Some(Manager { socket, address, name }) = &self.to else { return Ok(()) };
        let sent = socket.send_to_addr(message.as_bytes(), address);
        sent.map(drop).map_err(|cause| NotifyError { address: name.clone(), cause })
    }
}

/// Interval of watchdog notifications in milliseconds: half of the time after which the manager restarts the process.
/// None: the watchdog is off.
pub fn watchdog_interval_ms() -> Option<u64> {
    let variable = |name| std::env::var(name).ok();
    interval_ms(variable("WATCHDOG_USEC").as_deref(), variable("WATCHDOG_PID").as_deref(), std::process::id())
}

fn interval_ms(time_us: Option<&str>, for_process: Option<&str>, this_process: u32) -> Option<u64> {
    let time_us: u64 = time_us?.parse().ok().filter(|time_us| *time_us > 0)?;
    let is_ours = for_process.is_none_or(|id| id.parse() == Ok(this_process));
    is_ours.then_some((time_us / 2_000).max(1))
}

/// Replaces line ends, which would begin another variable.
fn one_line(text: &str) -> String {
    text.replace('\n', " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A service manager at an abstract name of its own, which needs no file.
    fn manager(name: &str) -> (UnixDatagram, Notifier) {
        let name = format!("uakari-test-{}-{name}", std::process::id());
        let socket = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        (socket, Notifier::new(Some(OsStr::new(&format!("@{name}")))).unwrap())
    }

    fn heard(manager: &UnixDatagram) -> String {
        let mut buffer = [0; 1024];
        let size = manager.recv(&mut buffer).expect("a message should come");
        String::from_utf8(buffer[..size].to_vec()).unwrap()
    }

    #[test]
    fn what_is_sent() {
        let (manager, notifier) = manager("sent");
        notifier.ready("2 listeners").unwrap();
        assert_eq!(heard(&manager), "READY=1\nSTATUS=2 listeners\n");
        notifier.status("a\nREADY=1").unwrap();
        assert_eq!(heard(&manager), "STATUS=a READY=1\n");
        notifier.watchdog().unwrap();
        assert_eq!(heard(&manager), "WATCHDOG=1\n");
        notifier.stopping().unwrap();
        assert_eq!(heard(&manager), "STOPPING=1\n");
    }

    #[test]
    fn a_reload_tells_the_time() {
        let (manager, notifier) = manager("reload");
        let now_us = || {
            let now = clock_gettime(ClockId::CLOCK_MONOTONIC).unwrap();
            Duration::from(now).as_micros()
        };
        let before = now_us();
        notifier.reloading().unwrap();
        let message = heard(&manager);
        let time = message.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").and_then(|rest| rest.strip_suffix('\n'));
        let time: u128 = time.and_then(|time| time.parse().ok()).unwrap_or_else(|| panic!("{message:?}"));
        assert!((before..=now_us()).contains(&time), "{before} {time}");
    }

    #[test]
    fn by_path_too() {
        let path = std::env::temp_dir().join(format!("uakari-test-notify-{}", std::process::id()));
        let manager = UnixDatagram::bind(&path).unwrap();
        manager.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        let notifier = Notifier::new(Some(path.as_os_str())).unwrap();
        notifier.stopping().unwrap();
        assert_eq!(heard(&manager), "STOPPING=1\n");
        drop(manager);
        std::fs::remove_file(&path).unwrap();
        let error = notifier.watchdog().unwrap_err().to_string();
        assert!(error.contains(path.to_str().unwrap()) && error.contains("No such file"), "{error}");
    }

    #[test]
    fn a_manager_that_does_not_read_is_not_waited_for() {
        let (_manager, notifier) = manager("full");
        let mut error = None;
        for _ in 0..100_000 {
            error = notifier.watchdog().err();
            if error.is_some() {
                break;
            }
        }
        let error = error.expect("its queue has an end");
        assert_eq!(error.cause.kind(), io::ErrorKind::WouldBlock, "{error}");
    }

    #[test]
    fn absent_and_invalid_sockets() {
        for absent in [None, Some("")] {
            let notifier = Notifier::new(absent.map(OsStr::new)).unwrap();
            assert!(notifier.ready("").is_ok() && notifier.watchdog().is_ok());
        }
        let long = format!("/{}", "x".repeat(200));
        for nonsense in ["vsock:2:1234", "run/notify", long.as_str()] {
            let error = Notifier::new(Some(OsStr::new(nonsense))).err().unwrap().to_string();
            assert!(error.contains(nonsense) && error.contains("NOTIFY_SOCKET"), "{error}");
        }
    }

    #[test]
    fn watchdog_intervals() {
        for (time_us, for_process, interval) in [
            (None, None, None),
            (Some("30000000"), None, Some(15_000)),
            (Some("30000000"), Some("7"), Some(15_000)),
            (Some("30000000"), Some("8"), None),
            (Some("30000000"), Some("seven"), None),
            (Some("100"), None, Some(1)),
            (Some("0"), None, None),
            (Some("-1"), None, None),
            (Some(""), Some("7"), None),
        ] {
            assert_eq!(interval_ms(time_us, for_process, 7), interval, "{time_us:?} {for_process:?}");
        }
    }
}
