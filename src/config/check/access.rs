//! The check of who may come in: `auth`, `addresses`, `satisfy`, `paths`, `userfilter` and `clientfilter` of a server.

use std::borrow::Cow;
use std::path::PathBuf;

use auth_wire::Rule;

use super::auth::{absolute, auth};
use super::group::Group;
use crate::access::{self, Access, AccessRule, Addresses, Auth, AuthKind, ClientFilter, Satisfy, Subjects, shown_ip};
use crate::clients::Networks;
use crate::config::keys::{ACCESS_KEYS, DOCUMENT_GROUPS};
use crate::config::problem::Problems;
use crate::config::values;
use crate::http::upgrade::Origins;
use crate::limits::{ACCESS_RULES_MAX, AUTH_ALTERNATIVES_MAX, TRUSTED_MAX};
use crate::route::Site;
use crate::route::names::Patterns;
use crate::types::Address;

/// The rules of uakari-auth for all servers. Equal ones are one.
#[derive(Default)]
pub(crate) struct RuleTable {
    pub(crate) all: Vec<Rule>,
    /// Where each of them was set.
    pub(crate) places: Vec<String>,
}

impl RuleTable {
    /// The index of a rule.
    pub(crate) fn add(&mut self, rule: Rule, place: String) -> u32 {
        let found = self.all.iter().position(|other| *other == rule);
        let index = found.unwrap_or_else(|| {
            self.all.push(rule);
            self.places.push(place);
            self.all.len() - 1
        });
        index as u32
    }
}

/// The check of a server's keys about access.
pub(crate) struct AccessCheck<'a> {
    /// The realm of challenges that set none.
    pub(crate) realm: &'a str,
    /// Clients may present a certificate.
    pub(crate) has_client_certificates: bool,
    /// The proxies that are trusted.
    proxies: &'a Networks,
    /// The database of `userfilter`.
    pub(crate) filter: Option<PathBuf>,
    /// The paths for which it is not asked.
    unfiltered: Option<Patterns>,
    pub(crate) rules: &'a mut RuleTable,
    /// The server has `paths`.
    has_paths: bool,
    /// The rule of the server, which its paths and links have where they set nothing else.
    own: AccessRule,
    /// `unprotected` lists `auth`.
    is_consented: bool,
    /// The keys whose protection is missing, to which `unprotected` consents.
    lost: Vec<&'static str>,
}

impl<'a> AccessCheck<'a> {
    /// Checks the keys of a server that hold for all of its requests.
    pub(crate) fn new(
        server: &Group<'_>,
        realm: &'a str,
        has_client_certificates: bool,
        proxies: &'a Networks,
        rules: &'a mut RuleTable,
        problems: &mut Problems,
    ) -> AccessCheck<'a> {
        let filter = server.group("userfilter", problems);
        if let Some(filter) = &filter {
            filter.require(problems, "dbname");
        }
        let mut check = AccessCheck {
            realm,
            has_client_certificates,
            proxies,
            filter: filter.as_ref().and_then(|filter| filter.text("dbname")).map(absolute),
            unfiltered: filter.and_then(|filter| filter.text("allow")).and_then(|list| {
                values::elements(list).next()?;
                Some(Patterns::parse_paths(list))
            }),
            rules,
            has_paths: server.has("paths"),
            own: AccessRule::default(),
            is_consented: consents(server, "auth"),
            lost: Vec::new(),
        };
        check.own = check.rule(server, problems).unwrap_or_default();
        check
    }

    /// Reports a protection that is not served: an error, or a warning if `unprotected` lists `auth`.
    pub(crate) fn lose(&mut self, group: &Group<'_>, name: &str, loss: &str, problems: &mut Problems) {
        if self.is_consented {
            self.lost.push("auth");
            group.warn(problems, name, format_args!("is not served, as unprotected allows: {loss}"));
        } else {
            let sentence = format_args!(
                "is not served: {loss}: protect the server by other means, then write unprotected = (\"auth\");"
            );
            group.error(problems, name, sentence);
        }
    }

    /// Checks `auth`, `addresses` and `satisfy` of a server, a path or a link. What is not set is that of the server.
    /// None: nothing is set.
    fn rule(&mut self, group: &Group<'_>, problems: &mut Problems) -> Option<AccessRule> {
        if !["auth", "addresses", "satisfy"].iter().any(|name| group.has(name)) {
            return None;
        }
        let mut rule = self.own.clone();
        if group.has("auth") {
            let lost = self.lost.len();
            let auth = self.alternatives(group, problems);
            let has_lost_all = auth.is_empty() && self.lost.len() > lost;
            if !has_lost_all {
                rule.auth = auth;
            } else if rule.auth.is_empty() {
                group.warn(problems, "auth", "none of it is served: every client is admitted without a credential");
            } else {
                group.warn(problems, "auth", "none of it is served: that of the server holds");
            }
        }
        if let Some(group) = group.group("addresses", problems) {
            rule.addresses = Some(addresses(&group, problems));
        }
        if let Some(satisfy) = group.word("satisfy", &values::SATISFY) {
            rule.satisfy = satisfy;
        }
        let needs_credential = !rule.auth.is_empty() && rule.auth.iter().all(|auth| auth.kind != AuthKind::None);
        if rule.satisfy == Satisfy::Any && !(needs_credential && rule.addresses.is_some()) && !problems.has_errors() {
            let sentence = "satisfy = \"any\" admits every client unless both auth and addresses are set: write both, or \
                satisfy = \"all\";";
            group.error(problems, "satisfy", sentence);
        }
        self.warn_of_proxies(group, &rule, problems);
        Some(rule)
    }

    /// Reports that clients whose address a proxy does not pass on have that of the proxy, which may come in.
    fn warn_of_proxies(&self, group: &Group<'_>, rule: &AccessRule, problems: &mut Problems) {
        let listed = rule.addresses.as_ref().and_then(|addresses| addresses.listed_of(self.proxies));
        let Some(name) = ["addresses", "satisfy"].into_iter().find(|name| group.has(name)) else { return };
        let Some(proxies) = listed else { return };
        let consequence = match rule.satisfy {
            Satisfy::Any => "their requests need a credential all the same, since they may be those of any client",
            Satisfy::All => "every client has such an address if the proxy does not pass on its own",
        };
        let sentence =
            format_args!("allow has {proxies}, proxies of trusted: {consequence}: add deny = \"{proxies}\";");
        group.warn(problems, name, sentence);
    }

    fn alternatives(&mut self, group: &Group<'_>, problems: &mut Problems) -> Vec<Auth> {
        let groups = group.groups("auth", AUTH_ALTERNATIVES_MAX, problems);
        let is_alone = groups.len() < 2;
        let mut all = Vec::new();
        for group in groups {
            // ouistiti needs all elements of a list: a password, then a token or a one-time password.
            if let Some(name) =
                ["options", "mode", "authz", "secret"].into_iter().find(|name| group.has(name) && !is_alone)
            {
                let loss = "ouistiti needs all elements of auth, here one of them suffices";
                self.lose(&group, name, loss, problems);
            }
            let Some(auth) = auth(&group, self, problems) else { continue };
            if auth.kind == AuthKind::None && !is_alone {
                let sentence = "\"none\" admits every client, whatever the other elements are: leave it out";
                group.error(problems, "type", sentence);
            }
            all.push(auth);
        }
        all
    }

    /// Checks the keys of a link. None: those of the server hold.
    pub(crate) fn of_link(&mut self, link: &Group<'_>, is_direct: bool, problems: &mut Problems) -> Option<AccessRule> {
        let rule = self.rule(link, problems)?;
        self.warn_unfiltered(link, &rule, problems);
        if self.has_paths && !link.has("auth") {
            let name = if link.has("addresses") { "addresses" } else { "satisfy" };
            let sentence = "decides about the names of this link instead of paths: if an element of paths asks for a \
                credential there, write its auth here too";
            link.warn(problems, name, sentence);
        }
        if is_direct && rule.auth.iter().any(|auth| auth.recheck_ms > 0) {
            link.error(problems, "options", DIRECT_RECHECK);
        }
        Some(rule)
    }

    /// Reports an `auth` of a path or a link about whose clients the database of `userfilter` is not asked.
    fn warn_unfiltered(&self, group: &Group<'_>, rule: &AccessRule, problems: &mut Problems) {
        if group.has("auth") && self.filter.is_some() && rule.auth.iter().any(|auth| !auth.has_filter) {
            let sentence =
                "userfilter does not hold here: it needs credentials that name a user, such as basic or bearer";
            group.warn(problems, "auth", sentence);
        }
    }

    /// Checks what is left, once `websocket` was checked, and sets the access of the site. True: a protection of ouistiti's
    /// is missing.
    pub(crate) fn finish(mut self, server: &Group<'_>, site: &mut Site, problems: &mut Problems) -> bool {
        let mut rules = Vec::new();
        for path in server.groups("paths", ACCESS_RULES_MAX, problems) {
            path.require(problems, "path");
            let patterns = path.parsed(problems, "path", |list| match values::elements(list).next() {
                Some(_) => Ok(Patterns::parse_paths(list)),
                None => Err("is empty: write patterns such as \"^/admin/\"".to_owned()),
            });
            match self.rule(&path, problems) {
                Some(rule) => {
                    self.warn_unfiltered(&path, &rule, problems);
                    rules.push(AccessRule { path: patterns, ..rule });
                }
                None => path.error(problems, "", "restricts nothing: write auth, addresses or satisfy"),
            }
        }
        rules.extend(self.unfiltered(server, problems));
        if self.own != AccessRule::default() {
            rules.push(self.own.clone());
        }
        let filter = client_filter(server, problems);
        if let Some(proxy) = filter.as_ref().and_then(|filter| filter.listed_of(self.proxies)).map(shown_proxy) {
            let sentence = format_args!(
                "allow has {proxy}, a proxy of trusted: every client has this address if the proxy does not pass on its own"
            );
            server.warn(problems, "clientfilter", sentence);
        }
        site.access = Access::new(filter, rules);
        self.check_conflicts(server, site, problems);
        warn_of_caches(server, site, problems);
        for name in ACCESS_KEYS {
            if consents(server, name) && !self.lost.contains(&name) {
                let effect = if server.has(name) { "is served" } else { "protects nothing here" };
                server.warn(problems, "unprotected", format_args!("{name} {effect}: leave it out"));
            }
        }
        !self.lost.is_empty()
    }

    /// Checks `userfilter`. Returns the rule of the paths for which it is not asked.
    fn unfiltered(&mut self, server: &Group<'_>, problems: &mut Problems) -> Option<AccessRule> {
        if !server.has("userfilter") {
            return None;
        }
        if self.own.auth.is_empty() || !self.own.auth.iter().all(|auth| auth.has_filter) {
            let need = "needs auth whose credentials name a user: basic, digest, bearer, cookie or query";
            if consents(server, "userfilter") {
                self.lost.push("userfilter");
                let sentence = format_args!("is not served, and the server is unprotected: it {need}");
                server.warn(problems, "userfilter", sentence);
            } else if !problems.has_errors() {
                server.error(problems, "userfilter", format_args!("{need}: write such an auth"));
            }
            return None;
        }
        let path = Some(self.unfiltered.take()?);
        let mut rule = AccessRule { path, spares_filter: true, ..self.own.clone() };
        for auth in &mut rule.auth {
            let index = auth.rule as usize;
            let unfiltered = Rule { filter: None, ..self.rules.all[index].clone() };
            auth.rule = self.rules.add(unfiltered, self.rules.places[index].clone());
            auth.has_filter = false;
        }
        Some(rule)
    }

    /// Reports what the origins and the mode of WebSockets do not go together with.
    fn check_conflicts(&self, server: &Group<'_>, site: &Site, problems: &mut Problems) {
        let of_links = site.links.iter().filter_map(|link| link.access.as_ref());
        let all = || site.access.rules.iter().chain(of_links.clone()).flat_map(|rule| &rule.auth);
        let has =
            |is_meant: fn(&AuthKind) -> bool| site.origins == Origins::Any && all().any(|auth| is_meant(&auth.kind));
        if has(|kind| matches!(kind, AuthKind::Cookie { .. })) || has(reads_cookies) {
            let sentence =
                "origins of websocket is \"*\": the pages of every site could use the cookie: list the origins";
            server.error(problems, "auth", sentence);
        } else if has(|kind| !matches!(kind, AuthKind::Bearer | AuthKind::Query { .. } | AuthKind::None)) {
            let sentence = "origins of websocket is \"*\": the pages of every site may connect with what the browser has \
                stored: list the origins";
            server.warn(problems, "auth", sentence);
        }
        let is_direct =
            site.service.is_direct || site.links.iter().any(|link| link.access.is_none() && link.service.is_direct);
        if is_direct && site.access.rules.iter().flat_map(|rule| &rule.auth).any(|auth| auth.recheck_ms > 0) {
            server.error(problems, "auth", DIRECT_RECHECK);
        }
    }
}

/// Reports a Cache-Control with which caches may give a page that needs something to clients that do not have it.
fn warn_of_caches(server: &Group<'_>, site: &Site, problems: &mut Problems) {
    let paths = site.access.rules.iter().filter_map(|rule| rule.path.as_ref());
    let patterns = site.page_headers.iter().map(|header| &header.path).chain(paths);
    let files = patterns.flat_map(Patterns::samples).chain(["/x".to_owned()]);
    let is_given_away = |sample: &String| {
        let name = sample.trim_matches('/');
        let is_folder = sample.ends_with('/');
        let file = if is_folder { format!("{}index.html", &sample[1..]) } else { name.to_owned() };
        let needed = access::demand(None, &site.access, &Subjects::of_page(name, &file, is_folder));
        needed.is_some() && may_be_shared(&site.page_fields(&file))
    };
    let Some(file) = files.filter(|_| site.has_www).find(is_given_away) else { return };
    let sentence = format_args!(
        "Cache-Control lets caches give pages such as {file} to others, although they need a credential or an address: add \
         private or no-cache"
    );
    for name in DOCUMENT_GROUPS {
        server.warn(problems, name, sentence);
    }
}

/// Whether the Cache-Control among these header lines has neither private, no-cache nor no-store.
fn may_be_shared(fields: &str) -> bool {
    let mut fields = fields.lines().filter_map(|line| line.split_once(':'));
    let value = fields.find(|(name, _)| name.eq_ignore_ascii_case("cache-control")).map_or("", |(_, value)| value);
    let mut directives = value.split(',').filter_map(|directive| directive.split('=').next());
    let is_strict =
        |word: &str| ["private", "no-cache", "no-store"].iter().any(|strict| word.trim().eq_ignore_ascii_case(strict));
    !directives.any(is_strict)
}

/// Whether a UNIX server decides by what browsers send for the pages of every site.
fn reads_cookies(kind: &AuthKind) -> bool {
    matches!(kind, AuthKind::Unix { headers, .. } if headers.iter().any(|name| **name == *"cookie"))
}

/// In direct mode the client's socket is with the backend.
const DIRECT_RECHECK: &str = "recheck-ms cannot be used with options = \"direct\", since backends have the clients' sockets: leave one of them out";

/// Whether `unprotected` lists a key.
fn consents(server: &Group<'_>, name: &str) -> bool {
    server.texts("unprotected").iter().any(|(_, word)| *word == name)
}

fn addresses(group: &Group<'_>, problems: &mut Problems) -> Addresses {
    let mut addresses = Addresses::default();
    for (name, networks) in [("allow", &mut addresses.allow), ("deny", &mut addresses.deny)] {
        if group.has(name) {
            group.each(name, TRUSTED_MAX, problems, |text| networks.add(text));
        }
    }
    if !group.means("allow") && !group.means("deny") {
        group.error(problems, "", "restricts nothing: write allow = \"NETWORK\"; or deny = \"NETWORK\";");
    }
    addresses
}

/// A proxy as `trusted` lists it.
fn shown_proxy(address: Address) -> Cow<'static, str> {
    if address == Address::Unix { "unix:".into() } else { shown_ip(address) }
}

fn client_filter(server: &Group<'_>, problems: &mut Problems) -> Option<ClientFilter> {
    let group = server.group("clientfilter", problems)?;
    let text = |name| group.text(name).unwrap_or_default();
    if values::elements(text("deny")).next().is_none() {
        group.warn(problems, "allow", "has no effect without deny: write deny = \"*\"; to refuse all others");
        return None;
    }
    Some(ClientFilter::new(text("allow"), text("deny")))
}
