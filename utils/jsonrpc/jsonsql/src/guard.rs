//! Confines a client's statements to reading, or to reading and writing, this one database. SQLite calls the authorizer
//! while it compiles a statement, so that no syntax evades it. If clients may only read, the file is opened read-only too.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::limits::{
    COMPOUND_MAX, DATABASE_SIZE_MAX, EXPRESSION_DEPTH_MAX, INSTRUCTIONS_MAX, PATTERN_SIZE_MAX, QUERY_SIZE_MAX,
    TRIGGER_DEPTH_MAX, VALUE_SIZE_MAX,
};
use jsonrpc_library::Failure;
use jsonrpc_sqlite::{Settings, failure_of};
use rusqlite::config::DbConfig;
use rusqlite::hooks::{AuthAction, AuthContext, Authorization};
use rusqlite::limits::Limit;
use rusqlite::{Connection, Error, OptionalExtension};

/// Pragmas that describe tables, and change nothing with any argument.
const PRAGMAS: [&str; 7] =
    ["table_info", "table_xinfo", "table_list", "index_list", "index_info", "index_xinfo", "foreign_key_list"];

/// Functions with effects outside the database.
const FUNCTIONS: [&str; 2] = ["load_extension", "fts3_tokenizer"];

/// Finds a table in which authrpc stores passwords: `users`, or `passwds` in newer databases of ouistiti. Clients that
/// write must not create one, since the database would be refused to all clients from then on. Reading the column as NULL
/// would not be enough, since joins compare columns without the authorizer.
const SECRET: &str = "select t.name from sqlite_schema t, pragma_table_xinfo(t.name) c \
                      where t.type = 'table' and lower(t.name) in ('users', 'passwds') \
                      and lower(c.name) = 'passwd' limit 1";

/// Whether the library runs a statement of its own, which the authorizer always allows.
pub(crate) type IsOwn = Arc<AtomicBool>;

/// Rights of clients, as `-C` says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Rights {
    pub(crate) may_write: bool,
    pub(crate) may_see_passwords: bool,
}

/// Opens the database for clients. The error is for the operator.
pub(crate) fn open(settings: &Settings, rights: Rights) -> Result<(Connection, IsOwn), Failure> {
    let complain = |error| failure_of(&settings.file, &error);
    let connection = jsonrpc_sqlite::open(&settings.file, rights.may_write).map_err(complain)?;
    let secret = secret_table(&connection).map_err(complain)?;
    if let Some(table) = secret.filter(|_| !rights.may_see_passwords) {
        return Err(Failure::internal(&format!(
            "{}: its table {table} holds passwords, which all clients could read: give another database, or \
             passwords=1",
            settings.file.display()
        )));
    }
    confine(connection, rights.may_write).map_err(complain)
}

/// The table with passwords, if there is one.
pub(crate) fn secret_table(connection: &Connection) -> Result<Option<String>, Error> {
    connection.query_row(SECRET, [], |row| row.get(0)).optional()
}

fn confine(mut connection: Connection, may_write: bool) -> Result<(Connection, IsOwn), Error> {
    if may_write {
        let page_size: u32 = connection.query_row("pragma page_size", [], |row| row.get(0))?;
        let pages = DATABASE_SIZE_MAX / page_size as usize;
        connection.query_row(&format!("pragma max_page_count = {pages}"), [], |_| Ok(()))?;
    }
    for (limit, value) in [
        (Limit::SQLITE_LIMIT_LENGTH, VALUE_SIZE_MAX),
        (Limit::SQLITE_LIMIT_SQL_LENGTH, QUERY_SIZE_MAX),
        (Limit::SQLITE_LIMIT_EXPR_DEPTH, EXPRESSION_DEPTH_MAX),
        (Limit::SQLITE_LIMIT_COMPOUND_SELECT, COMPOUND_MAX),
        (Limit::SQLITE_LIMIT_VDBE_OP, INSTRUCTIONS_MAX),
        (Limit::SQLITE_LIMIT_LIKE_PATTERN_LENGTH, PATTERN_SIZE_MAX),
        (Limit::SQLITE_LIMIT_TRIGGER_DEPTH, TRIGGER_DEPTH_MAX),
        (Limit::SQLITE_LIMIT_ATTACHED, 0),
        (Limit::SQLITE_LIMIT_WORKER_THREADS, 0),
    ] {
        connection.set_limit(limit, i32::try_from(value).unwrap_or(i32::MAX))?;
    }
    // Statements cannot corrupt the file, and its schema cannot call functions with side effects.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA, false)?;
    let is_own = IsOwn::default();
    let is_own_statement = is_own.clone();
    connection.authorizer(Some(move |context: AuthContext<'_>| {
        if is_own_statement.load(Ordering::Relaxed) {
            Authorization::Allow
        } else {
            authorize(&context.action, may_write)
        }
    }))?;
    Ok((connection, is_own))
}

fn authorize(action: &AuthAction<'_>, may_write: bool) -> Authorization {
    match action {
        AuthAction::Select | AuthAction::Read { .. } | AuthAction::Recursive => Authorization::Allow,
        AuthAction::Function { function_name } if is_among(&FUNCTIONS, function_name) => Authorization::Deny,
        AuthAction::Function { .. } => Authorization::Allow,
        AuthAction::Pragma { pragma_name, .. } if is_among(&PRAGMAS, pragma_name) => Authorization::Allow,
        AuthAction::Insert { .. }
        | AuthAction::Update { .. }
        | AuthAction::Delete { .. }
        | AuthAction::CreateTable { .. }
        | AuthAction::CreateIndex { .. }
        | AuthAction::CreateView { .. }
        | AuthAction::CreateTrigger { .. }
        | AuthAction::DropTable { .. }
        | AuthAction::DropIndex { .. }
        | AuthAction::DropView { .. }
        | AuthAction::DropTrigger { .. }
        | AuthAction::AlterTable { .. }
        | AuthAction::Reindex { .. }
        | AuthAction::Analyze { .. }
            if may_write =>
        {
            Authorization::Allow
        }
        // ATTACH, also by VACUUM INTO; pragmas that set something; transactions and temporary tables, which would outlast
        // the call; virtual tables, whose modules do not call the authorizer.
        _ => Authorization::Deny,
    }
}

fn is_among(names: &[&str], name: &str) -> bool {
    names.iter().any(|known| known.eq_ignore_ascii_case(name))
}
