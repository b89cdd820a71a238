//! Tokens of other issuers: only what is signed as its key demands, in its time, by and for the right party
#![forbid(unsafe_code)]

use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use hmac::{Hmac, KeyInit, Mac};
use proptest::prelude::*;
use serde_json::{Value, json};
use sha2::Sha256;
use wingbeat::channels::jwt::{Jwt, JwtError, KeyError};

const SECRET: &[u8] = b"0123456789abcdef0123456789abcdef";
const SECOND: Duration = Duration::from_secs(1);
const ALGORITHMS: [(&str, &str); 4] = [("HS256", HS256), ("RS256", RS256), ("ES256", ES256), ("EdDSA", EDDSA)];

// Keys and tokens made once with Python's `cryptography`; the private keys are gone.
const RSA_PUBLIC: &str = "\
-----BEGIN PUBLIC KEY-----
MIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8AMIIBCgKCAQEA0iDnJrstACApvgk6vvrq
cUm6XMJqe+wPviBHDzUWIbCIVtNYLmqGpDCwd67AUQx75XeQMwmFX0eUjP3LSdkJ
Cs+0qdHJsYHO9ANy23Y+HKlKgddMno1P30jOLd5sit5aAc5II0Z+aK0O/pFIbP1g
HglnvgXn/vB4ifjMxf0V3EQ39DzyV9u4tgysmPBm+VVqp1ztb+mgl+9aCwOPYS5J
5XYu4VcPUeRimorSrh9E3V4/R//FGzii4V5hm+xtTFYmiC5/C1uPZJkiPkokJTpb
VeEx3Cp63jxQvWC0VscLk9CKjhgs0jrJcaspJssjZ1dn0b36r8IpR37CUIOQw/Uz
IwIDAQAB
-----END PUBLIC KEY-----
";
const EC_PUBLIC: &str = "\
-----BEGIN PUBLIC KEY-----
MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEAqzkgKEp27+IVwPo1b3w8xg0gJnI
0aT+b9THkmo2D5WkTupbGKnVbnNqIvaF/4/cH3v2aLgJZmt+9QkN/ouK/w==
-----END PUBLIC KEY-----
";
const ED_PUBLIC: &str = "\
-----BEGIN PUBLIC KEY-----
MCowBQYDK2VwAyEAUP6WKOhAIgi8iL+EVJT1kO8dm7SaMM6CyjFNhFGiHPM=
-----END PUBLIC KEY-----
";
const RSA_1024_PUBLIC: &str = "\
-----BEGIN PUBLIC KEY-----
MIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQChL1xqEKSUzlpisOZprhYB6p9r
6LUTB6ioyQFSqkvbbrwPLh0KXbx9tU8Eah89THUGfkmSw2H3h/DMmePGfVstxVOs
mNPKtyQa4E2+oJYzHmHfTQZJB4hAMqhQGxfOhV2hHa7ROxwa2MJjrxwzfJy4RUBy
tKQeb0Ji7QMFWH1qKQIDAQAB
-----END PUBLIC KEY-----
";
const P384_PUBLIC: &str = "\
-----BEGIN PUBLIC KEY-----
MHYwEAYHKoZIzj0CAQYFK4EEACIDYgAENJblnSRWzUBQ//3FMwZ1WGXmmJ3TwbAe
gu4HyOz3q/jlGLOzYqdWEmRZRiUWnkP1P/q8Hw6UAvpkq2D80diiS1fW/Xwk6Fss
/LrniZevReguPUKDdoi41/OTpMLhkSd2
-----END PUBLIC KEY-----
";
const HS256: &str = concat!(
    "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCIsImtpZCI6ImgifQ.eyJzdWIiOiJ1c2VyIDciLCJpc3MiOiJodHRwczovL2lkLmV4Y",
    "W1wbGUiLCJhdWQiOiJjaGF0IiwiZXhwIjoxNzkwMDAzNjAwLCJuYmYiOjE3OTAwMDAwMDB9.Y_8j1nvpfIV95yvhZJSjxVKdMPO_",
    "rPVcEOQwxVrkAz0",
);
const RS256: &str = concat!(
    "eyJhbGciOiJSUzI1NiIsInR5cCI6IkpXVCIsImtpZCI6InIifQ.eyJzdWIiOiJ1c2VyIDciLCJpc3MiOiJodHRwczovL2lkLmV4Y",
    "W1wbGUiLCJhdWQiOiJjaGF0IiwiZXhwIjoxNzkwMDAzNjAwLCJuYmYiOjE3OTAwMDAwMDB9.x70xW_m8gssK090O7Nk_5aRuw6dU",
    "DmSzEsoUeKGEGQ9ftMCPfjtp0AaESAoFImu9c3oLJwcD6abZg5tuEB70IRtL9_cHksuSihYfZYDp2qdPVquX_WxDuxTpP4uNciEe",
    "TzwIyn-rquCYqsNiUTog9pCJOJ_9c7a9vLBoD7vS3CSyFlboIgqQabmJSwbZ-UsqvWPprP97IIThbjNluMquwhRge8L5H8SKrET2",
    "2Sq1iEcUp2tdz_LntobfVyBcPdPa4owtXjO6l1FKSPSimN6B9GmTqsbLQtBrJ2zWspIVZmQDr1liNupMnnqBNlBmEwagOF0F0jIn",
    "8XacZOZNd5Qn7Q",
);
const ES256: &str = concat!(
    "eyJhbGciOiJFUzI1NiIsInR5cCI6IkpXVCIsImtpZCI6ImUifQ.eyJzdWIiOiJ1c2VyIDciLCJpc3MiOiJodHRwczovL2lkLmV4Y",
    "W1wbGUiLCJhdWQiOiJjaGF0IiwiZXhwIjoxNzkwMDAzNjAwLCJuYmYiOjE3OTAwMDAwMDB9.oV9qnazawlsDNqSYKiVxAaPI6Vnr",
    "nb8wEZ7irBMMaixPHxwLNidk9byetOJDKCzGs0qHULm4dGoBLkDNqBsrew",
);
const EDDSA: &str = concat!(
    "eyJhbGciOiJFZERTQSIsInR5cCI6IkpXVCIsImtpZCI6ImQifQ.eyJzdWIiOiJ1c2VyIDciLCJpc3MiOiJodHRwczovL2lkLmV4Y",
    "W1wbGUiLCJhdWQiOiJjaGF0IiwiZXhwIjoxNzkwMDAzNjAwLCJuYmYiOjE3OTAwMDAwMDB9.l4Gfl78XQaowp1Euec8SPL30QwnX",
    "NwrWSdrLlw-kFEnB2Ldtk8MpmVEG94QfC59B8ZFmZJrt4FHJBKS_r74jDg",
);

fn keyring() -> Jwt {
    let jwt = Jwt::new().issuer("https://id.example").audience("chat").hs256(Some("h"), SECRET).unwrap();
    let jwt = jwt.rs256(Some("r"), RSA_PUBLIC.as_bytes()).unwrap();
    jwt.es256(Some("e"), EC_PUBLIC.as_bytes()).unwrap().eddsa(Some("d"), ED_PUBLIC.as_bytes()).unwrap()
}

/// When the tokens begin; they end an hour later.
fn start() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_790_000_000)
}

fn claims() -> Value {
    json!({"sub": "user 7", "iss": "https://id.example", "aud": "chat", "exp": 1_790_003_600, "nbf": 1_790_000_000})
}

/// A token signed with HMAC-SHA-256, whatever its header says.
fn signed(header: &Value, claims: &Value, secret: &[u8]) -> String {
    let text = format!("{}.{}", BASE64.encode(header.to_string()), BASE64.encode(claims.to_string()));
    let mac = <Hmac<Sha256> as KeyInit>::new_from_slice(secret).unwrap().chain_update(&text).finalize().into_bytes();
    format!("{text}.{}", BASE64.encode(mac))
}

fn verify(jwt: &Jwt, token: &str) -> Result<Value, JwtError> {
    jwt.verify(token, start())
}

/// What becomes of a token with a good signature and these claims.
fn judged(claims: Value) -> Result<Value, JwtError> {
    verify(&keyring(), &signed(&json!({"alg": "HS256", "kid": "h"}), &claims, SECRET))
}

#[test]
fn tokens_of_every_algorithm_are_read_and_no_byte_of_them_can_be_changed() {
    let jwt = keyring();
    for (name, token) in ALGORITHMS {
        assert_eq!(verify(&jwt, token), Ok(claims()), "{name}");
        for at in 0..token.len() {
            let mut changed = token.as_bytes().to_vec();
            changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
            let changed = String::from_utf8(changed).unwrap();
            assert!(verify(&jwt, &changed).is_err(), "{name}, byte {at}");
            assert!(verify(&jwt, &token[..at]).is_err(), "{name}, cut at {at}");
        }
        let (head, _) = token.rsplit_once('.').unwrap();
        for (other, foreign) in ALGORITHMS.iter().filter(|(other, _)| *other != name) {
            let (_, signature) = foreign.rsplit_once('.').unwrap();
            assert_eq!(verify(&jwt, &format!("{head}.{signature}")), Err(JwtError::BadSignature), "{name} as {other}");
        }
    }
}

#[test]
fn the_token_does_not_choose_the_algorithm() {
    let jwt = keyring();
    let none = format!("{}.{}.", BASE64.encode(r#"{"alg":"none","kid":"h"}"#), BASE64.encode(claims().to_string()));
    assert_eq!(verify(&jwt, &none), Err(JwtError::Malformed));
    for (kid, secret) in [("r", RSA_PUBLIC), ("e", EC_PUBLIC), ("d", ED_PUBLIC)] {
        let confused = signed(&json!({"alg": "HS256", "kid": kid}), &claims(), secret.as_bytes());
        assert_eq!(verify(&jwt, &confused), Err(JwtError::WrongAlgorithm), "{kid}");
    }
    for algorithm in ["HS384", "RS256", "ES256", "EdDSA"] {
        let other = signed(&json!({"alg": algorithm, "kid": "h"}), &claims(), SECRET);
        assert_eq!(verify(&jwt, &other), Err(JwtError::WrongAlgorithm), "{algorithm}");
    }
}

#[test]
fn a_key_is_found_by_its_id_alone() {
    let nameless = signed(&json!({"alg": "HS256"}), &claims(), SECRET);
    assert_eq!(verify(&keyring(), &nameless), Err(JwtError::UnknownKey));
    let named = signed(&json!({"alg": "HS256", "kid": "x"}), &claims(), SECRET);
    let jwt = keyring().hs256(None, SECRET).unwrap();
    assert_eq!((verify(&jwt, &nameless), verify(&jwt, &named)), (Ok(claims()), Err(JwtError::UnknownKey)));
    assert_eq!(verify(&Jwt::new(), &nameless), Err(JwtError::UnknownKey));
    let demanding = signed(&json!({"alg": "HS256", "kid": "h", "crit": ["b64"], "b64": false}), &claims(), SECRET);
    assert_eq!(verify(&jwt, &demanding), Err(JwtError::Malformed));
}

#[test]
fn a_token_is_good_between_its_ends_give_or_take_the_leeway() {
    let jwt = keyring().leeway(10 * SECOND);
    let at = |time| jwt.verify::<Value>(HS256, time).map(|_| ());
    assert_eq!(at(start() - 10 * SECOND), Ok(()));
    assert_eq!(at(start() - 11 * SECOND), Err(JwtError::NotYet));
    assert_eq!(at(start() + 3609 * SECOND), Ok(()));
    assert_eq!(at(start() + 3610 * SECOND), Err(JwtError::Expired));
    assert_eq!(at(SystemTime::UNIX_EPOCH), Err(JwtError::NotYet));
}

#[test]
fn claims_are_checked_and_have_to_be_there() {
    let with = |name: &str, value: Value| {
        let mut claims = claims();
        claims[name] = value;
        judged(claims).map(|_| ())
    };
    let without = |name: &str| {
        let mut claims = claims();
        claims.as_object_mut().unwrap().remove(name);
        judged(claims).map(|_| ())
    };
    assert_eq!((with("aud", json!(["other", "chat"])), with("iat", json!(0))), (Ok(()), Ok(())));
    assert_eq!((with("exp", json!(1_790_003_600.5)), without("nbf")), (Ok(()), Ok(())));
    for aud in [json!("other"), json!(["other"]), json!([]), json!(7), json!(null)] {
        assert_eq!(with("aud", aud.clone()), Err(JwtError::WrongAudience), "{aud}");
    }
    for iss in [json!("https://id.example.org"), json!(""), json!(null)] {
        assert_eq!(with("iss", iss.clone()), Err(JwtError::WrongIssuer), "{iss}");
    }
    assert_eq!((without("aud"), without("iss")), (Err(JwtError::WrongAudience), Err(JwtError::WrongIssuer)));
    for exp in [json!("1790003600"), json!(null), json!([])] {
        assert_eq!(with("exp", exp.clone()), Err(JwtError::Unreadable), "{exp}");
    }
    assert_eq!((without("exp"), with("nbf", json!("now"))), (Err(JwtError::Unreadable), Err(JwtError::Unreadable)));
    assert_eq!(with("exp", json!(-1)), Err(JwtError::Expired));
    let open = Jwt::new().hs256(Some("h"), SECRET).unwrap();
    assert_eq!(verify(&open, HS256), Err(JwtError::WrongAudience), "meant for somebody, and nobody said it is us");
}

#[test]
fn claims_come_as_the_type_asked_for() {
    #[derive(Debug, PartialEq, serde::Deserialize)]
    struct Claims {
        sub: String,
    }
    assert_eq!(keyring().verify(EDDSA, start()), Ok(Claims { sub: "user 7".to_owned() }));
    assert_eq!(keyring().verify::<Vec<u8>>(EDDSA, start()), Err(JwtError::Unreadable));
}

#[test]
fn keys_that_are_weak_or_of_another_kind_are_refused() {
    let refused = |done: Result<Jwt, KeyError>| done.map(|_| ()).unwrap_err();
    assert_eq!(refused(Jwt::new().hs256(None, &SECRET[1..])), KeyError::Weak);
    assert_eq!(refused(keyring().hs256(Some("r"), SECRET)), KeyError::Twice);
    for pem in [EC_PUBLIC, ED_PUBLIC, "", "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n"] {
        assert_eq!(refused(Jwt::new().rs256(None, pem.as_bytes())), KeyError::Unreadable);
    }
    assert_eq!(refused(Jwt::new().rs256(None, RSA_1024_PUBLIC.as_bytes())), KeyError::Weak);
    assert_eq!(refused(Jwt::new().es256(None, P384_PUBLIC.as_bytes())), KeyError::Unreadable);
    assert_eq!(refused(Jwt::new().es256(None, ED_PUBLIC.as_bytes())), KeyError::Unreadable);
    assert_eq!(refused(Jwt::new().eddsa(None, RSA_PUBLIC.as_bytes())), KeyError::Unreadable);
}

#[test]
fn debug_tells_no_secret() {
    let shown = format!("{:?}", Jwt::new().hs256(Some("h"), SECRET).unwrap());
    assert_eq!(shown, "Jwt { keys: [(Some(\"h\"), HS256)], leeway: 60s, .. }");
}

proptest! {
    #[test]
    fn arbitrary_text_is_an_error_and_no_panic(text in any::<String>(), header in any::<String>(), claims in any::<String>()) {
        prop_assert!(verify(&keyring(), &text).is_err());
        let parts = format!("{}.{}.AAAA", BASE64.encode(header), BASE64.encode(claims));
        prop_assert!(verify(&keyring(), &parts).is_err());
    }
}
