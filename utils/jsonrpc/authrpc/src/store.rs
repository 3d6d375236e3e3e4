//! The database of users: what it holds, and in which of the layouts that ouistiti has had.

use std::path::Path;

use jsonrpc_library::Failure;
use jsonrpc_sqlite::{complaint, complaint_of};
use rusqlite::{Connection, Error, OptionalExtension, Transaction, TransactionBehavior};

use crate::attempts;

/// The group whose members may do everything.
pub const ROOT: &str = "root";
/// The group of those for whom none is named.
pub const USERS: &str = "users";

/// Where passwords are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Passwords {
    /// In `users`.
    Within,
    /// In a table of their own, as ouistiti has had them since 2023.
    Apart,
}

/// A database that is open.
#[derive(Debug)]
pub struct Store {
    /// The connection.
    pub db: Connection,
    passwords: Passwords,
    has_status: bool,
}

/// A user.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct User {
    /// Its number.
    pub id: i64,
    /// Its name.
    pub name: String,
    /// Its group.
    pub group: Option<String>,
    /// Its home folder.
    pub home: Option<String>,
    /// What is stored of its password.
    pub stored: Option<String>,
    /// Whether it may log in: ouistiti has users that are not approved yet, and such as were sent away.
    pub may_log_in: bool,
}

impl User {
    /// Whether it may do everything.
    pub fn is_root(&self) -> bool {
        self.group.as_deref() == Some(ROOT)
    }
}

impl Store {
    /// Opens one that is there, and adds the table of the attempts where it is missing. The error is the operator's.
    pub fn open(file: &Path) -> Result<Store, Failure> {
        let db = jsonrpc_sqlite::open(file, true).map_err(|error| complaint_of(file, &error))?;
        let columns = |table: &str| columns(&db, table).map_err(|error| complaint_of(file, &error));
        let (users, passwords, groups) = (columns("users")?, columns("passwds")?, columns("groups")?);
        let has = |all: &[String], wanted: &[&str]| wanted.iter().all(|name| all.iter().any(|column| column == name));
        let is_apart = has(&passwords, &["userid", "passwd", "issuer"]);
        if !has(&users, &["id", "name", "groupid", "home"])
            || !has(&groups, &["id", "name"])
            || !is_apart && !has(&users, &["passwd"])
        {
            return Err(Failure::internal(&format!(
                "{}: this is no database of users: it wants the tables users (id, name, groupid, home) and groups (id, \
                 name), and passwd in users or in a table passwds (userid, passwd, issuer)",
                file.display()
            )));
        }
        // Each time: a database may be put in the place of another while the server runs.
        db.execute_batch(attempts::TABLE).map_err(|error| complaint_of(file, &error))?;
        let has_status = has(if is_apart { &passwords } else { &users }, &["statusid"]);
        let passwords = if is_apart { Passwords::Apart } else { Passwords::Within };
        Ok(Store { db, passwords, has_status })
    }

    /// The table of the passwords, and its column for the user's number.
    pub fn place(&self) -> (&'static str, &'static str) {
        match self.passwords {
            Passwords::Within => ("users", "id"),
            Passwords::Apart => ("passwds", "userid"),
        }
    }

    /// A user by its name.
    pub fn user(&self, name: &str) -> Result<Option<User>, Failure> {
        // Of several passwords apart, the one that is for no issuer in particular.
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
                may_log_in: matches!(status.as_deref(), None | Some("activated" | "reapproving")),
            })
        });
        row.optional().map_err(|error| complaint(&error))
    }

    /// Stores a password of a user, in the place of `user.stored`; false where that has changed meanwhile.
    pub fn set_password(&self, user: &User, stored: &str) -> Result<bool, Failure> {
        let (table, id) = self.place();
        let sql = format!("update {table} set passwd = ?1 where {id} = ?2 and passwd is ?3");
        let count = self.db.execute(&sql, (stored, user.id, &user.stored)).map_err(|error| complaint(&error))?;
        Ok(count > 0)
    }

    /// A user that had to choose a new password has done so.
    pub fn activate(&self, user: &User) -> Result<(), Failure> {
        if !self.has_status {
            return Ok(());
        }
        let (table, id) = self.place();
        let sql = format!(
            "update {table} set statusid = (select id from status where name = 'activated') where {id} = ?1 \
             and statusid = (select id from status where name = 'reapproving')"
        );
        self.db.execute(&sql, [user.id]).map(|_| ()).map_err(|error| complaint(&error))
    }

    /// The number of a group.
    pub fn group(&self, name: &str) -> Result<Option<i64>, Failure> {
        let row = self.db.query_row("select id from groups where name = ?1", [name], |row| row.get(0));
        row.optional().map_err(|error| complaint(&error))
    }

    /// Adds a user; false where there is one of that name.
    pub fn add(&self, name: &str, group: i64, home: Option<&str>, stored: &str) -> Result<bool, Failure> {
        match self.try_add(name, group, home, stored) {
            Ok(()) => Ok(true),
            Err(error) if error.sqlite_error_code() == Some(rusqlite::ErrorCode::ConstraintViolation) => Ok(false),
            Err(error) => Err(complaint(&error)),
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
            let (table, column) = self.place();
            let sql = format!(
                "update {table} set statusid = (select id from status where name = 'activated') where {column} = ?1"
            );
            transaction.execute(&sql, [id])?;
        }
        transaction.commit()
    }

    /// Removes a user, unless it is the last of the root group: then nobody could add another. Tells whether it did.
    pub fn remove(&self, user: &User) -> Result<bool, Failure> {
        self.try_remove(user).map_err(|error| complaint(&error))
    }

    fn try_remove(&self, user: &User) -> Result<bool, Error> {
        let transaction = Transaction::new_unchecked(&self.db, TransactionBehavior::Immediate)?;
        // Who may not log in cannot add anybody.
        let (table, id) = self.place();
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

fn columns(db: &Connection, table: &str) -> Result<Vec<String>, Error> {
    db.prepare("select name from pragma_table_info(?1)")?.query_map([table], |row| row.get(0))?.collect()
}
