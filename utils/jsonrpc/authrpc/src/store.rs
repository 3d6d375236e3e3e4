//! The database of users, created or in any of the layouts that ouistiti has had.

use std::fs::Permissions;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use jsonrpc_library::Failure;
use jsonrpc_sqlite::{failure_of, sqlite_failure};
use rusqlite::{Connection, Error, OptionalExtension, Transaction, TransactionBehavior};

use crate::{attempts, passwords};

/// The group whose members may change other users.
pub(crate) const ROOT: &str = "root";
/// The group of new users, unless another is given.
pub(crate) const USERS: &str = "users";

/// The table with the passwords.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Passwords {
    /// `users`.
    Within,
    /// `passwds`, as in ouistiti since 2023.
    Apart,
}

/// A database of users.
#[derive(Debug)]
pub struct Store {
    pub(crate) db: Connection,
    passwords: Passwords,
    has_status: bool,
}

/// A row of a user.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct User {
    pub(crate) id: i64,
    /// The name.
    pub name: String,
    /// The name of the group, if it has one.
    pub group: Option<String>,
    /// The home folder.
    pub home: Option<String>,
    /// The stored password, usually a hash.
    pub stored: Option<String>,
    /// Whether it may log in: ouistiti has users that are not approved yet, and repudiated ones.
    pub may_log_in: bool,
    /// Whether it may log in to change its password only: its status is "reapproving".
    pub must_change: bool,
}

impl User {
    pub(crate) fn is_root(&self) -> bool {
        self.group.as_deref() == Some(ROOT)
    }
}

impl Store {
    /// Opens an existing database, and creates the table of attempts if it is missing. The error is for the operator.
    pub(crate) fn open(file: &Path) -> Result<Store, Failure> {
        let db = jsonrpc_sqlite::open(file, true).map_err(|error| failure_of(file, &error))?;
        let store = Store::of(db, file)?;
        // At each opening, since the file may be replaced while the server runs.
        store.db.execute_batch(attempts::TABLE).map_err(|error| failure_of(file, &error))?;
        Ok(store)
    }

    /// Opens an existing database to look users up. The error is for the operator.
    pub fn open_read_only(file: &Path) -> Result<Store, Failure> {
        Store::of(jsonrpc_sqlite::open(file, false).map_err(|error| failure_of(file, &error))?, file)
    }

    /// Recognizes the layout.
    fn of(db: Connection, file: &Path) -> Result<Store, Failure> {
        let columns = |table: &str| columns(&db, table).map_err(|error| failure_of(file, &error));
        let (users, passwords, groups) = (columns("users")?, columns("passwds")?, columns("groups")?);
        let has = |all: &[String], wanted: &[&str]| wanted.iter().all(|name| all.iter().any(|column| column == name));
        let is_apart = has(&passwords, &["userid", "passwd", "issuer"]);
        if !has(&users, &["id", "name", "groupid", "home"])
            || !has(&groups, &["id", "name"])
            || !is_apart && !has(&users, &["passwd"])
        {
            return Err(Failure::internal(&format!(
                "{}: this is no database of users: it needs the tables users (id, name, groupid, home) and groups (id, \
                 name), and passwd in users or in a table passwds (userid, passwd, issuer)",
                file.display()
            )));
        }
        let has_status = has(if is_apart { &passwords } else { &users }, &["statusid"]);
        let passwords = if is_apart { Passwords::Apart } else { Passwords::Within };
        Ok(Store { db, passwords, has_status })
    }

    /// The table with the passwords, and its column with the id of the user.
    pub(crate) fn password_table(&self) -> (&'static str, &'static str) {
        match self.passwords {
            Passwords::Within => ("users", "id"),
            Passwords::Apart => ("passwds", "userid"),
        }
    }

    /// Whether passwords are in the table `passwds`, as in ouistiti since 2023.
    pub fn is_apart(&self) -> bool {
        self.passwords == Passwords::Apart
    }

    /// Whether users have a status.
    pub fn has_status(&self) -> bool {
        self.has_status
    }

    /// The user of this name.
    pub fn user(&self, name: &str) -> Result<Option<User>, Failure> {
        // Of several passwords in `passwds`, the one without an issuer.
        let (of, join) = match self.passwords {
            Passwords::Within => ("u", ""),
            Passwords::Apart => (
                "p",
                "left join passwds p on p.rowid = (select rowid from passwds where userid = u.id \
                 order by coalesce(issuer, '') <> '', rowid limit 1)",
            ),
        };
        let status =
            if self.has_status { format!("(select name from status where id = {of}.statusid)") } else { "null".into() };
        let sql = format!(
            "select u.id, u.name, g.name, u.home, {of}.passwd, {status} from users u \
             left join groups g on g.id = u.groupid {join} where u.name = ?1"
        );
        let row = self.db.query_row(&sql, [name], |row| {
            let status: Option<String> = row.get(5)?;
            Ok(User {
                id: row.get(0)?,
                name: row.get(1)?,
                group: row.get(2)?,
                home: row.get(3)?,
                stored: row.get(4)?,
                may_log_in: match status.as_deref() {
                    None => !self.has_status,
                    Some(status) => matches!(status, "activated" | "reapproving"),
                },
                must_change: status.as_deref() == Some("reapproving"),
            })
        });
        row.optional().map_err(|error| sqlite_failure(&error))
    }

    /// Replaces `user.stored`. False: it has changed meanwhile.
    pub(crate) fn set_password(&self, user: &User, stored: &str) -> Result<bool, Failure> {
        let (table, id) = self.password_table();
        let sql = format!("update {table} set passwd = ?1 where {id} = ?2 and passwd is ?3");
        let count = self.db.execute(&sql, (stored, user.id, &user.stored)).map_err(|error| sqlite_failure(&error))?;
        Ok(count > 0)
    }

    /// Notes that a user who had to change its password has done so.
    pub(crate) fn activate(&self, user: &User) -> Result<(), Failure> {
        if !self.has_status {
            return Ok(());
        }
        let (table, id) = self.password_table();
        let sql = format!(
            "update {table} set statusid = (select id from status where name = 'activated') where {id} = ?1 \
             and statusid = (select id from status where name = 'reapproving')"
        );
        self.db.execute(&sql, [user.id]).map(|_| ()).map_err(|error| sqlite_failure(&error))
    }

    /// The id of a group.
    pub(crate) fn group(&self, name: &str) -> Result<Option<i64>, Failure> {
        let row = self.db.query_row("select id from groups where name = ?1", [name], |row| row.get(0));
        row.optional().map_err(|error| sqlite_failure(&error))
    }

    /// Adds a user. False: there is one of that name.
    pub(crate) fn add(&self, name: &str, group: i64, home: Option<&str>, stored: &str) -> Result<bool, Failure> {
        match self.try_add(name, group, home, stored) {
            Ok(()) => Ok(true),
            Err(error) if error.sqlite_error_code() == Some(rusqlite::ErrorCode::ConstraintViolation) => Ok(false),
            Err(error) => Err(sqlite_failure(&error)),
        }
    }

    fn try_add(&self, name: &str, group: i64, home: Option<&str>, stored: &str) -> Result<(), Error> {
        let transaction = Transaction::new_unchecked(&self.db, TransactionBehavior::Immediate)?;
        transaction.execute("insert into users (name, groupid, home) values (?1, ?2, ?3)", (name, group, home))?;
        let id = transaction.last_insert_rowid();
        match self.passwords {
            Passwords::Within => transaction.execute("update users set passwd = ?1 where id = ?2", (stored, id))?,
            Passwords::Apart => {
                transaction.execute("insert into passwds (userid, passwd) values (?1, ?2)", (id, stored))?
            }
        };
        if self.has_status {
            let (table, column) = self.password_table();
            let sql = format!(
                "update {table} set statusid = (select id from status where name = 'activated') where {column} = ?1"
            );
            transaction.execute(&sql, [id])?;
        }
        transaction.commit()
    }

    /// Removes a user. False: it is the last of the root group, without whom no user could be added.
    pub(crate) fn remove(&self, user: &User) -> Result<bool, Failure> {
        self.try_remove(user).map_err(|error| sqlite_failure(&error))
    }

    fn try_remove(&self, user: &User) -> Result<bool, Error> {
        let transaction = Transaction::new_unchecked(&self.db, TransactionBehavior::Immediate)?;
        // Only users who may log in count.
        let (table, id) = self.password_table();
        let status = match self.has_status {
            true => {
                "and coalesce((select name from status where id = p.statusid), 'activated') \
                 in ('activated', 'reapproving')"
            }
            false => "",
        };
        let sql = format!(
            "select count(*) from users u where u.id <> ?1 and u.groupid = (select id from groups where name = ?2) \
             and exists (select 1 from {table} p where p.{id} = u.id \
             and coalesce(p.passwd, '') not in ('', '*') {status})"
        );
        let others: i64 = transaction.query_row(&sql, (user.id, ROOT), |row| row.get(0))?;
        if user.is_root() && others == 0 {
            return Ok(false);
        }
        if self.passwords == Passwords::Apart {
            transaction.execute("delete from passwds where userid = ?1", [user.id])?;
        }
        transaction.execute("delete from users where id = ?1", [user.id])?;
        transaction.commit()?;
        Ok(true)
    }
}

/// Tables and groups as in ouistiti's databases.
const TABLES: &str = "
    create table groups (id INTEGER PRIMARY KEY, name TEXT UNIQUE NOT NULL);
    create table users (
        id INTEGER PRIMARY KEY, name TEXT UNIQUE NOT NULL, groupid INTEGER, passwd TEXT, home TEXT,
        FOREIGN KEY (groupid) REFERENCES groups(id) ON UPDATE SET NULL);
    insert into groups values (0, 'root'), (1, 'anonymous'), (2, 'users');";

/// Creates what is missing: the file, readable only by its owner, the tables, and a root user whose password is printed
/// on `output` once. It is printed before it is stored, since a password that nobody knows is of no use.
pub(crate) fn create(file: &Path, output: &mut dyn Write) -> Result<(), Failure> {
    jsonrpc_sqlite::create(file).map_err(|error| Failure::internal(&format!("{}: {error}", file.display())))?;
    make_private(file)?;
    let mut db = jsonrpc_sqlite::open(file, true).map_err(|error| failure_of(file, &error))?;
    let begun = db.transaction_with_behavior(TransactionBehavior::Immediate);
    let transaction = begun.map_err(|error| failure_of(file, &error))?;
    let tables = transaction.query_row("select count(*) from sqlite_schema", [], |row| row.get::<_, i64>(0));
    if tables.map_err(|error| failure_of(file, &error))? == 0 {
        let password = passwords::generate()?;
        fill(&transaction, &passwords::hash(&password)?).map_err(|error| failure_of(file, &error))?;
        writeln!(
            output,
            "authrpc: {} is new; its user root has the password {password} which is not printed again",
            file.display()
        )
        .map_err(|error| Failure::internal(&format!("the password of root cannot be printed: {error}")))?;
    }
    transaction.commit().map_err(|error| failure_of(file, &error))
}

/// An existing empty file may be readable by others. SQLite gives its mode to the journal.
fn make_private(file: &Path) -> Result<(), Failure> {
    // For other errors SQLite has the better message.
    let Ok(metadata) = std::fs::metadata(file) else { return Ok(()) };
    if metadata.len() > 0 || metadata.permissions().mode() & 0o007 == 0 {
        return Ok(());
    }
    std::fs::set_permissions(file, Permissions::from_mode(0o600)).map_err(|error| {
        Failure::internal(&format!("{}: everybody could read it: {error}: give it the mode 600", file.display()))
    })
}

fn fill(transaction: &Transaction<'_>, stored: &str) -> Result<(), Error> {
    transaction.execute_batch(TABLES)?;
    let root = "insert into users (name, groupid, passwd, home) values ('root', 0, ?1, '/home/root')";
    transaction.execute(root, [stored]).map(|_| ())
}

fn columns(db: &Connection, table: &str) -> Result<Vec<String>, Error> {
    db.prepare("select name from pragma_table_info(?1)")?.query_map([table], |row| row.get(0))?.collect()
}
