//! A database that is not there yet is made, with a root user whose password is told once.

use std::fs::Permissions;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use jsonrpc_library::Failure;
use jsonrpc_sqlite::complaint_of;
use rusqlite::{Error, Transaction, TransactionBehavior};

use crate::passwords;

/// Tables and groups as ouistiti's have them.
const TABLES: &str = "
    create table groups (id INTEGER PRIMARY KEY, name TEXT UNIQUE NOT NULL);
    create table users (
        id INTEGER PRIMARY KEY, name TEXT UNIQUE NOT NULL, groupid INTEGER, passwd TEXT, home TEXT,
        FOREIGN KEY (groupid) REFERENCES groups(id) ON UPDATE SET NULL);
    insert into groups values (0, 'root'), (1, 'anonymous'), (2, 'users');";

/// Makes what is missing: the file, of which only its owner can read, its tables, its root user. The password is told
/// before it is kept, as one that nobody could read would be of no use.
pub fn ensure(file: &Path, teller: &mut dyn Write) -> Result<(), Failure> {
    jsonrpc_sqlite::make(file).map_err(|error| Failure::internal(&format!("{}: {error}", file.display())))?;
    keep_from_others(file)?;
    let mut db = jsonrpc_sqlite::open(file, true).map_err(|error| complaint_of(file, &error))?;
    let begun = db.transaction_with_behavior(TransactionBehavior::Immediate);
    let transaction = begun.map_err(|error| complaint_of(file, &error))?;
    let tables = transaction.query_row("select count(*) from sqlite_schema", [], |row| row.get::<_, i64>(0));
    if tables.map_err(|error| complaint_of(file, &error))? == 0 {
        let password = passwords::made_up()?;
        fill(&transaction, &passwords::hash(&password)?).map_err(|error| complaint_of(file, &error))?;
        writeln!(
            teller,
            "authrpc: {} is new; its user root has the password {password} which is not told again",
            file.display()
        )
        .map_err(|error| Failure::internal(&format!("the password of root cannot be told: {error}")))?;
    }
    transaction.commit().map_err(|error| complaint_of(file, &error))
}

/// An empty file that was there may have the usual rights. The journal takes them over when it is made.
fn keep_from_others(file: &Path) -> Result<(), Failure> {
    // Of a file that cannot be looked at, SQLite complains.
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
