//! A database that is not there yet is made, with a root user whose password is told once.

use std::io::Write;
use std::path::Path;

use jsonrpc_library::Failure;
use jsonrpc_sqlite::complaint_of;
use rusqlite::{Error, Transaction, TransactionBehavior};

use crate::{attempts, passwords};

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
    let kept = transaction.execute_batch(attempts::TABLE).and_then(|()| transaction.commit());
    kept.map_err(|error| complaint_of(file, &error))
}

fn fill(transaction: &Transaction<'_>, stored: &str) -> Result<(), Error> {
    transaction.execute_batch(TABLES)?;
    let root = "insert into users (name, groupid, passwd, home) values ('root', 0, ?1, '/home/root')";
    transaction.execute(root, [stored]).map(|_| ())
}
