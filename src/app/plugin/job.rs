//! One request on its way into the plugin.

use std::os::fd::IntoRawFd;
use std::sync::Arc;

use appserver_plugin_abi as abi;
use http::request::Parts;
use http::{HeaderMap, Version, header};

use super::exchange::{Exchange, Passage};
use super::upload::Upload;
use super::{Started, table};
use crate::app::stray::turn_away;
use crate::app::{Peer, Request};

/// Everything about a request; may go to another thread.
pub(super) struct Job {
    head: Parts,
    body: Option<Upload>,
    peer: Peer,
    listener: Arc<str>,
    core: u32,
}

impl Job {
    /// A request and its body, if it has one.
    pub(super) fn new(request: Request, body: Option<Upload>) -> Self {
        let core = request.claim.core();
        let peer = request.connection.peer.clone();
        Job { head: request.head, body, peer, listener: Arc::clone(&request.connection.listener), core }
    }

    /// An exchange for its response.
    pub(super) fn exchange(&self) -> Exchange {
        Exchange::new(&self.head.method)
    }

    /// Calls the application. The runtime must be held.
    pub(super) fn call(self, mut exchange: Exchange) -> (Passage, Option<Started>) {
        let uri = &self.head.uri;
        let target = uri.path_and_query().map_or(uri.path(), |target| target.as_str());
        let mut address = Text::default();
        let (remote_address, remote_port) = address.of_peer(&self.peer);
        let fields = fields_of(&self.head.headers);
        let has_body = self.body.is_some() || self.head.headers.contains_key(header::CONTENT_LENGTH);
        let (body, body_file, body_length) = match self.body {
            None => (bytes::Bytes::new(), -1, 0),
            Some(Upload::Memory(body)) => {
                let length = body.len() as u64;
                (body, -1, length)
            }
            Some(Upload::File(file, length)) => (bytes::Bytes::new(), file.into_raw_fd(), length),
        };
        let request = abi::Request {
            method: text(self.head.method.as_str()),
            target: text(target),
            path: text(uri.path()),
            query: text(uri.query().unwrap_or_default()),
            protocol: text(protocol(self.head.version)),
            scheme: text(scheme(&self.peer, &self.head.headers)),
            remote_address: text(remote_address),
            remote_port: text(remote_port),
            server_port: text(port(&self.listener)),
            fields: fields.as_ptr(),
            field_count: fields.len(),
            body: abi::Bytes::of(&body),
            body_file,
            body_length,
            has_body,
            core: self.core,
        };
        let mut response = std::ptr::null_mut();
        let step = (table().call)(&raw const request, exchange.pointer(), &raw mut response);
        turn_away("in a request");
        let started = (step == abi::Step::More).then_some(Started(response));
        (exchange.pass_on(step), started)
    }
}

fn text(text: &str) -> abi::Bytes {
    abi::Bytes::of(text.as_bytes())
}

fn fields_of(headers: &HeaderMap) -> Vec<abi::Field> {
    let mut fields = Vec::with_capacity(headers.len());
    fields.extend(headers.iter().map(|(name, value)| abi::Field {
        name: text(name.as_str()),
        value: abi::Bytes::of(value.as_bytes()),
    }));
    fields
}

fn protocol(version: Version) -> &'static str {
    match version {
        Version::HTTP_10 => "HTTP/1.0",
        Version::HTTP_2 => "HTTP/2.0",
        _ => "HTTP/1.1",
    }
}

/// The scheme as the client sees it. A proxy on this machine is believed; anybody else could claim
/// anything.
fn scheme(peer: &Peer, headers: &HeaderMap) -> &'static str {
    let is_near = match peer {
        Peer::Unix => true,
        Peer::Tcp(address) => address.ip().to_canonical().is_loopback(),
    };
    match headers.get("x-forwarded-proto") {
        Some(proto) if is_near && proto.as_bytes().eq_ignore_ascii_case(b"https") => "https",
        _ => "http",
    }
}

/// What stands behind the last colon of a TCP address; nothing for a Unix socket.
fn port(listener: &str) -> &str {
    let port = listener.rsplit_once(':').map_or("", |(_, port)| port);
    if port.bytes().all(|byte| byte.is_ascii_digit()) { port } else { "" }
}

/// Room to write a peer's address.
#[derive(Default)]
struct Text {
    address: String,
    port: String,
}

impl Text {
    fn of_peer(&mut self, peer: &Peer) -> (&str, &str) {
        if let Peer::Tcp(address) = peer {
            // A client that came by IPv4 to an IPv6 socket is shown as what it is.
            self.address = address.ip().to_canonical().to_string();
            self.port = address.port().to_string();
        }
        (&self.address, &self.port)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_port_is_that_of_the_listener() {
        let cases = [
            ("127.0.0.1:8080", "8080"),
            (":80", "80"),
            ("[::1]:443", "443"),
            ("/run/a.sock", ""),
            ("@x:y", ""),
        ];
        for (listener, expected) in cases {
            assert_eq!(port(listener), expected, "{listener}");
        }
    }

    #[test]
    fn only_a_proxy_on_this_machine_can_say_that_it_was_https() {
        let mut headers = HeaderMap::new();
        headers.insert("x-forwarded-proto", http::HeaderValue::from_static("https"));
        let peer = |address: &str| Peer::Tcp(address.parse().expect("an address"));
        assert_eq!(scheme(&peer("127.0.0.1:1"), &headers), "https");
        assert_eq!(scheme(&peer("[::ffff:127.0.0.1]:1"), &headers), "https");
        assert_eq!(scheme(&Peer::Unix, &headers), "https");
        assert_eq!(scheme(&peer("192.0.2.1:1"), &headers), "http");
        assert_eq!(scheme(&Peer::Unix, &HeaderMap::new()), "http");
    }
}
