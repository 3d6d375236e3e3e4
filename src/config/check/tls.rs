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
    let Some(name) = server.one_of(&TLS_GROUPS, problems) else {
        server.warn(problems, "tls-offload", "has no effect without tls: write tls, or leave it out");
        return None;
    };
    let group = server.group(name, problems);
    let is_self_signed = group.as_ref().is_some_and(|group| group.flag("self-signed") == Some(true));
    if let Some(group) = &group {
        match is_self_signed {
            true => self_signed(group, problems),
            false if group.has("dir") => group.error(problems, "dir", "needs self-signed = true, or --tls-self-signed"),
            false if group.location.line == 0 && !group.has("crtfile") => {
                problems.error(group.location, "", "needs --tls-certificate FILE");
            }
            false => group.require(problems, "crtfile"),
        }
        group.exclude(problems, "pemfile", "keyfile");
    }
    let text = |name| group.as_ref().and_then(|group| text_setting(group, name, problems));
    let authority = text("dir").filter(|_| is_self_signed);
    let made = |name: &str| {
        let TextSetting { value, place } = authority.as_ref()?;
        Some(TextSetting { value: format!("{}/issued/{name}", value.trim_end_matches('/')), place: place.clone() })
    };
    // An error has been reported if it is missing.
    let missing = TextSetting { value: String::new(), place: String::new() };
    let certificate = made("server.pem").or(text("crtfile")).unwrap_or(missing);
    let (key, chain) = (made("server.key").or(text("keyfile")).or(text("pemfile")), text("cachain"));
    let (client_ca, crl) = (text("clientca"), text("crlfile"));
    let verify = group.as_ref().and_then(|group| verify(group, problems)).unwrap_or_default();
    let offload = server.word("tls-offload", &values::OFFLOADS).unwrap_or_default();
    let key = key.unwrap_or(certificate.clone());
    Some(TlsFiles { key, certificate, chain, client_ca, crl, verify, authority, offload })
}

/// A certificate that uakari-ca makes has a folder, and none of the files that an operator names.
fn self_signed(group: &Group<'_>, problems: &mut Problems) {
    if group.location.line == 0 && !group.has("dir") {
        problems.error(group.location, "", "needs --tls-dir DIR: neither XDG_STATE_HOME nor HOME is set");
    } else {
        group.require(problems, "dir");
    }
    for name in ["crtfile", "keyfile", "pemfile", "cachain"] {
        group.exclude(problems, name, "self-signed");
    }
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
