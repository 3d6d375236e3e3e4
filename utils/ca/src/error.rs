//! Errors of the authority. Display is the operator's sentence.

use std::fmt;
use std::io;
use std::path::PathBuf;

use crate::limits;

/// Why an operation failed.
#[derive(Debug)]
pub enum CaError {
    /// A file or folder could not be read or changed.
    File {
        /// Its path.
        path: PathBuf,
        /// What failed.
        error: io::Error,
    },
    /// Another process has held this lock for `LOCK_MS`.
    Locked(PathBuf),
    /// The folder has no authority.
    NoAuthority(PathBuf),
    /// `init` found an authority.
    Exists(PathBuf),
    /// Others may read the key, or write into the folder.
    Exposed {
        /// Its path.
        path: PathBuf,
        /// The mode that it should have.
        mode: u32,
    },
    /// A folder belongs to another user.
    Foreign {
        /// Its path.
        path: PathBuf,
        /// Its owner.
        uid: u32,
    },
    /// A file's content is wrong.
    Damaged {
        /// Its path.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The authority's certificate begins later, as the clock says.
    NotYetValid,
    /// The authority's certificate has ended.
    Expired,
    /// Another key has the name of a request's.
    KeyThere(PathBuf),
    /// The cryptographic library failed.
    Crypto(String),
    /// The index is full.
    Full(PathBuf),
    /// A value of the command line is wrong.
    Value(String),
    /// A name that cannot be that of a certificate.
    Name(String),
    /// A CSR, or a certificate to be renewed, is wrong.
    Request(String),
    /// The token is unknown, used or expired.
    Token,
    /// Too many tokens are outstanding.
    Tokens,
    /// There is a valid certificate with this name.
    Taken {
        /// The name.
        name: String,
        /// Its serial number.
        serial: String,
    },
    /// No certificate has this name or serial number.
    Unknown(String),
    /// The certificate is revoked.
    Revoked(String),
}

impl CaError {
    /// Whether the request is at fault, not the folder.
    pub fn is_refusal(&self) -> bool {
        match self {
            CaError::File { .. }
            | CaError::Locked(_)
            | CaError::NoAuthority(_)
            | CaError::Exists(_)
            | CaError::Exposed { .. }
            | CaError::Foreign { .. }
            | CaError::Damaged { .. }
            | CaError::NotYetValid
            | CaError::Expired
            | CaError::Crypto(_)
            | CaError::Full(_) => false,
            CaError::Value(_)
            | CaError::Name(_)
            | CaError::Request(_)
            | CaError::Token
            | CaError::Tokens
            | CaError::KeyThere(_)
            | CaError::Taken { .. }
            | CaError::Unknown(_)
            | CaError::Revoked(_) => true,
        }
    }
}

impl fmt::Display for CaError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CaError::File { path, error } => {
                write!(f, "{}: {error}", path.display())?;
                match error.kind() {
                    io::ErrorKind::PermissionDenied => {
                        write!(f, ": run as the user who owns it, or choose another folder with --dir")
                    }
                    io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                        write!(f, ": make room and try again")
                    }
                    io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::NotADirectory => {
                        write!(f, ": choose another folder with --dir")
                    }
                    _ => Ok(()),
                }
            }
            CaError::Locked(path) => {
                let (path, seconds) = (path.display(), limits::LOCK_MS / 1000);
                write!(f, "{path}: another process has locked it for {seconds} s: find it with lslocks(8) and end it")
            }
            CaError::NoAuthority(path) => {
                write!(
                    f,
                    "{}: there is no authority here: run uakari-ca init first, or choose its folder with --dir",
                    path.display()
                )
            }
            CaError::Exists(path) => {
                write!(
                    f,
                    "{}: there is an authority already: run uakari-ca renew, or choose another folder with --dir",
                    path.display()
                )
            }
            CaError::Exposed { path, mode } => {
                let path = path.display();
                write!(f, "{path}: other users have access: run chmod {mode:o} {path}, and consider renew --new-key")
            }
            CaError::Foreign { path, uid } => {
                write!(f, "{}: it belongs to UID {uid}: run it as that user", path.display())
            }
            CaError::Damaged { path, reason } => {
                write!(f, "{}: {reason}: restore it from a backup", path.display())
            }
            CaError::NotYetValid => write!(f, "the authority's certificate is not yet valid: set the clock"),
            CaError::Expired => write!(f, "the authority's certificate is expired: run uakari-ca renew"),
            CaError::KeyThere(path) => write!(
                f,
                "{}: it is another key than that of the request: if nothing needs it any more, remove it",
                path.display()
            ),
            CaError::Crypto(reason) => write!(f, "signing failed: {reason}"),
            CaError::Full(path) => write!(
                f,
                "{}: it is full, with {} certificates or {} bytes: withdraw tokens, or make a new authority",
                path.display(),
                limits::CERTIFICATES_MAX,
                limits::INDEX_SIZE_MAX
            ),
            CaError::Value(reason) | CaError::Name(reason) | CaError::Request(reason) => write!(f, "{reason}"),
            CaError::Token => write!(f, "the token is not valid: it is unknown, used or expired"),
            CaError::Tokens => write!(
                f,
                "{} tokens are outstanding, which is the limit: wait until some are used or expired",
                limits::TOKENS_MAX
            ),
            CaError::Taken { name, serial } => write!(
                f,
                "{name} has a valid certificate, serial {serial}: run uakari-ca renew {name}, or uakari-ca revoke {serial} first"
            ),
            CaError::Unknown(what) => {
                write!(f, "{what}: no certificate of this authority has this name or serial number")
            }
            CaError::Revoked(serial) => write!(f, "{serial}: the certificate is revoked already"),
        }
    }
}

impl std::error::Error for CaError {}
