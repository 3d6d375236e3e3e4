//! Terminal lines and named pipes: backends that are not sockets.

use std::os::fd::OwnedFd;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::stat::SFlag;
use nix::sys::termios::{BaudRate, ControlFlags, SetArg, cfmakeraw, cfsetspeed, tcgetattr, tcsetattr};

use super::status::status_of;

/// The direction of a named pipe, as seen by the gateway.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Direction {
    /// The gateway reads; the other program writes.
    Read,
    /// The gateway writes; the other program reads.
    Write,
}

/// A kind of device that serves as a backend.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Device {
    /// A terminal line with its speed.
    Tty {
        /// Speed in bits per second; one of `BAUD_RATES`.
        baud: u32,
    },
    /// A named pipe, or a character device that is used like one.
    Fifo(Direction),
}

/// The identity of an opened device, whatever its path. The read end and the write end of a pipe count as different
/// devices.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct DeviceId {
    /// Device number of a pipe's file system; 0 for a character device.
    pub(super) file_system: u64,
    /// Inode number of a pipe, or device number of a character device (st_rdev).
    pub(super) number: u64,
    pub(super) is_written_only: bool,
}

/// The supported speeds in bits per second (termios(3)).
pub const BAUD_RATES: [(u32, BaudRate); 26] = [
    (50, BaudRate::B50),
    (75, BaudRate::B75),
    (110, BaudRate::B110),
    (134, BaudRate::B134),
    (150, BaudRate::B150),
    (200, BaudRate::B200),
    (300, BaudRate::B300),
    (600, BaudRate::B600),
    (1_200, BaudRate::B1200),
    (1_800, BaudRate::B1800),
    (2_400, BaudRate::B2400),
    (4_800, BaudRate::B4800),
    (9_600, BaudRate::B9600),
    (19_200, BaudRate::B19200),
    (38_400, BaudRate::B38400),
    (57_600, BaudRate::B57600),
    (115_200, BaudRate::B115200),
    (230_400, BaudRate::B230400),
    (460_800, BaudRate::B460800),
    (500_000, BaudRate::B500000),
    (576_000, BaudRate::B576000),
    (921_600, BaudRate::B921600),
    (1_000_000, BaudRate::B1000000),
    (1_500_000, BaudRate::B1500000),
    (2_000_000, BaudRate::B2000000),
    (4_000_000, BaudRate::B4000000),
];

/// Flags of the open: non-blocking, and never as controlling terminal (O_NOCTTY).
pub(super) fn open_flags(device: Device) -> OFlag {
    let direction = match device {
        // Read and write access, so that a pipe has no end of file when its last writer leaves.
        Device::Tty { .. } | Device::Fifo(Direction::Read) => OFlag::O_RDWR,
        Device::Fifo(Direction::Write) => OFlag::O_WRONLY,
    };
    direction | OFlag::O_NONBLOCK | OFlag::O_NOCTTY
}

/// The identity of an opened file. Fails if the file cannot serve as this kind of device.
pub(super) fn identify(fd: &OwnedFd, device: Device) -> Result<DeviceId, Errno> {
    let status = status_of(fd)?;
    let (file_system, number) = match status.kind {
        SFlag::S_IFCHR => (0, status.device),
        _ => (status.file_system, status.inode),
    };
    let id = DeviceId { file_system, number, is_written_only: device == Device::Fifo(Direction::Write) };
    let is_device = status.kind == SFlag::S_IFIFO || status.kind == SFlag::S_IFCHR;
    match device {
        Device::Tty { .. } => tcgetattr(fd).map(|_| id),
        Device::Fifo(_) if is_device => Ok(id),
        Device::Fifo(_) => Err(Errno::ENODEV),
    }
}

/// Configures an opened device: a terminal line gets raw mode and its speed.
pub(super) fn prepare(fd: &OwnedFd, device: Device) -> Result<(), Errno> {
    let Device::Tty { baud } = device else { return Ok(()) };
    let rate = BAUD_RATES.iter().find(|(bits, _)| *bits == baud).map(|(_, rate)| *rate).ok_or(Errno::EINVAL)?;
    let before = tcgetattr(fd)?;
    let mut settings = before.clone();
    cfmakeraw(&mut settings);
    // Enable the receiver, and ignore modem control lines: a line without a modem has no carrier.
    settings.control_flags |= ControlFlags::CREAD | ControlFlags::CLOCAL;
    cfsetspeed(&mut settings, rate)?;
    // Unchanged settings are not set again: that would disturb other users of the line.
    if settings != before {
        tcsetattr(fd, SetArg::TCSANOW, &settings)?;
    }
    Ok(())
}
