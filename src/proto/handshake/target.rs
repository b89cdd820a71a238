//! Request targets and hosts, as both sides judge them (RFC 9112 §3.2, RFC 3986 §3.2.2).
#![forbid(unsafe_code)]

/// A request target, cut into its parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Target<'b> {
    pub(super) whole: &'b str,
    pub(super) path: &'b str,
    pub(super) query: Option<&'b str>,
}

/// Cuts a target in one of the four forms; `None` if it is in none of them.
pub(super) fn split<'b>(method: &str, whole: &'b str) -> Option<Target<'b>> {
    if !is_printable(whole) {
        return None;
    }
    if method == "CONNECT" && !whole.starts_with('/') {
        return is_host(whole.as_bytes()).then_some(Target { whole, path: "", query: None });
    }
    if whole == "*" {
        return (method == "OPTIONS").then_some(Target { whole, path: whole, query: None });
    }
    let local = if whole.starts_with('/') { whole } else { behind_authority(whole)? };
    let (path, query) = match local.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (local, None),
    };
    Some(Target { whole, path: if path.is_empty() { "/" } else { path }, query })
}

/// Path and query of `scheme://authority/path?query`.
fn behind_authority(target: &str) -> Option<&str> {
    let (scheme, rest) = target.split_once("://")?;
    let scheme = scheme.as_bytes();
    let legal = |byte: &u8| byte.is_ascii_alphanumeric() || b"+-.".contains(byte);
    if !scheme.first()?.is_ascii_alphabetic() || !scheme.iter().all(legal) {
        return None;
    }
    let (authority, local) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
    (!authority.is_empty() && is_host(authority.as_bytes())).then_some(local)
}

/// Whether `target` is visible ASCII without a fragment. Other marks that RFC 3986 would have encoded pass: browsers
/// send them.
pub(super) fn is_printable(target: &str) -> bool {
    target.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#')
}

/// Whether `host` has only what `uri-host [":" port]` is made of; empty is legal (RFC 9110 §7.2).
pub(super) fn is_host(host: &[u8]) -> bool {
    host.iter().all(|byte| byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=%[]:".contains(byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_four_forms_are_cut() {
        let cases: &[(&str, &str, &str, Option<&str>)] = &[
            ("GET", "/", "/", None),
            ("GET", "/a/b?c=d?e", "/a/b", Some("c=d?e")),
            ("GET", "/?", "/", Some("")),
            ("GET", "//a", "//a", None),
            ("GET", "http://h:1/a?b", "/a", Some("b")),
            ("GET", "ws://h", "/", None),
            ("GET", "ws://h?b", "/", Some("b")),
            ("OPTIONS", "*", "*", None),
            ("CONNECT", "h:1", "", None),
            ("CONNECT", "/", "/", None),
        ];
        for (method, whole, path, query) in cases {
            assert_eq!(split(method, whole), Some(Target { whole, path, query: *query }), "{method} {whole}");
        }
    }

    #[test]
    fn what_is_in_no_form_is_refused() {
        for target in
            ["", "a", "a/b", "*", "?a", "/a#b", "/é", "/\x7f", "://h/", "1:///", "http:///a", "ht p://h", "http://a@b/"]
        {
            assert_eq!(split("GET", target), None, "{target:?}");
        }
    }
}
