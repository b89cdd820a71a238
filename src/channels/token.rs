//! Signed, expiring tokens: what a page hands to its socket to say who it is.
//!
//! ```
//! use std::time::{Duration, SystemTime};
//! use wingbeat::channels::token::{Signer, TokenError};
//!
//! let signer = Signer::new(b"32 bytes or more, from a CSPRNG, the same on all nodes")?;
//! let now = SystemTime::now();
//! let token = signer.sign("user socket", b"user 7", now);
//! let day = Duration::from_secs(86_400);
//! assert_eq!(signer.verify("user socket", &token, day, now).unwrap(), b"user 7");
//! assert_eq!(signer.verify("password reset", &token, day, now), Err(TokenError::BadSignature));
//! assert_eq!(signer.verify("user socket", &token, day, now + day * 2), Err(TokenError::Expired));
//! # Ok::<(), wingbeat::channels::token::WeakSecret>(())
//! ```
//!
//! A token is `TIME.DATA.MAC`: three parts in URL-safe base64 without padding (RFC 4648 §5), so that it stands in a
//! query, a cookie, a header and the client's `authToken` as it is. TIME is the milliseconds of signing since 1970 in 6
//! bytes, MAC the HMAC-SHA-256 (RFC 2104) of `TIME.DATA` as written. The data can be read by whoever holds the token;
//! it cannot be changed. A token cannot be taken back before it expires: keep ages short, or name a session in it.
#![forbid(unsafe_code)]

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use hmac::{Hmac, KeyInit, Mac};
use serde::{Serialize, de::DeserializeOwned};
use sha2::Sha256;
use std::time::{Duration, SystemTime};
use std::{error, fmt};

/// How far ahead the clock of the node that signed may be.
pub const CLOCK_SKEW: Duration = Duration::from_secs(60);

/// The shortest secret: as long as the hash (RFC 2104 §3).
pub const SECRET_BYTES: usize = 32;

const CONTEXT: &[u8] = b"wingbeat token 1\0";
const TIME_BYTES: usize = 6;
const MAC_BYTES: usize = 32;

/// Signs tokens and checks them. A clone has the same secrets.
///
/// Signing costs some six blocks of SHA-256 beside the data, and so does checking for each secret that is tried.
#[derive(Clone)]
pub struct Signer {
    newest: Secret,
    older: Vec<Secret>,
}

/// A secret of fewer than [`SECRET_BYTES`] bytes. The fault is the operator's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WeakSecret;

/// Why a token is not accepted: status 401 or 403 to the client, whose fault it is; the same token will not do later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TokenError {
    /// Not of the form of a token: never signed by anybody.
    Malformed,
    /// Changed on its way, signed with a secret or for a purpose that is not ours, or forged.
    BadSignature,
    /// Ours, but too old: the client has to ask for a new one.
    Expired,
    /// Ours, but signed later than [`CLOCK_SKEW`] from now: the fault is a clock's, on this node or on that which signed.
    FromTheFuture,
    /// Ours and in time, but its data are no JSON of the type asked for: the fault is the program's, which signed
    /// something else for this purpose.
    Unreadable,
}

impl Signer {
    /// With one secret.
    ///
    /// # Errors
    /// It is shorter than [`SECRET_BYTES`].
    pub fn new(secret: &[u8]) -> Result<Signer, WeakSecret> {
        Ok(Signer { newest: Secret::new(secret)?, older: Vec::new() })
    }

    /// Accepts also what was signed with `old`, for as long as tokens of it may be around. The secret of
    /// [`Signer::new`] signs.
    ///
    /// # Errors
    /// It is shorter than [`SECRET_BYTES`]: it would be the weakest way in.
    pub fn rotated_from(mut self, old: &[u8]) -> Result<Signer, WeakSecret> {
        self.older.push(Secret::new(old)?);
        Ok(self)
    }

    /// A token that carries `data`. It verifies for the same `purpose` only: each has a key of its own.
    pub fn sign(&self, purpose: &str, data: &[u8], now: SystemTime) -> String {
        let time = millis(now).to_be_bytes();
        let mut token = String::with_capacity((TIME_BYTES + data.len() + MAC_BYTES).div_ceil(3) * 4 + 4);
        BASE64.encode_string(&time[time.len() - TIME_BYTES..], &mut token);
        token.push('.');
        BASE64.encode_string(data, &mut token);
        let mac = self.newest.mac(purpose, &token).finalize().into_bytes();
        token.push('.');
        BASE64.encode_string(mac, &mut token);
        token
    }

    /// The data of a token that was signed for `purpose` at most `max_age` ago.
    ///
    /// The signature is looked at first, in constant time, and nothing of an unsigned token is decoded.
    ///
    /// # Errors
    /// All of [`TokenError`] but `Unreadable`.
    pub fn verify(
        &self,
        purpose: &str,
        token: &str,
        max_age: Duration,
        now: SystemTime,
    ) -> Result<Vec<u8>, TokenError> {
        let (signed, mac) = token.rsplit_once('.').ok_or(TokenError::Malformed)?;
        let (time, data) = signed.split_once('.').ok_or(TokenError::Malformed)?;
        let mac: [u8; MAC_BYTES] = decode_exactly(mac)?;
        let secrets = || std::iter::once(&self.newest).chain(&self.older);
        if !secrets().any(|secret| secret.mac(purpose, signed).verify_slice(&mac).is_ok()) {
            return Err(TokenError::BadSignature);
        }
        check_age(decode_exactly(time)?, max_age, now)?;
        BASE64.decode(data).map_err(|_| TokenError::Malformed)
    }

    /// As [`Signer::sign`], with the JSON of a value as data.
    ///
    /// # Errors
    /// Its `Serialize` failed.
    pub fn sign_json<T>(&self, purpose: &str, value: &T, now: SystemTime) -> serde_json::Result<String>
    where
        T: Serialize + ?Sized,
    {
        Ok(self.sign(purpose, &serde_json::to_vec(value)?, now))
    }

    /// The value that [`Signer::sign_json`] signed.
    ///
    /// # Errors
    /// As [`Signer::verify`], or [`TokenError::Unreadable`].
    pub fn verify_json<T: DeserializeOwned>(
        &self,
        purpose: &str,
        token: &str,
        max_age: Duration,
        now: SystemTime,
    ) -> Result<T, TokenError> {
        let data = self.verify(purpose, token, max_age, now)?;
        serde_json::from_slice(&data).map_err(|_| TokenError::Unreadable)
    }
}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Signer").field("secrets", &(1 + self.older.len())).finish_non_exhaustive()
    }
}

impl fmt::Display for WeakSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a secret needs at least {SECRET_BYTES} bytes")
    }
}

impl error::Error for WeakSecret {}

impl fmt::Display for TokenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            TokenError::Malformed => "not a token",
            TokenError::BadSignature => "the token's signature is wrong",
            TokenError::Expired => "the token is too old",
            TokenError::FromTheFuture => "the token was signed in the future",
            TokenError::Unreadable => "the token carries something else",
        })
    }
}

impl error::Error for TokenError {}

/// A secret as HMAC takes it in: hashed with both pads, before any message.
#[derive(Clone)]
struct Secret(Hmac<Sha256>);

impl Secret {
    fn new(secret: &[u8]) -> Result<Secret, WeakSecret> {
        if secret.len() < SECRET_BYTES {
            return Err(WeakSecret);
        }
        Hmac::new_from_slice(secret).map(Secret).map_err(|_| WeakSecret)
    }

    /// The MAC over `text` with the key of `purpose`, which is the MAC over the purpose: tokens of one purpose say
    /// nothing about the key of another.
    fn mac(&self, purpose: &str, text: &str) -> Hmac<Sha256> {
        let key = self.0.clone().chain_update(CONTEXT).chain_update(purpose).finalize().into_bytes();
        <Hmac<Sha256> as KeyInit>::new_from_slice(&key).expect("HMAC takes keys of any length").chain_update(text)
    }
}

/// Milliseconds since 1970, as many as fit into a token: the years 1970 to 10889.
fn millis(time: SystemTime) -> u64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX).min((1 << (8 * TIME_BYTES)) - 1)
}

fn check_age(time: [u8; TIME_BYTES], max_age: Duration, now: SystemTime) -> Result<(), TokenError> {
    let signed = time.iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte));
    let (signed, now) = (Duration::from_millis(signed), Duration::from_millis(millis(now)));
    if signed > now + CLOCK_SKEW {
        return Err(TokenError::FromTheFuture);
    }
    if now.saturating_sub(signed) > max_age { Err(TokenError::Expired) } else { Ok(()) }
}

/// The `N` bytes that `text` is the only base64 of.
fn decode_exactly<const N: usize>(text: &str) -> Result<[u8; N], TokenError> {
    let mut bytes = [0; N];
    match BASE64.decode_slice(text, &mut bytes) {
        Ok(len) if len == N => Ok(bytes),
        _ => Err(TokenError::Malformed),
    }
}
