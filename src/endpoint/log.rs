//! What is logged of clients that connect, without their secrets.
#![forbid(unsafe_code)]

use super::mount::{Connect, ConnectInfo, Refusal, Transport};
use crate::channels::{Seldom, brief};
use crate::engine::Request;
use crate::http::{OriginPolicy, Params, Value};
use std::{fmt, time::Duration};

/// Logs what `connect` decided.
pub(super) fn connected(info: &ConnectInfo<'_>, serializer: u8, decision: &Connect, duration: Duration) {
    let (transport, params) = (info.transport(), Filtered(info.params()));
    match decision {
        Connect::Accept { id, .. } => {
            tracing::info!(?transport, serializer, id, ?duration, ?params, result = "ok", "socket_connected");
        }
        Connect::Refuse | Connect::Error(_) => {
            tracing::debug!(?transport, serializer, ?duration, ?params, result = "refused", "socket_connected");
        }
    }
}

/// Logs why a client does not come as far as `connect`; what it is answered.
pub(super) fn refused(transport: Transport, status: u16, why: &'static str) -> Refusal {
    tracing::debug!(?transport, status, why, "socket_refused");
    Refusal::Status(status)
}

/// Whether the page that a request comes from may connect. If not the log says so, for that is what a new deployment has
/// wrong first.
pub(super) fn may_come(policy: &OriginPolicy, request: &Request<'_>, transport: Transport) -> bool {
    static STRANGERS: Seldom = Seldom::new();
    let origin = request.header("origin");
    let may = policy.allows(origin, request);
    if !may && let Some(times) = STRANGERS.turn() {
        let (origin, host) = (text(origin), text(request.header("host")));
        let (origin, host) = (brief(&origin), brief(&host));
        tracing::warn!(
            ?transport,
            origin,
            host,
            times,
            "pages of this origin may not connect (Endpoint::check_origin)"
        );
    }
    may
}

fn text(field: Option<&[u8]>) -> String {
    field.unwrap_or_default().escape_ascii().to_string()
}

/// Parameters as the log may have them: without the values of those that are called passwords or tokens.
pub(super) struct Filtered<'a>(pub(super) &'a Params);

impl fmt::Debug for Filtered<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let secret = |key: &str| {
            let key = key.to_ascii_lowercase();
            key.contains("password") || key.contains("token")
        };
        let mut map = f.debug_map();
        for (key, value) in self.0.iter() {
            match value {
                _ if secret(key) => map.entry(&key, &format_args!("[FILTERED]")),
                Value::Text(text) => map.entry(&key, text),
                Value::Map(params) => map.entry(&key, &Filtered(params)),
                Value::List(_) => map.entry(&key, &format_args!("[..]")), // maps may be in it
            };
        }
        map.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_has_no_secrets() {
        let query = "vsn=2.0.0&authToken=s1&user[Password]=s2&user[name]=a&_csrf_token=s3&tokens[]=s4&x[][token]=s5";
        let logged = format!("{:?}", Filtered(&Params::parse(query).expect("a query")));
        assert!(["s1", "s2", "s3", "s4", "s5"].iter().all(|secret| !logged.contains(secret)), "{logged}");
        assert!(logged.contains("2.0.0") && logged.contains(r#""name": "a""#), "{logged}");
        assert_eq!(logged.matches("[FILTERED]").count(), 4, "{logged}");
    }
}
