//! What the server writes: the 101, plain responses, refusals.
#![forbid(unsafe_code)]

use super::headers::{check_field, check_not_reserved};
use super::server::UpgradeRequest;
use super::{HandshakeError, accept_key};

/// Appends the 101 response to `upgrade`; frames may follow it.
///
/// `protocol` is the chosen subprotocol, one of those offered. `extra` are further headers (`Set-Cookie`); their
/// values may hold anything but control bytes. Allocates only when `out` must grow.
///
/// # Errors
/// [`HandshakeError::ProtocolNotOffered`], [`HandshakeError::InvalidHeader`], or
/// [`HandshakeError::ReservedHeader`] for the headers that the handshake writes; `out` is then as it was.
pub fn write_accept(
    out: &mut Vec<u8>,
    upgrade: &UpgradeRequest<'_>,
    protocol: Option<&str>,
    extra: &[(&str, &str)],
) -> Result<(), HandshakeError> {
    const RESERVED: &[&str] = &[
        "connection",
        "content-length",
        "sec-websocket-accept",
        "sec-websocket-extensions",
        "sec-websocket-protocol",
        "transfer-encoding",
        "upgrade",
    ];
    if !protocol.is_none_or(|protocol| upgrade.offers_protocol(protocol)) {
        return Err(HandshakeError::ProtocolNotOffered);
    }
    check_all(extra, RESERVED)?;
    out.extend_from_slice(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n");
    out.extend_from_slice(b"Sec-WebSocket-Accept: ");
    out.extend_from_slice(&accept_key(upgrade.key().as_bytes()));
    out.extend_from_slice(b"\r\n");
    if let Some(protocol) = protocol {
        put(out, &["Sec-WebSocket-Protocol: ", protocol, "\r\n"]);
    }
    put_fields(out, extra);
    out.extend_from_slice(b"\r\n");
    Ok(())
}

/// Appends the refusal of a handshake: status, one line of text, and what the status asks for (426: the version to
/// use, 405: the method to use). The connection must be closed behind it; nothing the peer sent after the head may
/// be read.
pub fn write_error(out: &mut Vec<u8>, error: HandshakeError) {
    let special: &[(&str, &str)] = match error {
        HandshakeError::WebSocketVersion | HandshakeError::UpgradeRequired => {
            &[("Upgrade", "websocket"), ("Sec-WebSocket-Version", "13")]
        }
        HandshakeError::Method => &[("Allow", "GET")],
        _ => &[],
    };
    let body = error.body();
    put_head(out, error.status(), false, special);
    put_fields(out, &[("Content-Type", "text/plain; charset=utf-8")]);
    put_content_length(out, body.len() + 1);
    put(out, &["\r\n", body, "\n"]);
}

/// Appends a plain HTTP response: status line, `Connection`, `headers`, `Content-Length` and `body`.
///
/// `head_only` leaves the body out but announces it, as the answer to HEAD does. 204 and 304 have no body, so none
/// is written. With an `Upgrade` among `headers`, `Connection` lists it (RFC 9110 §7.8).
///
/// # Errors
/// [`HandshakeError::InvalidHeader`]; [`HandshakeError::ReservedHeader`] for `Connection`, `Content-Length` and
/// `Transfer-Encoding`; [`HandshakeError::InvalidStatus`] outside 200..=999. `out` is then as it was.
pub fn write_response(
    out: &mut Vec<u8>,
    status: u16,
    headers: &[(&str, &str)],
    body: &[u8],
    keep_alive: bool,
    head_only: bool,
) -> Result<(), HandshakeError> {
    if !(200..=999).contains(&status) {
        return Err(HandshakeError::InvalidStatus);
    }
    check_all(headers, &["connection", "content-length", "transfer-encoding"])?;
    put_head(out, status, keep_alive, headers);
    let bodiless = matches!(status, 204 | 304);
    if !bodiless {
        put_content_length(out, body.len());
    }
    out.extend_from_slice(b"\r\n");
    if !bodiless && !head_only {
        out.extend_from_slice(body);
    }
    Ok(())
}

/// Appends the 100 that tells a client to send its body (RFC 9110 §15.2.1).
pub fn write_continue(out: &mut Vec<u8>) {
    out.extend_from_slice(b"HTTP/1.1 100 Continue\r\n\r\n");
}

/// The phrase that goes with a status (RFC 9110 §15); empty for a status without one.
pub fn reason_phrase(status: u16) -> &'static str {
    match status {
        101 => "Switching Protocols",
        200 => "OK",
        201 => "Created",
        202 => "Accepted",
        204 => "No Content",
        206 => "Partial Content",
        301 => "Moved Permanently",
        302 => "Found",
        303 => "See Other",
        304 => "Not Modified",
        307 => "Temporary Redirect",
        308 => "Permanent Redirect",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        406 => "Not Acceptable",
        408 => "Request Timeout",
        409 => "Conflict",
        410 => "Gone",
        411 => "Length Required",
        412 => "Precondition Failed",
        413 => "Content Too Large",
        414 => "URI Too Long",
        415 => "Unsupported Media Type",
        416 => "Range Not Satisfiable",
        417 => "Expectation Failed",
        422 => "Unprocessable Content",
        426 => "Upgrade Required",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        505 => "HTTP Version Not Supported",
        _ => "",
    }
}

fn check_all(headers: &[(&str, &str)], reserved: &[&str]) -> Result<(), HandshakeError> {
    headers.iter().try_for_each(|(name, value)| {
        check_field(name, value)?;
        check_not_reserved(name, reserved)
    })
}

fn put_head(out: &mut Vec<u8>, status: u16, keep_alive: bool, headers: &[(&str, &str)]) {
    let upgrades = headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("upgrade"));
    let connection = match (keep_alive, upgrades) {
        (true, false) => "keep-alive",
        (true, true) => "keep-alive, Upgrade",
        (false, false) => "close",
        (false, true) => "close, Upgrade",
    };
    out.extend_from_slice(b"HTTP/1.1 ");
    put_number(out, u64::from(status));
    put(out, &[" ", reason_phrase(status), "\r\n"]);
    put_fields(out, &[("Connection", connection)]);
    put_fields(out, headers);
}

fn put_fields(out: &mut Vec<u8>, headers: &[(&str, &str)]) {
    for (name, value) in headers {
        put(out, &[name, ": ", value, "\r\n"]);
    }
}

fn put_content_length(out: &mut Vec<u8>, length: usize) {
    out.extend_from_slice(b"Content-Length: ");
    put_number(out, length as u64);
    out.extend_from_slice(b"\r\n");
}

fn put(out: &mut Vec<u8>, parts: &[&str]) {
    for part in parts {
        out.extend_from_slice(part.as_bytes());
    }
}

fn put_number(out: &mut Vec<u8>, number: u64) {
    let mut digits = [0; 20];
    let mut at = digits.len();
    let mut rest = number;
    loop {
        at -= 1;
        digits[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_whole() {
        for number in [0, 9, 10, 426, 1_048_576, u64::MAX] {
            let mut out = Vec::new();
            put_number(&mut out, number);
            assert_eq!(out, number.to_string().as_bytes());
        }
    }
}
