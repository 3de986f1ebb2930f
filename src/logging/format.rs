//! `log-format`: a request line as the operator wants it, with uWSGI's `%(variable)`s.

use super::clock::{DateStyle, DateWriter, unix_seconds};
use super::escape;
use super::line::{append_address, write};
use super::reqlog::{LogRecord, Process};

/// A piece of a format.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Text(Vec<u8>),
    Variable(Variable),
    /// One that the application may set.
    Added(String),
}

/// What a `%(name)` stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Variable {
    /// Logged as `-`: no value in this server, or none yet.
    Nothing,
    /// The same for every request.
    Constant(&'static str),
    Method,
    Uri,
    Path,
    Query,
    Protocol,
    Address,
    Port,
    Host,
    UserAgent,
    Referer,
    ForwardedFor,
    ContentLength,
    RequestHeaders,
    RequestBytes,
    Status,
    BodyBytes,
    HeadBytes,
    AllBytes,
    Headers,
    NowSeconds,
    StartSeconds,
    StartMillis,
    StartMicros,
    StartCtime,
    StartApache,
    Seconds,
    Millis,
    Micros,
    Pid,
    Worker,
    Core,
    Errors,
}

impl Variable {
    /// The variable of that name; `None` for one that this server does not know.
    fn named(name: &str) -> Option<Self> {
        use Variable as V;
        Some(match name {
            "method" | "var.REQUEST_METHOD" => V::Method,
            "uri" | "var.REQUEST_URI" => V::Uri,
            "var.PATH_INFO" => V::Path,
            "var.QUERY_STRING" => V::Query,
            "proto" | "var.SERVER_PROTOCOL" => V::Protocol,
            "addr" | "var.REMOTE_ADDR" => V::Address,
            "var.REMOTE_PORT" => V::Port,
            "host" | "var.HTTP_HOST" => V::Host,
            "uagent" | "var.HTTP_USER_AGENT" => V::UserAgent,
            "referer" | "var.HTTP_REFERER" => V::Referer,
            "var.HTTP_X_FORWARDED_FOR" => V::ForwardedFor,
            "cl" | "var.CONTENT_LENGTH" => V::ContentLength,
            // The server does no authentication of its own.
            "user" | "var.REMOTE_USER" => V::Nothing,
            "vars" => V::RequestHeaders,
            "pktsize" => V::RequestBytes,
            "status" => V::Status,
            "rsize" => V::BodyBytes,
            "hsize" => V::HeadBytes,
            "size" => V::AllBytes,
            "headers" => V::Headers,
            "epoch" => V::NowSeconds,
            "time" => V::StartSeconds,
            "tmsecs" => V::StartMillis,
            "tmicros" => V::StartMicros,
            "ctime" => V::StartCtime,
            "ltime" | "ftime" => V::StartApache,
            "secs" => V::Seconds,
            "msecs" => V::Millis,
            "micros" => V::Micros,
            "pid" => V::Pid,
            "wid" => V::Worker,
            "core" => V::Core,
            "werr" | "ioerr" => V::Errors,
            "rerr" | "modifier1" | "modifier2" => V::Constant("0"),
            "switches" => V::Constant("1"),
            _ => return None,
        })
    }
}

/// A parsed `log-format`.
#[derive(Debug)]
pub struct LogFormat {
    parts: Vec<Part>,
    ctime: DateWriter,
    apache: DateWriter,
}

impl LogFormat {
    /// Reads a format. Never fails, as in uWSGI: a `%(` that is not closed is text, a name of nobody's
    /// is the application's to set, and one of uWSGI's own that this server does not have is logged as
    /// `-`. Each of the latter gives one warning.
    pub fn parse(text: &str) -> (Self, Vec<String>) {
        let mut parts = Vec::new();
        let mut unknown: Vec<&str> = Vec::new();
        let mut rest = text;
        while let Some((before, name, after)) = next_variable(rest) {
            if !before.is_empty() {
                parts.push(Part::Text(before.into()));
            }
            parts.push(match Variable::named(name) {
                Some(variable) => Part::Variable(variable),
                None if !is_servers(name) => Part::Added(name.to_owned()),
                None => {
                    if !unknown.contains(&name) {
                        unknown.push(name);
                    }
                    Part::Variable(Variable::Nothing)
                }
            });
            rest = after;
        }
        if !rest.is_empty() {
            parts.push(Part::Text(rest.into()));
        }
        let warnings = unknown
            .iter()
            .map(|name| format!("log-format: no variable %({name}) here; it is logged as \"-\""));
        let warnings = warnings.collect();
        let ctime = DateWriter::new(DateStyle::Ctime);
        (LogFormat { parts, ctime, apache: DateWriter::new(DateStyle::Apache) }, warnings)
    }

    /// Appends the line for one request, without a newline.
    pub fn append(&mut self, line: &mut Vec<u8>, record: &LogRecord<'_>, process: Process) {
        for part in &self.parts {
            match part {
                Part::Text(text) => line.extend_from_slice(text),
                Part::Added(name) => match record.vars.and_then(|vars| vars.get(name)) {
                    Some(value) if !value.is_empty() => escape::append(line, &value),
                    _ => line.push(b'-'),
                },
                Part::Variable(variable) => {
                    let start = line.len();
                    let dates = (&mut self.ctime, &mut self.apache);
                    append_value(line, *variable, record, process, dates);
                    if line.len() == start {
                        line.push(b'-');
                    }
                }
            }
        }
    }
}

/// Names that uWSGI gives a value itself, where this server has none.
fn is_servers(name: &str) -> bool {
    name.starts_with("var.")
        || name.starts_with("metric.")
        || matches!(name, "rss" | "vsz" | "rssM" | "vszM" | "ncores")
}

/// Splits at the first complete `%(name)`: the text before, the name, the text after.
fn next_variable(text: &str) -> Option<(&str, &str, &str)> {
    let (before, rest) = text.split_once("%(")?;
    let (name, after) = rest.split_once(')')?;
    Some((before, name, after))
}

fn append_value(
    line: &mut Vec<u8>,
    variable: Variable,
    record: &LogRecord<'_>,
    process: Process,
    (ctime, apache): (&mut DateWriter, &mut DateWriter),
) {
    use Variable as V;
    let micros_since_1970 =
        || record.started.duration_since(std::time::UNIX_EPOCH).map_or(0, |t| t.as_micros());
    let number: u128 = match variable {
        V::Nothing => return,
        V::Constant(text) => return line.extend_from_slice(text.as_bytes()),
        V::Method => return escape::append(line, record.method),
        V::Uri => return escape::append(line, record.uri),
        V::Path => return escape::append(line, split_uri(record.uri).0),
        V::Query => return escape::append(line, split_uri(record.uri).1),
        V::Protocol => return write(line, format_args!("{:?}", record.version)),
        V::Address => return append_address(line, record.peer),
        V::Host => return append_header(line, record.host),
        V::UserAgent => return append_header(line, record.user_agent),
        V::Referer => return append_header(line, record.referer),
        V::ForwardedFor => return append_header(line, record.x_forwarded_for),
        V::StartCtime => return line.extend_from_slice(ctime.write(record.started).as_bytes()),
        V::StartApache => return line.extend_from_slice(apache.write(record.started).as_bytes()),
        V::Seconds => return write(line, format_args!("{:.6}", record.duration.as_secs_f64())),
        V::Port => match record.peer {
            crate::app::Peer::Tcp(address) => address.port().into(),
            crate::app::Peer::Unix => return,
        },
        V::ContentLength => record.content_length.into(),
        V::RequestHeaders => record.request_header_count as u128,
        V::RequestBytes => record.request_bytes.into(),
        V::Status => record.status.into(),
        V::BodyBytes => record.body_bytes.into(),
        V::HeadBytes => record.head_bytes.into(),
        V::AllBytes => u128::from(record.head_bytes) + u128::from(record.body_bytes),
        V::Headers => record.header_count as u128,
        V::NowSeconds => unix_seconds(record.started + record.duration).into(),
        V::StartSeconds => unix_seconds(record.started).into(),
        V::StartMillis => micros_since_1970() / 1000,
        V::StartMicros => micros_since_1970(),
        V::Millis => record.duration.as_millis(),
        V::Micros => record.duration.as_micros(),
        V::Pid => process.pid.into(),
        V::Worker => process.slot.into(),
        V::Core => record.core.into(),
        V::Errors => record.aborted.into(),
    };
    write(line, format_args!("{number}"));
}

fn append_header(line: &mut Vec<u8>, value: Option<&[u8]>) {
    escape::append(line, value.unwrap_or_default());
}

/// Path and query of a request target, as received.
fn split_uri(uri: &[u8]) -> (&[u8], &[u8]) {
    match memchr::memchr(b'?', uri) {
        Some(at) => (&uri[..at], &uri[at + 1..]),
        None => (uri, b""),
    }
}

#[cfg(test)]
mod tests {
    use super::super::reqlog::tests::{PROCESS, record};
    use super::*;
    use crate::app::Peer;

    fn line_of(format: &str, record: &LogRecord<'_>) -> String {
        let (mut format, warnings) = LogFormat::parse(format);
        assert_eq!(warnings, Vec::<String>::new());
        let mut line = Vec::new();
        format.append(&mut line, record, PROCESS);
        String::from_utf8(line).unwrap()
    }

    #[test]
    fn each_variable_has_its_value() {
        let peer = Peer::Tcp("192.0.2.7:5000".parse().unwrap());
        let record = LogRecord {
            user_agent: Some(b"curl/8"),
            referer: Some(b"http://a/"),
            x_forwarded_for: Some(b"10.1.1.1"),
            content_length: 12,
            core: 2,
            ..record(&peer)
        };
        for (format, expected) in [
            ("%(method) %(uri) %(proto)", "GET /sleep?4 HTTP/1.1"),
            ("%(addr) %(user) %(host)", "192.0.2.7 - example.org"),
            ("%(uagent)|%(referer)", "curl/8|http://a/"),
            ("%(status) %(rsize) %(hsize) %(size) %(headers)", "200 8 64 72 2"),
            ("%(cl) %(vars) %(pktsize)", "12 26 304"),
            ("%(msecs) %(micros) %(secs)", "4000 4000250 4.000250"),
            ("%(time) %(tmsecs) %(tmicros)", "1795245295 1795245295123 1795245295123456"),
            ("%(epoch)", "1795245299"),
            ("%(pid) %(wid) %(core)", "22406 3 2"),
            ("%(modifier1)%(modifier2)%(rerr)%(werr)%(ioerr)%(switches)", "000001"),
            ("%(var.HTTP_X_FORWARDED_FOR) %(var.REMOTE_PORT)", "10.1.1.1 5000"),
            ("%(var.PATH_INFO) %(var.QUERY_STRING)", "/sleep 4"),
        ] {
            assert_eq!(line_of(format, &record), expected, "{format}");
        }
    }

    #[test]
    fn an_empty_value_is_a_dash() {
        let line = line_of("%(addr) %(uagent) \"%(referer)\" %(var.REMOTE_PORT)", &record(&Peer::Unix));
        assert_eq!(line, "- - \"-\" -");
    }

    #[test]
    fn a_client_cannot_leave_its_quotes() {
        let record = LogRecord { user_agent: Some(b"a\" 200 \"\r\n[pid: 1"), ..record(&Peer::Unix) };
        assert_eq!(line_of("\"%(uagent)\"", &record), r#""a\x22 200 \x22\x0D\x0A[pid: 1""#);
    }

    #[test]
    fn text_that_is_no_variable_is_kept() {
        let record = record(&Peer::Unix);
        assert_eq!(line_of("100% (é) %%(status) %", &record), "100% (é) %200 %");
        assert_eq!(line_of("%(status) %(open", &record), "200 %(open");
        assert_eq!(line_of("", &record), "");
    }

    #[test]
    fn a_variable_we_do_not_have_is_a_dash_and_one_warning() {
        let (mut format, warnings) = LogFormat::parse("%(rss) %(rss) %(metric.x)");
        let expected = ["rss", "metric.x"];
        let expected =
            expected.map(|name| format!("log-format: no variable %({name}) here; it is logged as \"-\""));
        assert_eq!(warnings, expected);
        let mut line = Vec::new();
        format.append(&mut line, &record(&Peer::Unix), PROCESS);
        assert_eq!(line, b"- - -");
    }

    #[test]
    fn names_of_nobodys_are_the_applications_to_set() {
        let vars = crate::app::logvars::LogVars::default();
        vars.set("tenant", b"a \"quoted\" one");
        let record = LogRecord { vars: Some(&vars), ..record(&Peer::Unix) };
        assert_eq!(line_of("%(tenant)|%(other)", &record), r"a \x22quoted\x22 one|-");
    }

    #[test]
    fn apaches_combined_line_can_be_written() {
        let peer = Peer::Tcp("127.0.0.1:5000".parse().unwrap());
        let format = r#"%(addr) - %(user) [%(ltime)] "%(method) %(uri) %(proto)" %(status) %(size) "%(referer)" "%(uagent)""#;
        let line = line_of(format, &record(&peer));
        assert!(line.starts_with("127.0.0.1 - - ["), "{line}");
        assert!(line.ends_with(r#"] "GET /sleep?4 HTTP/1.1" 200 72 "-" "-""#), "{line}");
    }
}
