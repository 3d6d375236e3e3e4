//! Terminal lines and named pipes: what is read and written without being a socket.

use std::os::fd::OwnedFd;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::stat::SFlag;
use nix::sys::termios::{BaudRate, ControlFlags, SetArg, cfmakeraw, cfsetspeed, tcgetattr, tcsetattr};

use super::status::status_of;

/// Which way bytes go through a named pipe.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Direction {
    /// From the program at its other end.
    Read,
    /// To the program at its other end.
    Write,
}

/// Something that is opened and then spoken to as it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Device {
    /// A terminal line, at so many bits a second.
    Tty {
        /// One of `BAUD_RATES`.
        baud: u32,
    },
    /// A named pipe, or a device that is read or written like one.
    Fifo(Direction),
}

/// Which device was opened, whatever path led to it. The two ends of a pipe have users of their own.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct DeviceId {
    /// The file system, for a pipe.
    pub(super) file_system: u64,
    /// The inode there, or the device's own number.
    pub(super) number: u64,
    pub(super) is_written_only: bool,
}

/// Bits a second that a line can have (termios(3)).
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

/// How it is opened: never waiting, and never as the daemon's own terminal.
pub(super) fn open_flags(device: Device) -> OFlag {
    let direction = match device {
        // A pipe that this end could write to as well has no end when the last of its writers leaves.
        Device::Tty { .. } | Device::Fifo(Direction::Read) => OFlag::O_RDWR,
        Device::Fifo(Direction::Write) => OFlag::O_WRONLY,
    };
    direction | OFlag::O_NONBLOCK | OFlag::O_NOCTTY
}

/// Which device was opened, if it is one that can be spoken to.
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

/// Makes an opened one ready: a line passes every byte as it is.
pub(super) fn prepare(fd: &OwnedFd, device: Device) -> Result<(), Errno> {
    let Device::Tty { baud } = device else { return Ok(()) };
    let rate = BAUD_RATES.iter().find(|(bits, _)| *bits == baud).map(|(_, rate)| *rate).ok_or(Errno::EINVAL)?;
    let before = tcgetattr(fd)?;
    let mut settings = before.clone();
    cfmakeraw(&mut settings);
    // It is received, and a line without a modem has no carrier that could hang it up.
    settings.control_flags |= ControlFlags::CREAD | ControlFlags::CLOCAL;
    cfsetspeed(&mut settings, rate)?;
    // Setting what is set would disturb those who have the line open already.
    if settings != before {
        tcsetattr(fd, SetArg::TCSANOW, &settings)?;
    }
    Ok(())
}
