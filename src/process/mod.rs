//! The daemon as a process: the rights it keeps, the file that names it, and the service manager that started it.

pub mod inherited;
pub mod pid_file;
pub mod privileges;
pub mod systemd;
