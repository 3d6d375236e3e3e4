//! Questions to a server and its answers, as JSON-RPC 2.0, without I/O. Times are milliseconds of any clock that does not
//! go back, unless they are called Unix time.

use std::collections::BTreeMap;

use auth_wire::{Credential, Question, Secret, Verdict, Zeroizing};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::digest::{SHA256, digest};
use serde_json::{Map, Value, json};

use super::ServerError;
use super::cache::{Cache, Kept};
use crate::json;
use crate::limits::{
    GROUPS_MAX, JWT_TIME_S_MAX, SERVER_CACHE_S_MAX, SERVER_QUESTION_SIZE_MAX, SERVER_QUESTIONS_MAX, SERVER_VARY_MAX,
    SERVER_WAIT_S_MAX,
};
use crate::names;

const INVALID_JSON: ServerError = ServerError::Invalid("it is no JSON object with unique members");

/// What becomes of a question.
#[derive(PartialEq, Eq)]
#[cfg_attr(test, derive(Debug))]
pub(super) enum Asked {
    /// The answer was kept.
    Known(Verdict),
    /// To be sent.
    Send(Secret),
    /// It cannot be asked.
    Failed(ServerError),
}

/// What a message means.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Outcome {
    /// The answer to a question.
    Decided(u64, Verdict),
    /// A question will have no answer.
    Failed(u64, ServerError),
    /// What was allowed to a user is revoked.
    Revoked(String),
    /// A late answer, or a notification that is not known.
    Nothing,
}

/// A question that was sent.
struct Pending {
    question: u64,
    /// What `Cache` compares of its parameters.
    traits: Map<String, Value>,
    due_ms: u64,
}

/// The questions of one connection after another, and the answers that are kept.
pub(super) struct Dialogue {
    answer_ms: u64,
    /// Id of the next request. Those below it were sent.
    next: u64,
    /// By the id of the request.
    pending: BTreeMap<u64, Pending>,
    cache: Cache,
}

impl Dialogue {
    pub(super) fn new(answer_ms: u64) -> Dialogue {
        Dialogue { answer_ms, next: 1, pending: BTreeMap::new(), cache: Cache::default() }
    }

    pub(super) fn ask(&mut self, question: &Question, now_ms: u64) -> Asked {
        let params = params(question);
        let traits = traits_of(&params.0);
        if let Some(verdict) = self.cache.find(&traits, now_ms) {
            return Asked::Known(verdict);
        }
        if self.pending.len() >= SERVER_QUESTIONS_MAX {
            return Asked::Failed(ServerError::Full);
        }
        let Some(text) = request(params, self.next) else { return Asked::Failed(ServerError::QuestionTooLong) };
        let due_ms = now_ms.saturating_add(self.answer_ms);
        self.pending.insert(self.next, Pending { question: question.id, traits, due_ms });
        self.next += 1;
        Asked::Send(text)
    }

    /// Forgets a question. Its answer will be a late one.
    pub(super) fn cancel(&mut self, question: u64) {
        self.pending.retain(|_, pending| pending.question != question);
    }

    /// Forgets all answers.
    pub(super) fn forget(&mut self) {
        self.cache.clear();
    }

    /// Whether no question waits for an answer.
    pub(super) fn is_idle(&self) -> bool {
        self.pending.is_empty()
    }

    /// The questions whose time is over.
    pub(super) fn expire(&mut self, now_ms: u64) -> Vec<u64> {
        let expired = self.pending.extract_if(.., |_, pending| pending.due_ms <= now_ms);
        expired.map(|(_, pending)| pending.question).collect()
    }

    /// The time of the next call of `expire`.
    pub(super) fn next_due_ms(&self) -> Option<u64> {
        // All questions have the same time, so that the oldest one is first.
        self.pending.first_key_value().map(|(_, pending)| pending.due_ms)
    }

    /// The questions without an answer, when a connection has ended. Answers are not kept beyond it, since a revocation
    /// may be missed.
    pub(super) fn clear(&mut self) -> Vec<u64> {
        self.forget();
        std::mem::take(&mut self.pending).into_values().map(|pending| pending.question).collect()
    }

    /// A message. After an error the server cannot be believed: the connection is to be closed.
    pub(super) fn message(&mut self, text: &[u8], now_ms: u64, unix_ms: u64) -> Result<Outcome, ServerError> {
        let message = json::object(text).ok_or(INVALID_JSON)?;
        if message.get("jsonrpc").and_then(Value::as_str) != Some("2.0") {
            return Err(ServerError::Invalid("jsonrpc is not \"2.0\""));
        }
        if message.contains_key("method") {
            return self.notification(&message);
        }
        let id = message.get("id").and_then(Value::as_u64).filter(|id| (1..self.next).contains(id));
        let id = id.ok_or(ServerError::Invalid("its id is that of no question"))?;
        let answer = match (message.get("result"), message.get("error")) {
            (Some(result), None) => {
                let pending = self.pending.get(&id);
                let has_credential = pending.is_some_and(|pending| pending.traits.contains_key("credential"));
                Ok(decision(result, has_credential, unix_ms)?)
            }
            (None, Some(error)) => match error.get("code").and_then(Value::as_i64) {
                Some(code) => Err(ServerError::Refused(code)),
                None => return Err(ServerError::Invalid("its error has no code")),
            },
            _ => return Err(ServerError::Invalid("it needs either a result or an error")),
        };
        let Some(pending) = self.pending.remove(&id) else { return Ok(Outcome::Nothing) };
        match answer {
            Ok(decision) => {
                if let Some(kept) = decision.kept(now_ms, unix_ms) {
                    self.cache.keep(&pending.traits, decision.vary, kept);
                }
                Ok(Outcome::Decided(pending.question, decision.verdict))
            }
            Err(error) => Ok(Outcome::Failed(pending.question, error)),
        }
    }

    fn notification(&mut self, message: &Map<String, Value>) -> Result<Outcome, ServerError> {
        if message.contains_key("id") || message.contains_key("result") || message.contains_key("error") {
            return Err(ServerError::Invalid("it has a method and an id, result or error"));
        }
        if message.get("method").and_then(Value::as_str) != Some("revoked") {
            return Ok(Outcome::Nothing);
        }
        let user = message.get("params").and_then(|params| params.get("user")).and_then(Value::as_str);
        let user = user.filter(|user| names::is_user(user)).ok_or(ServerError::Invalid("revoked needs a user"))?;
        self.cache.remove(user);
        Ok(Outcome::Revoked(user.to_owned()))
    }
}

/// Members of a request, which may be secrets. Their texts are zeroed in the end.
struct Members(Map<String, Value>);

impl Drop for Members {
    fn drop(&mut self) {
        self.0.values_mut().for_each(json::zero);
    }
}

/// The parameters with a hash in place of each text, as they are kept for as long as the question and its answer.
fn traits_of(params: &Map<String, Value>) -> Map<String, Value> {
    let trait_of = |value: &Value| match value {
        Value::String(text) => Value::from(STANDARD.encode(digest(&SHA256, text.as_bytes()))),
        Value::Object(members) => Value::Object(traits_of(members)),
        other => other.clone(),
    };
    params.iter().map(|(name, value)| (name.clone(), trait_of(value))).collect()
}

/// The text of a request with this id. None: it would exceed `SERVER_QUESTION_SIZE_MAX`.
fn request(mut params: Members, id: u64) -> Option<Secret> {
    let mut request = Members(Map::new());
    request.0.insert("jsonrpc".to_owned(), Value::from("2.0"));
    request.0.insert("method".to_owned(), Value::from("authorize"));
    request.0.insert("id".to_owned(), Value::from(id));
    request.0.insert("params".to_owned(), Value::Object(std::mem::take(&mut params.0)));
    // A buffer that grows would leave copies.
    let mut text = Zeroizing::new(Vec::with_capacity(SERVER_QUESTION_SIZE_MAX));
    // Texts and numbers can be written.
    serde_json::to_writer(&mut *text, &request.0).ok()?;
    let is_short = text.len() <= SERVER_QUESTION_SIZE_MAX;
    let text = String::from_utf8(std::mem::take(&mut *text)).ok().map(Secret::from);
    text.filter(|_| is_short)
}

/// The parameters of `authorize`.
fn params(question: &Question) -> Members {
    let mut headers: BTreeMap<String, String> = BTreeMap::new();
    for (name, value) in &question.headers {
        let name = name.to_ascii_lowercase();
        // RFC 9110 section 5.3, RFC 9113 section 8.2.3.
        let separator = if name == "cookie" { "; " } else { ", " };
        let all = headers.entry(name);
        all.and_modify(|all| [separator, value].iter().for_each(|text| all.push_str(text)))
            .or_insert_with(|| value.clone());
    }
    let mut params = Map::new();
    for (name, value) in [
        ("method", &question.method),
        ("path", &question.path),
        ("query", &question.query),
        ("host", &question.host),
        ("address", &question.address),
    ] {
        params.insert(name.to_owned(), Value::from(value.as_str()));
    }
    let headers = headers.into_iter().map(|(name, value)| (name, Value::String(value))).collect();
    params.insert("headers".to_owned(), Value::Object(headers));
    let credential = match &question.credential {
        // Only the daemon's own helper can verify a response to its challenge.
        Credential::None | Credential::Digest(_) => None,
        Credential::Password { user, password } => Some(json!({ "user": user, "password": password.reveal() })),
        Credential::Token(token) => Some(json!({ "token": token.reveal() })),
    };
    params.extend(credential.map(|credential| ("credential".to_owned(), credential)));
    Members(params)
}

/// The result of `authorize`.
#[derive(Debug)]
struct Decision {
    verdict: Verdict,
    /// Seconds for which it may be kept.
    cache_s: u64,
    /// Parameters and fields that it depends on; None: all.
    vary: Option<Vec<String>>,
}

impl Decision {
    /// What may be kept of it.
    fn kept(&self, now_ms: u64, unix_ms: u64) -> Option<Kept> {
        let mut cache_ms = self.cache_s.min(SERVER_CACHE_S_MAX) * 1_000;
        match &self.verdict {
            Verdict::Allow { until_ms, .. } => {
                cache_ms = cache_ms.min(until_ms.map_or(cache_ms, |until_ms| until_ms.saturating_sub(unix_ms)));
            }
            Verdict::Deny | Verdict::Refused { .. } | Verdict::Forbidden => {}
            Verdict::Limited { .. } | Verdict::Unavailable { .. } => return None,
        }
        (cache_ms > 0).then(|| Kept { verdict: self.verdict.clone(), until_ms: now_ms.saturating_add(cache_ms) })
    }
}

fn decision(result: &Value, has_credential: bool, unix_ms: u64) -> Result<Decision, ServerError> {
    let result = result.as_object().ok_or(ServerError::Invalid("its result is no object"))?;
    // null is the same as a member that is missing.
    let member = |name: &str| result.get(name).filter(|value| !value.is_null());
    let number = |name: &str, max: u64, error| match member(name) {
        None => Ok(None),
        Some(value) => value.as_u64().filter(|number| *number <= max).map(Some).ok_or(ServerError::Invalid(error)),
    };
    let strings = |name: &str, max: usize, is_valid: fn(&str) -> bool, error| match member(name) {
        None => Ok(None),
        Some(value) => {
            let values = value.as_array().filter(|values| values.len() <= max);
            let texts = values.and_then(|values| {
                values.iter().map(|value| value.as_str().filter(|text| is_valid(text)).map(str::to_owned)).collect()
            });
            texts.map(Some).ok_or(ServerError::Invalid(error))
        }
    };
    let is_allowed =
        result.get("allow").and_then(Value::as_bool).ok_or(ServerError::Invalid("allow is not true or false"))?;
    let cache_s = number("cache", u64::MAX, "cache is no number of seconds")?.unwrap_or(0);
    let vary = strings("vary", SERVER_VARY_MAX, |_| true, "vary is no array of names")?;
    let user = match member("user") {
        None => "",
        Some(user) => {
            let user = user.as_str().filter(|user| names::is_user(user));
            user.ok_or(ServerError::Invalid("user is no valid name"))?
        }
    };
    let groups = strings("groups", GROUPS_MAX, names::is_group, "groups is no array of valid names")?;
    let until_s = number("until", JWT_TIME_S_MAX, "until is no Unix time in seconds")?;
    let wait_s = number("wait", SERVER_WAIT_S_MAX, "wait is no number of seconds up to 3600")?;
    let status = number("deny", 403, "deny is not 401 or 403")?;
    let verdict = match (is_allowed, wait_s, status) {
        (true, None, None) => {
            let until_ms = until_s.map(|until_s| until_s * 1_000);
            if until_ms.is_some_and(|until_ms| until_ms <= unix_ms) {
                Verdict::Deny
            } else {
                let groups = groups.unwrap_or_default();
                Verdict::Allow { user: user.to_owned(), groups, until_ms, headers: Vec::new() }
            }
        }
        (true, ..) => return Err(ServerError::Invalid("it allows, but has wait or deny")),
        (false, Some(wait_s), _) => Verdict::Limited { wait_ms: wait_s * 1_000 },
        (false, None, Some(401)) => Verdict::Deny,
        (false, None, Some(403)) => Verdict::Forbidden,
        // Servers that do not tell these apart are asked about wrong passwords too, which have to be counted.
        (false, None, None) if has_credential => Verdict::Deny,
        (false, None, None) => Verdict::Forbidden,
        (false, None, Some(_)) => return Err(ServerError::Invalid("deny is not 401 or 403")),
    };
    Ok(Decision { verdict, cache_s, vary })
}

#[cfg(test)]
mod tests;
