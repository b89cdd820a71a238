//! Forms of other sites are told from our own by a token that only our pages have.
#![forbid(unsafe_code)]

use super::context::Context;
use super::plug::{Next, Plug, random};
use super::session::Session;
use crate::engine::Response;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;

const KEY: &str = "_csrf_token";
const BYTES: usize = 18;

/// Refuses what could be a form of another site with 403: every request but GET, HEAD and OPTIONS needs the token of its
/// session, in the field `x-csrf-token` or as `_csrf_token` of the form. Needs the plug
/// [`SessionCookie`](super::SessionCookie) before it.
///
/// Pages get the token from [`Context::csrf_token`].
#[derive(Clone, Copy, Debug, Default)]
pub struct Csrf;

impl Plug for Csrf {
    fn call(&self, context: &mut Context<'_>, next: Next<'_>) -> Response {
        let safe = matches!(context.method(), "GET" | "HEAD" | "OPTIONS");
        let sent = || match context.header("x-csrf-token") {
            Some(token) => Some(token.to_owned()),
            None => context.form().ok()?.text(KEY).map(str::to_owned),
        };
        if safe || sent().is_some_and(|token| is_csrf_token(context.session(), &token)) {
            return next.run(context);
        }
        Response::text(403, "the CSRF token is missing or not that of the session\n")
    }
}

impl Context<'_> {
    /// A token for a form or script of this session's pages, made if the session has none. It reads differently each
    /// time (so that a compressed page does not betray it, as in BREACH), and stays good as long as the session does.
    pub fn csrf_token(&mut self) -> String {
        let secret = secret(self.session()).unwrap_or_else(|| {
            let secret = random();
            self.session_mut().put(KEY, BASE64.encode(secret));
            secret
        });
        let mask: [u8; BYTES] = random();
        BASE64.encode([mask, xor(mask, secret)].as_flattened())
    }
}

/// Whether `token` is one of [`Context::csrf_token`] for this session. Takes the same time whatever differs.
pub fn is_csrf_token(session: &Session, token: &str) -> bool {
    let (Some(secret), Ok(token)) = (secret(session), BASE64.decode(token)) else { return false };
    let (Some(mask), Some(masked)) = (token.first_chunk(), token.last_chunk()) else { return false };
    let differences = xor(xor(*mask, *masked), secret);
    token.len() == 2 * BYTES && differences.iter().fold(0, |all, byte| all | byte) == 0
}

fn secret(session: &Session) -> Option<[u8; BYTES]> {
    BASE64.decode(session.text(KEY)?).ok()?.try_into().ok()
}

fn xor(a: [u8; BYTES], b: [u8; BYTES]) -> [u8; BYTES] {
    std::array::from_fn(|at| a[at] ^ b[at])
}
