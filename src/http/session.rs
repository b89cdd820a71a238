//! Sessions in a signed cookie: the browser keeps them, and cannot change them.
#![forbid(unsafe_code)]

use super::context::Context;
use super::plug::{Next, Plug};
use crate::channels::token::Signer;
use crate::engine::{Request, Response};
use serde_json::{Map, Value};
use std::fmt;
use std::time::{Duration, SystemTime};

/// The most bytes of a cookie that browsers keep.
const COOKIE_BYTES: usize = 4096;
const PURPOSE: &str = "wingbeat session";

/// What is kept about one browser. It can read it: keep secrets elsewhere.
#[derive(Clone, Default, PartialEq)]
pub struct Session {
    values: Map<String, Value>,
    changed: bool,
}

/// Its keys alone: the CSRF token is among the values.
impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("keys", &self.values.keys().collect::<Vec<_>>()).finish_non_exhaustive()
    }
}

impl Session {
    /// What stands under a key.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.values.get(key)
    }

    /// The text under a key.
    pub fn text(&self, key: &str) -> Option<&str> {
        self.get(key)?.as_str()
    }

    /// Puts a value under a key.
    pub fn put(&mut self, key: &str, value: impl Into<Value>) {
        self.values.insert(key.to_owned(), value.into());
        self.changed = true;
    }

    /// Takes a value away.
    pub fn remove(&mut self, key: &str) -> Option<Value> {
        self.changed = true;
        self.values.remove(key)
    }

    /// Takes all away: the cookie is deleted.
    pub fn clear(&mut self) {
        self.changed = true;
        self.values.clear();
    }

    /// Whether nothing is kept.
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }
}

/// Reads the session from its cookie, and writes it back when it was changed: `HttpOnly`, `SameSite=Lax`, for the whole
/// site. Its age counts from the last change.
///
/// ```
/// use wingbeat::channels::token::Signer;
/// use wingbeat::http::{Router, SessionCookie};
///
/// let signer = Signer::new(b"32 bytes or more, from a CSPRNG, the same on all nodes")?;
/// Router::new().plug(SessionCookie::new(signer)).get("/visits", |context| {
///     let visits = context.session().get("visits").and_then(|visits| visits.as_u64()).unwrap_or(0) + 1;
///     context.session_mut().put("visits", visits);
///     format!("{visits}\n")
/// });
/// # Ok::<(), wingbeat::channels::token::WeakSecret>(())
/// ```
#[derive(Clone)]
pub struct SessionCookie {
    signer: Signer,
    name: String,
    secure: bool,
    max_age: Duration,
}

impl fmt::Debug for SessionCookie {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionCookie").field("name", &self.name).finish_non_exhaustive()
    }
}

impl SessionCookie {
    /// A cookie `_wingbeat_session` that is good for 14 days.
    pub fn new(signer: Signer) -> Self {
        let max_age = Duration::from_secs(14 * 86_400);
        SessionCookie { signer, name: "_wingbeat_session".into(), secure: false, max_age }
    }

    /// Another name: a token (RFC 6265 §4.1.1).
    pub fn name(mut self, name: &str) -> Self {
        self.name = name.into();
        self
    }

    /// Whether browsers send it by HTTPS alone. Default: no.
    pub fn secure(mut self, secure: bool) -> Self {
        self.secure = secure;
        self
    }

    /// How long it is good for after its last change.
    pub fn max_age(mut self, max_age: Duration) -> Self {
        self.max_age = max_age;
        self
    }

    /// The session of a request, a WebSocket's for instance; none if the cookie is not there, forged or too old.
    pub fn read(&self, request: &Request<'_>) -> Option<Session> {
        let cookies = request.headers().filter(|(name, _)| name.eq_ignore_ascii_case("cookie"));
        let mut cookies = cookies.flat_map(|(_, value)| value.split(|byte| *byte == b';'));
        cookies.find_map(|cookie| {
            let (name, token) = std::str::from_utf8(cookie).ok()?.trim().split_once('=')?;
            if name != self.name {
                return None;
            }
            let data = self.signer.verify(PURPOSE, token, self.max_age, SystemTime::now()).ok()?;
            let values = serde_json::from_slice(&data).ok()?;
            Some(Session { values, changed: false })
        })
    }

    /// The field `Set-Cookie` for a session; none if it is larger than browsers keep.
    fn cookie(&self, session: &Session) -> Option<String> {
        let (token, age) = if session.is_empty() {
            (String::new(), 0)
        } else {
            let data = serde_json::to_vec(&session.values).unwrap_or_default();
            (self.signer.sign(PURPOSE, &data, SystemTime::now()), self.max_age.as_secs())
        };
        let secure = if self.secure { "; Secure" } else { "" };
        let cookie = format!("{}={token}; Path=/; HttpOnly; SameSite=Lax; Max-Age={age}{secure}", self.name);
        (cookie.len() <= COOKIE_BYTES).then_some(cookie)
    }
}

impl Plug for SessionCookie {
    fn call(&self, context: &mut Context<'_>, next: Next<'_>) -> Response {
        *context.session_mut() = self.read(context.request()).unwrap_or_default();
        let response = next.run(context);
        if !context.session().changed {
            return response;
        }
        match self.cookie(context.session()) {
            Some(cookie) => response.header("Set-Cookie", cookie),
            None => {
                tracing::error!("a session does not fit into a cookie of 4096 bytes");
                Response::new(500)
            }
        }
    }
}
