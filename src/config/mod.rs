//! What the daemon is to do, checked and typed: from a configuration file, from flags, or from both.

use crate::gateway::listener::ListenAddress;
use crate::limits;
use crate::observe::log;
use crate::route::Site;

/// A value and where it was said, as an error names it: `-u`, or file, line and key.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Said {
    /// The value.
    pub value: String,
    /// Where.
    pub place: String,
}

/// All that a configuration says.
#[derive(Clone, Debug, Default)]
pub struct Config {
    /// The user to become once the addresses are taken.
    pub user: Option<Said>,
    /// The file that holds the process's number.
    pub pid_file: Option<Said>,
    /// What is logged, how and where to.
    pub log: log::Settings,
    /// The limits of the process.
    pub limits: limits::Process,
    /// At least one.
    pub servers: Vec<Server>,
}

/// Where a server's settings were made, as an error names them: `--listen`, or file, line and key.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Places {
    /// Its addresses.
    pub listen: String,
    /// The servers' folder.
    pub docroot: String,
    /// The pages' folder.
    pub www: String,
}

/// One element of `servers`.
#[derive(Clone, Debug)]
pub struct Server {
    /// Where its settings were made.
    pub places: Places,
    /// Where it listens; never empty.
    pub listen: Vec<ListenAddress>,
    /// The pages' folder.
    pub www: Option<String>,
    /// The folder of the UNIX servers' sockets.
    pub docroot: Option<String>,
    /// What is served.
    pub site: Site,
}
