//! A rule with the contents of its files, and the decision about a credential. Files are read again when they change.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use auth_wire::{Credential, Digest, Question, Rule, Secret, Source, Verdict};

use crate::database::{Database, Filter};
use crate::files::{self, Stamp};
use crate::identity::Identity;
use crate::jwt::{JwtError, Verifier};
use crate::limits::{FAILURE_MS, LOOK_MS};
use crate::names;
use crate::passwords::{Stored, expensive};
use crate::tokens::Tokens;
use crate::users::{User, Users, check_name};

/// A rule that can be used. Threads share it; what a changed file has is another one.
#[derive(Clone, Debug)]
pub struct LoadedRule {
    sources: Vec<Arc<LoadedSource>>,
    /// The password whose verification takes longest, of the sources that are in memory.
    dearest: Option<Stored>,
    users: Vec<String>,
    groups: Vec<String>,
    filter: Option<Filter>,
    realm: String,
}

#[derive(Debug)]
enum LoadedSource {
    User(Box<User>),
    Users(Users),
    Database(Database, Dearest),
    Tokens(Tokens),
    Jwt(Box<Verifier>),
    /// It is asked elsewhere.
    Server,
}

/// The password of a database whose verification takes longest, among those that were seen: its rows are not read in
/// advance.
#[derive(Debug)]
struct Dearest(Mutex<Stored>);

impl Dearest {
    /// New rows of authrpc have this hash.
    fn new() -> Dearest {
        Dearest(Mutex::new(expensive()))
    }

    fn get(&self) -> Stored {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn see(&self, stored: &Stored) {
        let mut dearest = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if stored.work_us() > dearest.work_us() {
            *dearest = stored.clone();
        }
    }
}

/// The decision about a credential.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Judgement {
    /// It is right, and its user may do this.
    Allowed(Identity),
    /// It is right, but its user may not do this.
    Forbidden,
    /// It is wrong. A sentence for the log if a stored password is of no use, or why a JSON Web Token is refused.
    Wrong(Option<String>),
    /// It was right, but is over: its holder needs a new one, and has guessed nothing.
    Expired,
    /// It cannot be judged, for this reason.
    Failed(String),
}

impl Judgement {
    /// The answer to a question.
    pub(crate) fn verdict(self) -> Verdict {
        match self {
            Judgement::Allowed(identity) => Verdict::Allow {
                user: identity.user,
                groups: identity.groups,
                until_ms: identity.until_ms,
                headers: Vec::new(),
            },
            Judgement::Forbidden => Verdict::Forbidden,
            Judgement::Wrong(None) | Judgement::Expired => Verdict::Deny,
            Judgement::Wrong(Some(reason)) => Verdict::Refused { reason },
            Judgement::Failed(sentence) => Verdict::Unavailable { sentence },
        }
    }
}

impl LoadedRule {
    /// Reads the files of a rule. Returns warnings too.
    #[cfg(test)]
    pub(crate) fn load(rule: &Rule) -> Result<(LoadedRule, Vec<String>), Vec<String>> {
        let watched = Watched::load(rule.clone(), 0)?;
        let warnings = watched.warnings();
        Ok((Arc::into_inner(watched.loaded).unwrap(), warnings))
    }

    /// Of sources that were loaded, and the problems with others. All problems are the operator's sentences.
    fn new(rule: &Rule, sources: Vec<Arc<LoadedSource>>, mut problems: Vec<String>) -> Result<LoadedRule, Vec<String>> {
        if rule.sources.is_empty() {
            problems.push("no source of users or tokens is given".to_owned());
        }
        if rule.sources.len() > 1 && server_of(rule).is_some() {
            problems.push("a server that decides can have no other source beside it".to_owned());
        }
        if server_of(rule).is_some() && !(rule.users.is_empty() && rule.groups.is_empty() && rule.filter.is_none()) {
            problems
                .push("a server decides about users and groups itself: it has no users, groups or filter".to_owned());
        }
        let filter = rule.filter.as_deref().map(Filter::open).transpose().unwrap_or_else(|sentence| {
            problems.push(sentence);
            None
        });
        if !problems.is_empty() {
            return Err(problems);
        }
        let dearest = dearest(&sources);
        let (users, groups, realm) = (rule.users.clone(), rule.groups.clone(), rule.realm.clone());
        Ok(LoadedRule { sources, dearest, users, groups, filter, realm })
    }

    /// Decides about a credential that is not `None`, at a Unix time in seconds. It may take as long as the dearest
    /// password, and waits for disks.
    pub(crate) fn judge(&self, question: &Question, now_s: u64) -> Judgement {
        let identity = match &question.credential {
            Credential::None => Ok(None),
            Credential::Password { user, password } => return self.judge_password(user, password, question),
            Credential::Digest(digest) => self.identity_of_digest(digest, &question.method),
            Credential::Token(token) => match self.identity_of_token(token, now_s) {
                Ok(identity) => Ok(identity),
                Err(JwtError::Expired) => return Judgement::Expired,
                Err(error) => return Judgement::Wrong(Some(error.to_string())),
            },
        };
        match identity {
            Ok(Some(identity)) => self.authorize(identity, question),
            Ok(None) => Judgement::Wrong(None),
            Err(sentence) => Judgement::Failed(sentence),
        }
    }

    /// Whether the decision takes time: that of a password, or that of a disk.
    pub(crate) fn is_dear(&self, credential: &Credential) -> bool {
        let has_database = || self.sources.iter().any(|source| matches!(**source, LoadedSource::Database(..)));
        match credential {
            Credential::Password { .. } => true,
            Credential::Digest(_) => self.has_filter() || has_database(),
            Credential::Token(_) | Credential::None => self.has_filter(),
        }
    }

    /// Whether the decision depends on method and path.
    pub(crate) fn has_filter(&self) -> bool {
        self.filter.is_some()
    }

    fn judge_password(&self, user: &str, password: &Secret, question: &Question) -> Judgement {
        let found = match self.find(user) {
            Ok(found) => found,
            Err(Unusable::Source(sentence)) => return Judgement::Failed(sentence),
            Err(Unusable::Password(sentence)) => {
                self.spend(0, user, password);
                return Judgement::Wrong(Some(sentence));
            }
        };
        let spent_us = found.as_ref().map_or(0, |user| user.stored.work_us());
        match found.filter(|found| found.stored.verify(user, password.reveal())) {
            Some(found) => self.authorize(found.identity, question),
            None => {
                self.spend(spent_us, user, password);
                Judgement::Wrong(None)
            }
        }
    }

    /// Does the work of the dearest password unless as much is done.
    fn spend(&self, spent_us: u64, user: &str, password: &Secret) {
        if let Some(dearest) = self.dearest().filter(|dearest| dearest.work_us() > spent_us) {
            dearest.verify(user, password.reveal());
        }
    }

    /// The password whose verification takes longest. A failure takes as long for each user, known or not.
    fn dearest(&self) -> Option<Stored> {
        let of_databases = self.sources.iter().filter_map(|source| match &**source {
            LoadedSource::Database(_, dearest) => Some(dearest.get()),
            _ => None,
        });
        of_databases.chain(self.dearest.clone()).max_by_key(Stored::work_us)
    }

    /// Milliseconds after which a failure is answered: as long as it takes to verify any password of the rule, and as long
    /// again for a thread that has other work.
    pub(crate) fn failure_ms(&self) -> u64 {
        self.dearest().map_or(0, |dearest| dearest.work_us() * 2 / 1_000).max(FAILURE_MS)
    }

    fn identity_of_digest(&self, digest: &Digest, method: &str) -> Result<Option<Identity>, String> {
        if digest.realm != self.realm {
            return Ok(None);
        }
        match self.find(&digest.user) {
            Ok(Some(user)) => {
                Ok(Some(user).filter(|user| user.stored.verify_digest(digest, method)).map(|user| user.identity))
            }
            Ok(None) | Err(Unusable::Password(_)) => Ok(None),
            Err(Unusable::Source(sentence)) => Err(sentence),
        }
    }

    /// The error is `Expired` if a source says so, else that of the last source with JSON Web Tokens.
    fn identity_of_token(&self, token: &Secret, now_s: u64) -> Result<Option<Identity>, JwtError> {
        let mut refused = None;
        for source in &self.sources {
            match &**source {
                LoadedSource::Tokens(tokens) => {
                    if let Some(identity) = tokens.find(token.reveal()) {
                        return Ok(Some(identity));
                    }
                }
                LoadedSource::Jwt(verifier) => match verifier.verify(token.reveal(), now_s) {
                    Ok(identity) => return Ok(Some(identity)),
                    Err(error) if refused != Some(JwtError::Expired) => refused = Some(error),
                    Err(_) => {}
                },
                _ => {}
            }
        }
        refused.map_or(Ok(None), Err)
    }

    /// The user of the first source that has one of this name.
    fn find(&self, name: &str) -> Result<Option<User>, Unusable> {
        for source in &self.sources {
            let found = match &**source {
                LoadedSource::User(user) => Some(&**user).filter(|user| user.identity.user == name).cloned(),
                LoadedSource::Users(users) => users.find(name).cloned(),
                // Other names cannot be written to a log, and no other source has them.
                LoadedSource::Database(..) if !names::is_user(name) => None,
                LoadedSource::Database(database, dearest) => {
                    let row = database.user(name).map_err(Unusable::Source)?;
                    row.map(|row| {
                        let unusable = |sentence| Unusable::Password(format!("the password of {name} {sentence}"));
                        let stored = Stored::parse_row(row.passwd.reveal()).map_err(unusable)?;
                        dearest.see(&stored);
                        let identity =
                            Identity { user: name.to_owned(), groups: row.groups, home: row.home, until_ms: None };
                        Ok(User { stored, identity })
                    })
                    .transpose()?
                }
                LoadedSource::Tokens(_) | LoadedSource::Jwt(_) | LoadedSource::Server => None,
            };
            if found.is_some() {
                return Ok(found);
            }
        }
        Ok(None)
    }

    /// Whether a user whose credential is right may do this.
    fn authorize(&self, identity: Identity, question: &Question) -> Judgement {
        let is_open = self.users.is_empty() && self.groups.is_empty();
        let is_member = || identity.groups.iter().any(|group| self.groups.contains(group));
        if !is_open && !self.users.contains(&identity.user) && !is_member() {
            return Judgement::Forbidden;
        }
        let allows = |filter: &Filter| filter.allows(&identity, &question.method, &question.path);
        match self.filter.as_ref().map(allows) {
            None | Some(Ok(true)) => Judgement::Allowed(identity),
            Some(Ok(false)) => Judgement::Forbidden,
            Some(Err(sentence)) => Judgement::Failed(sentence),
        }
    }
}

/// Why a user cannot be verified.
enum Unusable {
    /// The source cannot be read.
    Source(String),
    /// The stored password is of no use.
    Password(String),
}

/// The server that decides, if the rule has one.
pub(crate) fn server_of(rule: &Rule) -> Option<&Path> {
    rule.sources.iter().find_map(|source| match source {
        Source::Server(path) => Some(path.as_path()),
        _ => None,
    })
}

fn of_file(path: &Path, sentence: &str) -> String {
    format!("{}: {sentence}", path.display())
}

fn load_source(source: &Source, warnings: &mut Vec<String>) -> Result<LoadedSource, Vec<String>> {
    match source {
        Source::User { user, passwd, groups } => {
            let stored = check_name(user).and_then(|()| {
                Stored::parse_row(passwd.reveal()).map_err(|sentence| format!("the password of {user} {sentence}"))
            });
            let stored = stored.map_err(|sentence| vec![sentence])?;
            // There is no file that the sentence could begin with.
            let warning = |weakness| format!("passwd of the configuration: the password of {user} {weakness}");
            warnings.extend(stored.weakness().map(warning));
            let identity = Identity { user: user.clone(), groups: groups.clone(), ..Identity::default() };
            Ok(LoadedSource::User(Box::new(User { stored, identity })))
        }
        Source::PasswordFile(path) => load_file(path, Users::parse, warnings).map(LoadedSource::Users),
        Source::Database { path, layout } => match Database::open(path, *layout) {
            Ok(database) => Ok(LoadedSource::Database(database, Dearest::new())),
            Err(sentence) => Err(vec![sentence]),
        },
        Source::Token { token, user, groups } => {
            Tokens::of_one(token.reveal(), user, groups).map(LoadedSource::Tokens).map_err(|sentence| vec![sentence])
        }
        Source::TokenFile(path) => load_file(path, Tokens::parse, warnings).map(LoadedSource::Tokens),
        Source::Jwt(settings) => {
            let (verifier, more) = Verifier::load(settings).map_err(|sentence| vec![sentence])?;
            warnings.extend(more);
            Ok(LoadedSource::Jwt(Box::new(verifier)))
        }
        Source::Server(_) => Ok(LoadedSource::Server),
    }
}

/// What a parser makes of a text, and warnings; the error is problems.
type Parsed<T> = Result<(T, Vec<String>), Vec<String>>;

/// Reads a file that `parse` understands.
pub(crate) fn load_file<T>(
    path: &Path,
    parse: fn(&str) -> Parsed<T>,
    warnings: &mut Vec<String>,
) -> Result<T, Vec<String>> {
    let contents = files::read(path).map_err(|sentence| vec![of_file(path, &sentence)])?;
    if contents.others.may_write {
        warnings.push(of_file(path, "every user of this machine can change it: chmod o-w"));
    }
    if contents.others.may_read {
        warnings.push(of_file(path, "every user of this machine can read it: chmod o-r"));
    }
    let named = |sentences: Vec<String>| sentences.iter().map(|sentence| of_file(path, sentence)).collect::<Vec<_>>();
    let (parsed, more) = parse(contents.text.reveal()).map_err(named)?;
    warnings.extend(named(more));
    Ok(parsed)
}

fn dearest(sources: &[Arc<LoadedSource>]) -> Option<Stored> {
    let of_source = |source: &Arc<LoadedSource>| match &**source {
        LoadedSource::User(user) => Some(user.stored.clone()),
        LoadedSource::Users(users) => users.dearest().cloned(),
        _ => None,
    };
    sources.iter().filter_map(of_source).max_by_key(Stored::work_us)
}

/// A rule, and what is needed to read its files again.
#[derive(Debug)]
pub struct Watched {
    settings: Rule,
    loaded: Arc<LoadedRule>,
    /// In the order of the sources.
    sources: Vec<WatchedSource>,
    sources_hash: u64,
    looked_ms: u64,
}

/// The files of a source. Databases are opened for each question, and have none.
#[derive(Debug)]
struct WatchedSource {
    /// The files as they were before they were read and could be used; None: missing.
    files: Vec<(PathBuf, Option<Stamp>)>,
    warnings: Vec<String>,
    /// Why newer files cannot be used. They are tried again at each look, as the cause may not be in the file.
    problems: Vec<String>,
}

impl Watched {
    /// Reads the files. The errors are the operator's sentences.
    pub(crate) fn load(settings: Rule, now_ms: u64) -> Result<Watched, Vec<String>> {
        let (mut sources, mut loaded, mut problems) = (Vec::new(), Vec::new(), Vec::new());
        for source in &settings.sources {
            let (files, mut warnings) = (files_of(source), Vec::new());
            match load_source(source, &mut warnings) {
                Ok(source) => loaded.push(Arc::new(source)),
                Err(sentences) => problems.extend(sentences),
            }
            sources.push(WatchedSource { files, warnings, problems: Vec::new() });
        }
        let loaded = Arc::new(LoadedRule::new(&settings, loaded, problems)?);
        let mut hasher = DefaultHasher::new();
        settings.sources.hash(&mut hasher);
        Ok(Watched { settings, loaded, sources, sources_hash: hasher.finish(), looked_ms: now_ms })
    }

    /// What tells the users of one rule apart from those of the same names of another: a hash of the settings of the
    /// sources, which stays the same in the next generation.
    pub(crate) fn sources_hash(&self) -> u64 {
        self.sources_hash
    }

    /// Sentences about what was loaded.
    pub(crate) fn warnings(&self) -> Vec<String> {
        self.sources.iter().flat_map(|source| source.warnings.iter().cloned()).collect()
    }

    /// The rule as its files are now. They are examined once in `LOOK_MS`. New sentences for the log are appended to
    /// `news`. A source whose files cannot be used is as it was.
    pub(crate) fn current(&mut self, now_ms: u64, news: &mut Vec<String>) -> &Arc<LoadedRule> {
        if now_ms.saturating_sub(self.looked_ms) >= LOOK_MS {
            self.looked_ms = now_ms;
            self.look(news);
        }
        &self.loaded
    }

    fn look(&mut self, news: &mut Vec<String>) {
        let mut sources = self.loaded.sources.clone();
        let mut is_changed = false;
        for ((watched, settings), loaded) in self.sources.iter_mut().zip(&self.settings.sources).zip(&mut sources) {
            if let Some(source) = watched.look(settings, news) {
                *loaded = Arc::new(source);
                is_changed = true;
            }
        }
        if is_changed {
            self.loaded = Arc::new(LoadedRule { dearest: dearest(&sources), sources, ..(*self.loaded).clone() });
        }
    }
}

impl WatchedSource {
    /// What the files have now, if they have changed and can be used.
    fn look(&mut self, settings: &Source, news: &mut Vec<String>) -> Option<LoadedSource> {
        let (files, mut warnings) = (files_of(settings), Vec::new());
        if files == self.files {
            self.problems.clear();
            return None;
        }
        match load_source(settings, &mut warnings) {
            Ok(source) => {
                news.extend(warnings.iter().filter(|warning| !self.warnings.contains(warning)).cloned());
                *self = WatchedSource { files, warnings, problems: Vec::new() };
                Some(source)
            }
            Err(problems) => {
                let new = problems.iter().filter(|problem| !self.problems.contains(problem));
                news.extend(new.map(|problem| format!("{problem}; what was read before stays in use")));
                self.problems = problems;
                None
            }
        }
    }
}

fn files_of(source: &Source) -> Vec<(PathBuf, Option<Stamp>)> {
    let paths = match source {
        Source::PasswordFile(path) | Source::TokenFile(path) => vec![path],
        Source::Jwt(settings) => settings.keys.iter().map(|key| &key.path).collect(),
        Source::User { .. } | Source::Database { .. } | Source::Token { .. } | Source::Server(_) => Vec::new(),
    };
    paths.into_iter().map(|path| (path.clone(), Stamp::of(path))).collect()
}

#[cfg(test)]
pub(crate) mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use base64::Engine;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;

    use super::*;
    use crate::database::tests::create;
    use crate::passwords::tests::verified;

    pub(crate) const BCRYPT: &str = "$2b$04$abcdefghijklmnopqrstuuEDb2Mi/8goUHOEDCHP6ZBwd5NPf6sDy";
    const SHA: &str = "{SHA}IONDKY6crD6BvscPCv+LP42WUMo=";
    pub(crate) const PASSWORD: &str = "pa55w\u{f6}rd x";

    /// A file that only its owner may read.
    pub(crate) fn write(path: &Path, text: &str) {
        let new = path.with_extension("new");
        fs::write(&new, text).unwrap();
        fs::set_permissions(&new, fs::Permissions::from_mode(0o600)).unwrap();
        fs::rename(&new, path).unwrap();
    }

    const FILTER_TABLES: &str = "
        create table methods (id INTEGER PRIMARY KEY, name TEXT);
        create table roles (id INTEGER PRIMARY KEY, name TEXT);
        create table rules (exp TEXT, methodid INTEGER, roleid INTEGER);";

    /// A new database.
    fn database_of(folder: &Path, sql: &str) -> PathBuf {
        let path = folder.join("database");
        let _ = fs::remove_file(&path);
        create(&path, sql);
        path
    }

    fn question(user: &str, password: &str) -> Question {
        let credential = Credential::Password { user: user.to_owned(), password: password.into() };
        Question { credential, ..Question::default() }
    }

    fn user(user: &str, passwd: &str, groups: &[&str]) -> Source {
        let groups = groups.iter().map(|group| (*group).to_owned()).collect();
        Source::User { user: user.to_owned(), passwd: passwd.into(), groups }
    }

    fn allowed(judgement: &Judgement) -> Option<&str> {
        match judgement {
            Judgement::Allowed(identity) => Some(&identity.user),
            _ => None,
        }
    }

    #[test]
    fn a_failure_costs_the_same_for_each_user() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("users");
        write(&path, &format!("dear:{BCRYPT}\ncheap:{SHA}\nclear:{PASSWORD}:\noff:*\n"));
        let file = Source::PasswordFile(path);
        let (rule, _) = LoadedRule::load(&Rule { sources: vec![file], ..Rule::default() }).unwrap();
        let dear = Stored::parse(BCRYPT).unwrap().work_us();
        for name in ["dear", "cheap", "clear", "off", "unknown", ""] {
            verified();
            assert_eq!(rule.judge(&question(name, "wrong"), 0), Judgement::Wrong(None), "{name}");
            let of_dear = verified().into_iter().filter(|work| *work == dear).count();
            assert_eq!(of_dear, 1, "{name}: as many dear verifications as for each other user");
        }
        for name in ["dear", "cheap", "clear"] {
            verified();
            assert_eq!(allowed(&rule.judge(&question(name, PASSWORD), 0)), Some(name));
            assert_eq!(verified().len(), 1, "{name}: a right password is verified once");
        }
        assert_eq!(rule.judge(&question("off", PASSWORD), 0), Judgement::Wrong(None));
    }

    #[test]
    fn the_first_source_with_the_user_decides() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("users");
        write(&path, &format!("ann:{SHA}\nbob:{SHA}\n"));
        let sources = vec![user("ann", "other", &[]), Source::PasswordFile(path)];
        let (rule, warnings) = LoadedRule::load(&Rule { sources, ..Rule::default() }).unwrap();
        assert_eq!(warnings[0], "passwd of the configuration: the password of ann is in clear text");
        assert_eq!(warnings.len(), 3, "{warnings:?}");
        for (name, password, expected) in
            [("ann", "other", true), ("ann", PASSWORD, false), ("bob", PASSWORD, true), ("bob", "other", false)]
        {
            assert_eq!(allowed(&rule.judge(&question(name, password), 0)).is_some(), expected, "{name} {password}");
        }
    }

    #[test]
    fn users_and_groups_that_may_come_in() {
        let names = |list: &[&str]| list.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        for (users, groups, expected) in [
            (&[][..], &[][..], "ann bob cy"),
            (&["ann"], &[], "ann"),
            (&[], &["ops"], "bob cy"),
            (&["ann"], &["admin"], "ann cy"),
            (&["none"], &[], ""),
            (&[], &["none"], ""),
        ] {
            let sources =
                vec![user("ann", "a", &[]), user("bob", "b", &["ops"]), user("cy", "c", &["x", "ops", "admin"])];
            let settings = Rule { sources, users: names(users), groups: names(groups), ..Rule::default() };
            let (rule, _) = LoadedRule::load(&settings).unwrap();
            let may = [("ann", "a"), ("bob", "b"), ("cy", "c")].into_iter().filter(|(name, password)| {
                let judgement = rule.judge(&question(name, password), 0);
                assert!(judgement == Judgement::Forbidden || allowed(&judgement) == Some(name), "{judgement:?}");
                allowed(&judgement).is_some()
            });
            assert_eq!(may.map(|(name, _)| name).collect::<Vec<_>>().join(" "), expected, "{users:?} {groups:?}");
            assert_eq!(rule.judge(&question("ann", "x"), 0), Judgement::Wrong(None), "wrong is not forbidden");
        }
    }

    #[test]
    fn digest_needs_the_realm_of_the_rule() {
        let digest = |realm: &str| Question {
            credential: Credential::Digest(Digest {
                user: "Mufasa".to_owned(),
                realm: realm.to_owned(),
                nonce: "7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v".to_owned(),
                uri: "/dir/index.html".to_owned(),
                nc: "00000001".to_owned(),
                cnonce: "f2/wE4q74E6zIJEtWaHKaf5wv/H5QzzpXusqGemxURZJ".to_owned(),
                algorithm: auth_wire::DigestAlgorithm::Md5,
                response: "8ca523f5e9506fed4657c9700eebdbec".into(),
            }),
            method: "GET".to_owned(),
            ..Question::default()
        };
        for (realm, expected) in [("http-auth@example.org", true), ("other", false)] {
            let sources = vec![user("Mufasa", "Circle of Life", &[])];
            let settings = Rule { sources, realm: realm.to_owned(), ..Rule::default() };
            let (rule, _) = LoadedRule::load(&settings).unwrap();
            assert_eq!(allowed(&rule.judge(&digest("http-auth@example.org"), 0)).is_some(), expected, "{realm}");
        }
    }

    #[test]
    fn tokens_that_are_over_are_no_guesses() {
        let folder = tempfile::tempdir().unwrap();
        let (secret, others) = (folder.path().join("secret"), folder.path().join("tokens"));
        write(&secret, &"s".repeat(32));
        write(&others, "d4f1a9c07be2583661fa0c9db48e7532:bob\n");
        let key = auth_wire::JwtKey { path: secret, id: None, algorithm: Some(auth_wire::JwtAlgorithm::Hs256) };
        let jwt = Source::Jwt(auth_wire::Jwt { keys: vec![key], ..auth_wire::Jwt::default() });
        let settings = Rule { sources: vec![jwt, Source::TokenFile(others)], ..Rule::default() };
        let (rule, _) = LoadedRule::load(&settings).unwrap();
        let of = |key: &str, exp: u64| {
            let base64 = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
            let claims = format!(r#"{{"sub":"ann","exp":{exp}}}"#);
            let message = format!("{}.{}", base64(br#"{"alg":"HS256"}"#), base64(claims.as_bytes()));
            let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, key.repeat(32).as_bytes());
            format!("{message}.{}", base64(ring::hmac::sign(&key, message.as_bytes()).as_ref()))
        };
        let wrong = |sentence: &str| Judgement::Wrong(Some(sentence.to_owned()));
        for (token, expected) in [
            (of("s", 100), Judgement::Expired),
            (of("x", 100), wrong("the token's signature is wrong")),
            ("any".to_owned(), wrong("the token does not have three parts")),
        ] {
            let credential = Credential::Token(token.as_str().into());
            assert_eq!(rule.judge(&Question { credential, ..Question::default() }, 1_000), expected, "{token}");
        }
        for (token, user) in [(of("s", 2_000), "ann"), ("d4f1a9c07be2583661fa0c9db48e7532".to_owned(), "bob")] {
            let credential = Credential::Token(token.into());
            let judgement = rule.judge(&Question { credential, ..Question::default() }, 1_000);
            assert_eq!(allowed(&judgement), Some(user));
        }
    }

    #[test]
    fn what_waits_for_a_disk_is_dear() {
        let folder = tempfile::tempdir().unwrap();
        let database = Source::Database { path: database_of(folder.path(), USER_TABLES), layout: None };
        let filter = folder.path().join("filter");
        create(&filter, FILTER_TABLES);
        let digest = auth_wire::Digest {
            user: String::new(),
            realm: String::new(),
            nonce: String::new(),
            uri: String::new(),
            nc: String::new(),
            cnonce: String::new(),
            algorithm: auth_wire::DigestAlgorithm::Md5,
            response: "".into(),
        };
        let credentials = [Credential::Token("x".into()), Credential::Digest(digest), question("ann", "x").credential];
        for (source, filter, expected) in [
            (user("ann", "a", &[]), None, [false, false, true]),
            (user("ann", "a", &[]), Some(filter), [true; 3]),
            (database, None, [false, true, true]),
        ] {
            let settings = Rule { sources: vec![source], filter, ..Rule::default() };
            let (rule, _) = LoadedRule::load(&settings).unwrap();
            assert_eq!(credentials.each_ref().map(|credential| rule.is_dear(credential)), expected, "{settings:?}");
        }
    }

    #[test]
    fn problems_are_those_of_all_sources() {
        let folder = tempfile::tempdir().unwrap();
        let (none, bad) = (folder.path().join("none"), folder.path().join("bad"));
        write(&bad, "ann:geheim\nbob\n");
        let sources = vec![
            Source::PasswordFile(none.clone()),
            Source::PasswordFile(bad.clone()),
            user("", "a", &[]),
            user("ann", "$7$x", &[]),
            Source::Server(PathBuf::from("/run/x")),
        ];
        let problems = LoadedRule::load(&Rule { sources, ..Rule::default() }).unwrap_err();
        let bad = bad.display();
        assert_eq!(
            problems,
            [
                format!("{}: No such file or directory (os error 2)", none.display()),
                format!(
                    "{bad}: line 1: the password of ann is neither a hash of a known kind nor in a row with a group"
                ),
                format!("{bad}: line 2: is neither USER:HASH nor USER:PASSWD:GROUPS[:HOME]"),
                "the user's name is empty".to_owned(),
                "the password of ann is a hash of an unknown kind".to_owned(),
                "a server that decides can have no other source beside it".to_owned(),
            ]
        );
        let server = Rule { sources: vec![Source::Server(PathBuf::from("/run/x"))], ..Rule::default() };
        let name = || vec!["root".to_owned()];
        for rule in [
            Rule { users: name(), ..server.clone() },
            Rule { groups: name(), ..server.clone() },
            Rule { filter: Some(database_of(folder.path(), FILTER_TABLES)), ..server.clone() },
        ] {
            let problems = LoadedRule::load(&rule).unwrap_err();
            assert_eq!(problems, ["a server decides about users and groups itself: it has no users, groups or filter"]);
        }
        assert!(LoadedRule::load(&server).is_ok());
        let problems = LoadedRule::load(&Rule::default()).unwrap_err();
        assert_eq!(problems, ["no source of users or tokens is given"]);
    }

    #[test]
    fn changed_files_are_read_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("users");
        write(&path, &format!("ann:{SHA}\n"));
        let settings = Rule { sources: vec![Source::PasswordFile(path.clone())], ..Rule::default() };
        let mut watched = Watched::load(settings, 0).unwrap();
        assert_eq!(watched.warnings().len(), 1);
        let mut has = |name: &str, now_ms| {
            let mut news = Vec::new();
            let rule = Arc::clone(watched.current(now_ms, &mut news));
            (allowed(&rule.judge(&question(name, PASSWORD), 0)).is_some(), news)
        };
        let file = path.display();
        write(&path, &format!("bob:{SHA}\n"));
        assert_eq!(has("bob", LOOK_MS - 1), (false, vec![]), "it was not examined yet");
        let weak = format!("{file}: line 1: the password of bob has a weak hash: one round of SHA-1");
        assert_eq!(has("bob", LOOK_MS), (true, vec![weak]));
        assert_eq!(has("ann", LOOK_MS), (false, vec![]));
        write(&path, "bob\n");
        let broken = format!(
            "{file}: line 1: is neither USER:HASH nor USER:PASSWD:GROUPS[:HOME]; what was read before stays in use"
        );
        assert_eq!(has("bob", 2 * LOOK_MS), (true, vec![broken]), "the old one is kept");
        assert_eq!(has("bob", 3 * LOOK_MS), (true, vec![]), "that is told once");
        fs::remove_file(&path).unwrap();
        let (is_there, news) = has("bob", 4 * LOOK_MS);
        assert!(is_there && news.len() == 1 && news[0].contains("No such file"), "{news:?}");
        write(&path, &format!("ann:{SHA}\n"));
        assert!(has("ann", 5 * LOOK_MS).0);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        let public = format!("{file}: every user of this machine can read it: chmod o-r");
        assert_eq!(has("ann", 6 * LOOK_MS), (true, vec![public]));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o602)).unwrap();
        let written = format!("{file}: every user of this machine can change it: chmod o-w");
        assert_eq!(has("ann", 7 * LOOK_MS), (true, vec![written]));
    }

    #[test]
    fn files_that_cannot_be_used_are_tried_again() {
        let folder = tempfile::tempdir().unwrap();
        let (path, other) = (folder.path().join("users"), folder.path().join("others"));
        write(&path, &format!("ann:{SHA}\n"));
        write(&other, &format!("eve:{SHA}\n"));
        let sources = vec![Source::PasswordFile(path.clone()), Source::PasswordFile(other.clone())];
        let mut watched = Watched::load(Rule { sources, ..Rule::default() }, 0).unwrap();
        let mut now_ms = 0;
        let mut look = |names: &str| {
            let mut news = Vec::new();
            now_ms += LOOK_MS;
            let rule = Arc::clone(watched.current(now_ms, &mut news));
            let is_there = |name: &&str| allowed(&rule.judge(&question(name, PASSWORD), 0)).is_some();
            assert_eq!(["ann", "bob", "cy", "eve"].into_iter().filter(is_there).collect::<Vec<_>>().join(" "), names);
            news.len()
        };
        let broken = folder.path().join("broken");
        fs::write(&broken, "bob\n").unwrap();
        fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink(&broken, &path).unwrap();
        write(&other, &format!("cy:{SHA}\n"));
        assert_eq!(look("ann cy"), 2, "the other source is read");
        assert_eq!(look("ann cy"), 0, "the same sentence is told once");
        fs::write(&broken, "bob:x\n").unwrap();
        assert_eq!(look("ann cy"), 1, "another sentence");
        fs::write(&broken, format!("bob:{SHA}\n")).unwrap();
        look("bob cy");
    }

    /// Files that cannot be read for a while may have the same stamps when they can.
    #[test]
    fn a_source_that_failed_keeps_the_stamps_of_what_it_has() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("users");
        write(&path, &format!("ann:{SHA}\n"));
        let settings = Rule { sources: vec![Source::PasswordFile(path.clone())], ..Rule::default() };
        let mut watched = Watched::load(settings, 0).unwrap();
        let before = watched.sources[0].files.clone();
        write(&path, "bob\n");
        watched.current(LOOK_MS, &mut Vec::new());
        assert_eq!(watched.sources[0].files, before, "each look tries again");
    }

    #[test]
    fn a_database_is_not_opened_when_a_file_changes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("users");
        write(&path, &format!("mallory:{BCRYPT}\n"));
        let database = database_of(folder.path(), USER_TABLES);
        let sources =
            vec![Source::PasswordFile(path.clone()), Source::Database { path: database.clone(), layout: None }];
        let mut watched = Watched::load(Rule { sources, ..Rule::default() }, 0).unwrap();
        fs::write(&database, "no database").unwrap();
        write(&path, &format!("bob:{BCRYPT}\n"));
        let mut news = Vec::new();
        let rule = Arc::clone(watched.current(LOOK_MS, &mut news));
        assert!(!news.iter().any(|sentence| sentence.contains("database")), "{news:?}");
        assert_eq!(allowed(&rule.judge(&question("bob", PASSWORD), 0)), Some("bob"));
        assert!(matches!(rule.judge(&question("mallory", PASSWORD), 0), Judgement::Failed(_)));
    }

    const USER_TABLES: &str = "
        create table groups (id INTEGER PRIMARY KEY, name TEXT);
        create table users (id INTEGER PRIMARY KEY, name TEXT, groupid INTEGER, passwd TEXT, home TEXT);
        insert into users (name, passwd) values ('dear', '$2b$11$abcdefghijklmnopqrstuuEDb2Mi/8goUHOEDCHP6ZBwd5NPf6sDy'),
            ('a' || char(10) || 'b', 'pw'), (' c', 'pw'), ('d', 'pw');";

    #[test]
    fn a_database_remembers_its_dearest_password() {
        let folder = tempfile::tempdir().unwrap();
        let source = Source::Database { path: database_of(folder.path(), USER_TABLES), layout: None };
        let (rule, _) = LoadedRule::load(&Rule { sources: vec![source], ..Rule::default() }).unwrap();
        assert_eq!(rule.failure_ms(), FAILURE_MS);
        let works = |name: &str| {
            verified();
            assert_eq!(rule.judge(&question(name, "wrong"), 0), Judgement::Wrong(None), "{name}");
            verified().into_iter().max()
        };
        let dear = works("dear");
        assert!(dear > Some(expensive().work_us()));
        assert_eq!((works("unknown"), works("d")), (dear, dear));
        // Names that no other source would have.
        for (name, expected) in [("a\nb", false), (" c", false), ("d", true)] {
            assert_eq!(allowed(&rule.judge(&question(name, "pw"), 0)).is_some(), expected, "{name:?}");
        }
    }

    #[test]
    fn failures_take_as_long_as_the_dearest_password() {
        for (cost, expected_ms) in [("04", FAILURE_MS), ("12", 50 * 4_096 * 2 / 1_000), ("14", 50 * 16_384 * 2 / 1_000)]
        {
            let sources =
                vec![user("ann", &BCRYPT.replacen("$04$", &format!("${cost}$"), 1), &[]), user("bob", "b", &[])];
            let (rule, _) = LoadedRule::load(&Rule { sources, ..Rule::default() }).unwrap();
            assert_eq!(rule.failure_ms(), expected_ms, "cost {cost}");
        }
    }
}
