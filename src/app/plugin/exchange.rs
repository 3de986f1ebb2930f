//! One request in the hands of a plugin: collects the response, or passes it on as it comes.
//!
//! The functions at the foot are what the plugin calls; they find the exchange behind the pointer that
//! the plugin was given for the length of a step.

use std::collections::VecDeque;
use std::ffi::c_void;
use std::fs::File;
use std::os::fd::BorrowedFd;
use std::sync::Arc;

use appserver_plugin_abi as abi;
use bytes::Bytes;
use http::Method;

use super::draft::{Draft, DraftBody, Head};
use super::outlet::{End, Outlet, Pushed};
use super::{lent, place, table};
use crate::app::logvars::LogVars;

/// Bytes of `write()` that are collected, where they cannot be sent at once; more wait in an outlet, which
/// has a file for them.
const COLLECTED: u64 = 512 * 1024;

/// The response so far.
#[derive(Default)]
pub(super) struct Exchange {
    head: Option<Head>,
    /// The body, as long as it has not been passed on. Nearly always it is one piece.
    first: Option<Bytes>,
    rest: VecDeque<Bytes>,
    /// Small pieces behind those.
    small: Vec<u8>,
    /// Bytes of the body so far.
    length: u64,
    file: Option<File>,
    /// Offset and length of its part that is the body.
    range: (u64, u64),
    destination: Destination,
    /// The beginning of a response whose pieces go to an outlet already.
    begun: Option<Draft>,
    /// Passes the response on before the step ends; for `write()` in a thread of its own.
    early: Option<Box<dyn FnOnce(Draft)>>,
    is_head: bool,
    /// Bytes came that do not belong to the response.
    has_excess: bool,
    /// What the application adds to the log line of the request, if it does.
    vars: Option<LogVars>,
}

/// Where pieces go.
#[derive(Default)]
enum Destination {
    /// They are collected here.
    #[default]
    Here,
    Outlet(Arc<Outlet>),
    /// The client does not want any: its request was HEAD, or the status says that there is no body.
    Nowhere,
    /// All of this many bytes were given before; any more are a mistake.
    Full(u64),
}

/// What there is when the plugin has made its first step.
pub(super) struct Passage {
    /// The response, or its beginning; `None` when it was passed on during the step.
    pub(super) draft: Option<Draft>,
    /// What to do if the application has not finished.
    pub(super) rest: Rest,
}

/// What becomes of the rest of a response.
#[derive(Clone)]
pub(super) enum Rest {
    /// It goes to the client.
    Outlet(Arc<Outlet>),
    /// The client has all of this many bytes it was promised; the application may go on to its end.
    Full(u64),
    /// There is none, or nobody wants it.
    Closing,
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

    /// For the steps that follow the first.
    pub(super) fn continued(rest: &Rest) -> Self {
        let destination = match rest {
            Rest::Outlet(outlet) => Destination::Outlet(Arc::clone(outlet)),
            Rest::Full(length) => Destination::Full(*length),
            Rest::Closing => Destination::Nowhere,
        };
        let vars = match rest {
            Rest::Outlet(outlet) => Some(outlet.vars.clone()),
            // The response has been passed on as it is.
            Rest::Full(_) | Rest::Closing => None,
        };
        Exchange { destination, vars, ..Exchange::default() }
    }

    /// The pointer for the plugin, valid for one step.
    pub(super) fn pointer(&mut self) -> abi::Exchange {
        (&raw mut *self).cast()
    }

    /// What to do with the response after the first step.
    pub(super) fn pass_on(&mut self, step: abi::Step) -> Passage {
        let (draft, rest) = match std::mem::take(&mut self.destination) {
            Destination::Outlet(outlet) => self.pass_on_begun(step, outlet),
            Destination::Nowhere | Destination::Full(_) => (None, Rest::Closing),
            Destination::Here => {
                let (draft, rest) = self.pass_on_collected(step);
                (Some(draft), rest)
            }
        };
        Passage { draft, rest }
    }

    fn pass_on_collected(&mut self, step: abi::Step) -> (Draft, Rest) {
        match step {
            // Nothing of it is out: the client gets an answer that says so.
            abi::Step::Failed => {
                return (Draft { vars: self.vars.take(), ..Draft::failure() }, Rest::Closing);
            }
            abi::Step::Done | abi::Step::Ended => return (self.whole(), Rest::Closing),
            abi::Step::More => {}
        }
        if !self.wants_body() {
            return (self.whole(), Rest::Closing);
        }
        if let Some(promised) = self.promised().filter(|&promised| promised <= self.length) {
            return (self.whole(), Rest::Full(promised));
        }
        match self.begin() {
            Some((draft, outlet)) => (draft, Rest::Outlet(outlet)),
            None => (Draft::failure(), Rest::Closing),
        }
    }

    fn pass_on_begun(&mut self, step: abi::Step, outlet: Arc<Outlet>) -> (Option<Draft>, Rest) {
        match step {
            abi::Step::More => return (self.begun.take(), Rest::Outlet(outlet)),
            abi::Step::Done | abi::Step::Ended => outlet.end(End::Complete),
            abi::Step::Failed => outlet.end(End::Broken),
        }
        let failed = self.begun.is_some() && step == abi::Step::Failed;
        (if failed { Some(Draft::failure()) } else { self.begun.take() }, Rest::Closing)
    }

    /// The length that the head promises.
    fn promised(&self) -> Option<u64> {
        self.head.as_ref().and_then(|head| head.length)
    }

    /// The client will read a body.
    fn wants_body(&self) -> bool {
        !self.is_head && self.head.as_ref().is_none_or(Head::has_body)
    }

    /// The response with a body that is complete.
    fn whole(&mut self) -> Draft {
        let wants_body = self.wants_body();
        let Some(head) = self.head.take() else { return Draft::failure() };
        if let Some(file) = self.file.take() {
            let (offset, length) = self.range;
            return Draft { head, body: DraftBody::File { file, offset, length }, vars: self.vars.take() };
        }
        let body = match head.length {
            _ if !wants_body => DraftBody::Forbidden,
            Some(promised) if promised > self.length => {
                let outlet = self.outlet(Some(promised));
                outlet.end(End::Complete);
                DraftBody::Coming(outlet, Some(promised))
            }
            _ if self.rest.is_empty() && self.small.is_empty() => {
                DraftBody::Full(self.first.take().unwrap_or_default())
            }
            _ => DraftBody::of_pieces(self.take_pieces(), self.length),
        };
        Draft { head, body, vars: self.vars.take() }
    }

    /// The response with what there is of its body, and the outlet for the rest.
    fn begin(&mut self) -> Option<(Draft, Arc<Outlet>)> {
        let head = self.head.take()?;
        let outlet = self.outlet(head.length);
        let body = DraftBody::Coming(Arc::clone(&outlet), head.length);
        Some((Draft { head, body, vars: Some(outlet.vars.clone()) }, outlet))
    }

    /// An outlet with the pieces so far.
    fn outlet(&mut self, promised: Option<u64>) -> Arc<Outlet> {
        let outlet = Arc::new(Outlet::new(promised, self.vars.get_or_insert_default().clone()));
        self.take_pieces().into_iter().for_each(|piece| {
            outlet.push(piece);
        });
        outlet
    }

    fn take_pieces(&mut self) -> VecDeque<Bytes> {
        self.close_small();
        let mut pieces = std::mem::take(&mut self.rest);
        if let Some(first) = self.first.take() {
            pieces.push_front(first);
        }
        pieces
    }

    fn close_small(&mut self) {
        if !self.small.is_empty() {
            self.rest.push_back(std::mem::take(&mut self.small).into());
        }
    }

    /// Takes a piece; `slice` is its bytes, `make` keeps them.
    fn push(&mut self, slice: &[u8], owner: *mut c_void) -> abi::Taken {
        let make = |slice: &[u8]| match owner.is_null() {
            true => Bytes::copy_from_slice(slice),
            false => lent::bytes(abi::Bytes::of(slice), owner),
        };
        match &self.destination {
            Destination::Outlet(outlet) => {
                return match outlet.push(make(slice)) {
                    Pushed::Taken => abi::Taken::Yes,
                    Pushed::Gone => abi::Taken::Gone,
                    Pushed::Excess => self.refuse_excess(outlet.promised()),
                };
            }
            Destination::Full(length) => {
                let length = *length;
                drop(make(slice));
                return self.refuse_excess(length);
            }
            Destination::Nowhere => {
                drop(make(slice));
                return abi::Taken::Yes;
            }
            Destination::Here => {}
        }
        if !self.wants_body() {
            drop(make(slice));
            return abi::Taken::Yes;
        }
        let left = self.promised().map_or(u64::MAX, |promised| promised - self.length);
        let fits = slice.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        self.length += fits as u64;
        if self.first.is_none() {
            self.first = Some(make(&slice[..fits]));
        } else if owner.is_null() {
            self.small.extend_from_slice(&slice[..fits]);
        } else {
            self.close_small();
            self.rest.push_back(make(&slice[..fits]));
        }
        match fits == slice.len() {
            true => abi::Taken::Yes,
            false => self.refuse_excess(self.length),
        }
    }

    /// The application gave more than the `promised` bytes.
    fn refuse_excess(&mut self, promised: u64) -> abi::Taken {
        if !std::mem::replace(&mut self.has_excess, true) {
            log::error!(
                "the application gave more than the body of {promised} bytes it promised; the rest is dropped"
            );
        }
        abi::Taken::Refused
    }

    fn flush(&mut self) {
        if !matches!(self.destination, Destination::Here) || (self.early.is_none() && self.length < COLLECTED)
        {
            return;
        }
        if !self.wants_body() {
            let Some(pass_on) = self.early.take() else { return };
            let Some(head) = self.head.take() else { return };
            self.destination = Destination::Nowhere;
            return pass_on(Draft { head, body: DraftBody::Forbidden, vars: self.vars.take() });
        }
        if let Some((draft, outlet)) = self.begin() {
            self.destination = Destination::Outlet(outlet);
            match self.early.take() {
                Some(pass_on) => pass_on(draft),
                None => self.begun = Some(draft),
            }
        }
    }

    /// Where to wait until the client has taken some of what was sent: only in a thread that nobody else
    /// needs.
    fn room(&self) -> Option<Arc<Outlet>> {
        match &self.destination {
            Destination::Outlet(outlet) if self.begun.is_none() && outlet.is_full() => {
                Some(Arc::clone(outlet))
            }
            _ => None,
        }
    }
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
    if !matches!(exchange.destination, Destination::Here) {
        return abi::Taken::Gone;
    }
    let Some(head) = Head::new(status, reason, fields) else { return abi::Taken::Refused };
    exchange.head = Some(head);
    exchange.first = None;
    exchange.rest.clear();
    exchange.small.clear();
    exchange.length = 0;
    abi::Taken::Yes
}

pub(super) extern "C" fn piece(exchange: abi::Exchange, bytes: abi::Bytes, owner: *mut c_void) -> abi::Taken {
    // SAFETY: the plugin calls this during a step; the bytes live until the owner is released.
    let (exchange, slice) = unsafe { (behind(exchange), bytes.slice()) };
    exchange.push(slice, owner)
}

pub(super) extern "C" fn file(exchange: abi::Exchange, fd: i32, offset: u64, length: u64) -> abi::Taken {
    // SAFETY: the plugin calls this during a step, with a descriptor that is open.
    let (exchange, fd) = unsafe { (behind(exchange), BorrowedFd::borrow_raw(fd)) };
    // What went before it comes first; and a file that is too short is an error to be seen.
    let is_all = exchange.length == 0 && matches!(exchange.destination, Destination::Here);
    if !is_all || exchange.promised().is_some_and(|promised| promised > length) {
        return abi::Taken::Refused;
    }
    if !exchange.wants_body() && exchange.head.as_ref().is_some_and(|head| !head.has_body()) {
        return abi::Taken::Yes;
    }
    let Ok(file) = fd.try_clone_to_owned() else { return abi::Taken::Refused };
    // A declared length is the client's to rely on; the file may be longer.
    exchange.range = (offset, exchange.promised().map_or(length, |promised| promised.min(length)));
    exchange.file = Some(file.into());
    abi::Taken::Yes
}

pub(super) extern "C" fn flush(exchange: abi::Exchange) -> abi::Taken {
    let room = {
        // SAFETY: the plugin calls this during a step.
        let exchange = unsafe { behind(exchange) };
        exchange.flush();
        exchange.room()
    };
    // Others may have the runtime meanwhile; nothing of the exchange is held.
    if let Some(outlet) = room {
        (table().release)();
        place::wait_for_client(|| outlet.wait_room());
        (table().acquire)();
    }
    abi::Taken::Yes
}
