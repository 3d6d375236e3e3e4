//! Shared by the SQLite libraries for `websocket_jsonrpc`: the syntax of `-C`, opening a database, parameters, errors.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jsonrpc_library::Failure;
use rusqlite::{Connection, Error, OpenFlags};
use serde_json::{Map, Value};

const MIB: usize = 1024 * 1024;

/// How long a statement waits for another process that writes. Less than a call may take.
const BUSY_MS: u64 = 2_000;
/// Bytes of the page cache of a connection.
const CACHE_SIZE: usize = MIB / 2;
/// Bytes of all memory of SQLite in a process; a query that needs more fails.
const HEAP_SIZE_MAX: usize = 32 * MIB;

/// The configuration `-C`: a path alone, as ouistiti's libraries take it, or `file=PATH,KEY=VALUE,...`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Settings {
    /// The database's file; never empty.
    pub file: PathBuf,
    options: Vec<(String, String)>,
}

impl Settings {
    /// Parses them; each key has to be one of `keys`. A path with a comma in it is only possible alone.
    pub fn read(config: &str, keys: &[&str]) -> Result<Settings, Failure> {
        let Some(rest) = config.strip_prefix("file=") else { return Settings::new(config, Vec::new()) };
        let mut parts = rest.split(',');
        let file = parts.next().unwrap_or_default();
        let mut options = Vec::new();
        for part in parts {
            let (key, value) = part.split_once('=').unwrap_or((part, ""));
            if !keys.contains(&key) {
                let known = if keys.is_empty() { "none" } else { &keys.join(", ") };
                return Err(Failure::internal(&format!("-C: {key:?} is not known; there are: file, {known}")));
            }
            options.push((key.to_owned(), value.to_owned()));
        }
        Settings::new(file, options)
    }

    fn new(file: &str, options: Vec<(String, String)>) -> Result<Settings, Failure> {
        if file.is_empty() {
            return Err(Failure::internal("-C names no database: give its path"));
        }
        // SQLite does not take an absolute path for a URI, which could have parameters.
        match std::path::absolute(file) {
            Ok(file) => Ok(Settings { file, options }),
            Err(error) => Err(Failure::internal(&format!("-C {file}: {error}"))),
        }
    }

    /// Whether a switch is on: `KEY=1`. The last one counts.
    pub fn is_on(&self, key: &str) -> Result<bool, Failure> {
        match self.options.iter().rev().find(|(name, _)| name == key).map(|(_, value)| value.as_str()) {
            None | Some("0") => Ok(false),
            Some("1") => Ok(true),
            Some(value) => Err(Failure::internal(&format!("-C: {key}={value} is not valid: write 0 or 1"))),
        }
    }
}

/// Opens an existing database, for reading and writing or only for reading. It waits for other writers, sorts in memory
/// (temporary files wear out flash memory), and limits its memory.
pub fn open(file: &Path, may_write: bool) -> Result<Connection, Error> {
    let access = if may_write { OpenFlags::SQLITE_OPEN_READ_WRITE } else { OpenFlags::SQLITE_OPEN_READ_ONLY };
    let connection = Connection::open_with_flags(file, access | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    connection.busy_timeout(Duration::from_millis(BUSY_MS))?;
    connection.execute_batch(&format!(
        "pragma hard_heap_limit = {HEAP_SIZE_MAX}; pragma cache_size = -{}; pragma temp_store = memory; \
         pragma foreign_keys = on",
        CACHE_SIZE / 1024
    ))?;
    // Truncating the journal writes less to flash memory than creating and removing it. A write-ahead log is kept.
    let is_logged = connection.query_row("pragma journal_mode", [], |row| row.get::<_, String>(0))? == "wal";
    if may_write && !is_logged {
        connection.query_row("pragma journal_mode = truncate", [], |_| Ok(()))?;
    }
    Ok(connection)
}

/// Creates an empty file that only its owner may read, if there is none.
pub fn create(file: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::OpenOptionsExt;
    match std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(file) {
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
        other => other.map(|_| ()),
    }
}

/// The parameters of a call: an object.
pub fn params(text: Option<&str>) -> Result<Map<String, Value>, Failure> {
    match text.map(serde_json::from_str) {
        Some(Ok(Value::Object(params))) => Ok(params),
        _ => Err(Failure::invalid_params("\"an object is needed\"")),
    }
}

/// An error whose data is the message too, where ouistiti's clients look for it.
pub fn failure(code: i32, message: &str) -> Failure {
    Failure { data: Value::from(message).to_string(), ..Failure::new(code, message) }
}

/// SQLite's error with its own code.
pub fn sqlite_failure(error: &Error) -> Failure {
    let (code, message) = match error {
        Error::SqliteFailure(reason, message) => {
            (reason.extended_code & 0xff, message.clone().unwrap_or_else(|| reason.to_string()))
        }
        Error::SqlInputError { error, msg, .. } => (error.extended_code & 0xff, msg.clone()),
        other => (rusqlite::ffi::SQLITE_ERROR, other.to_string()),
    };
    failure(code, &message)
}

/// SQLite's error for the operator, with the path of the database.
pub fn failure_of(file: &Path, error: &Error) -> Failure {
    Failure::internal(&format!("{}: {}", file.display(), sqlite_failure(error).message))
}

/// Error for a client whose connection cannot be opened. The reason contains paths, so that it goes to standard error, for
/// the operator.
pub fn for_clients(failure: Failure) -> Failure {
    // A closed standard error is ignored.
    let _ = writeln!(std::io::stderr(), "websocket_jsonrpc: {}", failure.message);
    Failure::internal("the database cannot be opened; the server's standard error says why")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn configurations_are_parsed() {
        for (config, file, is_on) in [
            ("/var/lib/users.db", "/var/lib/users.db", false),
            ("/odd,write=1", "/odd,write=1", false),
            ("file=/a.db", "/a.db", false),
            ("file=/a.db,write=1", "/a.db", true),
            ("file=/a.db,write=1,write=0", "/a.db", false),
        ] {
            let settings = Settings::read(config, &["write"]).unwrap();
            assert_eq!((settings.file.as_path(), settings.is_on("write")), (Path::new(file), Ok(is_on)), "{config}");
        }
        assert!(Settings::read("file:x?mode=rwc", &[]).unwrap().file.is_absolute(), "a path, not a URI");
        for (config, part) in [
            ("", "names no database"),
            ("file=", "names no database"),
            ("file=/a,wrote=1", "\"wrote\" is not known; there are: file, write"),
            ("file=/a,write", "write= is not valid"),
            ("file=/a,write=yes", "write=yes is not valid"),
        ] {
            let said = Settings::read(config, &["write"]).and_then(|settings| settings.is_on("write")).unwrap_err();
            assert!(said.message.contains(part), "{config}: {said:?}");
        }
    }

    #[test]
    fn parameters_have_to_be_an_object() {
        assert_eq!(params(Some("{\"a\":1}")).unwrap().len(), 1);
        for text in [None, Some("[1]"), Some("[]"), Some("{"), Some("1")] {
            assert_eq!(params(text).unwrap_err().code, jsonrpc_library::abi::INVALID_PARAMS, "{text:?}");
        }
    }
}
