//! What a client's statement may do: read this one database, or write to it too, and nothing beside it. SQLite itself
//! is asked, while it compiles a statement, so that no way of writing one gets past. Where clients only read, the file
//! is also opened for that alone.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use jsonrpc_library::Failure;
use jsonrpc_sqlite::{Settings, complaint_of};
use rusqlite::config::DbConfig;
use rusqlite::hooks::{AuthAction, AuthContext, Authorization};
use rusqlite::limits::Limit;
use rusqlite::{Connection, Error, OptionalExtension};

use crate::limits::{
    COMPOUND_MAX, DATABASE_SIZE_MAX, EXPRESSION_DEPTH_MAX, INSTRUCTIONS_MAX, PATTERN_SIZE_MAX, QUERY_SIZE_MAX,
    TRIGGER_DEPTH_MAX, VALUE_SIZE_MAX,
};

/// Pragmas that tell of tables and change nothing, whatever they are given.
const PRAGMAS: [&str; 7] =
    ["table_info", "table_xinfo", "table_list", "index_list", "index_info", "index_xinfo", "foreign_key_list"];

/// Functions that reach out of the database.
const FUNCTIONS: [&str; 2] = ["load_extension", "fts3_tokenizer"];

/// What makes a database one of users: the tables in which authrpc keeps passwords (`users`, or `passwds` in newer
/// databases of ouistiti's), with their column. Clients who write must not come to make them: the database would be
/// refused to all from then on. To show such a column as NULL would not do: joins compare columns without asking.
const SECRET: &str = "select t.name from sqlite_schema t, pragma_table_xinfo(t.name) c \
                      where t.type = 'table' and lower(t.name) in ('users', 'passwds') \
                      and lower(c.name) = 'passwd' limit 1";

/// Whether the library itself is speaking, which alone begins and ends transactions.
pub type IsOwn = Arc<AtomicBool>;

/// What clients may do, as `-C` says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Rights {
    /// They may write.
    pub may_write: bool,
    /// They may see the passwords of a database of users.
    pub may_see_passwords: bool,
}

/// Opens the database for clients. The error is the operator's.
pub fn open(settings: &Settings, rights: Rights) -> Result<(Connection, IsOwn), Failure> {
    let complain = |error| complaint_of(&settings.file, &error);
    let connection = jsonrpc_sqlite::open(&settings.file, rights.may_write).map_err(complain)?;
    let secret = secret_table(&connection).map_err(complain)?;
    if let Some(table) = secret.filter(|_| !rights.may_see_passwords) {
        return Err(Failure::internal(&format!(
            "{}: its table {table} holds passwords, which all clients could read: give another database, or say \
             passwords=1",
            settings.file.display()
        )));
    }
    confine(connection, rights.may_write).map_err(complain)
}

/// The table that makes it a database of users.
pub fn secret_table(connection: &Connection) -> Result<Option<String>, Error> {
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
    // Its own files stay as they are, and what stands in them runs nothing.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA, false)?;
    let is_own = IsOwn::default();
    let speaks = is_own.clone();
    connection.authorizer(Some(move |context: AuthContext<'_>| {
        if speaks.load(Ordering::Relaxed) { Authorization::Allow } else { judge(&context.action, may_write) }
    }))?;
    Ok((connection, is_own))
}

fn judge(action: &AuthAction<'_>, may_write: bool) -> Authorization {
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
        // ATTACH, also of VACUUM INTO; pragmas that set something; transactions, which would outlast their call;
        // temporary tables, which would too; virtual tables, whose modules are not asked about what they do.
        _ => Authorization::Deny,
    }
}

fn is_among(names: &[&str], name: &str) -> bool {
    names.iter().any(|known| known.eq_ignore_ascii_case(name))
}
