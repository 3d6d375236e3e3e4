//! What devices send to the authority: certificate signing requests, and certificates to be renewed.
#![no_main]

use libfuzzer_sys::fuzz_target;
use uakari_ca::{Certificate, Host, Request};
use uakari_fuzz as _;

fuzz_target!(|data: &[u8]| {
    if let Ok(hosts) = Request::parse(data).and_then(|request| request.hosts()) {
        check(&hosts);
    }
    if let Ok(certificate) = Certificate::parse(data) {
        check(certificate.hosts());
    }
});

/// A host is one when it is written, too.
fn check(hosts: &[Host]) {
    for host in hosts {
        assert_eq!(Host::new(&host.to_string()).expect("a host"), *host);
    }
}
