//! The messages of both directions and what they consist of.

use std::fmt;
use std::path::PathBuf;

use crate::Secret;

/// A message of the daemon to the helper.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ToHelper {
    /// The rules of a configuration. Those of the generation before it stay valid, older ones do not.
    Rules {
        /// A number that grows with each configuration.
        generation: u32,
        /// The rules; a question names one by its index.
        rules: Vec<Rule>,
        /// Whether their files are only to be examined: no question follows, and no server is connected.
        is_trial: bool,
    },
    /// A question.
    Ask(Box<Question>),
    /// The answer is no longer needed: the client has gone.
    Cancel {
        /// The question's id.
        id: u64,
    },
}

/// A message of the helper to the daemon.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ToDaemon {
    /// The rules of a generation can be used.
    Ready {
        /// That of `ToHelper::Rules`.
        generation: u32,
        /// Sentences for the log. They also come later, for example when a file that was changed cannot be used.
        warnings: Vec<String>,
    },
    /// The rules of a generation cannot be used: none of them is.
    Problems {
        /// That of `ToHelper::Rules`.
        generation: u32,
        /// Why; at least one.
        problems: Vec<Problem>,
    },
    /// The answer to a question.
    Answer(Answer),
    /// A server of `Source::Server` revoked what it allowed, by whatever rule: connections of this user are to be closed.
    Revoked {
        /// The server's path.
        server: PathBuf,
        /// The user.
        user: String,
    },
}

/// Why a rule cannot be used.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Problem {
    /// The index of the rule.
    pub rule: u32,
    /// The operator's sentence.
    pub sentence: String,
}

/// An answer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Answer {
    /// The question's id.
    pub id: u64,
    /// The decision.
    pub verdict: Verdict,
}

/// The decision about a request.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// The request may go on.
    Allow {
        /// The user; empty: one without a name.
        user: String,
        /// The groups of the user.
        groups: Vec<String>,
        /// Unix time in milliseconds at which the permission ends; None: never.
        until_ms: Option<u64>,
        /// Fields for the response, for example Authentication-Info (RFC 7615).
        headers: Vec<(String, String)>,
    },
    /// The credential is missing or wrong: 401.
    Deny,
    /// The credential is wrong, as for `Deny`, and the log tells why.
    Refused {
        /// The operator's sentence, for the log.
        reason: String,
    },
    /// The user is known, but may not do this: 403.
    Forbidden,
    /// Too many failures: 429.
    Limited {
        /// Milliseconds after which another attempt is judged.
        wait_ms: u64,
    },
    /// It cannot be decided: 503.
    Unavailable {
        /// The operator's sentence, for the log.
        sentence: String,
    },
}

/// Who may come in.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Rule {
    /// Where users and tokens are looked up, in this order. `Source::Server` stands alone.
    pub sources: Vec<Source>,
    /// Users that may come in. If users and groups are both empty, each user of the sources may.
    pub users: Vec<String>,
    /// Groups whose members may come in.
    pub groups: Vec<String>,
    /// The database of ouistiti's userfilter, which must allow method and path too.
    pub filter: Option<PathBuf>,
    /// The realm of Digest credentials (RFC 7616).
    pub realm: String,
}

/// A place where users or tokens are looked up. Paths are absolute.
#[derive(Clone, PartialEq, Eq, Debug, Hash)]
pub enum Source {
    /// A user of the configuration.
    User {
        /// The name.
        user: String,
        /// A hash or clear text, as in a row of ouistiti's file.
        passwd: Secret,
        /// The groups.
        groups: Vec<String>,
    },
    /// A file of htpasswd(1), or one with ouistiti's rows.
    PasswordFile(PathBuf),
    /// An SQLite database.
    Database {
        /// The file.
        path: PathBuf,
        /// Its tables; None: recognized.
        layout: Option<Layout>,
    },
    /// A token of the configuration.
    Token {
        /// The token.
        token: Secret,
        /// Its user.
        user: String,
        /// The user's groups.
        groups: Vec<String>,
    },
    /// A file with lines `token:user:groups`.
    TokenFile(PathBuf),
    /// JSON Web Tokens (RFC 7519).
    Jwt(Jwt),
    /// A UNIX server that decides.
    Server(PathBuf),
}

/// The tables of a database.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Layout {
    /// ouistiti's table `passwds`.
    Passwds,
    /// ouistiti's table `users` with `statusid`.
    Status,
    /// authrpc's tables `users` and `groups`.
    Authrpc,
}

/// Which JSON Web Tokens are believed.
#[derive(Clone, PartialEq, Eq, Debug, Default, Hash)]
pub struct Jwt {
    /// The keys; at least one.
    pub keys: Vec<JwtKey>,
    /// The only `iss` that is accepted; None: any or none.
    pub issuer: Option<String>,
    /// What `aud` must contain; None: any or none.
    pub audience: Option<String>,
    /// The claim that names the user; None: `sub`.
    pub user_claim: Option<String>,
}

/// A key, or a set of keys, of JSON Web Tokens.
#[derive(Clone, PartialEq, Eq, Debug, Hash)]
pub struct JwtKey {
    /// The file: PEM, a set of JWKs (RFC 7517), or a secret's bytes.
    pub path: PathBuf,
    /// The key's `kid`; None: any token without a `kid`, and any token if it is the only key. Not for a set.
    pub id: Option<String>,
    /// The only algorithm of the key; None: each key of a set names its own.
    pub algorithm: Option<JwtAlgorithm>,
}

/// A signature's algorithm (RFC 7518, RFC 8037).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum JwtAlgorithm {
    /// HMAC with SHA-256.
    Hs256,
    /// RSASSA-PKCS1-v1_5 with SHA-256.
    Rs256,
    /// ECDSA with P-256 and SHA-256.
    Es256,
    /// Ed25519.
    EdDsa,
}

/// A request to decide about. `Debug` shows neither the query nor values of fields, which may be credentials.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Question {
    /// Of the answer. An id is never used again, not even after `ToHelper::Cancel`: an answer may be on its way.
    pub id: u64,
    /// The generation of the rules.
    pub generation: u32,
    /// The index of the rule.
    pub rule: u32,
    /// What the client shows.
    pub credential: Credential,
    /// The client's address, without a port; empty: a client of a UNIX socket.
    pub address: String,
    /// The method.
    pub method: String,
    /// The Host.
    pub host: String,
    /// The path, decoded, as the gateway uses it.
    pub path: String,
    /// The query without the question mark.
    pub query: String,
    /// Fields of the request that the rule's server needs.
    pub headers: Vec<(String, String)>,
}

impl fmt::Debug for Question {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.headers.iter().map(|(name, _)| name.as_str()).collect();
        formatter
            .debug_struct("Question")
            .field("id", &self.id)
            .field("generation", &self.generation)
            .field("rule", &self.rule)
            .field("credential", &self.credential)
            .field("address", &self.address)
            .field("method", &self.method)
            .field("host", &self.host)
            .field("path", &self.path)
            .field("headers", &names)
            .finish_non_exhaustive()
    }
}

/// What a client shows.
#[derive(Clone, PartialEq, Eq, Debug, Default, Hash)]
pub enum Credential {
    /// Nothing.
    #[default]
    None,
    /// User and password (RFC 7617).
    Password {
        /// The user.
        user: String,
        /// The password.
        password: Secret,
    },
    /// A bearer token (RFC 6750).
    Token(Secret),
    /// A response to a Digest challenge (RFC 7616). The daemon has checked `nonce`, `nc` and `uri`.
    Digest(Digest),
}

/// The parameters of a Digest response, with `qop=auth`.
#[derive(Clone, PartialEq, Eq, Debug, Hash)]
pub struct Digest {
    /// The user.
    pub user: String,
    /// The realm.
    pub realm: String,
    /// The nonce.
    pub nonce: String,
    /// The request's target.
    pub uri: String,
    /// The nonce count, eight hexadecimal digits.
    pub nc: String,
    /// The client's nonce.
    pub cnonce: String,
    /// The algorithm.
    pub algorithm: DigestAlgorithm,
    /// The response, hexadecimal.
    pub response: Secret,
}

/// The algorithm of a Digest response.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum DigestAlgorithm {
    /// MD5.
    Md5,
    /// SHA-256.
    Sha256,
}
