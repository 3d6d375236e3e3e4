//! Answers of a server that are used again for the same question. What a question consists of is kept as a hash only.

use std::collections::HashMap;

use auth_wire::Verdict;
use ring::digest::{SHA256, SHA256_OUTPUT_LEN, digest};
use serde_json::{Map, Value, json};

use crate::limits::SERVER_CACHE_MAX;

/// An answer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Kept {
    pub(super) verdict: Verdict,
    /// It is used before this time.
    pub(super) until_ms: u64,
}

/// The answers of a server.
#[derive(Debug, Default)]
pub(super) struct Cache {
    answers: HashMap<[u8; SHA256_OUTPUT_LEN], Kept>,
    /// What the last answer depends on beside the credential, in lower case; None: on all parameters. Answers that depend
    /// on others are not found.
    vary: Option<Vec<String>>,
}

impl Cache {
    /// The answer to a question with these parameters.
    pub(super) fn find(&self, params: &Map<String, Value>, now_ms: u64) -> Option<Verdict> {
        if self.answers.is_empty() {
            return None;
        }
        let kept = self.answers.get(&self.key(params)).filter(|kept| now_ms < kept.until_ms);
        kept.map(|kept| kept.verdict.clone())
    }

    /// Keeps an answer, in place of the one that would have expired first. One that depends on what the question does not
    /// have is not kept: the name may be a mistake.
    pub(super) fn keep(&mut self, params: &Map<String, Value>, vary: Option<Vec<String>>, kept: Kept) {
        let vary: Option<Vec<String>> = vary.map(|names| names.iter().map(|name| name.to_ascii_lowercase()).collect());
        let is_known =
            |name: &String| name == "credential" || params.contains_key(name) || field(params, name).is_some();
        if !vary.iter().flatten().all(is_known) {
            return;
        }
        self.vary = vary;
        let key = self.key(params);
        if self.answers.len() >= SERVER_CACHE_MAX
            && !self.answers.contains_key(&key)
            && let Some(first) = self.answers.iter().min_by_key(|(_, kept)| kept.until_ms).map(|(key, _)| *key)
        {
            self.answers.remove(&first);
        }
        self.answers.insert(key, kept);
    }

    /// Removes what was allowed to a user.
    pub(super) fn remove(&mut self, user: &str) {
        self.answers.retain(|_, kept| !matches!(&kept.verdict, Verdict::Allow { user: other, .. } if other == user));
    }

    pub(super) fn clear(&mut self) {
        self.answers.clear();
    }

    fn key(&self, params: &Map<String, Value>) -> [u8; SHA256_OUTPUT_LEN] {
        let text = match &self.vary {
            None => json!([params]),
            Some(names) => {
                let value = |name: &String| (params.get(name), field(params, name));
                let values: Vec<_> = names.iter().map(value).collect();
                json!([params.get("credential"), names, values])
            }
        };
        let mut key = [0; SHA256_OUTPUT_LEN];
        key.copy_from_slice(digest(&SHA256, text.to_string().as_bytes()).as_ref());
        key
    }
}

/// The value of a header field, by its name in lower case.
fn field<'p>(params: &'p Map<String, Value>, name: &str) -> Option<&'p Value> {
    params.get("headers")?.get(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_answer_depends_on() {
        let params = |token: &str, path: &str, cookie: &str| {
            let headers = json!({ "cookie": cookie });
            let params = json!({ "path": path, "headers": headers, "credential": { "token": token } });
            params.as_object().unwrap().clone()
        };
        let kept = || Kept { verdict: Verdict::Forbidden, until_ms: 10 };
        for (vary, token, path, cookie) in [
            (None, false, false, false),
            (Some(&[][..]), false, true, true),
            (Some(&["path"]), false, false, true),
            (Some(&["Path"]), false, false, true),
            (Some(&["COOKIE"]), false, true, false),
            (Some(&["credential"]), false, true, true),
        ] {
            let mut cache = Cache::default();
            let names = vary.map(|names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect());
            cache.keep(&params("a", "/a", "a"), names, kept());
            let found = |token, path, cookie| cache.find(&params(token, path, cookie), 9).is_some();
            assert!(found("a", "/a", "a"), "{vary:?}");
            let others = [found("b", "/a", "a"), found("a", "/b", "a"), found("a", "/a", "b")];
            assert_eq!(others, [token, path, cookie], "{vary:?}");
        }
        for name in ["authorization", "user", "x-id"] {
            let mut cache = Cache::default();
            cache.keep(&params("a", "/a", "a"), Some(vec!["path".to_owned(), name.to_owned()]), kept());
            assert_eq!(cache.find(&params("a", "/a", "a"), 1), None, "{name}");
        }
    }
}
