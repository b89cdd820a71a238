//! Which pages may talk to a socket or an API: the rules by which browsers' `Origin` (RFC 6454 §7) is judged.
#![forbid(unsafe_code)]

use super::context::Context;
use super::plug::{Next, Plug};
use crate::engine::{Request, Response};
use std::{error, fmt, sync::Arc};

/// Which origins are allowed. Without an `Origin` in the request all of them say yes: what sends none is no page.
#[derive(Clone)]
#[non_exhaustive]
pub enum OriginPolicy {
    /// All.
    Any,
    /// Those of this host, whatever their scheme and port.
    Host(String),
    /// Those that one of these allows; see [`OriginPolicy::list`].
    List(Vec<Pattern>),
    /// Those with scheme, host and port of the request itself: `http`, and its `Host`. Behind a proxy that speaks TLS
    /// that is no page's.
    Conn,
    /// Those with host and port of the request's `Host`, whatever their scheme; a `Host` without a port stands for 80
    /// and 443. Behind a proxy this needs the `Host` that the browser sent.
    SameHost,
    /// Those about which this says yes. It is asked also about those without a host (`null`).
    Check(Arc<dyn Fn(&Origin<'_>) -> bool + Send + Sync>),
}

/// An entry of [`OriginPolicy::list`], taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern {
    scheme: Option<String>,
    /// With `*.` in front: this host and all below it.
    host: String,
    port: Option<u16>,
}

/// An `Origin`, taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Origin<'a> {
    /// As it was sent.
    pub whole: &'a str,
    /// Before the `://`.
    pub scheme: Option<&'a str>,
    /// The host; none in `null` and `file://`.
    pub host: Option<&'a str>,
    /// The port; 443 of `https` and `wss`, 80 of `http` and `ws` if it names none.
    pub port: Option<u16>,
}

/// An entry of a list of origins that is no `scheme://host:port` or `//host`. The program's fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadOrigin;

impl fmt::Display for BadOrigin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an allowed origin is scheme://host, scheme://host:port, //host or //*.host")
    }
}

impl error::Error for BadOrigin {}

impl fmt::Debug for OriginPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            OriginPolicy::Any => f.write_str("Any"),
            OriginPolicy::Host(host) => f.debug_tuple("Host").field(host).finish(),
            OriginPolicy::List(list) => f.debug_tuple("List").field(list).finish(),
            OriginPolicy::Conn => f.write_str("Conn"),
            OriginPolicy::SameHost => f.write_str("SameHost"),
            OriginPolicy::Check(_) => f.write_str("Check(..)"),
        }
    }
}

impl OriginPolicy {
    /// Allows the origins of a list: `"https://a.com"` (which pins port 443), `"//b.com:88"` (any scheme), `"//*.c.com"`
    /// (`c.com` and all below it). Scheme, host and port are compared as far as the entry has them.
    ///
    /// # Errors
    /// [`BadOrigin`]: an entry has no host, or a `*` other than as the leading `*.`.
    pub fn list<'a>(entries: impl IntoIterator<Item = &'a str>) -> Result<Self, BadOrigin> {
        entries.into_iter().map(Pattern::new).collect::<Result<_, _>>().map(OriginPolicy::List)
    }

    /// Whether `request` may go on: by its `Origin`, or the one given in its place.
    pub fn allows(&self, origin: Option<&[u8]>, request: &Request<'_>) -> bool {
        self.allows_at(origin, "http", request.header("host"))
    }

    /// As [`OriginPolicy::allows`], for a request that came by this scheme to this `Host`.
    pub fn allows_at(&self, origin: Option<&[u8]>, scheme: &str, host: Option<&[u8]>) -> bool {
        let Some(origin) = origin else { return true };
        if matches!(self, OriginPolicy::Any) {
            return true;
        }
        let Some(origin) = std::str::from_utf8(origin).ok().map(Origin::parse) else { return false };
        match self {
            OriginPolicy::Any => true,
            OriginPolicy::Check(check) => check(&origin),
            OriginPolicy::Host(own) => origin.host.is_some_and(|host| host.eq_ignore_ascii_case(own)),
            OriginPolicy::List(list) => list.iter().any(|pattern| pattern.allows(&origin)),
            OriginPolicy::Conn => origin.is_of(host, |port| {
                origin.scheme.is_some_and(|origin| origin.eq_ignore_ascii_case(scheme))
                    && origin.port == port.or_else(|| default_port(scheme))
            }),
            OriginPolicy::SameHost => origin.is_of(host, |port| match port {
                Some(_) => origin.port == port,
                None => matches!(origin.port, Some(80 | 443)),
            }),
        }
    }
}

impl Pattern {
    fn new(entry: &str) -> Result<Self, BadOrigin> {
        let origin = Origin::parse(entry);
        let host = origin.host.ok_or(BadOrigin)?;
        let bare = host.strip_prefix("*.").unwrap_or(host);
        if bare.is_empty() || bare.contains('*') {
            return Err(BadOrigin);
        }
        Ok(Pattern { scheme: origin.scheme.map(str::to_owned), host: host.to_ascii_lowercase(), port: origin.port })
    }

    fn allows(&self, origin: &Origin<'_>) -> bool {
        let Some(host) = origin.host.map(str::to_ascii_lowercase) else { return false };
        let of_host = match self.host.strip_prefix("*.") {
            Some(parent) => host.strip_suffix(parent).is_some_and(|sub| sub.is_empty() || sub.ends_with('.')),
            None => host == self.host,
        };
        let of_scheme = |scheme: &String| origin.scheme.is_some_and(|origin| origin.eq_ignore_ascii_case(scheme));
        of_host && self.scheme.as_ref().is_none_or(of_scheme) && self.port.is_none_or(|port| origin.port == Some(port))
    }
}

impl<'a> Origin<'a> {
    /// Takes an origin apart; what is no URL has nothing but its whole.
    pub fn parse(whole: &'a str) -> Self {
        let (scheme, rest) = match whole.split_once("//") {
            Some(("", rest)) => (None, Some(rest)),
            Some((scheme, rest)) => (scheme.strip_suffix(':'), scheme.ends_with(':').then_some(rest)),
            None => (None, None),
        };
        let authority = rest.map(|rest| rest.split(['/', '?', '#']).next().unwrap_or_default());
        let authority = authority.map(|authority| authority.rsplit('@').next().unwrap_or_default());
        let (host, port) = authority.map_or(("", None), split_port);
        let port = port.or_else(|| scheme.and_then(default_port));
        Origin { whole, scheme, host: (!host.is_empty()).then_some(host), port }
    }

    /// Whether its host is that of a `Host` field, and the field's port is right.
    fn is_of(&self, host: Option<&[u8]>, port_is_right: impl FnOnce(Option<u16>) -> bool) -> bool {
        let Some(host) = host.and_then(|host| std::str::from_utf8(host).ok()) else { return false };
        let (host, port) = split_port(host);
        self.host.is_some_and(|own| own.eq_ignore_ascii_case(host)) && port_is_right(port)
    }
}

/// Refuses requests of origins that the policy does not allow: 403 without a body.
#[derive(Clone, Debug)]
pub struct OriginCheck(pub OriginPolicy);

impl Plug for OriginCheck {
    fn call(&self, context: &mut Context<'_>, next: Next<'_>) -> Response {
        match self.0.allows(context.request().header("origin"), context.request()) {
            true => next.run(context),
            false => Response::text(403, ""),
        }
    }
}

fn split_port(authority: &str) -> (&str, Option<u16>) {
    match authority.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => match port.parse() {
            Ok(port) => (host, Some(port)),
            Err(_) if port.is_empty() => (host, None),
            Err(_) => ("", None), // no such port: no such host
        },
        _ => (authority, None),
    }
}

fn default_port(scheme: &str) -> Option<u16> {
    match scheme.to_ascii_lowercase().as_str() {
        "http" | "ws" => Some(80),
        "https" | "wss" => Some(443),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(policy: &OriginPolicy, allowed: &[&str], refused: &[&str]) {
        let at = |origin: &str| policy.allows_at(Some(origin.as_bytes()), "http", Some(b"me.com:4000"));
        allowed.iter().for_each(|origin| assert!(at(origin), "{origin}"));
        refused.iter().for_each(|origin| assert!(!at(origin), "{origin}"));
        assert!(policy.allows_at(None, "http", None), "no origin, no page");
    }

    #[test]
    fn a_host_is_compared_alone() {
        let policy = OriginPolicy::Host("a.com".into());
        check(
            &policy,
            &["http://a.com", "https://a.com", "https://A.com:81", "ftp://a.com/x"],
            &["http://b.com", "http://a.com.evil.com", "null", "file://", "", "a.com", "http://a.com@evil.com"],
        );
        check(&OriginPolicy::Any, &["null", "http://b.com", ""], &[]);
        assert!(OriginPolicy::Any.allows_at(Some(b"\xff"), "http", None));
        assert!(!policy.allows_at(Some(b"\xff"), "http", None));
    }

    #[test]
    fn a_list_compares_what_its_entries_have() {
        let policy = OriginPolicy::list(["https://a.com", "//b.com:88", "//*.c.com", "http://d.com:81"]).unwrap();
        check(
            &policy,
            &[
                "https://a.com",
                "https://a.com:443",
                "http://b.com:88",
                "x://b.com:88",
                "http://c.com",
                "x://y.z.c.com:9",
                "http://d.com:81",
            ],
            &[
                "http://a.com",
                "https://a.com:444",
                "https://b.com",
                "http://evilc.com",
                "http://d.com",
                "null",
                "file://",
            ],
        );
        for bad in ["a.com", "", "null", "https://", "//*.", "//*", "//a.*.com", "//*a.com"] {
            assert_eq!(OriginPolicy::list([bad]).err(), Some(BadOrigin), "{bad}");
        }
    }

    #[test]
    fn conn_is_the_request_itself_and_a_check_is_asked_about_all() {
        check(
            &OriginPolicy::Conn,
            &["http://me.com:4000"],
            &["https://me.com:4000", "http://me.com", "http://you.com:4000", "null"],
        );
        assert!(OriginPolicy::Conn.allows_at(Some(b"https://[::1]"), "https", Some(b"[::1]:443")));
        assert!(!OriginPolicy::Conn.allows_at(Some(b"https://[::1]"), "https", None));
        let same = OriginPolicy::SameHost;
        check(
            &same,
            &["http://me.com:4000", "https://ME.com:4000"],
            &["https://me.com", "http://you.com:4000", "https://me.com.evil.com:4000", "https://evil@me.com", "null"],
        );
        let at = |origin: &str, host: &str| same.allows_at(Some(origin.as_bytes()), "http", Some(host.as_bytes()));
        assert!(
            at("https://me.com", "me.com") && at("http://me.com", "me.com") && at("https://me.com:443", "me.com:443")
        );
        assert!(
            !at("https://me.com:8443", "me.com") && !at("x://me.com", "me.com") && !at("https://me.com", "me.com:80")
        );
        assert!(!same.allows_at(Some(b"https://me.com"), "http", None) && !at("https://", ""));
        let policy = OriginPolicy::Check(Arc::new(|origin| origin.whole == "null" || origin.port == Some(80)));
        check(&policy, &["null", "http://x"], &["https://x", "file://"]);
    }
}
