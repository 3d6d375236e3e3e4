//! What a request needs, and what it shows.

use std::ptr;

use auth_wire::limits::FRAME_SIZE_MAX;
use auth_wire::{Credential, Question};

use super::ask::{Admitted, Ask, Varies};
use super::error::AccessError;
use super::{Access, AccessRule, Addresses, Auth, AuthKind, Satisfy, cookie, credential, digest, query, shown_ip};
use crate::http::fields::values;
use crate::http::head::Head;
use crate::limits::{AUTH_HEADERS_SIZE_MAX, CREDENTIAL_SIZE_MAX};
use crate::tls::ClientFacts;
use crate::types::Address;
use digest::NonceKey;

/// The names by which the rules know what a request is for, each with "/" in front.
#[derive(Clone, Debug)]
pub(crate) struct Subjects {
    /// The names that it has, first that of what is served. An exemption has to hold for each of them.
    own: Vec<String>,
    /// The name of the file whose content this precompressed file has. An exemption has to hold for it too.
    content: Option<String>,
    /// The name with or without a final slash, as the request does not have it: to programs and people it is the same
    /// thing.
    near: Option<Near>,
}

/// A name that differs in its final slash. Its rule counts unless rules before it exempt all other names.
#[derive(Clone, Debug)]
enum Near {
    /// Of a folder whose page is requested, without the slash. A rule of its path precedes that of the server.
    Plain(String),
    /// With a slash, which a reply may lead to. Its rule counts only if the other names need nothing: a pattern such as
    /// "/$" has every name with a slash, and would decide about all of them.
    Slashed(String),
}

impl Near {
    fn name(&self) -> &str {
        match self {
            Near::Plain(name) | Near::Slashed(name) => name,
        }
    }
}

impl Subjects {
    /// Of a WebSocket. `has_slash`: the request's path ends with a slash.
    pub(crate) fn of_name(name: &str, has_slash: bool) -> Subjects {
        let near = (has_slash && !name.is_empty()).then(|| Near::Slashed(format!("/{name}/")));
        Subjects { own: vec![format!("/{name}")], content: None, near }
    }

    /// Of a page with this file.
    pub(crate) fn of_page(name: &str, file: &str, has_slash: bool) -> Subjects {
        let (plain, slashed, file) = (format!("/{name}"), format!("/{name}/"), format!("/{file}"));
        let (requested, near) = match (name.is_empty(), has_slash) {
            (true, _) => (plain, None),
            (false, true) => (slashed, Some(Near::Plain(plain))),
            (false, false) => (plain, Some(Near::Slashed(slashed))),
        };
        let content = file.strip_suffix(".gz").or_else(|| file.strip_suffix(".br")).map(str::to_owned);
        Subjects { own: vec![file, requested], content, near }
    }

    /// Of the precompressed variant of a page, as if it were requested.
    pub(crate) fn of_variant(file: &str) -> Subjects {
        Subjects::of_page(file, file, false)
    }

    /// The names that have to be exempt, in the order in which their rules decide.
    fn all(&self) -> impl Iterator<Item = &str> {
        self.own.iter().chain(&self.content).map(String::as_str)
    }

    /// The name of what is served: that of the file, or that of the backend.
    pub(crate) fn path(&self) -> &str {
        self.own.first().map_or("/", String::as_str)
    }
}

/// What a request needs: the rule that decides, and those of its credentials that protect the path.
#[derive(Clone, Debug)]
pub(crate) struct Demanded<'a> {
    rule: &'a AccessRule,
    auths: Vec<&'a Auth>,
}

/// The facts of a request that decide.
#[derive(Clone, Copy)]
pub(crate) struct Request<'a> {
    pub(crate) head: &'a Head<'a>,
    /// "/" and the name or the path of the file that is served, decoded.
    pub(crate) path: &'a str,
    /// The query without tokens.
    pub(crate) query: &'a str,
    pub(crate) client: Address,
    /// The certificate of the client, which is verified. None: there is none, or it may be that of a proxy.
    pub(crate) certificate: Option<&'a ClientFacts>,
    /// Of the rules of `auth_wire`.
    pub(crate) generation: u32,
    pub(crate) nonces: &'a NonceKey,
    pub(crate) unix_s: u64,
}

/// What follows from what a request shows.
#[derive(Debug)]
pub(crate) enum Decision {
    /// It is served.
    Served,
    /// It is served for this client.
    Admitted(Admitted),
    /// These questions decide, in this order, unless one before has admitted the client. If none does, the worst answer
    /// counts, the error given here among them.
    Asked(Vec<Ask>, Option<AccessError>),
}

/// What a request for something with these names needs. `link`: the rule of the link that it is for, which precedes those
/// of the server. None: nothing.
///
/// Each name has the first rule that matches it. Of those with a path that need anything, that of the name of what is
/// served decides, then that of the requested name, that of the content, and that of the folder; then the rule of the
/// server; last that of the name with a slash. So no other name makes the need of a name's own path weaker, in whatever
/// order the rules are; and one name without a need exempts no other.
pub(crate) fn demand<'a>(
    link: Option<&'a AccessRule>,
    access: &'a Access,
    subjects: &Subjects,
) -> Option<Demanded<'a>> {
    let near = subjects.near.as_ref();
    if let Some(rule) = link {
        let names: Vec<&str> = subjects.all().collect();
        return Some(Demanded::of(rule, &names, near.map(Near::name))).filter(Demanded::is_demanding);
    }
    let matches = |rule: &AccessRule, subject: &str| rule.path.as_ref().is_none_or(|path| path.matches(subject));
    let spares_filter = |subject: &str| {
        let mut rules = access.rules.iter();
        rules.find(|rule| matches(rule, subject)).is_some_and(|rule| rule.spares_filter)
    };
    let is_spared = subjects.all().all(spares_filter);
    let rule_of = |subject: &str, is_spared: bool| {
        access.rules.iter().position(|rule| (is_spared || !rule.spares_filter) && matches(rule, subject))
    };
    let names: Vec<_> = subjects.all().map(|subject| (rule_of(subject, is_spared), subject)).collect();
    let last = names.iter().map(|(index, _)| index.unwrap_or(usize::MAX)).max();
    let near = near.and_then(|near| Some((rule_of(near.name(), false)?, near)));
    let near = near.filter(|(index, _)| Some(*index) <= last);
    // What the names of this rule need.
    let need = |index: usize| {
        let of_rule = names.iter().filter(|(other, _)| *other == Some(index));
        let of_rule: Vec<&str> = of_rule.map(|(_, subject)| *subject).collect();
        let near = near.filter(|(other, _)| *other == index).map(|(_, near)| near.name());
        let demanded = match (of_rule.is_empty(), near) {
            // The name near is the only one of the rule.
            (true, Some(near)) => Demanded::of(access.rules.get(index)?, &[near], None),
            (_, near) => Demanded::of(access.rules.get(index)?, &of_rule, near),
        };
        Some(demanded).filter(Demanded::is_demanding)
    };
    let is_of_path =
        |index: &usize| access.rules.get(*index).is_some_and(|rule| rule.path.is_some() && !rule.spares_filter);
    let indices = || names.iter().filter_map(|(index, _)| *index);
    let folder = near.filter(|(_, near)| matches!(near, Near::Plain(_))).map(|(index, _)| index);
    let of_paths = indices().chain(folder).filter(is_of_path);
    let of_server = indices().filter(|index| !is_of_path(index));
    of_paths.chain(of_server).chain(near.map(|(index, _)| index)).find_map(need)
}

impl AccessRule {
    /// Whether clients with this address may come in.
    fn admits_address(&self, client: Address) -> bool {
        self.addresses.as_ref().is_none_or(|addresses: &Addresses| addresses.admit(client))
    }
}

impl Auth {
    /// Whether a path needs it. Below "~" are the folders of users, which ouistiti always protects.
    fn protects(&self, subject: &str) -> bool {
        let is_unprotected = self.unprotect.as_ref().is_some_and(|list| list.matches(subject));
        self.protects_expressly(subject) || !is_unprotected
    }

    /// Whether a path needs it, whatever `unprotect` has.
    fn protects_expressly(&self, subject: &str) -> bool {
        subject.starts_with("/~") || self.protect.as_ref().is_some_and(|list| list.matches(subject))
    }

    /// Whether the decision depends on the path too.
    fn knows_path(&self) -> bool {
        self.has_filter || matches!(self.kind, AuthKind::Unix { .. })
    }
}

impl<'a> Demanded<'a> {
    /// What the rule needs for these names of its own: that of the first one that needs a credential. A name near needs
    /// only what protects it expressly, if the others need none.
    fn of(rule: &'a AccessRule, own: &[&str], near: Option<&str>) -> Demanded<'a> {
        let auths = |is_needed: &dyn Fn(&Auth) -> bool| {
            let auths: Vec<&Auth> = rule.auth.iter().filter(|auth| is_needed(auth)).collect();
            (!auths.is_empty()).then_some(auths)
        };
        let of_own = own.iter().find_map(|subject| auths(&|auth| auth.protects(subject)));
        let auths = of_own.or_else(|| auths(&|auth| near.is_some_and(|near| auth.protects_expressly(near))));
        Demanded { rule, auths: auths.unwrap_or_default() }
    }

    /// Whether there are requests that it refuses, or asks about.
    fn is_demanding(&self) -> bool {
        let is_open = self.auths.is_empty() || self.auths.iter().any(|auth| auth.kind == AuthKind::None);
        match self.rule.satisfy {
            Satisfy::Any if !self.rule.auth.is_empty() => !is_open,
            _ => self.rule.addresses.is_some() || !is_open,
        }
    }

    /// The credentials of which one is needed.
    pub(crate) fn auths(&self) -> &[&'a Auth] {
        &self.auths
    }

    /// Whether a request that was served for this is served for `other` too.
    pub(crate) fn covers(&self, other: &Demanded<'_>) -> bool {
        let is_same = self.auths.len() == other.auths.len()
            && self.auths.iter().zip(&other.auths).all(|(one, other)| ptr::eq(*one, *other));
        ptr::eq(self.rule, other.rule) && is_same && !self.auths.iter().any(|auth| auth.knows_path())
    }

    /// Judges what a request shows.
    pub(crate) fn judge(&self, request: &Request<'_>) -> Result<Decision, AccessError> {
        let admits_address = self.rule.admits_address(request.client);
        let needs_credential = match self.rule.satisfy {
            Satisfy::All if !admits_address => return Err(AccessError::Address),
            Satisfy::All => !self.auths.is_empty(),
            Satisfy::Any if self.rule.auth.is_empty() && !admits_address => return Err(AccessError::Address),
            Satisfy::Any => !(self.auths.is_empty() || self.rule.addresses.is_some() && admits_address),
        };
        if needs_credential { self.judge_credentials(request) } else { Ok(Decision::Served) }
    }

    fn judge_credentials(&self, request: &Request<'_>) -> Result<Decision, AccessError> {
        if self.auths.iter().any(|auth| auth.kind == AuthKind::None) {
            return Ok(Decision::Served);
        }
        let reads_field = |auth: &&Auth| {
            !matches!(auth.kind, AuthKind::Cookie { .. } | AuthKind::Query { .. } | AuthKind::ClientCert { .. })
        };
        let field = match self.auths.iter().any(reads_field) {
            true => credential::authorization(&request.head.headers)?,
            false => None,
        };
        let with_scheme =
            |name: &str| field.filter(|(scheme, _)| scheme.eq_ignore_ascii_case(name)).map(|(_, rest)| rest);
        let mut questions = Vec::new();
        let mut worst = None;
        for auth in &self.auths {
            let credential = match &auth.kind {
                AuthKind::Basic => with_scheme("Basic").map(credential::basic).transpose()?,
                AuthKind::Bearer => with_scheme("Bearer").map(credential::bearer).transpose()?,
                AuthKind::Digest { opaque, algorithm } => {
                    let expected = digest::Challenged {
                        realm: &auth.realm,
                        opaque,
                        algorithm: *algorithm,
                        path: request.head.path,
                        query: request.head.query,
                        nonces: request.nonces,
                        unix_s: request.unix_s,
                    };
                    match with_scheme("Digest").map(|text| digest::response(text, &expected)).transpose() {
                        Ok(credential) => credential,
                        Err(error) if error.is_challenge() => {
                            // A new nonce helps, whatever another alternative says.
                            worst = Some(if worst == Some(AccessError::Stale) { AccessError::Stale } else { error });
                            None
                        }
                        Err(error) => return Err(error),
                    }
                }
                AuthKind::Cookie { name } => {
                    let value = cookie::find(&request.head.headers, name)?;
                    value.map(credential::token).transpose()?.flatten()
                }
                AuthKind::Query { name } => {
                    let value = query::find(request.head.query.unwrap_or_default(), name)?;
                    value.as_deref().map(credential::token).transpose()?.flatten()
                }
                AuthKind::Unix { .. } => {
                    let basic = with_scheme("Basic").map(credential::basic).transpose()?;
                    let bearer = with_scheme("Bearer").map(credential::bearer).transpose()?;
                    basic.or(bearer).or(Some(Credential::None))
                }
                AuthKind::ClientCert { users } => match request.certificate.and_then(|facts| certified(facts, users)) {
                    Some(admitted) => return Ok(Decision::Admitted(admitted)),
                    None => {
                        worst = worst.or(request.certificate.map(|_| AccessError::Wrong));
                        None
                    }
                },
                AuthKind::None => None,
            };
            if let Some(credential) = credential {
                questions.push(ask(auth, credential, request)?);
            }
        }
        match questions.is_empty() {
            true => Err(worst.unwrap_or(AccessError::Missing)),
            false => Ok(Decision::Asked(questions, worst)),
        }
    }
}

/// The client of a certificate with a common name that may come in.
fn certified(facts: &ClientFacts, users: &[Box<str>]) -> Option<Admitted> {
    let name = &facts.common_name;
    let is_named = !name.is_empty() && !credential::has_control(name);
    let may_come = if users.is_empty() { true } else { is_named && users.contains(name) };
    may_come.then(|| Admitted { user: if is_named { name.clone() } else { "".into() }, ..Admitted::default() })
}

/// The question about a credential.
fn ask(auth: &Auth, credential: Credential, request: &Request<'_>) -> Result<Ask, AccessError> {
    let mut headers = Vec::new();
    if let AuthKind::Unix { headers: names } = &auth.kind {
        for name in names {
            let own = values(&request.head.headers, name);
            headers.extend(own.map(|value| (name.to_string(), String::from_utf8_lossy(value).into_owned())));
        }
    }
    let size: usize = headers.iter().map(|(name, value)| name.len() + value.len()).sum();
    let target_size = request.path.len() + request.query.len() + request.head.host.len();
    if size > AUTH_HEADERS_SIZE_MAX || size + target_size > FRAME_SIZE_MAX - 2 * CREDENTIAL_SIZE_MAX {
        return Err(AccessError::TooLarge);
    }
    let question = Question {
        id: 0,
        generation: request.generation,
        rule: auth.rule,
        credential,
        address: match request.client {
            Address::Tcp(_) => shown_ip(request.client).into_owned(),
            Address::Unix | Address::Unknown => String::new(),
        },
        method: request.head.method.to_owned(),
        host: request.head.host.to_owned(),
        path: request.path.to_owned(),
        query: request.query.to_owned(),
        headers,
    };
    let varies = match (&auth.kind, auth.has_filter) {
        (AuthKind::Unix { .. }, _) => Varies::All,
        (_, true) => Varies::Path,
        (_, false) => Varies::No,
    };
    Ok(Ask { question, cache_ms: auth.cache_ms, recheck_ms: auth.recheck_ms, varies, is_recheck: false })
}
