//! How bytes become requests, and responses become bytes.
//!
//! HTTP/1.1 is spoken by hyper. In front of it stands a [`gate`]: a pure validator that watches the
//! raw bytes, knows where each message begins and ends, and refuses what two HTTP implementations
//! might read differently. [`io`] puts the gate between socket and hyper, [`http`] turns hyper's
//! requests into the application's, [`outgoing`] sends files past hyper, [`accounting`] counts
//! requests, [`state`] is what a connection tells the worker about itself.

pub mod accounting;
pub mod body;
pub mod gate;
pub mod head;
pub mod http;
pub mod io;
pub mod outgoing;
pub mod state;
pub mod stream;

/// Why a client gets an error from the server itself: the status and one sentence for humans.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refusal {
    /// Status code, always 4xx or 5xx.
    pub status: u16,
    /// What was wrong, without a full stop; it becomes the body of the response.
    pub reason: &'static str,
}

impl Refusal {
    /// A refusal with a status of its own.
    pub const fn new(status: u16, reason: &'static str) -> Self {
        Refusal { status, reason }
    }

    /// 400: the message cannot be trusted.
    pub const fn bad(reason: &'static str) -> Self {
        Refusal::new(400, reason)
    }
}
