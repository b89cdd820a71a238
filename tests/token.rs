//! Signed tokens: nothing but what was signed, for its purpose and in its time, is accepted
#![forbid(unsafe_code)]

use std::time::{Duration, SystemTime};

use proptest::prelude::*;
use wingbeat::channels::token::{CLOCK_SKEW, SECRET_BYTES, Signer, TokenError, WeakSecret};

const SECRET: &[u8] = b"0123456789abcdef0123456789abcdef";
const OTHER: &[u8] = b"fedcba9876543210fedcba9876543210";
const HOUR: Duration = Duration::from_secs(3600);
const MILLI: Duration = Duration::from_millis(1);

fn signer() -> Signer {
    Signer::new(SECRET).unwrap()
}

fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_millis(1_790_000_000_123)
}

#[test]
fn every_change_of_a_byte_is_noticed() {
    let token = signer().sign("user", b"seven", now());
    assert_eq!(signer().verify("user", &token, HOUR, now()).unwrap(), b"seven");
    for at in 0..token.len() {
        for byte in (0..=127_u8).filter(|byte| *byte != token.as_bytes()[at]) {
            let mut changed = token.clone().into_bytes();
            changed[at] = byte;
            let changed = String::from_utf8(changed).unwrap();
            assert!(signer().verify("user", &changed, HOUR, now()).is_err(), "byte {at} as {byte}: {changed}");
        }
        assert!(signer().verify("user", &token[..at], HOUR, now()).is_err(), "cut at {at}");
        assert!(signer().verify("user", &token[at + 1..], HOUR, now()).is_err(), "cut up to {at}");
    }
    for longer in [format!("{token}A"), format!("{token}="), format!("{token}."), format!(".{token}")] {
        assert!(signer().verify("user", &longer, HOUR, now()).is_err(), "{longer}");
    }
}

#[test]
fn the_format_is_as_documented() {
    // Computed with Python's hmac, hashlib and base64.
    let token = signer().sign("user", b"seven", now());
    assert_eq!(token, "AaDEUGx7.c2V2ZW4.msezA5YVqdUnc8GHL1LYhQLY3Um3G37x07i1gnyxrqA");
    let empty = signer().sign("", b"", now());
    assert_eq!(signer().verify("", &empty, HOUR, now()).unwrap(), b"");
    assert!(token.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte)));
}

#[test]
fn a_token_lives_as_long_as_its_age_to_the_millisecond() {
    let token = signer().sign("user", b"seven", now());
    let at = |time| signer().verify("user", &token, HOUR, time).map(|_| ());
    assert_eq!(at(now() + HOUR), Ok(()));
    assert_eq!(at(now() + HOUR + MILLI), Err(TokenError::Expired));
    assert_eq!(at(now() - CLOCK_SKEW), Ok(()));
    assert_eq!(at(now() - CLOCK_SKEW - MILLI), Err(TokenError::FromTheFuture));
    assert_eq!(signer().verify("user", &token, Duration::ZERO, now()).map(|_| ()), Ok(()));
    assert_eq!(signer().verify("user", &token, Duration::MAX, now() + HOUR * 1_000_000).map(|_| ()), Ok(()));
}

#[test]
fn clocks_beyond_the_format_are_cut_to_it() {
    let before = SystemTime::UNIX_EPOCH - HOUR;
    let token = signer().sign("user", b"seven", before);
    assert_eq!(signer().verify("user", &token, Duration::ZERO, before).unwrap(), b"seven");
    assert_eq!(signer().verify("user", &token, HOUR, now()), Err(TokenError::Expired));
}

#[test]
fn purposes_and_secrets_are_not_interchangeable() {
    let token = signer().sign("user", b"seven", now());
    for purpose in ["", "use", "users", "User", "user\0"] {
        assert_eq!(signer().verify(purpose, &token, HOUR, now()), Err(TokenError::BadSignature), "{purpose:?}");
    }
    let stranger = Signer::new(OTHER).unwrap();
    assert_eq!(stranger.verify("user", &token, HOUR, now()), Err(TokenError::BadSignature));
}

#[test]
fn after_a_rotation_the_old_secret_verifies_and_the_new_one_signs() {
    let old = signer().sign("user", b"seven", now());
    let rotated = Signer::new(OTHER).unwrap().rotated_from(b"another secret, not the one used").unwrap();
    assert_eq!(rotated.verify("user", &old, HOUR, now()), Err(TokenError::BadSignature));
    let rotated = rotated.rotated_from(SECRET).unwrap();
    assert_eq!(rotated.verify("user", &old, HOUR, now()).unwrap(), b"seven");
    let new = rotated.clone().sign("user", b"seven", now());
    assert_eq!(signer().verify("user", &new, HOUR, now()), Err(TokenError::BadSignature));
    assert_eq!(Signer::new(OTHER).unwrap().verify("user", &new, HOUR, now()).unwrap(), b"seven");
}

#[test]
fn short_secrets_are_refused() {
    assert_eq!(Signer::new(&SECRET[1..]).map(|_| ()), Err(WeakSecret));
    assert_eq!(signer().rotated_from(&OTHER[1..]).map(|_| ()), Err(WeakSecret));
    assert!(Signer::new(&[7; SECRET_BYTES]).is_ok() && Signer::new(&[7; 1000]).is_ok());
}

#[test]
fn debug_tells_no_secret() {
    let shown = format!("{:?}", signer().rotated_from(OTHER).unwrap());
    assert_eq!(shown, "Signer { secrets: 2, .. }");
}

#[test]
fn json_comes_back_as_its_type_or_not_at_all() {
    let token = signer().sign_json("user", &(7, "seven"), now()).unwrap();
    assert_eq!(signer().verify_json("user", &token, HOUR, now()), Ok((7, "seven".to_owned())));
    assert_eq!(signer().verify_json::<String>("user", &token, HOUR, now()), Err(TokenError::Unreadable));
    let bytes = signer().sign("user", b"\xff", now());
    assert_eq!(signer().verify_json::<String>("user", &bytes, HOUR, now()), Err(TokenError::Unreadable));
    assert_eq!(signer().verify_json::<String>("user", "{}", HOUR, now()), Err(TokenError::Malformed));
}

proptest! {
    #[test]
    fn arbitrary_text_is_an_error_and_no_panic(text in any::<String>(), parts in "[A-Za-z0-9_-]{8}\\.[A-Za-z0-9_-]{0,9}\\.[A-Za-z0-9_-]{43}") {
        prop_assert!(signer().verify("user", &text, HOUR, now()).is_err());
        prop_assert!(signer().verify("user", &parts, HOUR, now()).is_err());
    }

    #[test]
    fn any_data_for_any_purpose_comes_back(purpose in any::<String>(), data in any::<Vec<u8>>()) {
        let token = signer().sign(&purpose, &data, now());
        prop_assert_eq!(signer().verify(&purpose, &token, HOUR, now()), Ok(data));
    }
}
