//! JSON Web Tokens (RFC 7519) that somebody else signed: an identity provider, another service.
//!
//! ```
//! # use std::time::{Duration, SystemTime};
//! use wingbeat::channels::jwt::{Jwt, JwtError};
//!
//! #[derive(serde::Deserialize)]
//! struct Claims {
//!     sub: String,
//! }
//!
//! let jwt = Jwt::new()
//!     .hs256(None, b"32 bytes or more, shared with the issuer")?
//!     .issuer("https://id.example")
//!     .audience("chat");
//! let claims: Result<Claims, JwtError> = jwt.verify("not.a.token", SystemTime::now());
//! assert_eq!(claims.map(|claims| claims.sub), Err(JwtError::Malformed));
//! # Ok::<(), wingbeat::channels::jwt::KeyError>(())
//! ```
//!
//! Tokens of our own are [`super::token`]'s: shorter, and with nothing to get wrong.
//!
//! Signatures are the crate `jsonwebtoken`'s, with the pure-Rust backend. A program that turns on another backend of
//! that crate as well has to choose one (`CryptoProvider::install_default`), or the first key given here panics.
#![forbid(unsafe_code)]

use super::token::SECRET_BYTES;
use jsonwebtoken::errors::{Error, ErrorKind};
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::value::RawValue;
use std::time::{Duration, SystemTime};
use std::{error, fmt};

/// The least bytes of an RSA key as it stands in a PEM file: those of 2048 bits (RFC 7518 §3.3).
const RSA_BYTES: usize = 256;
const ED_BYTES: usize = 32;

/// Checks tokens against keys, an issuer and an audience.
///
/// A key has an id and is tried on tokens of this `kid` alone; a key without one, on tokens without. It is good for one
/// algorithm: what a token says of its algorithm only has to agree. `exp` must be there, `nbf` may.
#[derive(Clone)]
pub struct Jwt {
    keys: Vec<Key>,
    checks: Validation,
    leeway: Duration,
}

/// Why a key is not taken. The fault is the operator's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum KeyError {
    /// A secret of fewer than 32 bytes, or an RSA key of fewer than 2048 bits.
    Weak,
    /// No public key in PEM, or of another algorithm.
    Unreadable,
    /// There is a key of this id.
    Twice,
}

/// Why a token is not accepted: status 401 or 403 to the client, whose fault it is unless said otherwise. Only what is
/// `NotYet` valid will do later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum JwtError {
    /// No token, one whose algorithm nobody should know (`none`), or one that demands extensions (`crit`, RFC 7515
    /// §4.1.11).
    Malformed,
    /// Its `kid` is of none of our keys; after a rotation at the issuer the fault is ours.
    UnknownKey,
    /// Not the algorithm of the key: an attempt to have the signature checked in a weaker way, or not at all.
    WrongAlgorithm,
    /// Changed on its way, or forged.
    BadSignature,
    /// Past its `exp`: the client has to ask for a new one.
    Expired,
    /// Before its `nbf`.
    NotYet,
    /// Issued by somebody else, or nobody.
    WrongIssuer,
    /// Meant for somebody else, or nobody.
    WrongAudience,
    /// In order, but without `exp` or not of the type asked for: the fault is the issuer's or the program's.
    Unreadable,
}

/// A key, and which tokens it is for.
#[derive(Clone)]
struct Key {
    id: Option<Box<str>>,
    algorithm: Algorithm,
    key: DecodingKey,
}

#[derive(Deserialize)]
struct Times {
    exp: f64,
    nbf: Option<f64>,
}

impl Jwt {
    /// Without keys: it accepts nothing. A minute of leeway; any issuer; only tokens without an audience.
    pub fn new() -> Jwt {
        let mut checks = Validation::default();
        // The crate would ask the system for the time. Here time is an argument.
        (checks.validate_exp, checks.validate_nbf) = (false, false);
        checks.required_spec_claims.clear();
        Jwt { keys: Vec::new(), checks, leeway: Duration::from_secs(60) }
    }

    /// Takes HMAC-SHA-256 with a shared secret.
    ///
    /// # Errors
    /// `Weak`, `Twice`.
    pub fn hs256(self, kid: Option<&str>, secret: &[u8]) -> Result<Jwt, KeyError> {
        if secret.len() < SECRET_BYTES {
            return Err(KeyError::Weak);
        }
        self.key(kid, Algorithm::HS256, DecodingKey::from_secret(secret))
    }

    /// Takes RSASSA-PKCS1-v1_5 with SHA-256 and a public key in PEM.
    ///
    /// # Errors
    /// [`KeyError`].
    pub fn rs256(self, kid: Option<&str>, pem: &[u8]) -> Result<Jwt, KeyError> {
        let key = DecodingKey::from_rsa_pem(pem).map_err(|_| KeyError::Unreadable)?;
        if key.try_get_as_bytes().is_ok_and(|key| key.len() < RSA_BYTES) {
            return Err(KeyError::Weak);
        }
        self.key(kid, Algorithm::RS256, key)
    }

    /// Takes ECDSA on P-256 with SHA-256 and a public key in PEM.
    ///
    /// # Errors
    /// `Unreadable`, `Twice`.
    pub fn es256(self, kid: Option<&str>, pem: &[u8]) -> Result<Jwt, KeyError> {
        let key = DecodingKey::from_ec_pem(pem).map_err(|_| KeyError::Unreadable)?;
        self.key(kid, Algorithm::ES256, key)
    }

    /// Takes Ed25519 with a public key in PEM.
    ///
    /// # Errors
    /// `Unreadable`, `Twice`.
    pub fn eddsa(self, kid: Option<&str>, pem: &[u8]) -> Result<Jwt, KeyError> {
        let key = DecodingKey::from_ed_pem(pem).map_err(|_| KeyError::Unreadable)?;
        if key.try_get_as_bytes().map_or(0, <[u8]>::len) != ED_BYTES {
            return Err(KeyError::Unreadable);
        }
        self.key(kid, Algorithm::EdDSA, key)
    }

    /// Takes tokens of this issuer (`iss`) only.
    pub fn issuer(mut self, issuer: &str) -> Jwt {
        self.checks.set_issuer(&[issuer]);
        self.checks.required_spec_claims.insert("iss".to_owned());
        self
    }

    /// Takes tokens meant for this audience (`aud`, which may name several) only.
    pub fn audience(mut self, audience: &str) -> Jwt {
        self.checks.set_audience(&[audience]);
        self.checks.required_spec_claims.insert("aud".to_owned());
        self
    }

    /// How far clocks may be apart.
    pub fn leeway(mut self, leeway: Duration) -> Jwt {
        self.leeway = leeway;
        self
    }

    /// The claims of a token.
    ///
    /// Cost: a signature check, up to 0.2 ms for public keys. No claim is read before the signature is known to be good.
    ///
    /// # Errors
    /// [`JwtError`].
    pub fn verify<T: DeserializeOwned>(&self, token: &str, now: SystemTime) -> Result<T, JwtError> {
        let header = jsonwebtoken::decode_header(token).map_err(fault)?;
        if header.crit.is_some() {
            return Err(JwtError::Malformed);
        }
        let key =
            self.keys.iter().find(|key| key.id.as_deref() == header.kid.as_deref()).ok_or(JwtError::UnknownKey)?;
        let checks = Validation { algorithms: vec![key.algorithm], ..self.checks.clone() };
        let claims = jsonwebtoken::decode::<Box<RawValue>>(token, &key.key, &checks).map_err(fault)?.claims;
        let times = serde_json::from_str(claims.get()).map_err(|_| JwtError::Unreadable)?;
        self.check_times(&times, now)?;
        serde_json::from_str(claims.get()).map_err(|_| JwtError::Unreadable)
    }

    fn key(mut self, kid: Option<&str>, algorithm: Algorithm, key: DecodingKey) -> Result<Jwt, KeyError> {
        if self.keys.iter().any(|key| key.id.as_deref() == kid) {
            return Err(KeyError::Twice);
        }
        // The key is first looked into when it checks something: better now than with the first client.
        jsonwebtoken::crypto::verify("AAAA", b"", &key, algorithm).map_err(|_| KeyError::Unreadable)?;
        self.keys.push(Key { id: kid.map(Box::from), algorithm, key });
        Ok(self)
    }

    fn check_times(&self, times: &Times, now: SystemTime) -> Result<(), JwtError> {
        let now = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs_f64();
        let leeway = self.leeway.as_secs_f64();
        if now - leeway >= times.exp {
            return Err(JwtError::Expired);
        }
        if times.nbf.is_some_and(|from| now + leeway < from) { Err(JwtError::NotYet) } else { Ok(()) }
    }
}

impl Default for Jwt {
    fn default() -> Self {
        Jwt::new()
    }
}

impl fmt::Debug for Jwt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let keys = self.keys.iter().map(|key| (&key.id, key.algorithm)).collect::<Vec<_>>();
        f.debug_struct("Jwt").field("keys", &keys).field("leeway", &self.leeway).finish_non_exhaustive()
    }
}

impl fmt::Display for KeyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            KeyError::Weak => "the key is too short",
            KeyError::Unreadable => "not a public key of this algorithm in PEM",
            KeyError::Twice => "there is a key of this id",
        })
    }
}

impl error::Error for KeyError {}

impl fmt::Display for JwtError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            JwtError::Malformed => "not a token",
            JwtError::UnknownKey => "the token is signed with a key that is not known",
            JwtError::WrongAlgorithm => "the token is not signed with the algorithm of its key",
            JwtError::BadSignature => "the token's signature is wrong",
            JwtError::Expired => "the token is past its end",
            JwtError::NotYet => "the token is not valid yet",
            JwtError::WrongIssuer => "the token is of another issuer",
            JwtError::WrongAudience => "the token is for another audience",
            JwtError::Unreadable => "the token's claims are not those expected",
        })
    }
}

impl error::Error for JwtError {}

fn fault(error: Error) -> JwtError {
    match error.kind() {
        ErrorKind::InvalidSignature => JwtError::BadSignature,
        ErrorKind::InvalidAlgorithm | ErrorKind::UnsupportedAlgorithm => JwtError::WrongAlgorithm,
        ErrorKind::InvalidIssuer => JwtError::WrongIssuer,
        ErrorKind::InvalidAudience => JwtError::WrongAudience,
        ErrorKind::MissingRequiredClaim(claim) if claim == "iss" => JwtError::WrongIssuer,
        ErrorKind::MissingRequiredClaim(claim) if claim == "aud" => JwtError::WrongAudience,
        _ => JwtError::Malformed,
    }
}
