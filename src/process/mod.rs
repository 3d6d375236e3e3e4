//! The process: privileges, pid file, and the service manager's notifications and inherited sockets.

pub mod inherited;
pub mod pid_file;
pub mod privileges;
pub mod systemd;
