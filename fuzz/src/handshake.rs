//! `handshake_request`, `handshake_response`, `extensions`: what is accepted has to satisfy a second, literal reading of
//! the rules, and a head that is cut must not be judged differently from the whole.
#![forbid(unsafe_code)]

use crate::input::Input;
use wingbeat::proto::extensions::Offers;
use wingbeat::proto::handshake::{
    HandshakeError, RequestLimits,
    client::{self, RequestHead},
    server::{self, Framing, Parsed, Request, UpgradeRequest},
};
use wingbeat::proto::http::{BodyError, Chunked};

/// The nonce of RFC 6455 §1.3, so that seeds can hold an answer that fits.
const NONCE: &[u8; 16] = b"the sample nonce";
const ACCEPT: &[u8] = b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";
const PROTOCOLS: [&str; 2] = ["chat", "superchat"];

/// Bit 0 of the choices: small limits.
fn limits(input: &Input<'_>) -> RequestLimits {
    if input.choice(0) { RequestLimits { max_bytes: 300, max_headers: 8 } } else { RequestLimits::default() }
}

/// Heads of requests, with whatever follows them.
pub fn handshake_request(data: &[u8]) {
    let Some(input) = Input::new(data) else { return };
    let limits = limits(&input);
    check_prefixes(&input, |bytes| match server::parse(bytes, &limits) {
        Ok(Parsed::NeedMore) => Ok(None),
        Ok(Parsed::Request(request)) => Ok(Some(summary(&request))),
        Err(error) => Err(error),
    });
    let request = match server::parse(input.bytes, &limits) {
        Ok(Parsed::NeedMore) => return,
        Ok(Parsed::Request(request)) => request,
        Err(error) => return check_refusal(error),
    };
    let head = &input.bytes[..request.head_len()];
    check_head(head, &limits);
    let is_old = !head.windows(11).any(|bytes| bytes == b" HTTP/1.1\r\n");
    assert!(!is_old || head.windows(11).any(|bytes| bytes == b" HTTP/1.0\r\n"));
    let hosts = values(head, "host").len();
    assert!(hosts == 1 || hosts == 0 && is_old, "exactly one Host");
    check_framing(head, &request, is_old, &input.bytes[request.head_len()..]);
    match server::upgrade(&request) {
        Ok(Some(upgrade)) => check_upgrade(head, &upgrade),
        Ok(None) => check_plain(&request),
        Err(error) => check_refusal(error),
    }
}

/// One announcement of the body's end at most; and a chunked body is the same however it is cut.
fn check_framing(head: &[u8], request: &Request<'_>, is_old: bool, behind: &[u8]) {
    let (codings, lengths) = (values(head, "transfer-encoding"), values(head, "content-length"));
    assert!(codings.len() + lengths.len() <= 1);
    let Some(coding) = codings.first() else {
        let length = lengths.first().map_or(0, |length| std::str::from_utf8(length).unwrap().parse().unwrap());
        return assert_eq!(request.framing(), Framing::Length(length));
    };
    assert!(coding.eq_ignore_ascii_case(b"chunked") && !is_old);
    assert_eq!(request.framing(), Framing::Chunked);
    assert!(!matches!(server::upgrade(request), Ok(Some(_))));
    let read = |piece: usize| {
        let (mut chunked, mut body, mut used) = (Chunked::new(), Vec::new(), 0);
        for piece in behind.chunks(piece) {
            used += chunked.read(piece, &mut body, 1000)?;
        }
        assert!(body.len() <= 1000 && (chunked.is_done() || used == behind.len()));
        Ok::<_, BodyError>((body, used, chunked.is_done()))
    };
    let whole = read(behind.len().max(1));
    assert!([1, 2, 7].into_iter().all(|piece| read(piece) == whole));
}

/// Everything that a request says of itself.
fn summary(request: &Request<'_>) -> (usize, String) {
    let headers = request.headers().map(|(name, value)| (name.to_owned(), value.to_vec())).collect::<Vec<_>>();
    let line = (request.method(), request.target(), request.path(), request.query());
    let rest = (request.framing(), request.wants_keep_alive(), request.expectation());
    (request.head_len(), format!("{line:?} {rest:?} {headers:?}"))
}

/// Every prefix that is judged at all is judged as the whole is, and what is judged stays so.
fn check_prefixes<T>(input: &Input<'_>, parse: impl Fn(&[u8]) -> Result<Option<T>, HandshakeError>)
where
    T: PartialEq + std::fmt::Debug + HeadLen,
{
    let whole = parse(input.bytes);
    let mut judged = false;
    for end in input.ends() {
        let result = parse(&input.bytes[..end]);
        match &result {
            Ok(None) => assert!(!judged, "judged, and then not any more"),
            Ok(Some(head)) => {
                assert!(head.head_len() <= end, "accepted before its end");
                assert_eq!(result, whole, "cut after {end} bytes");
            }
            // Which rule is named first may depend on how much is there; that one is broken may not.
            Err(_) => assert!(whole.is_err(), "refused after {end} bytes, the whole is not"),
        }
        judged |= !matches!(result, Ok(None));
    }
}

trait HeadLen {
    fn head_len(&self) -> usize;
}

impl HeadLen for (usize, String) {
    fn head_len(&self) -> usize {
        self.0
    }
}

impl HeadLen for client::Response {
    fn head_len(&self) -> usize {
        client::Response::head_len(self)
    }
}

/// The end of lines, the size, and no byte that could be read as an end by somebody else.
fn check_head(head: &[u8], limits: &RequestLimits) {
    assert!(head.len() <= limits.max_bytes as usize);
    assert!(head.ends_with(b"\r\n\r\n"));
    assert!(!head.contains(&0));
    for (i, &byte) in head.iter().enumerate() {
        assert!(byte != b'\r' || head.get(i + 1) == Some(&b'\n'), "a bare CR at {i}");
        assert!(byte != b'\n' || i > 0 && head[i - 1] == b'\r', "a bare LF at {i}");
    }
    assert!(lines(head).len() - 1 <= usize::from(limits.max_headers));
}

/// The lines of a head, without the empty ones that may stand before it.
fn lines(head: &[u8]) -> Vec<&[u8]> {
    let lines = head.split(|&byte| byte == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line));
    lines.filter(|line| !line.is_empty()).collect()
}

/// The values of the fields with this name, blanks removed.
fn values<'a>(head: &'a [u8], name: &str) -> Vec<&'a [u8]> {
    let fields = lines(head).into_iter().skip(1).map(|line| {
        let colon = line.iter().position(|&byte| byte == b':').expect("every field has a colon");
        (&line[..colon], line[colon + 1..].trim_ascii())
    });
    fields.filter(|(found, _)| found.eq_ignore_ascii_case(name.as_bytes())).map(|(_, value)| value).collect()
}

/// Whether one of these lists has the token.
fn lists(values: &[&[u8]], token: &str) -> bool {
    let mut elements = values.iter().flat_map(|value| value.split(|&byte| byte == b','));
    elements.any(|element| element.trim_ascii().eq_ignore_ascii_case(token.as_bytes()))
}

fn check_upgrade(head: &[u8], upgrade: &UpgradeRequest<'_>) {
    assert!(head.trim_ascii_start().starts_with(b"GET "));
    assert!(lists(&values(head, "upgrade"), "websocket"));
    assert!(lists(&values(head, "connection"), "upgrade"));
    assert_eq!(values(head, "sec-websocket-version"), [b"13"]);
    let key = upgrade.key().as_bytes();
    assert_eq!(values(head, "sec-websocket-key"), [key]);
    assert!(
        key.len() == 24
            && key.ends_with(b"==")
            && key[..22].iter().all(|&byte| { byte.is_ascii_alphanumeric() || byte == b'+' || byte == b'/' })
    );
    let offered = values(head, "sec-websocket-extensions");
    let read = offered.into_iter().flat_map(|value| naive_offers(value).0).collect::<Vec<_>>();
    let found = upgrade.extensions().map(|offer| owned(offer.name(), offer.params())).collect::<Vec<_>>();
    assert_eq!(found, read);
    for protocol in upgrade.protocols().map(Some).chain([None]).take(3) {
        let mut answer = b"before".to_vec();
        server::write_accept(&mut answer, upgrade, protocol, &[("X-Extra", "1")]).expect("it was offered");
        let answer = answer.strip_prefix(b"before").expect("it appends");
        check_head(answer, &RequestLimits { max_bytes: u32::MAX, max_headers: 64 });
        assert!(answer.starts_with(b"HTTP/1.1 101 "));
        assert_eq!(values(answer, "sec-websocket-accept"), [&server::accept_key(key)[..]]);
        assert_eq!(
            values(answer, "sec-websocket-protocol"),
            protocol.map(str::as_bytes).into_iter().collect::<Vec<_>>()
        );
    }
}

fn check_plain(request: &Request<'_>) {
    let mut answer = Vec::new();
    let head_only = request.method() == "HEAD";
    server::write_response(&mut answer, 404, &[], b"nothing here", request.wants_keep_alive(), head_only)
        .expect("valid");
    assert!(answer.starts_with(b"HTTP/1.1 404 "));
    assert_eq!(answer.ends_with(b"\r\n\r\nnothing here"), !head_only);
}

/// A refusal is a whole response that announces its own body and the end of the connection.
fn check_refusal(error: HandshakeError) {
    assert!((400..600).contains(&error.status()), "{error:?}");
    let mut answer = Vec::new();
    server::write_error(&mut answer, error);
    let end = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n").expect("the head ends") + 4;
    let (head, body) = answer.split_at(end);
    check_head(head, &RequestLimits::default());
    assert!(head.starts_with(format!("HTTP/1.1 {} ", error.status()).as_bytes()));
    assert_eq!(values(head, "content-length"), [body.len().to_string().as_bytes()]);
    assert!(lists(&values(head, "connection"), "close"));
    assert!(!body.is_empty());
}

/// Answers to a request that offered two subprotocols with a fixed nonce.
pub fn handshake_response(data: &[u8]) {
    let Some(input) = Input::new(data) else { return };
    let limits = limits(&input);
    let mut head = RequestHead::new("example.com", "/chat").expect("valid");
    if input.choice(1) {
        for protocol in PROTOCOLS {
            head.protocol(protocol).expect("a token");
        }
    }
    check_prefixes(&input, |bytes| client::parse_response(bytes, &head, NONCE, &limits));
    let response = match client::parse_response(input.bytes, &head, NONCE, &limits) {
        Ok(Some(response)) => response,
        Ok(None) | Err(_) => return,
    };
    let answer = &input.bytes[..response.head_len()];
    check_head(answer, &limits);
    assert!(answer.trim_ascii_start().starts_with(b"HTTP/1.1 101"));
    assert!(lists(&values(answer, "upgrade"), "websocket"));
    assert!(lists(&values(answer, "connection"), "upgrade"));
    assert_eq!(values(answer, "sec-websocket-accept"), [ACCEPT]);
    assert!(values(answer, "sec-websocket-extensions").iter().all(|value| value.is_empty()));
    let chosen = response.protocol(&head).map(str::as_bytes);
    assert_eq!(values(answer, "sec-websocket-protocol"), chosen.into_iter().collect::<Vec<_>>());
    assert!(
        chosen.is_none_or(|chosen| input.choice(1) && PROTOCOLS.iter().any(|offered| offered.as_bytes() == chosen))
    );
}

type Offer = (String, Vec<(String, Option<String>)>);

fn owned<'a>(name: &str, params: impl Iterator<Item = (&'a str, Option<&'a str>)>) -> Offer {
    (name.to_owned(), params.map(|(name, value)| (name.to_owned(), value.map(str::to_owned))).collect())
}

/// Values of `Sec-WebSocket-Extensions` against a parser that splits; what was read and is written again reads the same.
pub fn extensions(data: &[u8]) {
    let mut found = Vec::new();
    let mut failed = false;
    for offer in Offers::new(data) {
        assert!(!failed, "an offer after an error");
        match offer {
            Ok(offer) => found.push(owned(offer.name(), offer.params())),
            Err(_) => failed = true,
        }
    }
    assert_eq!((&found, failed), (&naive_offers(data).0, naive_offers(data).1));
    let written = found.iter().map(|(name, params)| {
        let params = params.iter().map(|(name, value)| match value {
            Some(value) => format!("; {name}=\"{value}\""),
            None => format!(" ;{name}"),
        });
        name.clone() + &params.collect::<String>()
    });
    let written = written.collect::<Vec<_>>().join(",");
    assert_eq!(naive_offers(written.as_bytes()), (found.clone(), false));
    let again = Offers::new(written.as_bytes()).map(|offer| offer.map(|offer| owned(offer.name(), offer.params())));
    assert_eq!(again.collect::<Result<Vec<_>, _>>(), Ok(found));
}

/// The offers before the first that is malformed, and whether there is one. Splitting at commas and semicolons is right
/// even where they are quoted: a quoted value must be a token, and neither is in a token.
fn naive_offers(value: &[u8]) -> (Vec<Offer>, bool) {
    let mut offers = Vec::new();
    for element in value.split(|&byte| byte == b',').map(trim).filter(|element| !element.is_empty()) {
        match naive_offer(element) {
            Some(offer) => offers.push(offer),
            None => return (offers, true),
        }
    }
    (offers, false)
}

fn naive_offer(element: &[u8]) -> Option<Offer> {
    let mut parts = element.split(|&byte| byte == b';').map(trim);
    let name = token(parts.next()?)?;
    let params = parts.map(|param| match param.iter().position(|&byte| byte == b'=') {
        None => Some((token(param)?, None)),
        Some(equals) => {
            let value = trim(&param[equals + 1..]);
            let unquoted = value.strip_prefix(b"\"").and_then(|rest| rest.strip_suffix(b"\""));
            Some((token(trim(&param[..equals]))?, Some(token(unquoted.unwrap_or(value))?)))
        }
    });
    Some((name, params.collect::<Option<Vec<_>>>()?))
}

/// Without blanks (RFC 9110 §5.6.3: space and tab) at both ends.
fn trim(bytes: &[u8]) -> &[u8] {
    let blank = |byte: &u8| *byte == b' ' || *byte == b'\t';
    let start = bytes.iter().position(|byte| !blank(byte)).unwrap_or(bytes.len());
    let end = bytes.iter().rposition(|byte| !blank(byte)).map_or(start, |last| last + 1);
    &bytes[start..end]
}

fn token(bytes: &[u8]) -> Option<String> {
    let separators = b"()<>@,;:\\\"/[]?={} \t";
    let good = bytes.iter().all(|byte| byte.is_ascii_graphic() && !separators.contains(byte));
    (good && !bytes.is_empty()).then(|| String::from_utf8_lossy(bytes).into_owned())
}
