//! uWSGI's request line, word for word, because dashboards and scripts parse it.
//!
//! ```text
//! [pid: 22406|app: 0|req: 1/7] 127.0.0.1 () {26 vars in 304 bytes} [Sat Nov 21 07:14:55 2026] GET /sleep?4 => generated 8 bytes in 4000 msecs (HTTP/1.1 200) 2 headers in 64 bytes (1 switches on core 0)
//! ```
//!
//! What uWSGI counts as CGI variables are the header lines of the request here, and the packet size
//! is the size of the request head. Unlike uWSGI's, text from the client is escaped.

use std::io::Write;

use super::clock::{DateStyle, DateWriter};
use super::escape;
use super::reqlog::{LogRecord, Process};
use crate::app::Peer;

/// Writes the default request line.
#[derive(Debug)]
pub struct DefaultLine {
    micros: bool,
    x_forwarded_for: bool,
    dates: DateWriter,
}

impl DefaultLine {
    /// `micros`: durations in microseconds (`log-micros`). `x_forwarded_for`: the client is who a
    /// proxy says it is (`log-x-forwarded-for`).
    pub fn new(micros: bool, x_forwarded_for: bool) -> Self {
        DefaultLine { micros, x_forwarded_for, dates: DateWriter::new(DateStyle::Ctime) }
    }

    /// Appends the line without its newline.
    pub fn append(&mut self, line: &mut Vec<u8>, record: &LogRecord<'_>, process: Process) {
        let LogRecord { worker_requests, total_requests, .. } = record;
        write(line, format_args!("[pid: {}|app: 0|req: {worker_requests}/{total_requests}] ", process.pid));
        match record.x_forwarded_for.filter(|_| self.x_forwarded_for) {
            Some(forwarded) => escape::append(line, forwarded),
            None => append_address(line, record.peer),
        }
        let LogRecord { request_header_count, request_bytes, .. } = record;
        let date = self.dates.write(record.started);
        write(line, format_args!(" () {{{request_header_count} vars in {request_bytes} bytes}} [{date}] "));
        append_or_dash(line, record.method);
        line.push(b' ');
        append_or_dash(line, record.uri);
        let (span, unit) = match self.micros {
            true => (record.duration.as_micros(), "micros"),
            false => (record.duration.as_millis(), "msecs"),
        };
        let LogRecord { body_bytes, version, status, header_count, head_bytes, core, .. } = record;
        write(
            line,
            format_args!(
                " => generated {body_bytes} bytes in {span} {unit} ({version:?} {status}) \
                 {header_count} headers in {head_bytes} bytes (1 switches on core {core})"
            ),
        );
    }
}

/// Appends formatted text.
pub(super) fn write(line: &mut Vec<u8>, text: std::fmt::Arguments<'_>) {
    line.write_fmt(text).expect("writing to memory does not fail");
}

/// Appends the client's address; nothing for a Unix socket.
pub(super) fn append_address(line: &mut Vec<u8>, peer: &Peer) {
    match peer {
        Peer::Tcp(address) => write(line, format_args!("{}", address.ip().to_canonical())),
        Peer::Unix => {}
    }
}

fn append_or_dash(line: &mut Vec<u8>, text: &[u8]) {
    escape::append(line, if text.is_empty() { b"-" } else { text });
}

#[cfg(test)]
mod tests {
    use super::super::reqlog::tests::{PROCESS, record};
    use super::*;

    fn line_of(mut layout: DefaultLine, record: &LogRecord<'_>) -> String {
        let mut line = Vec::new();
        layout.append(&mut line, record, PROCESS);
        let line = String::from_utf8(line).unwrap();
        // The date depends on where the tests run; clock.rs tests it.
        let (head, rest) = line.split_once("} [").unwrap();
        let (date, tail) = rest.split_once("] ").unwrap();
        assert_eq!(date.len(), "Sat Nov 21 07:14:55 2026".len());
        format!("{head}}} [DATE] {tail}")
    }

    #[test]
    fn the_default_line_is_uwsgis() {
        let peer = Peer::Tcp("127.0.0.1:5000".parse().unwrap());
        assert_eq!(
            line_of(DefaultLine::new(false, false), &record(&peer)),
            "[pid: 22406|app: 0|req: 1/7] 127.0.0.1 () {26 vars in 304 bytes} [DATE] GET /sleep?4 => \
             generated 8 bytes in 4000 msecs (HTTP/1.1 200) 2 headers in 64 bytes (1 switches on core 0)"
        );
    }

    #[test]
    fn durations_can_be_told_in_microseconds() {
        let line = line_of(DefaultLine::new(true, false), &record(&Peer::Unix));
        assert!(line.contains(" in 4000250 micros (HTTP/1.1 200)"), "{line}");
        assert!(line.starts_with("[pid: 22406|app: 0|req: 1/7]  () {"), "{line}");
    }

    #[test]
    fn a_proxy_may_name_the_client_but_forge_nothing() {
        let peer = Peer::Tcp("[::ffff:10.0.0.1]:5000".parse().unwrap());
        let record = LogRecord { x_forwarded_for: Some(b"1.2.3.4\n\"x\""), ..record(&peer) };
        let line = line_of(DefaultLine::new(false, true), &record);
        assert!(line.contains(r"7] 1.2.3.4\x0A\x22x\x22 () {"), "{line}");
        let line = line_of(DefaultLine::new(false, false), &record);
        assert!(line.contains("7] 10.0.0.1 () {"), "{line}");
    }

    #[test]
    fn an_unreadable_request_line_is_a_dash() {
        let record = LogRecord { method: b"", uri: b"", status: 400, ..record(&Peer::Unix) };
        let line = line_of(DefaultLine::new(false, false), &record);
        assert!(line.contains("[DATE] - - => generated 8 bytes"), "{line}");
    }
}
