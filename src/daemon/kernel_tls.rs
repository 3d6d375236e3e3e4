//! Whether the kernel makes TLS records. It is tried once, while the process may still load the kernel's module.

use crate::config::{Config, Server};
use crate::driver::native::Native;
use crate::driver::{Errno, RecordSuites};
use crate::gateway::Gateway;
use crate::observe::log::{self, Level};
use crate::tls::Offload;

/// What the kernel offers.
#[derive(Default)]
pub(super) struct KernelTls {
    /// None: no configuration has asked for it yet.
    suites: Option<Result<RecordSuites, Errno>>,
    /// It was asked for by a server with backends in direct mode, not only for proxied clients.
    is_for_direct: bool,
}

impl KernelTls {
    /// Tries it, if a configuration asks for it first. True: it was tried.
    pub(super) fn try_for(&mut self, config: &Config) -> bool {
        let is_new = self.suites.is_none() && config.servers.iter().any(is_wanted);
        if is_new {
            self.suites = Some(RecordSuites::of_kernel());
            self.is_for_direct = config.servers.iter().any(|server| is_wanted(server) && is_direct(server));
        }
        is_new
    }

    /// Lets the gateway use it, and tells in the log whether it can.
    pub(super) fn enable(&self, gateway: &mut Gateway<Native>) {
        match self.suites {
            Some(Ok(suites)) => {
                gateway.set_record_suites(suites);
                let effect = match self.is_for_direct {
                    true => "direct mode hands clients with TLS over",
                    false => "the kernel makes the records of WebSockets with TLS",
                };
                log::event(Level::Info, format_args!("{effect}: the kernel has TLS"));
            }
            Some(Err(errno)) => {
                let remedy = match errno {
                    Errno::ENOENT => "the kernel has no TLS: load its module (modprobe tls) before the start",
                    errno => errno.desc(),
                };
                let effect = match self.is_for_direct {
                    true => "direct mode relays clients with TLS",
                    false => "the gateway makes the records of all clients with TLS",
                };
                log::event(Level::Info, format_args!("{effect}: {remedy}"));
            }
            None => {}
        }
    }
}

/// Whether the kernel is to make records of a server's TLS.
fn is_wanted(server: &Server) -> bool {
    match server.tls.as_ref().map(|files| files.offload) {
        Some(Offload::All) => true,
        Some(Offload::Direct) => is_direct(server),
        Some(Offload::Off) | None => false,
    }
}

/// Whether a backend of the server is in direct mode.
fn is_direct(server: &Server) -> bool {
    server.site.service.is_direct || server.site.links.iter().any(|link| link.service.is_direct)
}
