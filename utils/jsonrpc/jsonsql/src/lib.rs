//! `jsonsql.so`: queries of an SQLite database for `websocket_jsonrpc`. `-C` names its file. Clients may read it, and
//! write to it with `-C file=PATH,write=1`. They cannot access other files. A call is one statement, limited in time,
//! rows and bytes, which takes effect as a whole or not at all. A database with passwords needs `passwords=1`.

mod guard;
mod limits;
mod rows;

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jsonrpc_library::{Failure, Methods, Peer, abi};
use jsonrpc_sqlite::{Settings, failure, params, sqlite_failure};
use rusqlite::types::Value as Cell;
use rusqlite::{Connection, Error, ErrorCode, ToSql, ffi};
use serde_json::{Map, Value, json};

use crate::guard::{IsOwn, Rights};
use crate::limits::{CLOCK_INSTRUCTIONS, ROWS_MAX, ROWS_SIZE_MAX, STATEMENT_MS};
use crate::rows::Rows;

/// Only some of the rows: the error's data has `truncated` and these rows.
const TRUNCATED: i32 = 1_001;

struct Sql {
    db: Connection,
    is_own: IsOwn,
    rights: Rights,
}

struct Outcome {
    rows: Rows,
    /// Rows that it has changed. None: it only reads.
    changes: Option<u64>,
}

jsonrpc_library::export!(Sql);

fn settings(config: &str) -> Result<(Settings, Rights), Failure> {
    let settings = Settings::read(config, &["write", "passwords"])?;
    let rights = Rights { may_write: settings.is_on("write")?, may_see_passwords: settings.is_on("passwords")? };
    Ok((settings, rights))
}

impl Methods for Sql {
    fn start(config: &str) -> Result<(), Failure> {
        let (settings, rights) = settings(config)?;
        if rights.may_write {
            let made = jsonrpc_sqlite::create(&settings.file);
            made.map_err(|error| Failure::internal(&format!("{}: {error}", settings.file.display())))?;
        }
        guard::open(&settings, rights).map(|_| ())
    }

    fn open(config: &str, _: &Peer) -> Result<Sql, Failure> {
        Sql::connect(config).map_err(jsonrpc_sqlite::for_clients)
    }

    fn call(&mut self, method: &str, text: Option<&str>) -> Result<String, Failure> {
        match method {
            "exec" => self.exec(&params(text)?),
            "list" => self.list(&params(text.or(Some("{}")))?),
            "get" => self.get(&params(text)?),
            "view" => self.view(&params(text)?),
            "insert" => self.insert(&params(text)?),
            _ => Err(Failure::method_not_found()),
        }
    }
}

impl Sql {
    /// The error is for the operator.
    fn connect(config: &str) -> Result<Sql, Failure> {
        let (settings, rights) = settings(config)?;
        let (db, is_own) = guard::open(&settings, rights)?;
        Ok(Sql { db, is_own, rights })
    }

    /// `{query}`: its rows, or a message if there are none.
    fn exec(&mut self, params: &Map<String, Value>) -> Result<String, Failure> {
        let Some(Value::String(query)) = known(params, &["query"])?.get("query") else {
            return Err(invalid("query has to be a string"));
        };
        if query.contains('\0') {
            return Err(invalid("query has a NUL in it, where SQLite would stop reading"));
        }
        let Outcome { rows, changes } = self.run(query, &[])?;
        if rows.count() > 0 {
            return Ok(rows.close());
        }
        let mut result = json!({ "message": "Query OK" });
        if let Some(changes) = changes {
            result["changes"] = Value::from(changes);
        }
        Ok(result.to_string())
    }

    /// `{table, [limit], [offset]}`: its rows; `{}`: the tables and views.
    fn list(&mut self, params: &Map<String, Value>) -> Result<String, Failure> {
        if known(params, &["table", "limit", "offset"])?.is_empty() {
            let tables = "select name, type from sqlite_schema where type in ('table', 'view') \
                          and name not like 'sqlite~_%' escape '~' order by name";
            return Ok(self.run(tables, &[])?.rows.close());
        }
        let whole = |key, otherwise| match params.get(key) {
            None => Ok(otherwise),
            Some(value) => value
                .as_i64()
                .filter(|number| *number >= 0)
                .ok_or_else(|| invalid("limit and offset have to be integers, 0 or more")),
        };
        let query = format!("select * from {} limit ?1 offset ?2", table(params)?);
        Ok(self.run(&query, &[&whole("limit", -1)?, &whole("offset", 0)?])?.rows.close())
    }

    /// `{table, id}`: the row with that rowid.
    fn get(&mut self, params: &Map<String, Value>) -> Result<String, Failure> {
        let id = known(params, &["table", "id"])?.get("id").and_then(Value::as_i64);
        let id = id.ok_or_else(|| invalid("id has to be an integer"))?;
        let query = format!("select * from {} where rowid = ?1", table(params)?);
        let rows = self.run(&query, &[&id])?.rows;
        if rows.count() == 0 {
            return Err(failure(ffi::SQLITE_NOTFOUND, "no such row"));
        }
        let array = rows.close();
        Ok(array[1..array.len() - 1].to_owned())
    }

    /// `{table}`: its columns.
    fn view(&mut self, params: &Map<String, Value>) -> Result<String, Failure> {
        let name = known(params, &["table"])?.get("table").and_then(Value::as_str);
        let name = name.ok_or_else(|| invalid("table has to be a name"))?;
        let rows = self.run("select * from pragma_table_info(?1)", &[&name])?.rows;
        if rows.count() == 0 {
            return Err(failure(ffi::SQLITE_ERROR, &format!("no such table: {name}")));
        }
        Ok(rows.close())
    }

    /// `{table, values: {COLUMN: VALUE, ...}}`: adds a row, and returns its rowid.
    fn insert(&mut self, params: &Map<String, Value>) -> Result<String, Failure> {
        let Some(Value::Object(values)) = known(params, &["table", "values"])?.get("values") else {
            return Err(invalid("values has to be an object"));
        };
        let names: Vec<String> = values.keys().map(|name| quoted(name)).collect();
        let cells = values.values().map(cell).collect::<Result<Vec<Cell>, Failure>>()?;
        let query = if names.is_empty() {
            format!("insert into {} default values", table(params)?)
        } else {
            let places = vec!["?"; names.len()].join(", ");
            format!("insert into {} ({}) values ({places})", table(params)?, names.join(", "))
        };
        let cells: Vec<&dyn ToSql> = cells.iter().map(|cell| cell as &dyn ToSql).collect();
        self.run(&query, &cells)?;
        Ok(json!({ "message": "Query OK", "id": self.db.last_insert_rowid() }).to_string())
    }

    /// Runs a statement within the limits. If it exceeds one, its changes are rolled back.
    fn run(&mut self, query: &str, cells: &[&dyn ToSql]) -> Result<Outcome, Failure> {
        let deadline = Instant::now() + Duration::from_millis(STATEMENT_MS);
        let watch = self.db.progress_handler(CLOCK_INSTRUCTIONS, Some(move || Instant::now() >= deadline));
        watch.map_err(|error| sqlite_failure(&error))?;
        let outcome = self.run_within(query, cells);
        if outcome.is_err() && !self.db.is_autocommit() {
            self.own("rollback")?;
        }
        outcome
    }

    fn run_within(&self, query: &str, cells: &[&dyn ToSql]) -> Result<Outcome, Failure> {
        let mut statement = self.db.prepare(query).map_err(|error| self.error(&error))?;
        let writes = !statement.readonly();
        if writes && !self.rights.may_write {
            return Err(self.refused(ffi::SQLITE_READONLY));
        }
        if writes {
            self.own("begin immediate")?;
        }
        for (index, cell) in cells.iter().enumerate() {
            statement.raw_bind_parameter(index + 1, cell).map_err(|error| sqlite_failure(&error))?;
        }
        let mut rows = Rows::new(&statement);
        let before = self.db.total_changes();
        let mut cursor = statement.raw_query();
        loop {
            match cursor.next() {
                Ok(None) => break,
                Ok(Some(row)) => {
                    if !rows.take(row).map_err(|error| sqlite_failure(&error))? {
                        let what = if rows.count() == ROWS_MAX { "rows" } else { "bytes" };
                        let most = if rows.count() == ROWS_MAX { ROWS_MAX } else { ROWS_SIZE_MAX };
                        return Err(truncated(&format!("more than {most} {what}: ask for fewer, with LIMIT"), rows));
                    }
                }
                Err(error) if error.sqlite_error_code() == Some(ErrorCode::OperationInterrupted) => {
                    return Err(truncated(&format!("it took longer than {STATEMENT_MS} ms"), rows));
                }
                Err(error) => return Err(self.error(&error)),
            }
        }
        drop(cursor);
        let changes = writes.then(|| self.db.total_changes() - before);
        if writes {
            self.keep_openable()?;
            self.own("commit")?;
        }
        Ok(Outcome { rows, changes })
    }

    /// Refuses a change that creates a table with passwords, since the database could not be opened any more. It checks the
    /// result, which covers every statement that creates or renames tables or columns.
    fn keep_openable(&self) -> Result<(), Failure> {
        if self.rights.may_see_passwords {
            return Ok(());
        }
        self.is_own.store(true, Ordering::Relaxed);
        let secret = guard::secret_table(&self.db);
        self.is_own.store(false, Ordering::Relaxed);
        match secret.map_err(|error| sqlite_failure(&error))? {
            None => Ok(()),
            Some(table) => {
                let why = format!("not authorized: a table {table} with a column passwd is for databases of users");
                Err(failure(ffi::SQLITE_AUTH, &why))
            }
        }
    }

    /// Runs a statement of the library's own.
    fn own(&self, query: &str) -> Result<(), Failure> {
        self.is_own.store(true, Ordering::Relaxed);
        let result = self.db.execute_batch(query);
        self.is_own.store(false, Ordering::Relaxed);
        result.map_err(|error| sqlite_failure(&error))
    }

    /// SQLite's error for the caller; if the authorizer denied the statement, with the reason.
    fn error(&self, error: &Error) -> Failure {
        if matches!(error, Error::MultipleStatement) {
            return invalid("one statement in a query");
        }
        // SQLite's code for stepping an empty statement.
        if error.sqlite_error_code() == Some(ErrorCode::ApiMisuse) {
            return invalid("query has no statement in it");
        }
        let recovers = [ffi::SQLITE_READONLY_RECOVERY, ffi::SQLITE_READONLY_ROLLBACK];
        if error.sqlite_error().is_some_and(|reason| recovers.contains(&reason.extended_code)) {
            return failure(
                ffi::SQLITE_READONLY,
                "an interrupted change has to be rolled back, which needs write access: open the database for writing once",
            );
        }
        let failure = sqlite_failure(error);
        let is_refused = [ffi::SQLITE_AUTH, ffi::SQLITE_READONLY].contains(&failure.code);
        if is_refused { self.refused(failure.code) } else { failure }
    }

    fn refused(&self, code: i32) -> Failure {
        let why =
            if self.rights.may_write { "the statement accesses more than tables" } else { "clients may only read" };
        failure(code, &format!("not authorized: {why}"))
    }
}

fn truncated(message: &str, rows: Rows) -> Failure {
    let data = format!("{{\"truncated\":true,\"rows\":{}}}", rows.close());
    Failure { data, ..Failure::new(TRUNCATED, message) }
}

fn invalid(why: &str) -> Failure {
    failure(abi::INVALID_PARAMS, why)
}

/// The parameters, if all of them are known. `db`, with which ouistiti's clients could choose a file, is not.
fn known<'p>(params: &'p Map<String, Value>, keys: &[&str]) -> Result<&'p Map<String, Value>, Failure> {
    match params.keys().find(|key| !keys.contains(&key.as_str())) {
        None => Ok(params),
        Some(key) => Err(invalid(&format!("{key} is not known; there are: {}", keys.join(", ")))),
    }
}

fn table(params: &Map<String, Value>) -> Result<String, Failure> {
    params.get("table").and_then(Value::as_str).map(quoted).ok_or_else(|| invalid("table has to be a name"))
}

/// Any name as an SQL identifier.
fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A value to store. `{"base64": TEXT}` is a blob.
fn cell(value: &Value) -> Result<Cell, Failure> {
    Ok(match value {
        Value::Null => Cell::Null,
        Value::Bool(is) => Cell::Integer(i64::from(*is)),
        Value::String(text) => Cell::Text(text.clone()),
        Value::Number(number) => match (number.as_i64(), number.as_f64()) {
            (Some(whole), _) => Cell::Integer(whole),
            (None, Some(real)) if !number.is_u64() => Cell::Real(real),
            _ => return Err(invalid("an integer has 64 bits at most, including its sign")),
        },
        Value::Object(object) => match (object.len(), object.get("base64").and_then(Value::as_str)) {
            (1, Some(text)) => Cell::Blob(STANDARD.decode(text).map_err(|_| invalid("this is not base64"))?),
            _ => return Err(invalid("a blob is written {\"base64\": TEXT}")),
        },
        Value::Array(_) => return Err(invalid("an array is not a value")),
    })
}

#[cfg(test)]
mod tests;
