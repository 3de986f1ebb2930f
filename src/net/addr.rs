//! What may stand behind `http-socket` and its like.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::RawFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// Longest path or abstract name of a unix socket; `sun_path` has room for a NUL more.
pub const MAX_UNIX_NAME: usize = 107;

/// Where to listen.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ListenAddr {
    /// An address and port; port 0 lets the kernel choose.
    Tcp(SocketAddr),
    /// A name to be resolved when it is bound.
    Host {
        /// The name.
        host: String,
        /// The port.
        port: u16,
    },
    /// A socket file.
    Unix(PathBuf),
    /// A name in the abstract namespace of Linux, without its leading NUL.
    Abstract(Vec<u8>),
    /// A listening socket that was open when the program started.
    Fd(RawFd),
    /// The sockets that a service manager has passed under this name.
    Named(String),
}

impl ListenAddr {
    /// Reads an address.
    ///
    /// | Form | Meaning |
    /// |---|---|
    /// | `1.2.3.4:80`, `[::1]:80` | that address |
    /// | `:80`, `*:80` | all IPv4 interfaces |
    /// | `name:80` | a host name, resolved when it is bound |
    /// | `/run/app.sock`, `unix:PATH` | a socket file; `unix:` allows a `:` in the path |
    /// | `@name`, `\0name` | abstract name |
    /// | `fd://3` | a descriptor that is already listening |
    /// | `fd:NAME` | what systemd passes with `FileDescriptorName=NAME` |
    ///
    /// # Errors
    /// Says what is wrong with it, and where possible what to write instead.
    pub fn parse(text: &str) -> Result<ListenAddr, String> {
        let text = text.trim();
        if text.is_empty() {
            return Err("the address is empty".to_owned());
        }
        if let Some(number) = text.strip_prefix("fd://") {
            return parse_fd(number);
        }
        if let Some(name) = text.strip_prefix("fd:") {
            return parse_name(name);
        }
        if let Some(path) = text.strip_prefix("unix:") {
            return parse_path(path);
        }
        if let Some(name) = text.strip_prefix('@').or_else(|| text.strip_prefix("\\0")) {
            return parse_abstract(name);
        }
        if text.starts_with('=') {
            return Err("shared sockets (=N) are not supported; write the address itself".to_owned());
        }
        if text.contains(':') {
            return parse_inet(text);
        }
        if text.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(format!("a port needs a colon: write :{text} (a socket file would be unix:{text})"));
        }
        if text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.') {
            return Err(format!(
                "an address needs a port, like 127.0.0.1:8080 (a socket file would be unix:{text})"
            ));
        }
        parse_path(text)
    }
}

fn parse_fd(number: &str) -> Result<ListenAddr, String> {
    match number.parse() {
        Ok(0..=2) => Err(format!("descriptor {number} is a standard stream; sockets begin at 3")),
        Ok(raw) if raw > 2 => Ok(ListenAddr::Fd(raw)),
        _ => Err(format!("\"{number}\" is not a descriptor number; write for instance fd://3")),
    }
}

/// What systemd takes for a name (sd_listen_fds(3)); a colon would separate two of them.
fn parse_name(name: &str) -> Result<ListenAddr, String> {
    if name.is_empty()
        || name.len() > 255
        || !name.bytes().all(|byte| (b' '..=b'~').contains(&byte) && byte != b':')
    {
        return Err(
            "fd: is followed by the name of a socket, as FileDescriptorName= gives it, or by //NUMBER"
                .to_owned(),
        );
    }
    Ok(ListenAddr::Named(name.to_owned()))
}

fn parse_path(path: &str) -> Result<ListenAddr, String> {
    if path.is_empty() {
        return Err("the path is empty".to_owned());
    }
    if path.ends_with('/') {
        return Err("the path names a directory; add the name of the socket".to_owned());
    }
    check_length(path, "path")?;
    Ok(ListenAddr::Unix(PathBuf::from(path)))
}

fn parse_abstract(name: &str) -> Result<ListenAddr, String> {
    if name.is_empty() {
        return Err("the abstract name is empty".to_owned());
    }
    check_length(name, "abstract name")?;
    Ok(ListenAddr::Abstract(name.as_bytes().to_vec()))
}

fn check_length(name: &str, what: &str) -> Result<(), String> {
    if name.contains('\0') {
        return Err(format!("the {what} contains a NUL"));
    }
    if name.len() > MAX_UNIX_NAME {
        return Err(format!("the {what} has {} bytes; a socket may have {MAX_UNIX_NAME}", name.len()));
    }
    Ok(())
}

fn parse_inet(text: &str) -> Result<ListenAddr, String> {
    if text.starts_with('[') {
        return parse_v6(text);
    }
    let (host, port) = text.rsplit_once(':').expect("the caller has seen a colon");
    if host.contains(':') {
        return Err("an IPv6 address goes in brackets, like [::1]:8080".to_owned());
    }
    if host.contains('/') {
        return Err(format!("a path with a colon needs the prefix: write unix:{text}"));
    }
    let port = parse_port(port)?;
    if host.is_empty() || host == "*" {
        return Ok(ListenAddr::Tcp(SocketAddr::from((Ipv4Addr::UNSPECIFIED, port))));
    }
    if host.contains('*') {
        return Err("interface patterns are not supported; write the address, or * for all".to_owned());
    }
    if let Ok(address) = host.parse::<Ipv4Addr>() {
        return Ok(ListenAddr::Tcp(SocketAddr::from((address, port))));
    }
    if host.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.') {
        return Err(format!("\"{host}\" is not an IPv4 address"));
    }
    if !host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte)) {
        return Err(format!("\"{host}\" is not a host name"));
    }
    Ok(ListenAddr::Host { host: host.to_owned(), port })
}

fn parse_v6(text: &str) -> Result<ListenAddr, String> {
    if let Ok(address @ SocketAddr::V6(_)) = text.parse() {
        return Ok(ListenAddr::Tcp(address));
    }
    match text.rsplit_once("]:") {
        None => Err("an IPv6 address needs a port, like [::1]:8080".to_owned()),
        Some((host, port)) => {
            parse_port(port)?;
            Err(format!("\"{}\" is not an IPv6 address", &host[1..]))
        }
    }
}

fn parse_port(text: &str) -> Result<u16, String> {
    if text.is_empty() {
        return Err("the port is missing after the colon".to_owned());
    }
    // u16 would take a sign.
    if !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(format!("\"{text}\" is not a port number"));
    }
    text.parse().map_err(|_| format!("port {text} is too large; the largest is 65535"))
}

impl fmt::Display for ListenAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ListenAddr::Tcp(address) => write!(f, "{address}"),
            ListenAddr::Host { host, port } => write!(f, "{host}:{port}"),
            ListenAddr::Unix(path) if needs_prefix(path) => write!(f, "unix:{}", path.display()),
            ListenAddr::Unix(path) => write!(f, "{}", path.display()),
            ListenAddr::Abstract(name) => write!(f, "@{}", String::from_utf8_lossy(name)),
            ListenAddr::Fd(raw) => write!(f, "fd://{raw}"),
            ListenAddr::Named(name) => write!(f, "fd:{name}"),
        }
    }
}

/// Whether the bare path would be read as something else.
fn needs_prefix(path: &Path) -> bool {
    let bytes = path.as_os_str().as_bytes();
    bytes.contains(&b':')
        || bytes.iter().all(|byte| byte.is_ascii_digit() || *byte == b'.')
        || bytes.first().is_some_and(|first| b"@=\\".contains(first))
}

/// Whether binding there is reserved to root on a system with default settings.
pub(super) fn is_privileged(address: &SocketAddr) -> bool {
    const FIRST_FREE_PORT: u16 = 1024;
    (1..FIRST_FREE_PORT).contains(&address.port())
}

/// Puts IPv4 first: what a name such as `localhost` meant before there was anything else.
pub(super) fn prefer_v4(addresses: &mut [SocketAddr]) {
    addresses.sort_by_key(|address| matches!(address.ip(), IpAddr::V6(_)));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tcp(text: &str) -> ListenAddr {
        ListenAddr::Tcp(text.parse().unwrap())
    }

    fn unix(path: &str) -> ListenAddr {
        ListenAddr::Unix(path.into())
    }

    #[test]
    fn every_form_is_understood() {
        let long = format!("/{}", "x".repeat(MAX_UNIX_NAME - 1));
        let host = |host: &str, port| ListenAddr::Host { host: host.to_owned(), port };
        let cases = [
            ("127.0.0.1:8080", tcp("127.0.0.1:8080")),
            ("  127.0.0.1:8080 ", tcp("127.0.0.1:8080")),
            (":80", tcp("0.0.0.0:80")),
            ("*:80", tcp("0.0.0.0:80")),
            ("127.0.0.1:0", tcp("127.0.0.1:0")),
            ("[::1]:8080", tcp("[::1]:8080")),
            ("[::]:8080", tcp("[::]:8080")),
            ("localhost:9090", host("localhost", 9090)),
            ("app-1.my_net.example:1", host("app-1.my_net.example", 1)),
            ("/run/app.sock", unix("/run/app.sock")),
            ("app.sock", unix("app.sock")),
            ("unix:/run/a:b.sock", unix("/run/a:b.sock")),
            ("unix:8080", unix("8080")),
            (&long, unix(&long)),
            ("@name", ListenAddr::Abstract(b"name".to_vec())),
            ("\\0name", ListenAddr::Abstract(b"name".to_vec())),
            ("@na:me", ListenAddr::Abstract(b"na:me".to_vec())),
            ("fd://3", ListenAddr::Fd(3)),
            ("fd:web", ListenAddr::Named("web".to_owned())),
            ("fd:app.socket", ListenAddr::Named("app.socket".to_owned())),
        ];
        for (text, address) in cases {
            assert_eq!(ListenAddr::parse(text), Ok(address), "{text}");
        }
    }

    #[test]
    fn what_cannot_be_an_address_is_explained() {
        let long = "x".repeat(MAX_UNIX_NAME + 1);
        let long_abstract = format!("@{long}");
        let cases = [
            ("", "is empty"),
            ("  ", "is empty"),
            ("8080", "write :8080"),
            ("1.2.3", "needs a port"),
            ("127.0.0.1:", "port is missing"),
            (":", "port is missing"),
            ("127.0.0.1:http", "\"http\" is not a port number"),
            ("127.0.0.1:+80", "\"+80\" is not a port number"),
            ("127.0.0.1:65536", "too large"),
            ("127.0.0.1:99999999999", "too large"),
            ("127.0.0.256:80", "not an IPv4 address"),
            ("127.0.1:80", "not an IPv4 address"),
            ("::1:8080", "brackets"),
            ("[::1]", "needs a port"),
            ("[::1]:", "port is missing"),
            ("[::g]:80", "\"::g\" is not an IPv6 address"),
            ("[127.0.0.1]:80", "not an IPv6 address"),
            ("127.*:80", "patterns"),
            ("http://localhost:80", "brackets"),
            ("a b:80", "not a host name"),
            ("/run/a:80", "unix:/run/a:80"),
            ("unix:", "path is empty"),
            ("/run/", "names a directory"),
            ("@", "abstract name is empty"),
            ("fd://", "not a descriptor number"),
            ("fd:", "FileDescriptorName="),
            ("fd:a:b", "FileDescriptorName="),
            ("fd://x", "not a descriptor number"),
            ("fd://-1", "not a descriptor number"),
            ("fd://2", "standard stream"),
            ("=0", "shared sockets"),
            (&long, "a socket may have 107"),
            (&long_abstract, "a socket may have 107"),
        ];
        for (text, part) in cases {
            let error = ListenAddr::parse(text).unwrap_err();
            assert!(error.contains(part), "{text}: {error}");
        }
    }

    #[test]
    fn what_is_printed_reads_back_the_same() {
        let texts = [
            "127.0.0.1:80",
            "[::1]:80",
            "localhost:80",
            "/run/a",
            "unix:/a:b",
            "unix:80",
            "unix:@x",
            "@x",
            "fd://5",
            "fd:web",
        ];
        for text in texts {
            let address = ListenAddr::parse(text).unwrap();
            assert_eq!(address.to_string(), text);
            assert_eq!(ListenAddr::parse(&address.to_string()), Ok(address));
        }
    }

    #[test]
    fn low_ports_are_privileged_and_the_choice_of_the_kernel_is_not() {
        let privileged = |text: &str| is_privileged(&text.parse().unwrap());
        assert!(privileged("0.0.0.0:80"));
        assert!(privileged("[::1]:1023"));
        assert!(!privileged("0.0.0.0:1024"));
        assert!(!privileged("0.0.0.0:0"));
    }

    #[test]
    fn version_four_comes_first_in_the_order_of_the_resolver() {
        let mut addresses: Vec<SocketAddr> =
            ["[::1]:1", "127.0.0.2:1", "127.0.0.1:1"].iter().map(|text| text.parse().unwrap()).collect();
        prefer_v4(&mut addresses);
        assert_eq!(addresses[0], "127.0.0.2:1".parse().unwrap());
        assert_eq!(addresses[2], "[::1]:1".parse().unwrap());
    }
}
