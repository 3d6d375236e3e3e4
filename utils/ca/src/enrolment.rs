//! Certificates for devices that make their own key: with a one-time token, then by the certificate itself.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use time::{Duration, OffsetDateTime};

use crate::authority::Authority;
use crate::certificate::{Certificate, random};
use crate::error::CaError;
use crate::folder::{INDEX, Plan, certificate_of};
use crate::index::{Entry, Kind, TokenEntry, hash_of};
use crate::issuance::{Issued, days_max, hosts_of};
use crate::limits::{NAME_CERTIFICATES_MAX, TOKEN_HOURS, TOKEN_HOURS_MAX, TOKEN_SIZE, TOKENS_MAX};
use crate::name::{Host, Name};
use crate::open::{Locked, Open};
use crate::request::Request;

/// A token to be made.
#[derive(Clone, Debug)]
pub struct Invitation {
    /// The name of the certificate.
    pub name: Name,
    /// What it is for.
    pub kind: Kind,
    /// More names and addresses of a server.
    pub hosts: Vec<Host>,
    /// How long the token can be used. None: a day.
    pub hours: Option<u32>,
}

/// A one-time token. The authority keeps only its hash.
#[derive(Clone)]
pub struct Token {
    /// 256 random bits in base64url.
    pub text: String,
    /// When it expires.
    pub expires: OffsetDateTime,
}

impl Authority {
    /// Makes a token.
    pub fn token(&self, invitation: &Invitation, now: OffsetDateTime) -> Result<Token, CaError> {
        let Invitation { name, kind, hosts, hours } = invitation;
        let hosts = hosts_of(name, *kind, hosts)?;
        let hours = hours.unwrap_or(TOKEN_HOURS);
        if hours == 0 || hours > TOKEN_HOURS_MAX {
            return Err(CaError::Value(format!("--hours {hours} is not valid: write 1 to {TOKEN_HOURS_MAX}")));
        }
        let expires = now.checked_add(Duration::hours(hours.into()));
        let expires = expires.ok_or_else(|| CaError::Value("the clock is wrong: set it first".to_owned()))?;
        let mut open = Locked::existing(self.dir())?.open(now)?;
        open.expect_free(name, now)?;
        open.index.tokens.retain(|token| now <= token.expires);
        if open.index.tokens.len() >= TOKENS_MAX {
            return Err(CaError::Tokens);
        }
        let text = URL_SAFE_NO_PAD.encode(random::<TOKEN_SIZE>()?);
        open.index.tokens.push(TokenEntry { hash: hash_of(&text), kind: *kind, name: name.clone(), expires, hosts });
        Plan::new(open.folder()).write(INDEX, open.index_text()?).run()?;
        Ok(Token { text, expires })
    }

    /// Uses a token up and signs a certificate for the key of this CSR. All else is as the token says. The token is
    /// kept if the CSR is refused.
    pub fn enrol(&self, token: &str, csr_pem: &str, now: OffsetDateTime) -> Result<Issued, CaError> {
        let request = Request::parse(csr_pem.as_bytes())?;
        let mut open = Locked::existing(self.dir())?.open(now)?;
        let TokenEntry { kind, name, hosts, .. } = open.index.use_token(token, now).ok_or(CaError::Token)?;
        open.expect_free(&name, now)?;
        open.expect_no_other_key(&name, &request.key_der())?;
        let issued = open.sign(&name, kind, &hosts, None, &request.key, now)?;
        open.keep(&name, None, &issued)?;
        Ok(issued)
    }

    /// Renews a certificate that is valid and not revoked, with the same names and for as many days. The CSR, which
    /// has the same key, proves that the device has it. While the newest certificate of this name and key has more than
    /// half of its time left, it is that one again: who repeats a request costs nothing.
    pub fn extend(&self, certificate_pem: &str, csr_pem: &str, now: OffsetDateTime) -> Result<Issued, CaError> {
        let refused = |reason: &str| CaError::Request(format!("the certificate {reason}"));
        let earlier = Certificate::parse(certificate_pem.as_bytes()).map_err(|reason| refused(&reason))?;
        let request = Request::parse(csr_pem.as_bytes())?;
        let mut open = Locked::existing(self.dir())?.open(now)?;
        if !earlier.is_issued_by(&open.authority) {
            return Err(refused("is not signed by this authority's key"));
        }
        let entry = open.entry_of(&earlier)?.clone();
        if !earlier.is_current(now) {
            return Err(refused("is expired or not yet valid: enrol with a new token"));
        }
        if request.key_der() != earlier.key_der {
            return Err(refused("has another key than the certificate signing request"));
        }
        if let Some(newest) = open.newest(&entry.name, &earlier.key_der, now)? {
            return Ok(newest);
        }
        let is_other = |other: &&Entry| other.name == entry.name && other.is_valid(now);
        if open.index.certificates.iter().filter(is_other).count() >= NAME_CERTIFICATES_MAX {
            return Err(refused(
                "was renewed too often: wait until earlier ones expire, or ask the operator to revoke them",
            ));
        }
        let days = earlier.days(days_max(entry.kind));
        let issued = open.sign(&entry.name, entry.kind, earlier.hosts(), Some(days), &request.key, now)?;
        open.keep(&entry.name, None, &issued)?;
        Ok(issued)
    }
}

impl Open {
    /// The newest valid certificate with this name, if it has this key, is in `issued`, and has more than half of its
    /// time left.
    fn newest(&self, name: &Name, key_der: &[u8], now: OffsetDateTime) -> Result<Option<Issued>, CaError> {
        let Some(entry) = self.index.valid_with_name(name, now) else { return Ok(None) };
        let Some(bytes) = self.folder().read(&certificate_of(name))? else { return Ok(None) };
        let (Ok(certificate), Ok(certificate_pem)) = (Certificate::parse(&bytes), String::from_utf8(bytes)) else {
            return Ok(None);
        };
        let is_newest = certificate.serial == Some(entry.serial)
            && certificate.key_der == key_der
            && certificate.is_issued_by(&self.authority)
            && certificate.is_current(now)
            && certificate.not_after - now > now - certificate.not_before;
        let (name, serial, not_after) = (name.to_string(), entry.serial.to_string(), certificate.not_after);
        Ok(is_newest.then_some(Issued { name, serial, certificate_pem, not_after }))
    }
}
