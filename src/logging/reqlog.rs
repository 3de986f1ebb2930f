//! The request log: which requests get a line, and how the lines reach descriptor 2.

use std::io::{self, ErrorKind, Write};
use std::time::{Duration, SystemTime};

use super::format::LogFormat;
use super::line::DefaultLine;
use super::output::Output;
use crate::app::Peer;
use crate::app::logvars::LogVars;
use crate::config;

/// Longest line and longest write, in bytes: Linux's `PIPE_BUF`, up to which writes of several
/// processes to one pipe do not mix (pipe(7)). uWSGI cuts its lines at the same length.
const LIMIT: usize = 4096;

/// What the log may tell about one request. Text from the client is borrowed as it came; it is
/// escaped when it is written.
#[derive(Debug, Clone, Copy)]
pub struct LogRecord<'a> {
    /// Request method; empty when the request line could not be read.
    pub method: &'a [u8],
    /// Request target as received; empty when the request line could not be read.
    pub uri: &'a [u8],
    /// Protocol version of the request.
    pub version: http::Version,
    /// The client.
    pub peer: &'a Peer,
    /// Status of the response.
    pub status: u16,
    /// Body bytes sent.
    pub body_bytes: u64,
    /// Bytes of the response head.
    pub head_bytes: u64,
    /// Header lines of the response.
    pub header_count: usize,
    /// Header lines of the request.
    pub request_header_count: usize,
    /// Bytes of the request head.
    pub request_bytes: u64,
    /// `Content-Length` of the request; 0 without one.
    pub content_length: u64,
    /// When the request began.
    pub started: SystemTime,
    /// From then until the response was finished.
    pub duration: Duration,
    /// `Host`
    pub host: Option<&'a [u8]>,
    /// `User-Agent`
    pub user_agent: Option<&'a [u8]>,
    /// `Referer`
    pub referer: Option<&'a [u8]>,
    /// `X-Forwarded-For`
    pub x_forwarded_for: Option<&'a [u8]>,
    /// Which of the worker's `threads` slots ran it, from 0.
    pub core: u32,
    /// Requests of this worker process so far, this one included.
    pub worker_requests: u64,
    /// Requests of the whole instance so far, this one included.
    pub total_requests: u64,
    /// The client went away before the response was finished.
    pub aborted: bool,
    /// What the application adds.
    pub vars: Option<&'a LogVars>,
}

/// The process that logs: constant for the life of a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Process {
    /// Its pid.
    pub pid: u32,
    /// Its worker number, from 1.
    pub slot: u32,
}

/// How a line is written.
#[derive(Debug)]
enum Layout {
    Default(DefaultLine),
    Custom(LogFormat),
}

/// Writes a worker's request lines: buffered while it is busy, in one `write` when it goes idle.
///
/// Logging never fails a request. Lines that cannot be written (disk full, a log pipe that takes
/// no more) are dropped and counted, and the count is logged as soon as the log takes lines again.
#[derive(Debug)]
pub struct RequestLog<W: Write = Output> {
    config: config::RequestLog,
    process: Process,
    layout: Layout,
    line: Vec<u8>,
    buffer: Vec<u8>,
    out: W,
    lost: u64,
    torn: bool,
}

impl RequestLog {
    /// A request log on descriptor 2 of this process, and the warnings about its `log-format`
    /// (the same in every worker: log them once).
    pub fn new(config: &config::RequestLog, process: Process) -> (Self, Vec<String>) {
        Self::with_output(config, process, Output)
    }
}

impl<W: Write> RequestLog<W> {
    fn with_output(config: &config::RequestLog, process: Process, out: W) -> (Self, Vec<String>) {
        let (layout, warnings) = match &config.format {
            None => (Layout::Default(DefaultLine::new(config.micros, config.x_forwarded_for)), Vec::new()),
            Some(text) => {
                let (format, warnings) = LogFormat::parse(text);
                (Layout::Custom(format), warnings)
            }
        };
        let log = RequestLog {
            config: config.clone(),
            process,
            layout,
            line: Vec::with_capacity(512),
            buffer: Vec::with_capacity(LIMIT),
            out,
            lost: 0,
            torn: false,
        };
        (log, warnings)
    }

    /// Logs one finished request, if it is to be logged.
    pub fn record(&mut self, record: &LogRecord<'_>) {
        if !wanted(&self.config, record) {
            return;
        }
        self.line.clear();
        match &mut self.layout {
            Layout::Default(line) => line.append(&mut self.line, record, self.process),
            Layout::Custom(format) => format.append(&mut self.line, record, self.process),
        }
        self.line.truncate(LIMIT - 1);
        self.line.push(b'\n');
        if self.buffer.len() + self.line.len() > LIMIT {
            self.flush();
        }
        self.buffer.extend_from_slice(&self.line);
    }

    /// Hands the buffered lines to the kernel. Call it before the worker waits for events, and
    /// before it exits.
    pub fn flush(&mut self) {
        if self.buffer.is_empty() {
            return;
        }
        let written = self.write_buffer();
        self.buffer.clear();
        if written.is_ok() && self.lost > 0 {
            log::warn!("{} lines of the request log were lost: the log took no more", self.lost);
            self.lost = 0;
        }
    }

    /// Lines dropped and not yet reported.
    pub fn lost(&self) -> u64 {
        self.lost
    }

    fn write_buffer(&mut self) -> io::Result<()> {
        let result = self.end_torn_line().and_then(|()| match write_once(&mut self.out, &self.buffer) {
            Ok(count) if count < self.buffer.len() => Err((count, ErrorKind::WriteZero.into())),
            Ok(_) => Ok(()),
            Err(error) => Err((0, error)),
        });
        result.map_err(|(count, error)| {
            let rest = &self.buffer[count..];
            self.torn |= count > 0 && self.buffer[count - 1] != b'\n';
            self.lost += memchr::memchr_iter(b'\n', rest).count() as u64;
            error
        })
    }

    /// Ends a line of which only the beginning could be written, so that the next one stands alone.
    fn end_torn_line(&mut self) -> Result<(), (usize, io::Error)> {
        if self.torn {
            match write_once(&mut self.out, b"\n") {
                Ok(1) => self.torn = false,
                Ok(_) => return Err((0, ErrorKind::WriteZero.into())),
                Err(error) => return Err((0, error)),
            }
        }
        Ok(())
    }
}

impl<W: Write> Drop for RequestLog<W> {
    fn drop(&mut self) {
        self.flush();
    }
}

/// One `write`, repeated only when a signal interrupted it before it began.
fn write_once(out: &mut impl Write, bytes: &[u8]) -> io::Result<usize> {
    loop {
        match out.write(bytes) {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

/// Whether a request gets a line: `disable-logging` turns off only the plain log, so that the
/// other options can pick out failures.
fn wanted(config: &config::RequestLog, record: &LogRecord<'_>) -> bool {
    let slow = config.slow.is_some_and(|limit| record.duration >= Duration::from_millis(limit));
    config.enabled
        || slow
        || record.vars.is_some_and(LogVars::is_forced)
        || (config.log_4xx && (400..500).contains(&record.status))
        || (config.log_5xx && (500..600).contains(&record.status))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::logging) const PROCESS: Process = Process { pid: 22406, slot: 3 };

    pub(in crate::logging) fn record(peer: &Peer) -> LogRecord<'_> {
        LogRecord {
            method: b"GET",
            uri: b"/sleep?4",
            version: http::Version::HTTP_11,
            peer,
            status: 200,
            body_bytes: 8,
            head_bytes: 64,
            header_count: 2,
            request_header_count: 26,
            request_bytes: 304,
            content_length: 0,
            started: SystemTime::UNIX_EPOCH + Duration::from_micros(1_795_245_295_123_456),
            duration: Duration::from_micros(4_000_250),
            host: Some(b"example.org"),
            user_agent: None,
            referer: None,
            x_forwarded_for: None,
            core: 0,
            worker_requests: 1,
            total_requests: 7,
            aborted: false,
            vars: None,
        }
    }

    /// An output that takes as many bytes per write as it is told; `None` is an error.
    #[derive(Default)]
    struct Sink {
        taken: Vec<u8>,
        writes: Vec<usize>,
        next: Vec<Option<usize>>,
    }

    impl Write for &mut Sink {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let step = if self.next.is_empty() { Some(usize::MAX) } else { self.next.remove(0) };
            let count = step.ok_or(ErrorKind::StorageFull)?.min(bytes.len());
            self.taken.extend_from_slice(&bytes[..count]);
            self.writes.push(count);
            Ok(count)
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn status_log(sink: &mut Sink) -> RequestLog<&mut Sink> {
        let format = Some("%(status)".to_owned());
        let config = config::RequestLog { enabled: true, format, ..Default::default() };
        RequestLog::with_output(&config, PROCESS, sink).0
    }

    #[test]
    fn lines_wait_for_a_flush_and_leave_in_one_write() {
        let mut sink = Sink::default();
        let mut log = status_log(&mut sink);
        for status in [200, 404] {
            log.record(&LogRecord { status, ..record(&Peer::Unix) });
        }
        assert!(log.out.taken.is_empty());
        log.flush();
        log.flush();
        assert_eq!(log.out.taken, b"200\n404\n");
        assert_eq!(log.out.writes, [8]);
    }

    #[test]
    fn a_full_buffer_is_flushed_at_a_line_end() {
        let mut sink = Sink::default();
        let mut log = status_log(&mut sink);
        for _ in 0..=LIMIT / 4 {
            log.record(&record(&Peer::Unix));
        }
        assert_eq!(log.out.writes, [LIMIT]);
        drop(log);
        assert_eq!(sink.writes, [LIMIT, 4]);
    }

    #[test]
    fn a_line_is_cut_at_what_a_pipe_takes_whole() {
        let mut sink = Sink::default();
        let config = config::RequestLog { enabled: true, ..Default::default() };
        let (mut log, _) = RequestLog::with_output(&config, PROCESS, &mut sink);
        let uri = [b'\n'; 3 * LIMIT];
        log.record(&LogRecord { uri: &uri, ..record(&Peer::Unix) });
        drop(log);
        assert_eq!(sink.taken.len(), LIMIT);
        assert_eq!(memchr::memchr(b'\n', &sink.taken), Some(LIMIT - 1));
    }

    #[test]
    fn lines_that_cannot_be_written_are_counted() {
        let mut sink = Sink { next: vec![None], ..Default::default() };
        let mut log = status_log(&mut sink);
        log.record(&record(&Peer::Unix));
        log.record(&record(&Peer::Unix));
        log.flush();
        assert_eq!(log.lost(), 2);
        log.record(&LogRecord { status: 500, ..record(&Peer::Unix) });
        log.flush();
        assert_eq!(log.lost(), 0);
        drop(log);
        assert_eq!(sink.taken, b"500\n");
    }

    #[test]
    fn a_line_written_in_part_does_not_swallow_the_next() {
        let mut sink = Sink { next: vec![Some(6)], ..Default::default() };
        let mut log = status_log(&mut sink);
        log.record(&record(&Peer::Unix));
        log.record(&record(&Peer::Unix));
        log.flush();
        assert_eq!(log.lost(), 1);
        log.record(&LogRecord { status: 500, ..record(&Peer::Unix) });
        drop(log);
        assert_eq!(sink.taken, b"200\n20\n500\n");
    }

    #[test]
    fn failures_are_logged_even_when_logging_is_disabled() {
        let config = config::RequestLog { log_5xx: true, slow: Some(1000), ..Default::default() };
        let fast = Duration::from_millis(999);
        let cases = [(200, fast, false), (404, fast, false), (500, fast, true), (200, fast + fast, true)];
        for (status, duration, expected) in cases {
            let record = LogRecord { status, duration, ..record(&Peer::Unix) };
            assert_eq!(wanted(&config, &record), expected, "{status} in {duration:?}");
        }
        let config = config::RequestLog { log_4xx: true, ..Default::default() };
        assert!(wanted(&config, &LogRecord { status: 431, ..record(&Peer::Unix) }));
    }
}
