//! The check of `tls` of a server.

use super::group::Group;
use super::text_setting;
use crate::config::keys::TLS_GROUPS;
use crate::config::problem::Problems;
use crate::config::{TextSetting, TlsFiles, values};
use crate::tls::Verify;

/// Whether a server has TLS, correctly configured or not.
pub(crate) fn is_set(server: &Group<'_>) -> bool {
    TLS_GROUPS.iter().any(|name| server.has(name))
}

/// Checks the group `tls`, under any of its names. None: the server has none. The files are not opened.
pub(crate) fn tls(server: &Group<'_>, problems: &mut Problems) -> Option<TlsFiles> {
    let name = server.one_of(&TLS_GROUPS, problems)?;
    let group = server.group(name, problems);
    if let Some(group) = &group {
        if group.location.line == 0 && !group.has("crtfile") {
            problems.error(group.location, "", "needs --tls-certificate FILE");
        } else {
            group.require(problems, "crtfile");
        }
        group.exclude(problems, "pemfile", "keyfile");
    }
    let text = |name| group.as_ref().and_then(|group| text_setting(group, name, problems));
    // An error has been reported if it is missing.
    let certificate = text("crtfile").unwrap_or(TextSetting { value: String::new(), place: String::new() });
    let (key, chain) = (text("keyfile").or(text("pemfile")), text("cachain"));
    let (client_ca, crl) = (text("clientca"), text("crlfile"));
    let verify = group.as_ref().and_then(|group| verify(group, problems)).unwrap_or_default();
    Some(TlsFiles { key: key.unwrap_or(certificate.clone()), certificate, chain, client_ca, crl, verify })
}

/// Whether clients present a certificate. None: the value is wrong.
fn verify(group: &Group<'_>, problems: &mut Problems) -> Option<Verify> {
    let has_authorities = group.means("clientca");
    let verify = match group.has("verify") {
        true => group.word("verify", &values::VERIFIES)?,
        false if has_authorities => Verify::Required,
        false => Verify::None,
    };
    if has_authorities && verify == Verify::None {
        group.warn(problems, "clientca", "has no effect: verify is \"none\"");
    }
    let needs = |name| (!has_authorities && group.has(name)).then_some(name);
    for name in [needs("verify").filter(|_| verify != Verify::None), needs("crlfile")].into_iter().flatten() {
        let sentence = "needs clientca, the authorities of the clients' certificates: write clientca = \"FILE\";";
        group.error(problems, name, sentence);
    }
    Some(verify)
}
