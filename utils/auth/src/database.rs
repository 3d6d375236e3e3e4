//! Users in an SQLite database of ouistiti or authrpc, and ouistiti's userfilter. Both are opened read-only for each
//! question: the file may be replaced, and a question about a password takes far longer.

use std::path::{Path, PathBuf};

use auth_wire::{Layout, Secret};
use authrpc::Store;
use jsonrpc_sqlite::sqlite_failure;
use patterns::Patterns;
use rusqlite::{Connection, Error, OptionalExtension};

use crate::identity::Identity;
use crate::limits::{EXPRESSION_SIZE_MAX, RULES_MAX};
use crate::names;

/// The group of users who have to change their passwords, in place of their own group, as in ouistiti.
const REAPPROVING: &str = "reapproving";
/// The role of clients without a user, and of users and groups that are no roles.
const ANONYMOUS: &str = "anonymous";
/// The role of everybody.
const EVERYBODY: &str = "*";

/// A user's row.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Row {
    /// A hash or clear text, as `passwords::Stored::parse_row` takes it.
    pub passwd: Secret,
    /// The groups.
    pub groups: Vec<String>,
    /// The home folder; empty: none.
    pub home: String,
}

/// A database of users.
#[derive(Debug)]
pub struct Database {
    path: PathBuf,
    layout: Option<Layout>,
}

impl Database {
    /// Checks its tables; without a layout, recognizes it. The error is the operator's sentence.
    pub fn open(path: &Path, layout: Option<Layout>) -> Result<Database, String> {
        let database = Database { path: path.to_owned(), layout };
        // Columns that are missing fail in a query.
        database.user("")?;
        Ok(database)
    }

    /// The row of a user; None: no such user, or one that is disabled. The error is the operator's sentence.
    pub fn user(&self, name: &str) -> Result<Option<Row>, String> {
        let store = Store::open_read_only(&self.path).map_err(|failure| failure.message)?;
        let found = match (store.is_apart(), store.has_status()) {
            (true, _) => Layout::Passwds,
            (false, true) => Layout::Status,
            (false, false) => Layout::Authrpc,
        };
        if let Some(layout) = self.layout.filter(|layout| *layout != found) {
            return Err(format!("{}: its tables are {}, not {}", self.path.display(), tables(found), tables(layout)));
        }
        let user = store.user(name).map_err(|failure| format!("{}: {}", self.path.display(), failure.message))?;
        let Some(user) = user.filter(|user| user.may_log_in) else { return Ok(None) };
        let group = if user.must_change { Some(REAPPROVING.to_owned()) } else { user.group };
        Ok(Some(Row {
            passwd: user.stored.unwrap_or_default().into(),
            groups: group.into_iter().filter(|group| names::is_group(group)).collect(),
            home: user.home.unwrap_or_default(),
        }))
    }
}

fn tables(layout: Layout) -> &'static str {
    match layout {
        Layout::Passwds => "those of ouistiti with passwds",
        Layout::Status => "those of ouistiti with a statusid in users",
        Layout::Authrpc => "those of authrpc",
    }
}

/// The database of ouistiti's userfilter: a rule gives a role, which is a user or a group, a method and a pattern of
/// paths.
#[derive(Clone, Debug)]
pub struct Filter {
    path: PathBuf,
}

impl Filter {
    /// Checks its tables. The error is the operator's sentence.
    pub fn open(path: &Path) -> Result<Filter, String> {
        let filter = Filter { path: path.to_owned() };
        filter.allows(&Identity::default(), "GET", "/")?;
        Ok(filter)
    }

    /// Whether a rule allows this. An identity without a user is anonymous. The error is the operator's sentence.
    ///
    /// The rules of the user, of its groups, and of the role "*" apply. For a user or a group that is no role, those of
    /// the role "anonymous" do. Methods are compared exactly. A rule whose pattern has `%u`, `%g` or `%h` needs the user,
    /// a group or the home; what is put in has no special characters.
    pub fn allows(&self, identity: &Identity, method: &str, path: &str) -> Result<bool, String> {
        let failed = |error| format!("{}: {}", self.path.display(), sqlite_failure(&error).message);
        let connection = jsonrpc_sqlite::open(&self.path, false).map_err(failed)?;
        let expressions = expressions(&connection, identity, method).map_err(failed)?;
        if expressions.len() > RULES_MAX as usize {
            return Err(format!("{}: more than {RULES_MAX} rules for a method and a role", self.path.display()));
        }
        Ok(expressions.iter().any(|expression| is_match(expression, identity, path)))
    }
}

/// The patterns of the rules that apply.
fn expressions(connection: &Connection, identity: &Identity, method: &str) -> Result<Vec<String>, Error> {
    let user = if identity.user.is_empty() { ANONYMOUS } else { &identity.user };
    let no_group = [String::new()];
    let groups = if identity.groups.is_empty() { &no_group[..] } else { &identity.groups };
    let mut role = connection.prepare("select id from roles where name = ?1")?;
    let mut id = |name: &str| role.query_row([name], |row| row.get::<_, i64>(0)).optional();
    let (anonymous, everybody) = (id(ANONYMOUS)?, id(EVERYBODY)?);
    let mut roles: Vec<i64> = everybody.into_iter().collect();
    for name in std::iter::once(user).chain(groups.iter().map(String::as_str)) {
        roles.extend(id(name)?.or(anonymous));
    }
    roles.sort_unstable();
    roles.dedup();
    let mut found = Vec::new();
    let mut rules = connection.prepare(
        "select exp from rules where methodid = (select id from methods where name = ?1) and roleid = ?2 \
         and typeof(exp) = 'text' and length(exp) <= ?3 limit ?4",
    )?;
    for role in roles {
        let rows = rules.query_map((method, role, EXPRESSION_SIZE_MAX, RULES_MAX + 1), |row| row.get(0))?;
        for expression in rows {
            found.push(expression?);
        }
    }
    Ok(found)
}

/// Whether a pattern matches a path for one of the user's groups.
fn is_match(expression: &str, identity: &Identity, path: &str) -> bool {
    let user = if identity.user.is_empty() { ANONYMOUS } else { &identity.user };
    let matches = |group: &str| {
        let fill = |run: &str| filled(run, user, group, &identity.home);
        Patterns::parse(expression).fill(fill).below_root().matches(path)
    };
    match identity.groups.as_slice() {
        [] => matches(if identity.user.is_empty() { ANONYMOUS } else { "" }),
        groups => groups.iter().any(|group| matches(group)),
    }
}

/// A text of a pattern with the user, a group and the home in it. None: one of them is needed and missing, or is no
/// segment of a path, or there is another percent sign.
fn filled(run: &str, user: &str, group: &str, home: &str) -> Option<String> {
    let is_segment = |name: &&str| !name.is_empty() && !name.contains('/') && !matches!(*name, "." | "..");
    let mut parts = run.split('%');
    let mut text = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (value, rest) = match part.split_at_checked(1)? {
            ("u", rest) => (Some(user).filter(is_segment), rest),
            ("g", rest) => (Some(group).filter(is_segment), rest),
            ("h", rest) => (Some(home).filter(|home| !home.trim_matches('/').is_empty()), rest),
            _ => return None,
        };
        text.push_str(value?);
        text.push_str(rest);
    }
    Some(text)
}

#[cfg(test)]
pub(crate) mod tests {
    use tempfile::TempDir;

    use super::*;

    const COMMON: &str = "
        create table groups (id INTEGER PRIMARY KEY, name TEXT UNIQUE NOT NULL);
        insert into groups values (0, 'root'), (2, 'users');
        create table status (id INTEGER PRIMARY KEY, name TEXT UNIQUE NOT NULL);
        insert into status values (1, 'approving'), (2, 'activated'), (3, 'repudiated'), (4, 'reapproving');";
    /// ouistiti since 2023.
    const APART: &str = "
        create table users (id INTEGER PRIMARY KEY, name TEXT UNIQUE NOT NULL, groupid INTEGER DEFAULT 1, home TEXT);
        create table passwds (userid INTEGER NOT NULL, passwd TEXT, issuer TEXT, statusid INTEGER DEFAULT 1);
        insert into users values (1, 'alice', 0, '/home/alice'), (2, 'new', 2, null), (3, 'gone', 2, null),
            (4, 'again', 0, null), (5, 'alone', 9, null), (6, 'unknown', 2, null);
        insert into passwds values (6, 'pw', null, 99), (1, 'other', 'elsewhere', 2), (1, 'pw1', null, 2), (2, 'pw', null, 1),
            (3, 'pw', null, 3), (4, 'pw4', null, 4);";
    /// ouistiti's releases.
    const STATUS: &str = "
        create table users (id INTEGER PRIMARY KEY, name TEXT UNIQUE NOT NULL, groupid INTEGER DEFAULT 2 NOT NULL,
            statusid INTEGER DEFAULT 1 NOT NULL, passwd TEXT, home TEXT);
        insert into users values (1, 'alice', 0, 2, 'pw1', '/home/alice'), (2, 'new', 2, 1, 'pw', null),
            (3, 'gone', 2, 3, 'pw', null), (4, 'again', 0, 4, 'pw4', null), (5, 'alone', 9, 2, null, null),
            (6, 'unknown', 2, 99, 'pw', null);";
    const AUTHRPC: &str = "
        create table users (id INTEGER PRIMARY KEY, name TEXT UNIQUE NOT NULL, groupid INTEGER, passwd TEXT, home TEXT);
        insert into users values (1, 'alice', 0, 'pw1', '/home/alice'), (5, 'alone', 9, null, null);";

    /// Creates a database.
    pub(crate) fn create(path: &Path, sql: &str) {
        Connection::open(path).unwrap().execute_batch(sql).unwrap();
    }

    /// A database in a folder, with the mode of a file that is not to be written.
    fn database(sql: &str) -> (TempDir, PathBuf) {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("users.db");
        create(&path, sql);
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o400)).unwrap();
        (folder, path)
    }

    fn row(passwd: &str, group: &str, home: &str) -> Row {
        let groups = Some(group.to_owned()).into_iter().filter(|group| !group.is_empty()).collect();
        Row { passwd: passwd.into(), groups, home: home.to_owned() }
    }

    #[test]
    fn users_of_every_layout() {
        let layouts = [Layout::Passwds, Layout::Status, Layout::Authrpc];
        for (tables, layout) in [APART, STATUS, AUTHRPC].iter().zip(layouts) {
            let (folder, path) = database(&format!("{COMMON}{tables}"));
            for given in [None, Some(layout)] {
                let database = Database::open(&path, given).unwrap();
                assert_eq!(database.user("alice").unwrap(), Some(row("pw1", "root", "/home/alice")), "{layout:?}");
                // A group that is missing, and no password: an empty one matches nothing. Without a row in passwds there
                // is no status.
                let alone = Some(row("", "", "")).filter(|_| layout != Layout::Passwds);
                assert_eq!(database.user("alone").unwrap(), alone, "{layout:?}");
                for name in ["new", "gone", "unknown", "", "ALICE", "alice'--", "alice\0", "' or 1=1 --", "%"] {
                    assert_eq!(database.user(name).unwrap(), None, "{layout:?}: {name}");
                }
                if layout != Layout::Authrpc {
                    assert_eq!(database.user("again").unwrap(), Some(row("pw4", REAPPROVING, "")), "{layout:?}");
                }
                assert!(!format!("{:?}", database.user("alice")).contains("pw1"));
            }
            for other in layouts.into_iter().filter(|other| *other != layout) {
                let said = Database::open(&path, Some(other)).unwrap_err();
                assert!(said.contains("its tables are"), "{said}");
            }
            let files: Vec<_> = std::fs::read_dir(folder.path()).unwrap().collect();
            assert_eq!(files.len(), 1, "nothing is written: {files:?}");
        }
    }

    #[test]
    fn databases_that_change() {
        let (folder, path) = database(&format!("{COMMON}{AUTHRPC}"));
        let opened = Database::open(&path, None).unwrap();
        let (_other, replacement) = database(&format!("{COMMON}{AUTHRPC}update users set passwd = 'new';"));
        std::fs::copy(&replacement, folder.path().join("next")).unwrap();
        std::fs::rename(folder.path().join("next"), &path).unwrap();
        assert_eq!(opened.user("alice").unwrap().unwrap().passwd.reveal(), "new");
        std::fs::remove_file(&path).unwrap();
        assert!(opened.user("alice").unwrap_err().contains("users.db: "));
        assert!(!path.exists());
        std::fs::write(&path, "no database").unwrap();
        assert!(opened.user("alice").unwrap_err().contains("not a database"));
    }

    #[test]
    fn databases_that_are_refused() {
        for (sql, part) in [
            ("", "this is no database of users"),
            ("create table users (id, name)", "this is no database of users"),
            // The table status is missing.
            (
                "create table groups (id, name); create table users (id, name, groupid, home, passwd, statusid)",
                "no such table: status",
            ),
        ] {
            let (_folder, path) = database(sql);
            let said = Database::open(&path, None).unwrap_err();
            assert!(said.contains(part) && said.contains("users.db"), "{sql}: {said}");
            let said = Filter::open(&path).unwrap_err();
            assert!(said.contains("no such table"), "{sql}: {said}");
        }
        let folder = tempfile::tempdir().unwrap();
        for path in [folder.path().join("missing"), folder.path().to_owned()] {
            assert!(Database::open(&path, None).is_err() && Filter::open(&path).is_err(), "{path:?}");
        }
    }

    /// As ouistiti creates it, with rules added.
    const FILTER: &str = "
        create table methods (id INTEGER PRIMARY KEY, name TEXT UNIQUE NOT NULL);
        insert into methods (name) values ('GET'), ('POST'), ('PUT'), ('DELETE'), ('HEAD');
        create table roles (id INTEGER PRIMARY KEY, name TEXT UNIQUE NOT NULL);
        insert into roles (id, name) values (0, 'root'), (1, 'anonymous'), (2, 'users'), (9, '*'), (10, 'reapproving'),
            (11, 'alice');
        create table rules (exp TEXT NOT NULL, methodid INTEGER NOT NULL, roleid INTEGER NOT NULL);
        insert into rules values ('^/*', 1, 0), ('^/auth/filter*', 3, 0), ('^/trust/*', 1, 1), ('^/%g/%u/*', 1, 2),
            ('^%g/%u/*', 3, 2), ('^%h/', 1, 2), ('^/signup*', 1, 10), ('.png$', 1, 9), ('^/alice$,^/a$', 1, 11),
            ('^/%x', 1, 9), ('^/%', 1, 9), ('^/50%%', 1, 9), (x'2f', 1, 9);";

    fn identity(user: &str, groups: &[&str], home: &str) -> Identity {
        let groups = groups.iter().map(|group| (*group).to_owned()).collect();
        Identity { user: user.to_owned(), groups, home: home.to_owned(), until_ms: None }
    }

    #[test]
    fn rules_of_userfilter() {
        let (_folder, path) = database(FILTER);
        let filter = Filter::open(&path).unwrap();
        let root = &identity("root", &["root"], "");
        let alice = &identity("alice", &["users"], "/home/alice");
        let bob = &identity("bob", &["users"], "");
        let nobody = &identity("", &[], "");
        let stranger = &identity("eve", &["guests"], "/");
        let again = &identity("again", &["reapproving"], "");
        let both = &identity("carol", &["staff", "users"], "");
        let root_is_no_group = &identity("mallory", &["*"], "/");
        for (identity, method, path, allowed) in [
            (root, "GET", "/anything", true),
            (root, "POST", "/anything", false),
            (root, "PUT", "/auth/filter/4", true),
            (root, "get", "/anything", false),
            (root, "CONNECT", "/anything", false),
            (root, "", "/anything", false),
            (nobody, "GET", "/trust/x", true),
            (nobody, "PUT", "/trust/x", false),
            (nobody, "GET", "/private", false),
            (nobody, "GET", "/a/b.png", true),
            (nobody, "GET", "/a/b.png/c", false),
            (stranger, "GET", "/trust/x", true),
            (stranger, "GET", "/a.png", true),
            (stranger, "GET", "/", false),
            // alice and users are roles, so that anonymous' rules do not apply.
            (alice, "GET", "/trust/x", false),
            (bob, "GET", "/trust/x", true),
            (alice, "GET", "/users/alice/x", true),
            (alice, "GET", "/users/bob/x", false),
            (alice, "GET", "/x/users/alice/x", false),
            (alice, "PUT", "/users/alice/x", true),
            (alice, "GET", "/alice", true),
            (alice, "GET", "/alice/x", false),
            (alice, "GET", "/a", true),
            (bob, "GET", "/alice", false),
            (alice, "GET", "/home/alice/x", true),
            (alice, "GET", "/home/alice2/x", false),
            (bob, "GET", "/x", false),
            (bob, "GET", "//x", false),
            (both, "GET", "/users/carol/x", true),
            // The rule of the group users is for the other group too.
            (both, "GET", "/staff/carol/x", true),
            (both, "GET", "/guests/carol/x", false),
            // In ouistiti the rules of the role 10 are everybody's.
            (again, "GET", "/signup", true),
            (bob, "GET", "/signup", false),
            (root_is_no_group, "GET", "/", false),
            (nobody, "GET", "/50%", false),
            (nobody, "GET", "/%x", false),
        ] {
            assert_eq!(filter.allows(identity, method, path), Ok(allowed), "{identity:?} {method} {path}");
        }
    }

    #[test]
    fn names_are_not_patterns() {
        let (_folder, path) = database(FILTER);
        let filter = Filter::open(&path).unwrap();
        for (user, home, path, allowed) in [
            ("*", "", "/users/bob/x", false),
            ("bob/x", "", "/users/bob/x/y", false),
            ("..", "", "/users/../x", false),
            ("b$", "", "/users/b$/x", true),
            ("b,^/", "", "/private", false),
            ("%g", "", "/users/%g/x", true),
            ("%g", "", "/users/users/x", false),
            ("u", "*", "/private/", false),
            ("u", "/", "/private", false),
            ("u", "srv/u", "/srv/u/x", true),
        ] {
            let said = filter.allows(&identity(user, &["users"], home), "GET", path);
            assert_eq!(said, Ok(allowed), "{user} {home} {path}");
        }
    }

    #[test]
    fn rules_are_limited() {
        let long = format!("^/{}", "x".repeat(EXPRESSION_SIZE_MAX as usize));
        let (_folder, path) = database(&format!("{FILTER}insert into rules values ('{long}', 1, 9);"));
        let long = long.trim_start_matches('^');
        assert_eq!(Filter::open(&path).unwrap().allows(&Identity::default(), "GET", long), Ok(false));
        let many = format!(
            "{FILTER}with recursive n(i) as (select 0 union all select i + 1 from n where i < {RULES_MAX})
             insert into rules select '^/' || i, 1, 9 from n;"
        );
        let (_folder, path) = database(&many);
        assert!(Filter::open(&path).unwrap_err().contains("more than 10000 rules"));
    }
}
