//! The examples of the RFCs, and the attacks that RFC 8725 and the CVEs of other implementations describe.

use std::os::unix::fs::PermissionsExt;

use auth_wire::JwtKey;
use base64::engine::general_purpose::STANDARD;
use ring::hmac::HMAC_SHA256;
use ring::signature::{Ed25519KeyPair, KeyPair};
use serde_json::json;

use super::*;

const N: &str = "ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt0Bm4d4QlL-yRT-SFd2lZS\
                 -pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-KXBdQOS-UTo7WTBEMa2R\
                 2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_h9iaGNj8q2ethFkMLs91kzk2PAcDT\
                 W9gb54h4FRWyuXpoQ";
const K: &str = "AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow";
const X: &str = "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU";
const Y: &str = "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0";
const ED: &str = "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo";

/// The same keys in PEM, as openssl pkey -pubout writes them.
const RSA_PEM: &str = "-----BEGIN PUBLIC KEY-----
MIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8AMIIBCgKCAQEAofgWCuLjybRlzo0tZWJj
NiuSfb4p4fAkd/wWJcyQoTbji9k0l8W26mPddxHmfHQp+Vaw+4qPCJrcS2mJPMEz
P1Pt0Bm4d4QlL+yRT+SFd2lZS+pCgNMsD1W/YpRPEwOWvG6b32690r2jZ47soMZo
9wGzjb/7OMg0LOL+bSf63kpaSHSXndS5z5rexMdbBYUsLA9e+KXBdQOS+UTo7WTB
EMa2R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6/I5IhlJH7aGhyxX
FvUK+DWNmoudF8NAco9/h9iaGNj8q2ethFkMLs91kzk2PAcDTW9gb54h4FRWyuXp
oQIDAQAB
-----END PUBLIC KEY-----
";
/// As openssl rsa -RSAPublicKey_out writes it.
const RSA_PKCS1_PEM: &str = "-----BEGIN RSA PUBLIC KEY-----
MIIBCgKCAQEAofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd/wWJcyQoTbji9k0l8W2
6mPddxHmfHQp+Vaw+4qPCJrcS2mJPMEzP1Pt0Bm4d4QlL+yRT+SFd2lZS+pCgNMs
D1W/YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb/7OMg0LOL+bSf63kpaSHSXndS5
z5rexMdbBYUsLA9e+KXBdQOS+UTo7WTBEMa2R2CapHg665xsmtdVMTBQY4uDZlxv
b3qCo5ZwKh9kG4LT6/I5IhlJH7aGhyxXFvUK+DWNmoudF8NAco9/h9iaGNj8q2et
hFkMLs91kzk2PAcDTW9gb54h4FRWyuXpoQIDAQAB
-----END RSA PUBLIC KEY-----
";
const EC_PEM: &str = "-----BEGIN PUBLIC KEY-----
MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEf83OJ3D2xF1Bg8vub9tLe1gHMzV7
6e8Tus9uPHvRVEXH8UTNG72bfocs3+257rn0s2ldbqkLJK2KRiMohYjlrQ==
-----END PUBLIC KEY-----
";
const ED_PEM: &str = "-----BEGIN PUBLIC KEY-----
MCowBQYDK2VwAyEA11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=
-----END PUBLIC KEY-----
";
const RSA_1024_PEM: &str = "-----BEGIN PUBLIC KEY-----
MIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQC+wmznjYuV5AqDlKPvmHT+PqbX
+UTkftrxEz2V1iQGlR6u5FyOPuoxfg0KLpBTpe+keSJ+YMhTo8CHn4/9dPbUJhFo
YKcfFB476IxFSKFmcif8PTl5uG4kDRJgGp7uh4v6t6cKtQMlpkmYRtT4M4iASyY/
9F51jm0pSP2qlm40aQIDAQAB
-----END PUBLIC KEY-----
";
const P384_PEM: &str = "-----BEGIN PUBLIC KEY-----
MHYwEAYHKoZIzj0CAQYFK4EEACIDYgAEubt2oXZ4TT2cRxxL81+0aknxSFrK3Eva
8g0MpcTVhXxrlsD8M0h5H1fuP17Ku6NScRu69KwIFwkBg+d0Jt3viJbXxgSS/V4/
3AkVIhpD9DyknYZVybaZDfOyF+5C0AVJ
-----END PUBLIC KEY-----
";

const PAYLOAD: &str = "eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ";
/// RFC 7515 appendix A.1.
const HS256: (&str, &str) = ("eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9", "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk");
/// Appendix A.2.
const RS256: (&str, &str) = (
    "eyJhbGciOiJSUzI1NiJ9",
    "cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7AAuHIm4Bh-0Qc_lF5YKt_O8W2Fp5jujGbds9uJdbF9CUAr7t1\
     dnZcAcQjbKBYNX4BAynRFdiuB--f_nZLgrnbyTyWzO75vRK5h6xBArLIARNPvkSjtQBMHlb1L07Qe7K0GarZRmB_eSN9383LcOLn6_dO--xi12jzD\
     wusC-eOkHWEsqtFZESc6BfI7noOPqvhJ1phCnvWh6IeYI2w9QOYEUipUTI8np6LbgGY9Fs98rqVt5AXLIhWkWywlVmtVrBp0igcN_IoypGlUPQGe7\
     7Rw",
);
/// Appendix A.3.
const ES256: (&str, &str) =
    ("eyJhbGciOiJFUzI1NiJ9", "DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q");
/// RFC 8037 appendix A.4, whose payload has no claims.
const EDDSA: &str = "eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc.\
                     hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg";
/// The `exp` of the examples.
const EXP_S: u64 = 1_300_819_380;

const SECRET: &[u8] = b"a secret of the tests, 32 bytes or more";
const NOW_S: u64 = 1_800_000_000;

fn setting(id: Option<&str>, algorithm: Option<JwtAlgorithm>) -> JwtKey {
    JwtKey { path: "/key".into(), id: id.map(str::to_owned), algorithm }
}

/// Keys of a file that names its own algorithms, and the warnings.
fn keys_of(text: &str) -> Result<(Keys, Vec<String>), String> {
    let (mut keys, mut warnings) = (Keys::default(), Vec::new());
    keys.add(&setting(None, None), text.as_bytes(), &mut warnings)?;
    keys.check()?;
    Ok((keys, warnings))
}

fn keys(text: &str) -> Keys {
    keys_of(text).unwrap().0
}

/// Keys of HS256 with these ids, whose secrets are `SECRET` and the id.
fn secrets(ids: &[Option<&str>]) -> Keys {
    let mut keys = Keys::default();
    for id in ids {
        let secret = secret_of(*id);
        keys.add(&setting(*id, Some(JwtAlgorithm::Hs256)), &secret, &mut Vec::new()).unwrap();
    }
    keys.check().unwrap();
    keys
}

fn secret_of(id: Option<&str>) -> Vec<u8> {
    [SECRET, id.unwrap_or_default().as_bytes()].concat()
}

/// A token of HS256.
fn token_with(secret: &[u8], header: &str, claims: &str) -> String {
    let message = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
    let signature = hmac::sign(&hmac::Key::new(HMAC_SHA256, secret), message.as_bytes());
    format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature))
}

fn token(claims: &Value) -> String {
    token_with(SECRET, r#"{"alg":"HS256","typ":"JWT"}"#, &claims.to_string())
}

fn verifier(keys: Keys) -> Verifier {
    Verifier::new(keys, &Jwt::default())
}

#[test]
fn the_examples_of_the_rfcs() {
    let set = format!(
        r#"{{"keys":[{{"kty":"oct","k":"{K}"}},{{"kty":"RSA","n":"{N}","e":"AQAB","kid":"r","use":"sig","alg":"RS256"}},
            {{"kty":"EC","crv":"P-256","x":"{X}","y":"{Y}","kid":"e","key_ops":["verify"]}}]}}"#
    );
    assert_eq!(keys_of(&set).unwrap().1, [""; 0]);
    for ((header, signature), keys) in [
        (HS256, keys(&format!(r#"{{"kty":"oct","k":"{K}","alg":"HS256"}}"#))),
        (HS256, keys(&set)),
        (RS256, keys(&format!(r#"{{"kty":"RSA","n":"{N}","e":"AQAB"}}"#))),
        (RS256, keys(RSA_PEM)),
        (RS256, keys(RSA_PKCS1_PEM)),
        (ES256, keys(&format!(r#"{{"keys":[{{"kty":"EC","crv":"P-256","x":"{X}","y":"{Y}"}}]}}"#))),
        (ES256, keys(EC_PEM)),
    ] {
        // They have no sub.
        let verifier = Verifier::new(keys, &Jwt { user_claim: Some("iss".to_owned()), ..Jwt::default() });
        let token = format!("{header}.{PAYLOAD}.{signature}");
        let identity =
            Identity { user: "joe".to_owned(), until_ms: Some((EXP_S + JWT_LEEWAY_S) * 1_000), ..Identity::default() };
        assert_eq!(verifier.verify(&token, EXP_S), Ok(identity.clone()), "{header}");
        assert_eq!(verifier.verify(&token, EXP_S + JWT_LEEWAY_S - 1), Ok(identity), "{header}");
        assert_eq!(verifier.verify(&token, EXP_S + JWT_LEEWAY_S), Err(JwtError::Expired), "{header}");
        let other = format!("{header}.{}.{signature}", PAYLOAD.replacen("qb2U", "qb2V", 1));
        assert_eq!(verifier.verify(&other, EXP_S), Err(JwtError::Signature), "{header}");
        let mut bytes = URL_SAFE_NO_PAD.decode(signature).unwrap();
        bytes.pop();
        let cut = format!("{header}.{PAYLOAD}.{}", URL_SAFE_NO_PAD.encode(bytes));
        assert_eq!(verifier.verify(&cut, EXP_S), Err(JwtError::Signature), "{header}");
    }
    for keys in [keys(ED_PEM), keys(&format!(r#"{{"kty":"OKP","crv":"Ed25519","x":"{ED}"}}"#))] {
        assert_eq!(payload(EDDSA, &keys).unwrap(), b"Example of Ed25519 signing");
        assert_eq!(verifier(keys).verify(EDDSA, NOW_S), Err(JwtError::Claims));
    }
}

#[test]
fn eddsa_with_claims() {
    let pair = Ed25519KeyPair::from_seed_unchecked(&[7; 32]).unwrap();
    let x = URL_SAFE_NO_PAD.encode(pair.public_key());
    let message =
        [r#"{"alg":"EdDSA"}"#, r#"{"sub":"alice","exp":1800000000}"#].map(|part| URL_SAFE_NO_PAD.encode(part));
    let message = message.join(".");
    let token = format!("{message}.{}", URL_SAFE_NO_PAD.encode(pair.sign(message.as_bytes())));
    let keys = keys(&format!(r#"{{"kty":"OKP","crv":"Ed25519","alg":"Ed25519","x":"{x}"}}"#));
    assert_eq!(verifier(keys).verify(&token, NOW_S).unwrap().user, "alice");
}

#[test]
fn headers_that_are_refused() {
    let claims = json!({ "sub": "alice", "exp": NOW_S }).to_string();
    let verifier = verifier(secrets(&[None]));
    for (header, result) in [
        (r#"{"alg":"HS256"}"#, None),
        (r#" {"alg" : "HS256" , "typ":"JWT"} "#, None),
        (r#"{"alg":"HS256","typ":"at+jwt"}"#, None),
        (r#"{"alg":"HS256","typ":"application/at+JWT"}"#, None),
        // A single key without an id is for any token.
        (r#"{"alg":"HS256","kid":"any"}"#, None),
        // Keys that a token brings along are not looked at (CVE-2018-0114).
        (r#"{"alg":"HS256","jku":"https://evil.example/","jwk":{"kty":"oct","k":"AAAA"},"x5u":"file:///"}"#, None),
        (r#"{"alg":"none"}"#, Some(JwtError::Algorithm)),
        (r#"{"alg":"None"}"#, Some(JwtError::Algorithm)),
        (r#"{"alg":"NONE"}"#, Some(JwtError::Algorithm)),
        (r#"{"alg":"nOnE"}"#, Some(JwtError::Algorithm)),
        (r#"{"alg":"none\u0000"}"#, Some(JwtError::Algorithm)),
        (r#"{"alg":""}"#, Some(JwtError::Algorithm)),
        (r#"{"alg":"hs256"}"#, Some(JwtError::Algorithm)),
        (r#"{"alg":"HS256 "}"#, Some(JwtError::Algorithm)),
        (r#"{"alg":"HS384"}"#, Some(JwtError::Algorithm)),
        (r#"{"alg":"RS256"}"#, Some(JwtError::Algorithm)),
        (r#"{"alg":["HS256"]}"#, Some(JwtError::Algorithm)),
        (r#"{"alg":null}"#, Some(JwtError::Algorithm)),
        (r#"{}"#, Some(JwtError::Algorithm)),
        (r#"{"ALG":"HS256"}"#, Some(JwtError::Algorithm)),
        (r#"{"alg":"HS256","crit":["exp"],"exp":1}"#, Some(JwtError::Extension)),
        (r#"{"alg":"HS256","crit":[]}"#, Some(JwtError::Extension)),
        (r#"{"alg":"HS256","b64":false}"#, Some(JwtError::Extension)),
        (r#"{"alg":"HS256","b64":true}"#, Some(JwtError::Extension)),
        (r#"{"alg":"HS256","zip":"DEF"}"#, Some(JwtError::Extension)),
        (r#"{"alg":"HS256","enc":"A128GCM"}"#, Some(JwtError::Extension)),
        (r#"{"alg":"HS256","cty":"JWT"}"#, Some(JwtError::Type)),
        (r#"{"alg":"HS256","typ":"logout+jwt"}"#, Some(JwtError::Type)),
        (r#"{"alg":"HS256","typ":"dpop+jwt"}"#, Some(JwtError::Type)),
        (r#"{"alg":"HS256","typ":1}"#, Some(JwtError::Type)),
        (r#"{"alg":"HS256","kid":1}"#, Some(JwtError::Key)),
        (r#"{"alg":"HS256","kid":null}"#, Some(JwtError::Key)),
        (r#"{"alg":"none","alg":"HS256"}"#, Some(JwtError::Header)),
        (r#"{"alg":"HS256","\u0061lg":"none"}"#, Some(JwtError::Header)),
        (r#"{"alg":"HS256"} "#, None),
        (r#"{"alg":"HS256"}x"#, Some(JwtError::Header)),
        (r#"["HS256"]"#, Some(JwtError::Header)),
        ("", Some(JwtError::Header)),
    ] {
        let said = verifier.verify(&token_with(SECRET, header, &claims), NOW_S);
        assert_eq!(said.as_ref().err(), result.as_ref(), "{header}");
        assert_eq!(said.map(|identity| identity.user), result.map_or(Ok("alice".to_owned()), Err), "{header}");
    }
}

#[test]
fn a_public_key_is_no_secret() {
    // CVE-2015-9235: a token of HS256 whose secret is the text of the RSA key.
    let claims = json!({ "sub": "alice", "exp": NOW_S }).to_string();
    for (pem, text) in [(RSA_PEM, RSA_PEM), (RSA_PEM, RSA_PEM.trim_end()), (EC_PEM, EC_PEM), (ED_PEM, ED_PEM)] {
        let token = token_with(text.as_bytes(), r#"{"alg":"HS256"}"#, &claims);
        assert_eq!(verifier(keys(pem)).verify(&token, NOW_S), Err(JwtError::Algorithm));
        let said = Keys::default().add(&setting(None, Some(JwtAlgorithm::Hs256)), text.as_bytes(), &mut Vec::new());
        assert!(said.as_ref().is_err_and(|said| said.ends_with("not of HS256")), "{said:?}");
    }
    // CVE-2022-21449: an ECDSA signature of zeros.
    let zeros = URL_SAFE_NO_PAD.encode([0; 64]);
    let token = format!("{}.{PAYLOAD}.{zeros}", ES256.0);
    assert_eq!(verifier(keys(EC_PEM)).verify(&token, EXP_S), Err(JwtError::Signature));
    // A signature in DER, as X.509 has it.
    let der = URL_SAFE_NO_PAD.encode([0x30, 6, 2, 1, 1, 2, 1, 1]);
    assert_eq!(verifier(keys(EC_PEM)).verify(&format!("{}.{PAYLOAD}.{der}", ES256.0), EXP_S), Err(JwtError::Signature));
}

#[test]
fn texts_that_are_no_tokens() {
    let good = token(&json!({ "sub": "alice", "exp": NOW_S }));
    let parts: Vec<&str> = good.split('.').collect();
    let [header, claims, signature] = parts[..] else { panic!("{good}") };
    let verifier = verifier(secrets(&[None]));
    assert!(verifier.verify(&good, NOW_S).is_ok());
    // The last character has two bits that are not used.
    let odd = |part: &str| {
        let last = part.chars().last().unwrap();
        let next = char::from(last as u8 + 1);
        format!("{}{next}", part.strip_suffix(last).unwrap())
    };
    for (text, result) in [
        (String::new(), JwtError::Parts),
        (".".to_owned(), JwtError::Parts),
        ("..".to_owned(), JwtError::Header),
        (format!("{header}.{claims}"), JwtError::Parts),
        (format!("{good}."), JwtError::Parts),
        (format!("{good}.{signature}"), JwtError::Parts),
        (format!("{header}.{claims}.{signature}.a.b"), JwtError::Parts),
        // CVE-2020-28042: no signature at all.
        (format!("{header}.{claims}."), JwtError::Signature),
        (format!("{}.{claims}.", URL_SAFE_NO_PAD.encode(r#"{"alg":"none"}"#)), JwtError::Algorithm),
        (format!("{good}="), JwtError::Base64),
        (format!("{good}\n"), JwtError::Base64),
        (format!(" {good}"), JwtError::Base64),
        (format!("{header}=.{claims}.{signature}"), JwtError::Base64),
        (format!("{header}.{claims}.{}", odd(signature)), JwtError::Base64),
        (format!("{header}.{claims}.{signature}A"), JwtError::Signature),
        (format!("{header}.{claims}.{signature}AA"), JwtError::Base64),
        (format!("{header}.{claims}.+{}", &signature[1..]), JwtError::Base64),
        (format!("{header}.{claims}.\u{e9}{}", &signature[1..]), JwtError::Base64),
        (format!("{header}.{claims}A.{signature}"), JwtError::Signature),
        (token_with(SECRET, r#"{"alg":"HS256"}"#, &"x".repeat(JWT_SIZE_MAX)), JwtError::TooLong),
    ] {
        assert_eq!(verifier.verify(&text, NOW_S), Err(result), "{text}");
    }
}

#[test]
fn every_change_is_refused() {
    let good = token(&json!({ "sub": "alice", "exp": NOW_S, "groups": ["a"] }));
    let verifier = verifier(secrets(&[None]));
    assert!(verifier.verify(&good, NOW_S).is_ok());
    let characters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.+/= \0\n\u{e9}";
    for (at, old) in good.char_indices() {
        let (before, after) = (&good[..at], &good[at + 1..]);
        assert!(verifier.verify(before, NOW_S).is_err(), "cut at {at}");
        assert!(verifier.verify(&format!("{before}{after}"), NOW_S).is_err(), "without the character {at}");
        for new in characters.chars() {
            let inserted = format!("{before}{new}{old}{after}");
            assert!(verifier.verify(&inserted, NOW_S).is_err(), "{new:?} inserted at {at}");
            if new != old {
                assert!(verifier.verify(&format!("{before}{new}{after}"), NOW_S).is_err(), "{new:?} at {at}");
            }
        }
    }
}

#[test]
fn claims_are_checked() {
    use JwtError::{Audience, Claims, Expired, Groups, Issuer, NoExpiry, TooEarly, User};
    let settings = Jwt { issuer: Some("https://id".to_owned()), audience: Some("here".to_owned()), ..Jwt::default() };
    let verifier = Verifier::new(secrets(&[None]), &settings);
    let base = json!({ "sub": "alice", "exp": NOW_S + 60, "iss": "https://id", "aud": "here" });
    let user = |groups: &[&str], until_s: u64| {
        let groups = groups.iter().map(|group| (*group).to_owned()).collect();
        Ok(Identity { user: "alice".to_owned(), groups, home: String::new(), until_ms: Some(until_s * 1_000) })
    };
    let plain = || user(&[], NOW_S + 90);
    let many: Vec<String> = (0..=GROUPS_MAX).map(|number| format!("g{number}")).collect();
    for (members, result) in [
        (json!({}), plain()),
        (json!({ "exp": null }), Err(NoExpiry)),
        (json!({ "exp": (NOW_S + 60).to_string() }), Err(NoExpiry)),
        (json!({ "exp": [NOW_S + 60] }), Err(NoExpiry)),
        (json!({ "exp": NOW_S as f64 + 60.9 }), plain()),
        (json!({ "exp": 1.8e9 + 60.0 }), plain()),
        (json!({ "exp": -1 }), Err(NoExpiry)),
        (json!({ "exp": 0 }), Err(Expired)),
        (json!({ "exp": u64::MAX }), Err(NoExpiry)),
        (json!({ "exp": i64::MIN }), Err(NoExpiry)),
        (json!({ "exp": 1e300 }), Err(NoExpiry)),
        (json!({ "exp": (NOW_S + 60) * 1_000 }), Err(NoExpiry)),
        (json!({ "exp": JWT_TIME_S_MAX }), user(&[], JWT_TIME_S_MAX + JWT_LEEWAY_S)),
        (json!({ "exp": NOW_S - JWT_LEEWAY_S + 1 }), user(&[], NOW_S + 1)),
        (json!({ "exp": NOW_S - JWT_LEEWAY_S }), Err(Expired)),
        (json!({ "nbf": NOW_S + JWT_LEEWAY_S }), plain()),
        (json!({ "nbf": NOW_S + JWT_LEEWAY_S + 1 }), Err(TooEarly)),
        (json!({ "nbf": "0" }), Err(TooEarly)),
        (json!({ "nbf": null }), Err(TooEarly)),
        (json!({ "iat": NOW_S + JWT_LEEWAY_S }), plain()),
        (json!({ "iat": NOW_S + JWT_LEEWAY_S + 1 }), Err(TooEarly)),
        (json!({ "iat": 1e300 }), Err(TooEarly)),
        (json!({ "iss": "https://id/" }), Err(Issuer)),
        (json!({ "iss": null }), Err(Issuer)),
        (json!({ "iss": ["https://id"] }), Err(Issuer)),
        (json!({ "aud": ["there", "here"] }), plain()),
        (json!({ "aud": ["here", 1] }), Err(Audience)),
        (json!({ "aud": [] }), Err(Audience)),
        (json!({ "aud": "here there" }), Err(Audience)),
        (json!({ "aud": ["Here"] }), Err(Audience)),
        (json!({ "aud": { "here": 1 } }), Err(Audience)),
        (json!({ "aud": null }), Err(Audience)),
        (json!({ "sub": null }), Err(User)),
        (json!({ "sub": "" }), Err(User)),
        (json!({ "sub": 7 }), Err(User)),
        (json!({ "sub": "al\r\nice" }), Err(User)),
        (json!({ "groups": ["a", "b"], "roles": ["b", "c"] }), user(&["a", "b", "c"], NOW_S + 90)),
        (json!({ "roles": "root" }), user(&["root"], NOW_S + 90)),
        (json!({ "roles": " a, b,," }), user(&["a", "b"], NOW_S + 90)),
        (json!({ "groups": null }), plain()),
        (json!({ "groups": ["a,root"] }), Err(Groups)),
        (json!({ "groups": ["a", 1] }), Err(Groups)),
        (json!({ "groups": { "root": true } }), Err(Groups)),
        (json!({ "groups": [""] }), Err(Groups)),
        (json!({ "groups": many }), Err(Groups)),
    ] {
        let mut claims = base.clone();
        for (name, value) in members.as_object().unwrap() {
            claims[name] = value.clone();
        }
        assert_eq!(verifier.verify(&token(&claims), NOW_S), result, "{members}");
    }
    for (name, result) in [("exp", NoExpiry), ("iss", Issuer), ("aud", Audience), ("sub", User)] {
        let mut claims = base.clone();
        claims.as_object_mut().unwrap().remove(name);
        assert_eq!(verifier.verify(&token(&claims), NOW_S), Err(result), "without {name}");
    }
    for claims in ["", "null", "[]", "{", "\"alice\"", r#"{"exp":1,"exp":9999999999,"sub":"alice"}"#, "{}{}"] {
        let token = token_with(SECRET, r#"{"alg":"HS256"}"#, claims);
        assert_eq!(verifier.verify(&token, NOW_S), Err(Claims), "{claims}");
    }
    let wrong = token_with(b"another secret", r#"{"alg":"HS256"}"#, "{");
    assert_eq!(verifier.verify(&wrong, NOW_S), Err(JwtError::Signature), "no claim is read before");
}

#[test]
fn keys_are_found_by_their_ids() {
    let claims = json!({ "sub": "alice", "exp": NOW_S }).to_string();
    let sets: [&[Option<&str>]; 4] = [&[None], &[Some("a")], &[Some("a"), Some("b")], &[Some("a"), None]];
    // For each set: the key that has to be the one of the token; None: there is none.
    for (kid, [only, one, two, mixed]) in [
        (None, [Some(None), Some(Some("a")), None, Some(None)]),
        (Some("a"), [Some(None), Some(Some("a")), Some(Some("a")), Some(Some("a"))]),
        (Some("b"), [Some(None), None, Some(Some("b")), None]),
        (Some("A"), [Some(None), None, None, None]),
        (Some(""), [Some(None), None, None, None]),
        (Some("a\0"), [Some(None), None, None, None]),
        (Some("../../../dev/null"), [Some(None), None, None, None]),
        (Some("' union select 'x"), [Some(None), None, None, None]),
        (Some("a|id"), [Some(None), None, None, None]),
    ] {
        for (ids, wanted) in sets.iter().zip([only, one, two, mixed]) {
            let verifier = verifier(secrets(ids));
            let header = kid.map_or(json!({ "alg": "HS256" }), |kid| json!({ "alg": "HS256", "kid": kid })).to_string();
            for id in [None, Some("a"), Some("b")] {
                let said = verifier.verify(&token_with(&secret_of(id), &header, &claims), NOW_S).err();
                let right = match wanted {
                    None => Some(JwtError::Key),
                    Some(wanted) => (wanted != id).then_some(JwtError::Signature),
                };
                assert_eq!(said, right, "{header} signed with {id:?}, keys {ids:?}");
            }
        }
    }
}

#[test]
fn files_that_are_no_keys() {
    let private = RSA_PEM.replace("PUBLIC", "PRIVATE");
    let certificate = RSA_PEM.replace("PUBLIC KEY", "CERTIFICATE");
    let twice = format!("{EC_PEM}{ED_PEM}");
    let cut = RSA_PEM.replace("oQIDAQAB\n", "");
    let off_curve = format!(r#"{{"kty":"EC","crv":"P-256","x":"{X}","y":"{X}"}}"#);
    let short_y = format!(r#"{{"kty":"EC","crv":"P-256","x":"{}","y":""}}"#, URL_SAFE_NO_PAD.encode([1; 64]));
    let private_jwk = format!(r#"{{"kty":"EC","crv":"P-256","x":"{X}","y":"{Y}","d":"AA"}}"#);
    let same_ids = format!(r#"{{"keys":[{{"kty":"oct","k":"{K}","kid":"a"}},{{"kty":"oct","k":"{K}","kid":"a"}}]}}"#);
    let no_ids = same_ids.replace(r#","kid":"a""#, "");
    let encryption = format!(r#"{{"kty":"RSA","n":"{N}","e":"AQAB","use":"enc"}}"#);
    let even = format!(r#"{{"kty":"RSA","n":"{N}","e":"AQAA"}}"#);
    let huge = format!(r#"{{"kty":"RSA","n":"{}","e":"AQAB"}}"#, "_".repeat(RSA_BYTES_TOO_MANY));
    let ps256 = format!(r#"{{"kty":"RSA","n":"{N}","e":"AQAB","alg":"PS256"}}"#);
    let lists = format!(r#"{{"kty":"RSA","n":"{N}","n":"{N}","e":"AQAB"}}"#);
    for (text, part) in [
        ("", "this is no public key in PEM and no set of JWKs"),
        (std::str::from_utf8(SECRET).unwrap(), "has to be set to HS256"),
        (&private, "this is a private key"),
        (&certificate, "this is a certificate"),
        (&twice, "this has more than one key"),
        (&cut, "this is not a valid public key"),
        (RSA_PEM.trim_end_matches("-\n"), "this is not valid PEM"),
        ("-----BEGIN PUBLIC KEY-----\n!\n-----END PUBLIC KEY-----", "this is not valid PEM"),
        (RSA_1024_PEM, "this is an RSA key of 1024 bits"),
        (P384_PEM, "this is a key that is not supported"),
        ("{", "this is no JSON object"),
        ("{}", "its kty or crv is not supported"),
        (r#"{"keys":{}}"#, "this has keys that are no array"),
        (r#"{"keys":[]}"#, "this has no key that can be used"),
        (r#"{"keys":[1]}"#, "this has a key that is no JSON object"),
        (r#"{"kty":"oct","k":"c2hvcnQ"}"#, "k has 5 bytes"),
        (r#"{"kty":"oct"}"#, "k is missing"),
        (r#"{"kty":"OKP","crv":"Ed448","x":"AA"}"#, "is not supported"),
        (r#"{"kty":"OKP","crv":"Ed25519","x":"AA"}"#, "not a valid key of Ed25519"),
        (&off_curve, "not a valid key of P-256"),
        (&short_y, "not a valid key of P-256"),
        (&private_jwk, "key 1 is skipped: this is a private key"),
        (&same_ids, "two keys of JSON Web Tokens have the id \"a\""),
        (&no_ids, "two keys of JSON Web Tokens have no id"),
        (&encryption, "its use is not sig"),
        (&even, "not a valid RSA key"),
        (&huge, "this is an RSA key of 8208 bits"),
        (&ps256, "its alg is not RS256"),
        (&lists, "this is no JSON object with unique members"),
    ] {
        let said = keys_of(text).err();
        assert!(said.as_ref().is_some_and(|said| said.contains(part)), "{text}: {said:?}");
    }
    for (text, part) in [
        ("0123456789012345678901234567890\n", "the secret has 31 bytes"),
        ("ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAI me@here", "public key of SSH"),
        (&"x".repeat(2_000), "more than 1024 bytes"),
        (RSA_PEM, "this is a key of RS256, not of HS256"),
        (r#"{"keys":[]}"#, "this has no key"),
    ] {
        let said = Keys::default().add(&setting(None, Some(JwtAlgorithm::Hs256)), text.as_bytes(), &mut Vec::new());
        assert!(said.as_ref().is_err_and(|said| said.contains(part)), "{text}: {said:?}");
    }
    let said = Keys::default().add(&setting(Some("a"), None), b"{}", &mut Vec::new());
    assert!(said.is_err_and(|said| said.contains("remove the id")));
    assert!(Keys::default().check().is_err());
}

/// Characters of base64url of a modulus of 1026 bytes.
const RSA_BYTES_TOO_MANY: usize = 1_368;

#[test]
fn other_keys_of_a_set_are_skipped() {
    let set = format!(
        r#"{{"keys":[{{"kty":"EC","crv":"P-384","kid":"x"}},{{"kty":"oct","k":"{K}","kid":"a"}},
            {{"kty":"OKP","crv":"Ed25519","x":"{ED}","kid":"e"}}]}}"#
    );
    let (mut keys, mut warnings) = (Keys::default(), Vec::new());
    keys.add(&setting(None, Some(JwtAlgorithm::EdDsa)), set.as_bytes(), &mut warnings).unwrap();
    assert_eq!(warnings, ["key 1 is skipped: its kty or crv is not supported", "key 2 is skipped: it is one of HS256"]);
    assert!(keys.find(Some("e")).is_some() && keys.find(Some("a")).is_none());
}

#[test]
fn files_are_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let write = |name: &str, text: &[u8], mode: u32| {
        std::fs::write(path(name), text).unwrap();
        std::fs::set_permissions(path(name), PermissionsExt::from_mode(mode)).unwrap();
    };
    write("secret", &[SECRET, b"\n"].concat(), 0o640);
    write("open", &[SECRET, b"\r\n"].concat(), 0o644);
    write("pem", ED_PEM.as_bytes(), 0o644);
    write("long", &vec![b'x'; crate::limits::FILE_SIZE_MAX + 1], 0o644);
    let load = |name: &str, algorithm| {
        let keys = vec![JwtKey { path: path(name), ..setting(None, algorithm) }];
        Verifier::load(&Jwt { keys, ..Jwt::default() })
    };
    let token = token(&json!({ "sub": "alice", "exp": NOW_S }));
    for (name, count) in [("secret", 0), ("open", 1)] {
        let (verifier, warnings) = load(name, Some(JwtAlgorithm::Hs256)).unwrap();
        assert_eq!(verifier.verify(&token, NOW_S).unwrap().user, "alice", "without the newline");
        assert_eq!(warnings.len(), count, "{warnings:?}");
        let shown = format!("{verifier:?}{warnings:?}");
        assert!(!shown.contains("a secret of") && !shown.contains("97, 32, 115"), "{shown}");
    }
    assert_eq!(load("pem", None).unwrap().1, [""; 0], "everybody may read a public key");
    for (name, part) in [("none", "No such file"), ("", "no regular file"), ("long", "exceeds 1048576 bytes")] {
        let said = load(name, None).unwrap_err();
        assert!(said.starts_with(folder.path().to_str().unwrap()) && said.contains(part), "{said}");
    }
    assert_eq!(Verifier::load(&Jwt::default()).unwrap_err(), "JSON Web Tokens need a key");
}

/// DER that is cut makes no key, and what has other bytes makes another one or none. Nothing panics.
#[test]
fn damaged_keys() {
    for pem in [RSA_PEM, RSA_PKCS1_PEM, EC_PEM, ED_PEM] {
        let lines: Vec<&str> = pem.lines().collect();
        let der = STANDARD.decode(lines[1..lines.len() - 1].concat()).unwrap();
        let load = |der: &[u8]| keys_of(&format!("{}\n{}\n{}", lines[0], STANDARD.encode(der), lines[lines.len() - 1]));
        assert!(load(&der).is_ok());
        assert!(load(&[der.as_slice(), &[0]].concat()).is_err(), "a byte after it");
        for at in 0..der.len() {
            assert!(load(&der[..at]).is_err(), "cut at {at}");
            for bit in 0..8 {
                let mut other = der.clone();
                other[at] ^= 1 << bit;
                // The first bytes are the tag and the size of all.
                assert!(load(&other).is_err() || at >= 4, "bit {bit} of byte {at}");
            }
        }
    }
}
