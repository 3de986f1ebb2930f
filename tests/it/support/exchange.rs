//! Requests whose length the test decides: they span exactly what it does between begin and finish.

use super::checksum::Checksum;
use super::http::{Connection, Failure, Response, Target, request};

/// Each half of a body: too large for one packet or one read.
const HALF: usize = 64 * 1024;

/// A request in flight: half of its body is sent and the application works on it.
pub struct Exchange {
    connection: Connection,
    /// Head of the answer, if that has begun already.
    begun: Option<Response>,
    pid: u32,
}

impl Exchange {
    /// Begins a request whose answer has begun, too, and goes on while the body does: a stream.
    ///
    /// # Panics
    /// When there is no answer.
    pub fn stream(target: &Target) -> Self {
        let mut connection = Self::open(target, "/echo", &[]);
        connection.send(&half()).expect("the server reads");
        let head = connection.receive_begin().expect("the application answers");
        let pid =
            head.header("x-pid").and_then(|pid| pid.parse().ok()).expect("the application tells its pid");
        Exchange { connection, begun: Some(head), pid }
    }

    /// Begins an upload that is answered once it is complete.
    ///
    /// # Panics
    /// When the application does not begin to read it.
    pub fn upload(target: &Target) -> Self {
        let mut connection = Self::open(target, "/echo?sum=1", &[("Expect", "100-continue")]);
        // Said when the application asks for the body, so the request is in flight from here on.
        assert_eq!(connection.receive_status(), Ok(100));
        connection.send(&half()).expect("the server reads");
        Exchange { connection, begun: None, pid: 0 }
    }

    fn open(target: &Target, path: &str, headers: &[(&str, &str)]) -> Connection {
        let mut connection = Connection::open(target, super::LIMIT).expect("the server listens");
        let length = (2 * HALF).to_string();
        let headers = [headers, &[("Content-Length", length.as_str())]].concat();
        connection.send(&request("POST", path, &headers, b"")).expect("the server reads");
        connection
    }

    /// The worker that runs a stream.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Sends the rest and checks the answer; the connection may be used further.
    ///
    /// # Errors
    /// How the request failed.
    pub fn finish(self) -> Result<Connection, Failure> {
        self.finish_with(b"")
    }

    /// The same, with further requests right behind the body.
    ///
    /// # Errors
    /// How the request failed.
    pub fn finish_with(mut self, pipelined: &[u8]) -> Result<Connection, Failure> {
        self.connection.send(&[&half(), pipelined].concat())?;
        let whole = [half(), half()].concat();
        let right = match self.begun {
            Some(head) => self.connection.receive_rest(head)?.body == whole,
            None => {
                let mut checksum = Checksum::default();
                checksum.update(&whole);
                self.connection.receive(false)?.text().contains(&checksum.to_string())
            }
        };
        if right { Ok(self.connection) } else { Err(Failure::Malformed("a wrong body".to_owned())) }
    }
}

fn half() -> Vec<u8> {
    (0..HALF).map(|at| (at % 251) as u8).collect()
}
