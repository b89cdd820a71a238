//! A request on its way through plugs to its handler.
#![forbid(unsafe_code)]

use super::query::{self, Params};
use super::session::Session;
use crate::engine::{ConnId, Request, Response, Scope};
use serde::de::DeserializeOwned;
use std::any::{Any, TypeId};
use std::collections::HashMap;
use std::{fmt, net::IpAddr, str};

/// A request, what plugs have found out about it, and the worker it is on.
pub struct Context<'a> {
    request: &'a Request<'a>,
    scope: Scope<'a>,
    segments: Vec<String>,
    params: Params,
    pub(super) vars: Vec<(String, String)>,
    session: Session,
    assigns: HashMap<TypeId, Box<dyn Any>>,
    pub(super) body_limit: usize,
    pub(super) later: bool,
}

/// Without query, fields and body, which may hold secrets.
impl fmt::Debug for Context<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (method, path) = (self.method(), self.path());
        f.debug_struct("Context").field("method", &method).field("path", &path).finish_non_exhaustive()
    }
}

impl<'a> Context<'a> {
    /// # Errors
    /// 400: path or query are wrongly encoded.
    pub(super) fn new(scope: Scope<'a>, request: &'a Request<'a>) -> Result<Self, Response> {
        let params = match request.query() {
            Some(query) => Params::parse(query).map_err(|error| Response::text(400, format!("query: {error}\n")))?,
            None => Params::default(),
        };
        let segments = request.path().split('/').filter(|segment| !segment.is_empty());
        let segments: Result<_, _> = segments.map(|segment| query::decode(segment, false)).collect();
        Ok(Context {
            segments: segments.map_err(|error| Response::text(400, format!("path: {error}\n")))?,
            request,
            scope,
            params,
            vars: Vec::new(),
            session: Session::default(),
            assigns: HashMap::new(),
            body_limit: usize::MAX,
            later: false,
        })
    }

    /// The request as the engine has it.
    pub fn request(&self) -> &'a Request<'a> {
        self.request
    }

    /// Its method, as sent.
    pub fn method(&self) -> &'a str {
        self.request.method()
    }

    /// The path as sent, not percent-decoded.
    pub fn path(&self) -> &'a str {
        self.request.path()
    }

    /// The segments of the path, percent-decoded each, without empty ones.
    pub fn segments(&self) -> &[String] {
        &self.segments
    }

    /// What stands in the path where the route has `:name`, or the rest of it where it has `*name`; percent-decoded.
    pub fn var(&self, name: &str) -> Option<&str> {
        self.vars.iter().find(|(var, _)| var == name).map(|(_, value)| value.as_str())
    }

    /// A text of the query.
    pub fn query(&self, name: &str) -> Option<&str> {
        self.params.text(name)
    }

    /// The whole query.
    pub fn params(&self) -> &Params {
        &self.params
    }

    /// The first header field of this name, if it is UTF-8.
    pub fn header(&self, name: &str) -> Option<&'a str> {
        str::from_utf8(self.request.header(name)?).ok()
    }

    /// The body.
    pub fn body(&self) -> &'a [u8] {
        self.request.body()
    }

    /// The peer's address; none on a Unix socket. Behind a proxy it is the proxy's.
    pub fn peer(&self) -> Option<IpAddr> {
        self.request.peer()
    }

    /// The body as JSON.
    ///
    /// # Errors
    /// The response to give: 415 if its type is not `application/json` (or `…+json`), 413 above the limit of
    /// [`JsonBody`](super::JsonBody) (without that plug the engine's limit holds alone), 400 if it is no JSON of this
    /// type.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, Response> {
        self.check_json()?;
        serde_json::from_slice(self.body()).map_err(|error| Response::text(400, format!("{error}\n")))
    }

    pub(super) fn check_json(&self) -> Result<(), Response> {
        let media = self.media_type();
        if media != "application/json" && !(media.starts_with("application/") && media.ends_with("+json")) {
            return Err(Response::text(415, "application/json is expected\n"));
        }
        if self.body().len() > self.body_limit {
            return Err(Response::new(413));
        }
        Ok(())
    }

    /// The body as a form.
    ///
    /// # Errors
    /// The response to give: 415 if its type is not `application/x-www-form-urlencoded`, 400 if it is wrongly encoded.
    pub fn form(&self) -> Result<Params, Response> {
        if self.media_type() != "application/x-www-form-urlencoded" {
            return Err(Response::text(415, "application/x-www-form-urlencoded is expected\n"));
        }
        let text = str::from_utf8(self.body()).map_err(|_| Response::text(400, "form: not UTF-8\n"))?;
        Params::parse(text).map_err(|error| Response::text(400, format!("form: {error}\n")))
    }

    /// The session; empty without the plug [`SessionCookie`](super::SessionCookie).
    pub fn session(&self) -> &Session {
        &self.session
    }

    /// The session, to be changed: the plug writes it back.
    pub fn session_mut(&mut self) -> &mut Session {
        &mut self.session
    }

    /// Keeps a value of a type for those behind, in place of the one before.
    pub fn assign<T: 'static>(&mut self, value: T) {
        self.assigns.insert(TypeId::of::<T>(), Box::new(value));
    }

    /// The value of this type that was kept.
    pub fn assigned<T: 'static>(&self) -> Option<&T> {
        self.assigns.get(&TypeId::of::<T>())?.downcast_ref()
    }

    /// The worker: to publish, to set timers. To the topics of channels [`Context::broadcast`] publishes.
    pub fn scope(&mut self) -> &mut Scope<'a> {
        &mut self.scope
    }

    /// Puts the answer off: it is given under the id that is returned, with [`Handle::respond`](crate::Handle::respond)
    /// or [`Scope::respond`]. What the handler and the plugs return for this request is dropped, header fields and
    /// session included.
    pub fn answer_later(&mut self) -> ConnId {
        self.later = true;
        self.request.id()
    }

    /// The type of the body in lower case, without parameters.
    fn media_type(&self) -> String {
        let value = self.header("content-type").unwrap_or_default();
        value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
    }
}
