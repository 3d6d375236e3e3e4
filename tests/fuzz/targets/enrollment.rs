//! Messages of the authority's server, cut where the fuzzer wants, and its rate limits over a made-up time.
#![no_main]

use std::collections::HashMap;

use libfuzzer_sys::fuzz_target;
use serde_json::Value;
use uakari_ca::serve::framing::Finder;
use uakari_ca::serve::limits::{
    ADDRESSES_MAX, MESSAGE_SIZE_MAX, RATE_MS, REQUESTS_MAX, SIGNATURES_MAX, SIGNATURES_OF_ADDRESS_MAX, WRONG_TOKENS_MAX,
};
use uakari_ca::serve::message::{Action, Refusal, Request, parse};
use uakari_ca::serve::rates::{Cost, End, Party, Rates};
use uakari_fuzz::choices::{Choices, cut};

fuzz_target!(|data: &[u8]| {
    let mut choices = Choices::new(data);
    match choices.byte() & 1 {
        0 => {
            let cuts = choices.counted();
            check_stream(choices.rest(), cuts);
        }
        _ => check_rates(choices),
    }
});

fn check_stream(bytes: &[u8], cuts: &[u8]) {
    let whole = found(&[bytes]);
    assert!(found(&cut(bytes, cuts)) == whole, "the cuts change what is found");
    for text in whole.iter().flatten() {
        assert!(text.len() <= MESSAGE_SIZE_MAX && text.starts_with(b"{") && text.ends_with(b"}"));
        check_message(text);
    }
    check_message(bytes);
}

/// The objects in a stream, up to the first error.
fn found(pieces: &[&[u8]]) -> Vec<Result<Vec<u8>, Refusal>> {
    let (mut finder, mut all) = (Finder::default(), Vec::new());
    for piece in pieces {
        let mut at = 0;
        while let Some(result) = finder.next(piece, &mut at) {
            let is_error = result.is_err();
            all.push(result);
            if is_error {
                return all;
            }
        }
        assert_eq!(at, piece.len());
    }
    all
}

/// A request has exactly the fields of its message, which are strings.
fn check_message(text: &[u8]) {
    let object = match serde_json::from_slice(text) {
        Ok(Value::Object(object)) => Some(object),
        _ => None,
    };
    let (request, object) = match (parse(text), object) {
        (Err(refusal), object) => {
            assert!(refusal == if object.is_some() { Refusal::Invalid } else { Refusal::Malformed });
            return;
        }
        (Ok(request), Some(object)) => (request, object),
        (Ok(_), None) => panic!("this is no object"),
    };
    let fields = match &request {
        Request::Enrol { token, csr } => vec![("token", token.as_str()), ("csr", csr)],
        Request::Extend { certificate, csr } => vec![("certificate", certificate.as_str()), ("csr", csr)],
        Request::Authority => vec![("get", "authority")],
        Request::Status => vec![("get", "status")],
        Request::Manage { action, user, password } => {
            let action = if *action == Action::Renew { "renew" } else { "status" };
            vec![("do", action), ("user", user), ("passwd", password)]
        }
    };
    assert_eq!(fields.len(), object.len());
    assert!(fields.iter().all(|(key, value)| object.get(*key).and_then(Value::as_str) == Some(*value)));
    let again = serde_json::to_vec(&object).expect("an object");
    assert!(parse(&again) == Ok(request), "it means the same however it is written");
}

/// However time passes, no more is admitted than a full bucket and what flows into it.
fn check_rates(mut choices: Choices<'_>) {
    let mut rates = Rates::default();
    let mut now_ms = 0;
    let mut requests: HashMap<Party, u64> = HashMap::new();
    let mut signatures: HashMap<Party, u64> = HashMap::new();
    let mut refused: HashMap<Party, u32> = HashMap::new();
    let most = |limit: u64, now_ms: u64| limit + now_ms * limit / RATE_MS + 1;
    while !choices.is_empty() {
        let number = choices.below(8);
        let party = if number < 6 { Party::Address(number.to_string()) } else { Party::Connection(number as u64) };
        let cost = choices.one_of(&[Cost::Request, Cost::Signature, Cost::Enrolment]);
        let times = 1 + choices.below(64);
        let end = choices.one_of(&[End::Done, End::Refused, End::Failed]);
        let (is_signed, gap_ms) = (end == End::Done, u64::from(choices.byte()) << choices.below(10));
        now_ms += gap_ms;
        for _ in 0..times {
            let Err(wait_ms) = rates.admit(&party, cost, now_ms) else {
                *requests.entry(party.clone()).or_default() += 1;
                rates.settle(&party, cost, end);
                *signatures.entry(party.clone()).or_default() += u64::from(is_signed && cost != Cost::Request);
                *refused.entry(party.clone()).or_default() += u32::from(end == End::Refused && cost == Cost::Enrolment);
                continue;
            };
            assert!(wait_ms > 0);
            if cost == Cost::Request {
                let later = now_ms + wait_ms;
                assert!(rates.admit(&party, cost, later - 1).is_err(), "no earlier");
                assert_eq!(rates.admit(&party, cost, later), Ok(()), "no later");
                now_ms = later;
                *requests.entry(party.clone()).or_default() += 1;
            }
        }
        let all: u64 = signatures.values().sum();
        assert!(all <= most(SIGNATURES_MAX, now_ms), "{all} signatures in {now_ms} ms");
        let own = signatures.values().max().copied().unwrap_or_default();
        assert!(own <= most(SIGNATURES_OF_ADDRESS_MAX, now_ms), "{own} signatures of one in {now_ms} ms");
        let asked = requests.values().max().copied().unwrap_or_default();
        assert!(asked <= most(REQUESTS_MAX, now_ms), "{asked} requests of one in {now_ms} ms");
        let wrong = refused.values().max().copied().unwrap_or_default();
        assert!(now_ms >= 1_000 || wrong <= WRONG_TOKENS_MAX, "{wrong} refused enrolments in {now_ms} ms");
        assert!(rates.count() <= ADDRESSES_MAX);
    }
}
