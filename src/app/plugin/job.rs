//! One request on its way into the plugin.

use std::cell::Cell;
use std::os::fd::IntoRawFd;
use std::sync::Arc;

use appserver_plugin_abi as abi;
use bytes::Bytes;
use http::request::Parts;
use http::uri::Authority;
use http::{HeaderMap, Version, header};

use super::draft::Draft;
use super::exchange::{Exchange, Passage};
use super::upload::Upload;
use super::{Started, table};
use crate::app::Request;
use crate::app::origin::Origin;
use crate::app::stray::turn_away;

thread_local! {
    /// Room for the fields of a request, between two of them.
    static ROOM: Cell<Vec<abi::Field>> = const { Cell::new(Vec::new()) };
}

/// Everything about a request; may go to another thread.
pub(super) struct Job {
    head: Parts,
    body: Option<Upload>,
    origin: Arc<Origin>,
    core: u32,
}

impl Job {
    /// A request and its body, if it has one.
    pub(super) fn new(request: Request, body: Option<Upload>) -> Self {
        let core = request.claim.core();
        let origin = Arc::clone(request.connection.origin());
        Job { head: request.head, body, origin, core }
    }

    /// The number of its slot.
    pub(super) fn slot(&self) -> u32 {
        self.core
    }

    /// The same, with another number to show to the application.
    pub(super) fn in_core(self, core: u32) -> Self {
        Job { core, ..self }
    }

    /// An exchange for its response.
    pub(super) fn exchange(&self) -> Exchange {
        Exchange::new(&self.head.method)
    }

    /// Calls the application with it, as [`call`].
    pub(super) fn call(self, exchange: &mut Exchange) -> (Option<Draft>, Option<Started>) {
        call(&self.head, self.body, &self.origin, self.core, exchange)
    }
}

/// Calls the application with a request: its response, unless that was passed on already, and what it has
/// not finished. The runtime must be held.
pub(super) fn call(
    head: &Parts,
    body: Option<Upload>,
    origin: &Origin,
    core: u32,
    exchange: &mut Exchange,
) -> (Option<Draft>, Option<Started>) {
    let target = head.uri.path_and_query().map_or("", |target| target.as_str());
    let mut fields = ROOM.take();
    let told = tell(&head.headers, head.uri.authority().map(Authority::as_str), &mut fields);
    let has_body = body.is_some() || told.has_length;
    let (body, body_file, body_length) = match body {
        None => (Bytes::new(), -1, 0),
        Some(Upload::Memory(body)) => {
            let length = body.len() as u64;
            (body, -1, length)
        }
        Some(Upload::File(file, length)) => (Bytes::new(), file.into_raw_fd(), length),
    };
    let request = abi::Request {
        method: text(head.method.as_str()),
        target: text(target),
        path: text(head.uri.path()),
        query: text(head.uri.query().unwrap_or_default()),
        protocol: text(protocol(head.version)),
        scheme: text(if told.came_by_https && origin.is_near { "https" } else { "http" }),
        remote_address: text(&origin.remote_address),
        remote_port: text(&origin.remote_port),
        server_port: text(&origin.server_port),
        fields: fields.as_ptr(),
        field_count: fields.len(),
        body: abi::Bytes::of(&body),
        body_file,
        body_length,
        has_body,
        core,
    };
    let mut response = std::ptr::null_mut();
    let step = (table().call)(&raw const request, exchange.pointer(), &raw mut response);
    turn_away("in a request");
    fields.clear();
    ROOM.set(fields);
    let Passage { draft, rest } = exchange.pass_on(step);
    let has_more = matches!(step, abi::Step::More | abi::Step::Ended);
    (draft, has_more.then_some(Started { response, rest }))
}

/// What the header fields say to the server.
#[derive(Default)]
struct Told {
    has_length: bool,
    came_by_https: bool,
}

/// Lists the header fields, and looks at some of them on the way. `authority` is that of a target in
/// absolute form, which goes before `Host` (RFC 9112 §3.2.2).
fn tell(headers: &HeaderMap, authority: Option<&str>, fields: &mut Vec<abi::Field>) -> Told {
    let mut told = Told::default();
    for (name, value) in headers {
        let field = abi::Field { name: text(name.as_str()), value: abi::Bytes::of(value.as_bytes()) };
        if name == header::CONTENT_LENGTH {
            told.has_length = true;
        } else if name.as_str() == "x-forwarded-proto" {
            told.came_by_https = value.as_bytes().eq_ignore_ascii_case(b"https");
        }
        fields.push(field);
    }
    if let Some(authority) = authority {
        let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
        // SAFETY: the names are those of the map, which lives on.
        fields.retain(|field| unsafe { field.name.slice() } != b"host");
        fields.push(abi::Field { name: text("host"), value: text(host) });
    }
    told
}

fn text(text: &str) -> abi::Bytes {
    abi::Bytes::of(text.as_bytes())
}

fn protocol(version: Version) -> &'static str {
    match version {
        Version::HTTP_10 => "HTTP/1.0",
        Version::HTTP_2 => "HTTP/2.0",
        _ => "HTTP/1.1",
    }
}
