//! One request in the hands of a plugin: collects the response, or passes it on as it comes.
//!
//! The functions at the foot are what the plugin calls; they find the exchange behind the pointer that
//! the plugin was given for the length of a step.

use std::ffi::c_void;
use std::fs::File;
use std::os::fd::BorrowedFd;
use std::sync::Arc;

use appserver_plugin_abi as abi;
use bytes::Bytes;
use http::header::{self, HeaderName, HeaderValue};
use http::{HeaderMap, Method, StatusCode};

use super::outlet::{End, Outlet, OutletBody};
use super::{familiar, lent};
use crate::app::logvars::LogVars;
use crate::app::{Response, ResponseBody};

/// The response so far.
#[derive(Default)]
pub(super) struct Exchange {
    head: Option<Head>,
    /// The body, as long as it has not been passed on. Nearly always it is one piece.
    first: Option<Bytes>,
    rest: Vec<Bytes>,
    /// Bytes of the body so far.
    length: u64,
    file: Option<DraftBody>,
    /// Where the body goes once the response has been passed on; pieces are dropped if there is none.
    passed_on: Option<Option<Arc<Outlet>>>,
    /// Passes the response on before the step ends; for `write()` in a thread of its own.
    early: Option<Box<dyn FnOnce(Draft)>>,
    is_head: bool,
    complained: bool,
    /// What the application adds to the request's log line, if it does.
    vars: Option<LogVars>,
}

struct Head {
    status: StatusCode,
    reason: Option<hyper::ext::ReasonPhrase>,
    fields: HeaderMap,
    /// The `Content-Length` among them.
    length: Option<u64>,
}

/// A response that can go to another thread.
pub(super) struct Draft {
    head: Head,
    body: DraftBody,
    vars: Option<LogVars>,
}

enum DraftBody {
    Full(Bytes),
    File { file: File, offset: u64, length: u64 },
    Pieces(Arc<Outlet>, Option<u64>),
}

/// What the exchange is when the plugin has made its first step.
pub(super) enum Passage {
    /// All of it.
    Whole(Draft),
    /// All of it, though the application has not finished.
    WholeBeforeEnd(Draft),
    /// The beginning; the rest comes through the outlet.
    Beginning(Draft, Arc<Outlet>),
    /// It was passed on during the step.
    Early(Arc<Outlet>),
}

impl Exchange {
    /// For a request of this method.
    pub(super) fn new(method: &Method) -> Self {
        Exchange { is_head: method == Method::HEAD, ..Exchange::default() }
    }

    /// Lets `write()` pass the response on at once.
    pub(super) fn set_early(&mut self, pass_on: Box<dyn FnOnce(Draft)>) {
        self.early = Some(pass_on);
    }

    /// For the steps that follow the first: pieces go to `outlet`, or nowhere.
    pub(super) fn continued(outlet: Option<Arc<Outlet>>) -> Self {
        let vars = outlet.as_ref().map(|outlet| outlet.vars.clone());
        Exchange { passed_on: Some(outlet), vars, ..Exchange::default() }
    }

    /// The pointer for the plugin, valid for one step.
    pub(super) fn pointer(&mut self) -> abi::Exchange {
        (&raw mut *self).cast()
    }

    /// What to do with the response after the first step.
    pub(super) fn pass_on(&mut self, step: abi::Step) -> Passage {
        if let Some(outlet) = self.passed_on.take().flatten() {
            match step {
                abi::Step::Done => outlet.end(End::Complete),
                abi::Step::Failed => outlet.end(End::Broken),
                abi::Step::More => {}
            }
            return Passage::Early(outlet);
        }
        match step {
            // Nothing of it is out: the client gets an answer that says so.
            abi::Step::Failed => Passage::Whole(Draft { vars: self.vars.take(), ..Draft::failure() }),
            abi::Step::Done => Passage::Whole(self.whole()),
            abi::Step::More => {
                let promised = self.head.as_ref().and_then(|head| head.length);
                if self.is_head || promised.is_some_and(|promised| promised <= self.length) {
                    return Passage::WholeBeforeEnd(self.whole());
                }
                match self.begin() {
                    Some((response, outlet)) => Passage::Beginning(response, outlet),
                    None => Passage::Whole(Draft::failure()),
                }
            }
        }
    }

    /// The response with a body that is complete.
    fn whole(&mut self) -> Draft {
        let Some(head) = self.head.take() else { return Draft::failure() };
        if let Some(body) = self.file.take() {
            return Draft { head, body, vars: self.vars.take() };
        }
        let body = match head.length {
            Some(promised) if promised > self.length && !self.is_head && has_body(head.status) => {
                log::error!(
                    "the application promised a body of {promised} bytes and gave {}; the client is cut off",
                    self.length
                );
                let outlet = self.outlet();
                outlet.end(End::Broken);
                DraftBody::Pieces(outlet, Some(promised))
            }
            Some(promised) if promised < self.length && !self.is_head => {
                complain_of_excess(promised);
                let mut body = self.body();
                body.truncate(usize::try_from(promised).unwrap_or(usize::MAX));
                DraftBody::Full(body)
            }
            _ => DraftBody::Full(self.body()),
        };
        Draft { head, body, vars: self.vars.take() }
    }

    /// The response with what there is of its body, and the outlet for the rest.
    fn begin(&mut self) -> Option<(Draft, Arc<Outlet>)> {
        let head = self.head.take()?;
        let outlet = self.outlet();
        let body = DraftBody::Pieces(Arc::clone(&outlet), head.length);
        Some((Draft { head, body, vars: Some(outlet.vars.clone()) }, outlet))
    }

    /// An outlet with the pieces so far.
    fn outlet(&mut self) -> Arc<Outlet> {
        let vars = self.vars.get_or_insert_default().clone();
        let outlet = Arc::new(Outlet::logging(vars));
        self.pieces().for_each(|piece| {
            outlet.push(piece);
        });
        outlet
    }

    fn pieces(&mut self) -> impl Iterator<Item = Bytes> + use<> {
        self.first.take().into_iter().chain(std::mem::take(&mut self.rest))
    }

    fn body(&mut self) -> Bytes {
        if self.rest.is_empty() {
            return self.first.take().unwrap_or_default();
        }
        let mut whole = Vec::with_capacity(usize::try_from(self.length).unwrap_or_default());
        self.pieces().for_each(|piece| whole.extend_from_slice(&piece));
        whole.into()
    }

    fn push(&mut self, piece: Bytes) -> abi::Taken {
        match &self.passed_on {
            Some(Some(outlet)) => match outlet.push(piece) {
                true => abi::Taken::Yes,
                false => abi::Taken::Gone,
            },
            Some(None) => {
                if !std::mem::replace(&mut self.complained, true) {
                    complain_of_excess(self.length);
                }
                abi::Taken::Gone
            }
            None => {
                self.length += piece.len() as u64;
                match self.first {
                    None => self.first = Some(piece),
                    Some(_) => self.rest.push(piece),
                }
                abi::Taken::Yes
            }
        }
    }

    fn flush(&mut self) -> abi::Taken {
        if let (None, Some(pass_on)) = (&self.passed_on, self.early.take())
            && let Some((response, outlet)) = self.begin()
        {
            self.passed_on = Some(Some(outlet));
            pass_on(response);
        }
        abi::Taken::Yes
    }
}

impl Draft {
    /// What the client gets when the application failed.
    pub(super) fn failure() -> Self {
        let mut fields = HeaderMap::new();
        fields.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain"));
        // As in uWSGI: who counts on nothing but the status may go on elsewhere.
        fields.insert(header::CONNECTION, HeaderValue::from_static("close"));
        let head = Head { status: StatusCode::INTERNAL_SERVER_ERROR, reason: None, fields, length: None };
        let body = DraftBody::Full(Bytes::from_static(b"Internal Server Error"));
        Draft { head, body, vars: None }
    }

    /// The response, on the thread of its connection.
    pub(super) fn into_response(self) -> Response {
        let body = match self.body {
            DraftBody::Full(body) if body.is_empty() => ResponseBody::Empty,
            DraftBody::Full(body) => ResponseBody::Full(body),
            DraftBody::File { length: 0, .. } => ResponseBody::Empty,
            DraftBody::File { file, offset, length } => {
                ResponseBody::File { file: Arc::new(file), offset, length }
            }
            DraftBody::Pieces(outlet, length) => {
                ResponseBody::Produced(Box::pin(OutletBody::new(outlet, length)))
            }
        };
        let mut response = Response::new(body);
        *response.status_mut() = self.head.status;
        *response.headers_mut() = self.head.fields;
        if let Some(reason) = self.head.reason {
            response.extensions_mut().insert(reason);
        }
        if let Some(vars) = self.vars {
            response.extensions_mut().insert(vars);
        }
        response
    }
}

impl Head {
    /// `None` when something of it is not valid in HTTP.
    fn new(status: u16, reason: &[u8], fields: &[abi::Field]) -> Option<Self> {
        let status = StatusCode::from_u16(status).ok()?;
        let reason = match status.canonical_reason() {
            Some(usual) if usual.as_bytes() == reason => None,
            _ if reason.is_empty() => None,
            _ => Some(hyper::ext::ReasonPhrase::try_from(reason).ok()?),
        };
        let mut head =
            Head { status, reason, fields: HeaderMap::with_capacity(fields.len() + 2), length: None };
        for (index, field) in fields.iter().enumerate() {
            // SAFETY: the plugin keeps the texts alive for the call.
            let (name, value) = unsafe { (field.name.slice(), field.value.slice()) };
            let (name, value) = familiar::field(index, name, value)?;
            head.add(name, value)?;
        }
        Some(head)
    }

    fn add(&mut self, name: HeaderName, value: HeaderValue) -> Option<()> {
        match name {
            header::CONTENT_LENGTH => {
                let length = std::str::from_utf8(value.as_bytes()).ok()?.trim().parse().ok()?;
                if self.length.replace(length).is_some_and(|other| other != length) {
                    return None;
                }
                self.fields.insert(name, HeaderValue::from(length));
            }
            // Of the connection, which is the server's (RFC 9110 §7.6.1; PEP 3333 forbids them).
            // The wish to close it is one it can grant.
            header::CONNECTION if value.as_bytes().eq_ignore_ascii_case(b"close") => {
                self.fields.insert(name, value);
            }
            header::CONNECTION
            | header::TRANSFER_ENCODING
            | header::TE
            | header::TRAILER
            | header::UPGRADE => {}
            _ if name == "keep-alive" => {}
            _ => {
                self.fields.append(name, value);
            }
        }
        Some(())
    }
}

fn has_body(status: StatusCode) -> bool {
    !status.is_informational() && status != StatusCode::NO_CONTENT && status != StatusCode::NOT_MODIFIED
}

fn complain_of_excess(promised: u64) {
    log::error!(
        "the application gave more than the body of {promised} bytes it promised; the rest is dropped"
    );
}

/// The exchange behind the pointer of a step.
///
/// # Safety
/// `pointer` is what [`Exchange::pointer`] gave for a step that has not ended.
unsafe fn behind<'a>(pointer: abi::Exchange) -> &'a mut Exchange {
    // SAFETY: as the caller promises; a step runs on one thread.
    unsafe { &mut *pointer.cast() }
}

/// What the application adds to the log line of the request.
///
/// # Safety
/// As [`behind`].
pub(super) unsafe fn log_vars(pointer: abi::Exchange) -> LogVars {
    // SAFETY: as the caller promises.
    unsafe { behind(pointer) }.vars.get_or_insert_default().clone()
}

pub(super) extern "C" fn head(
    exchange: abi::Exchange,
    status: u16,
    reason: abi::Bytes,
    fields: *const abi::Field,
    field_count: usize,
) -> abi::Taken {
    // SAFETY: the plugin calls this during a step, with as many fields as it says.
    let (exchange, reason, fields) =
        unsafe { (behind(exchange), reason.slice(), std::slice::from_raw_parts(fields, field_count)) };
    let Some(head) = Head::new(status, reason, fields) else { return abi::Taken::Refused };
    exchange.head = Some(head);
    abi::Taken::Yes
}

pub(super) extern "C" fn piece(exchange: abi::Exchange, bytes: abi::Bytes, owner: *mut c_void) -> abi::Taken {
    // SAFETY: the plugin calls this during a step; the bytes live until the owner is released.
    let (exchange, slice) = unsafe { (behind(exchange), bytes.slice()) };
    let piece = match owner.is_null() {
        true => Bytes::copy_from_slice(slice),
        false => lent::bytes(bytes, owner),
    };
    exchange.push(piece)
}

pub(super) extern "C" fn file(exchange: abi::Exchange, fd: i32, offset: u64, length: u64) -> abi::Taken {
    // SAFETY: the plugin calls this during a step, with a descriptor that is open.
    let (exchange, fd) = unsafe { (behind(exchange), BorrowedFd::borrow_raw(fd)) };
    let Ok(file) = fd.try_clone_to_owned() else { return abi::Taken::Refused };
    // A declared length is the client's to rely on; the file may be longer.
    let length =
        exchange.head.as_ref().and_then(|head| head.length).map_or(length, |promised| promised.min(length));
    exchange.file = Some(DraftBody::File { file: file.into(), offset, length });
    abi::Taken::Yes
}

pub(super) extern "C" fn flush(exchange: abi::Exchange) -> abi::Taken {
    // SAFETY: the plugin calls this during a step.
    unsafe { behind(exchange) }.flush()
}
