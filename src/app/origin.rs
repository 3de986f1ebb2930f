//! Where a request comes from, in the words of CGI.

use std::net::IpAddr;

use super::Peer;

/// Both ends of a connection as text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// Address of the client; empty on a Unix socket.
    pub remote_address: String,
    /// Port of the client; empty on a Unix socket.
    pub remote_port: String,
    /// Port of the listener; empty for a Unix socket.
    pub server_port: String,
    /// The client is on this machine: a proxy there may be believed, anybody else could claim anything.
    pub is_near: bool,
}

impl Origin {
    /// Writes down the ends of a connection.
    pub fn of(peer: &Peer, listener: &str) -> Self {
        match peer {
            Peer::Tcp(address) => {
                // A client that came by IPv4 to an IPv6 socket is shown as what it is.
                let ip = address.ip().to_canonical();
                Origin {
                    remote_address: written(ip),
                    remote_port: itoa::Buffer::new().format(address.port()).to_owned(),
                    server_port: port(listener).to_owned(),
                    is_near: ip.is_loopback(),
                }
            }
            Peer::Unix => Origin {
                remote_address: String::new(),
                remote_port: String::new(),
                server_port: String::new(),
                is_near: true,
            },
        }
    }
}

/// The usual form of an address. What the standard library does for IPv4 takes eight times as long, and
/// some servers see a new connection for every request.
fn written(ip: IpAddr) -> String {
    let IpAddr::V4(ip) = ip else { return ip.to_string() };
    let mut text = String::with_capacity("255.255.255.255".len());
    for (index, octet) in ip.octets().into_iter().enumerate() {
        if index > 0 {
            text.push('.');
        }
        text.push_str(itoa::Buffer::new().format(octet));
    }
    text
}

/// What stands behind the last colon of a TCP address.
fn port(listener: &str) -> &str {
    let port = listener.rsplit_once(':').map_or("", |(_, port)| port);
    if port.bytes().all(|byte| byte.is_ascii_digit()) { port } else { "" }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(peer: &str) -> Origin {
        Origin::of(&Peer::Tcp(peer.parse().expect("an address")), ":80")
    }

    #[test]
    fn the_port_is_that_of_the_listener() {
        for (listener, expected) in [("127.0.0.1:8080", "8080"), (":80", "80"), ("[::1]:443", "443")] {
            assert_eq!(port(listener), expected, "{listener}");
        }
        assert_eq!(Origin::of(&Peer::Unix, "/run/a:80").server_port, "");
    }

    #[test]
    fn an_address_that_came_through_ipv6_is_shown_as_it_is() {
        let origin = of("[::ffff:192.0.2.1]:50000");
        assert_eq!((origin.remote_address.as_str(), origin.remote_port.as_str()), ("192.0.2.1", "50000"));
    }

    #[test]
    fn addresses_have_their_usual_form() {
        for ip in ["127.0.0.1", "0.0.0.0", "255.255.255.255", "10.20.3.199", "::1", "2001:db8::7"] {
            assert_eq!(written(ip.parse().expect("an address")), ip);
        }
    }

    #[test]
    fn only_this_machine_is_near() {
        assert!(of("127.0.0.1:1").is_near && of("[::1]:1").is_near && of("[::ffff:127.0.0.1]:1").is_near);
        assert!(!of("192.0.2.1:1").is_near);
        assert!(Origin::of(&Peer::Unix, "/run/a.sock").is_near);
    }
}
