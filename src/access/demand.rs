//! What a request needs, and what it shows.

use std::ptr;
use std::sync::Arc;

use auth_wire::limits::FRAME_SIZE_MAX;
use auth_wire::{Credential, Question};

use super::ask::{Admitted, Ask, Varies};
use super::error::AccessError;
use super::{Access, AccessRule, Addresses, Auth, AuthKind, Satisfy, cookie, credential, digest, query, shown_ip};
use crate::http::fields::values;
use crate::http::forwarding::path::plain_name;
use crate::http::head::Head;
use crate::limits::{AUTH_HEADERS_SIZE_MAX, CREDENTIAL_SIZE_MAX};
use crate::tls::ClientFacts;
use crate::types::Address;
use digest::NonceKey;
use patterns::Patterns;

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
    /// Whether rules match them whatever the case of the letters.
    ignores_case: bool,
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
        Subjects { own: vec![format!("/{name}")], content: None, near, ignores_case: false }
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
        Subjects { own: vec![file, requested], content, near, ignores_case: false }
    }

    /// Of a request to a node, where any name may be that of a page. `ignores_case`: rules match whatever the case.
    fn of_node(name: &str, has_slash: bool, ignores_case: bool) -> Subjects {
        Subjects { ignores_case, ..Subjects::of_page(name, name, has_slash) }
    }

    /// Whether one of these patterns is found in a name.
    fn are_found(&self, patterns: &Patterns, subject: &str) -> bool {
        if self.ignores_case { patterns.matches_ignoring_case(subject) } else { patterns.matches(subject) }
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

/// All that a request needs.
#[derive(Clone, Debug)]
pub(crate) struct Demanded<'a> {
    first: Need<'a>,
    /// What the server's rule needs for the request's own names, if `first` is that of a derived name. Its user is that
    /// of the request.
    second: Option<Need<'a>>,
}

/// What one rule needs: its addresses, and those of its credentials that protect the path.
#[derive(Clone, Debug)]
struct Need<'a> {
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
    /// The address is that of a trusted proxy which has named no client: the request may be that of any of its clients.
    pub(crate) is_of_proxy: bool,
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
    /// The answers decide.
    Asked(Inquiry),
}

/// Questions about a request.
#[derive(Debug)]
pub(crate) struct Inquiry {
    /// They are asked in this order, until one has admitted the client.
    pub(crate) questions: Vec<Ask>,
    /// If none does, the worst answer counts, and this error.
    pub(crate) worst: Option<AccessError>,
    /// What follows once one has admitted the client. None: it is served.
    pub(crate) then: Option<Box<Decision>>,
}

impl Decision {
    /// This decision, then another one.
    fn then(self, next: Decision) -> Decision {
        match (self, next) {
            (own, Decision::Served) => own,
            (Decision::Asked(asked), next) => Decision::Asked(Inquiry { then: Some(Box::new(next)), ..asked }),
            (Decision::Served | Decision::Admitted(_), next) => next,
        }
    }

    /// Heap bytes that its questions take, about.
    pub(crate) fn size(&self) -> usize {
        let Decision::Asked(asked) = self else { return 0 };
        let questions: usize = asked.questions.iter().map(Ask::size).sum();
        questions + asked.then.as_ref().map_or(0, |then| then.size())
    }
}

/// What a request for something with these names needs. `link`: the rule of the link that it is for, which precedes those
/// of the server. None: nothing.
///
/// Each name has the first rule that matches it. Of those with a path that need anything, that of the name of what is
/// served decides, then that of the requested name, that of the content, and that of the folder; then the rule of the
/// server; last that of the name with a slash. If it is that of the content or the folder, the rule of the server is needed
/// too for the names that have no other. So no derived name makes the need of a name weaker, in whatever order the rules
/// are; and one name without a need exempts no other.
pub(crate) fn demand<'a>(
    link: Option<&'a AccessRule>,
    access: &'a Access,
    subjects: &Subjects,
) -> Option<Demanded<'a>> {
    let near = subjects.near.as_ref();
    if let Some(rule) = link {
        let names: Vec<&str> = subjects.all().collect();
        return Some(Need::of(rule, subjects, &names, near.map(Near::name)))
            .filter(Need::is_demanding)
            .map(Demanded::one);
    }
    let matches =
        |rule: &AccessRule, subject: &str| rule.path.as_ref().is_none_or(|path| subjects.are_found(path, subject));
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
        let need = match (of_rule.is_empty(), near) {
            // The name near is the only one of the rule.
            (true, Some(near)) => Need::of(access.rules.get(index)?, subjects, &[near], None),
            (_, near) => Need::of(access.rules.get(index)?, subjects, &of_rule, near),
        };
        Some(need).filter(Need::is_demanding)
    };
    let is_of_path =
        |index: &usize| access.rules.get(*index).is_some_and(|rule| rule.path.is_some() && !rule.spares_filter);
    let (own, content) = names.split_at(subjects.own.len().min(names.len()));
    let index_of = |(index, _): &(Option<usize>, &str)| *index;
    if let Some(need) = own.iter().filter_map(index_of).filter(is_of_path).find_map(need) {
        return Some(Demanded::one(need));
    }
    let of_server = |names: &[(Option<usize>, &str)]| {
        names.iter().filter_map(index_of).filter(|index| !is_of_path(index)).find_map(need)
    };
    let folder = near.filter(|(_, near)| matches!(near, Near::Plain(_))).map(|(index, _)| index);
    match content.iter().filter_map(index_of).chain(folder).filter(is_of_path).find_map(need) {
        Some(first) => Some(Demanded { first, second: of_server(own) }),
        None => of_server(&names).or_else(|| need(near?.0)).map(Demanded::one),
    }
}

/// As `demand`, for a request that a node serves. `has_slash`: its path ends with a slash. The node may ignore the case of
/// letters, or the parameters of segments (`/admin;x`), as rules do not: where one such reading needs what the name itself
/// does not, the request is refused with `AccessError::Spelling`.
pub(crate) fn demand_of_node<'a>(
    link: Option<&'a AccessRule>,
    access: &'a Access,
    name: &str,
    has_slash: bool,
) -> Result<Option<Demanded<'a>>, AccessError> {
    let of = |name: &str, ignores_case| demand(link, access, &Subjects::of_node(name, has_slash, ignores_case));
    let own = of(name, false);
    if link.is_none() && access.rules.is_empty() {
        return Ok(own);
    }
    let plain = plain_name(name);
    let of_plain = |ignores_case| if plain == name { None } else { of(&plain, ignores_case) };
    let is_missed = |other: &Demanded<'_>| own.as_ref().is_none_or(|own| !own.includes(other));
    // A question about the path could be answered for the other reading.
    let asks_path = own.as_ref().is_some_and(|own| own.auths().iter().any(|auth| auth.knows_path()));
    if asks_path && plain != name {
        return Err(AccessError::Spelling);
    }
    match [of(name, true), of_plain(false), of_plain(true)].iter().flatten().any(is_missed) {
        true => Err(AccessError::Spelling),
        false => Ok(own),
    }
}

impl AccessRule {
    /// Whether clients with this address may come in.
    fn admits_address(&self, client: Address) -> bool {
        self.addresses.as_ref().is_none_or(|addresses: &Addresses| addresses.admit(client))
    }
}

impl Auth {
    /// Whether a path needs it. Below "~" are the folders of users, which ouistiti always protects.
    fn protects(&self, subjects: &Subjects, subject: &str) -> bool {
        // An exemption holds for the very spelling alone.
        let is_unprotected = self.unprotect.as_ref().is_some_and(|list| list.matches(subject));
        self.protects_expressly(subjects, subject) || !is_unprotected
    }

    /// Whether a path needs it, whatever `unprotect` has.
    fn protects_expressly(&self, subjects: &Subjects, subject: &str) -> bool {
        subject.starts_with("/~") || self.protect.as_ref().is_some_and(|list| subjects.are_found(list, subject))
    }

    /// Whether the decision depends on the path too.
    fn knows_path(&self) -> bool {
        self.has_filter || matches!(self.kind, AuthKind::Unix { .. })
    }
}

impl<'a> Demanded<'a> {
    fn one(need: Need<'a>) -> Demanded<'a> {
        Demanded { first: need, second: None }
    }

    fn needs(&self) -> impl Iterator<Item = &Need<'a>> {
        [&self.first].into_iter().chain(&self.second)
    }

    /// The credentials, of which one is needed for each rule.
    pub(crate) fn auths(&self) -> Vec<&'a Auth> {
        self.needs().flat_map(|need| &need.auths).copied().collect()
    }

    /// Whether a request that was served for this is served for `other` too.
    pub(crate) fn covers(&self, other: &Demanded<'_>) -> bool {
        other.needs().all(|other| self.needs().any(|need| need.covers(other)))
    }

    /// Whether it needs at least what `other` needs.
    fn includes(&self, other: &Demanded<'_>) -> bool {
        other.needs().all(|other| self.needs().any(|need| need.is_same(other)))
    }

    /// Judges what a request shows.
    pub(crate) fn judge(&self, request: &Request<'_>) -> Result<Decision, AccessError> {
        if self.needs().any(|need| need.refuses_address(request.client)) {
            return Err(AccessError::Address);
        }
        let first = self.first.judge(request)?;
        match &self.second {
            Some(second) => Ok(first.then(second.judge(request)?)),
            None => Ok(first),
        }
    }
}

impl<'a> Need<'a> {
    /// What the rule needs for these names of its own: that of the first one that needs a credential. A name near needs
    /// only what protects it expressly, if the others need none.
    fn of(rule: &'a AccessRule, subjects: &Subjects, own: &[&str], near: Option<&str>) -> Need<'a> {
        let auths = |is_needed: &dyn Fn(&Auth) -> bool| {
            let auths: Vec<&Auth> = rule.auth.iter().filter(|auth| is_needed(auth)).collect();
            (!auths.is_empty()).then_some(auths)
        };
        let of_own = own.iter().find_map(|subject| auths(&|auth| auth.protects(subjects, subject)));
        let auths = of_own.or_else(|| auths(&|auth| near.is_some_and(|near| auth.protects_expressly(subjects, near))));
        Need { rule, auths: auths.unwrap_or_default() }
    }

    /// Whether there are requests that it refuses, or asks about.
    fn is_demanding(&self) -> bool {
        let is_open = self.auths.is_empty() || self.auths.iter().any(|auth| auth.kind == AuthKind::None);
        match self.rule.satisfy {
            Satisfy::Any if !self.rule.auth.is_empty() => !is_open,
            _ => self.rule.addresses.is_some() || !is_open,
        }
    }

    /// Whether a request that was served for this is served for `other` too.
    fn covers(&self, other: &Need<'_>) -> bool {
        self.is_same(other) && !self.auths.iter().any(|auth| auth.knows_path())
    }

    /// Whether both need the same of a client, as far as the decision does not depend on the path.
    fn is_same(&self, other: &Need<'_>) -> bool {
        let are_same = self.auths.len() == other.auths.len()
            && self.auths.iter().zip(&other.auths).all(|(one, other)| ptr::eq(*one, *other));
        ptr::eq(self.rule, other.rule) && are_same
    }

    /// Whether a client with this address may not come in, whatever it shows.
    fn refuses_address(&self, client: Address) -> bool {
        let is_needed = self.rule.satisfy == Satisfy::All || self.rule.auth.is_empty();
        is_needed && !self.rule.admits_address(client)
    }

    /// Judges what a request shows whose address is not refused.
    fn judge(&self, request: &Request<'_>) -> Result<Decision, AccessError> {
        let needs_credential = match self.rule.satisfy {
            Satisfy::All => !self.auths.is_empty(),
            // The address of a proxy is no credential of its clients.
            Satisfy::Any => {
                let admits_client = self.rule.addresses.is_some() && self.rule.admits_address(request.client);
                !(self.auths.is_empty() || admits_client && !request.is_of_proxy)
            }
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
            true if self.has_challenge() => Err(worst.unwrap_or(AccessError::Missing)),
            // Without a challenge it is no 401 (RFC 9110 section 15.5.2).
            true if worst.is_some() => Err(AccessError::Forbidden),
            true => Err(AccessError::NoCertificate),
            false => Ok(Decision::Asked(Inquiry { questions, worst, then: None })),
        }
    }

    /// Whether a client can be asked for a credential: all but certificates are sent with a request.
    fn has_challenge(&self) -> bool {
        self.auths.iter().any(|auth| !matches!(auth.kind, AuthKind::ClientCert { .. } | AuthKind::None))
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
    if let AuthKind::Unix { headers: names, .. } = &auth.kind {
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
    let (server, varies) = match (&auth.kind, auth.has_filter) {
        (AuthKind::Unix { server, .. }, _) => (Some(Arc::clone(server)), Varies::All),
        (_, true) => (None, Varies::Path),
        (_, false) => (None, Varies::No),
    };
    Ok(Ask { question, cache_ms: auth.cache_ms, recheck_ms: auth.recheck_ms, server, varies, is_recheck: false })
}

#[cfg(test)]
mod tests {
    use super::super::AccessRule;
    use super::*;
    use crate::http::forwarding::path::is_unambiguous;
    use crate::route::names;

    fn auth(kind: AuthKind) -> Auth {
        Auth::new(0, "R", kind)
    }

    fn rule(path: &str, kind: AuthKind) -> AccessRule {
        let path = (!path.is_empty()).then(|| Patterns::parse(path));
        AccessRule { path, auth: vec![auth(kind)], ..AccessRule::default() }
    }

    /// What a request for this path needs: the index of the rule; "400" where it could miss a rule.
    fn needed(access: &Access, path: &str) -> String {
        if !is_unambiguous(path) {
            return "400 path".to_owned();
        }
        let name = names::from_path(path).unwrap();
        match demand_of_node(None, access, &name, path.ends_with('/')) {
            Ok(None) => "nothing".to_owned(),
            Ok(Some(demanded)) => {
                access.rules.iter().position(|rule| ptr::eq(rule, demanded.first.rule)).unwrap().to_string()
            }
            Err(error) => format!("{} spelling", error.status()),
        }
    }

    #[test]
    fn no_spelling_gets_round_a_rule() {
        let admin = Access::new(None, vec![rule("^/admin", AuthKind::Basic)]);
        let capital = Access::new(None, vec![rule("^/Admin", AuthKind::Basic)]);
        let whole = Access::new(None, vec![rule("^/admin$", AuthKind::Basic), rule("^/api/v1/", AuthKind::Bearer)]);
        let open = Access::new(None, vec![rule("^/public", AuthKind::None), rule("", AuthKind::Basic)]);
        for (access, path, expected) in [
            (&admin, "/admin", "0"),
            (&admin, "/admin/", "0"),
            (&admin, "/admin/users", "0"),
            (&admin, "/%61dmin", "0"),
            (&admin, "/admin;x", "0"),
            (&admin, "/admin;x/secret", "0"),
            (&admin, "/admin%3bx", "0"),
            (&admin, "/ADMIN", "400 spelling"),
            (&admin, "/aDmin/users", "400 spelling"),
            (&admin, "/%41DMIN", "400 spelling"),
            (&admin, "/ADMIN;x", "400 spelling"),
            (&admin, "/a;x/b", "nothing"),
            (&admin, "/users", "nothing"),
            (&admin, "/", "nothing"),
            (&admin, "//admin", "400 path"),
            (&admin, "/x/..;/admin", "400 path"),
            (&admin, "/x/..;a=b/admin", "400 path"),
            (&admin, "/x/%2e%2e%3b/admin", "400 path"),
            (&admin, "/;/admin", "400 path"),
            (&admin, "/x/../admin", "400 path"),
            (&admin, "/%2e/admin", "400 path"),
            (&admin, "/admin%2f", "400 path"),
            (&admin, "/x%2f..%2fadmin", "400 path"),
            (&admin, "/x\\..\\admin", "400 path"),
            (&admin, "/admin/.", "400 path"),
            (&admin, "/admin%00", "400 path"),
            (&admin, "/admin%0a", "400 path"),
            (&admin, "/%c0%afadmin", "400 path"),
            (&capital, "/Admin", "0"),
            (&capital, "/admin", "400 spelling"),
            (&capital, "/ADMIN/", "400 spelling"),
            (&whole, "/admin", "0"),
            (&whole, "/admin/", "0"),
            (&whole, "/administration", "nothing"),
            (&whole, "/admin;x", "400 spelling"),
            (&whole, "/admin%3Bx", "400 spelling"),
            (&whole, "/admin%253bx", "400 spelling"),
            (&whole, "/admin/;x", "400 spelling"),
            (&whole, "/api;v/v1/x", "400 spelling"),
            (&whole, "/api/v1/x;y", "1"),
            (&whole, "/api/v1", "1"),
            // A server that ignores them may serve less, which is no way round.
            (&open, "/public/x", "nothing"),
            (&open, "/PUBLIC/x", "1"),
            (&open, "/public;x", "nothing"),
            (&open, "/x;/public", "1"),
            (&open, "/x", "1"),
        ] {
            assert_eq!(needed(access, path), expected, "{path}");
        }
    }

    /// The lists of `protect` and `unprotect` are rules, too.
    #[test]
    fn no_spelling_gets_round_a_protected_path() {
        let list = |list: &str| Some(Patterns::parse(list));
        let basic = Auth { protect: list("^/admin$"), unprotect: list("*"), ..auth(AuthKind::Basic) };
        let link = AccessRule { auth: vec![basic], ..AccessRule::default() };
        let access = Access::default();
        for (name, expected) in [
            ("admin", Ok(true)),
            ("ADMIN", Err(AccessError::Spelling)),
            ("admin;x", Err(AccessError::Spelling)),
            ("~user", Ok(true)),
            ("other", Ok(false)),
        ] {
            let needed = demand_of_node(Some(&link), &access, name, false).map(|demanded| demanded.is_some());
            assert_eq!(needed, expected, "{name}");
        }
        let basic = Auth { unprotect: list("public"), ..auth(AuthKind::Basic) };
        let link = AccessRule { auth: vec![basic], ..AccessRule::default() };
        for (name, expected) in [
            ("public", Ok(false)),
            ("PUBLIC", Ok(true)),
            ("admin", Ok(true)),
            ("admin;public", Err(AccessError::Spelling)),
            ("public;x", Ok(false)),
        ] {
            let needed = demand_of_node(Some(&link), &access, name, false).map(|demanded| demanded.is_some());
            assert_eq!(needed, expected, "{name}");
        }
    }
}
