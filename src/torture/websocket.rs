//! As much of RFC 6455 as a client needs that only pings.

use super::account::Loss;
use super::wire::Connection;

/// What asks for the upgrade.
pub const FIELDS: &str = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

const CLOSE: u8 = 0x8;
const PONG: u8 = 0xa;
/// An empty ping with the mask that a client has to use.
const PING: [u8; 6] = [0x89, 0x80, 1, 2, 3, 4];

/// Pings and waits for the answer, past all else that the server says; false when it says good-bye.
///
/// # Errors
/// How the exchange is lost.
pub fn ping(connection: &mut Connection) -> Result<bool, Loss> {
    connection.send(&PING)?;
    loop {
        let head = connection.receive_bytes(2)?;
        let length = match head[1] & 0x7f {
            126 => connection.receive_bytes(2)?.iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte)),
            // No ping is answered with more than fits a buffer.
            127 => return Err(Loss::Malformed),
            length => usize::from(length),
        };
        connection.receive_bytes(length)?;
        match head[0] & 0x0f {
            PONG => return Ok(true),
            CLOSE => return Ok(false),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;
    use std::thread;
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_pong_is_found_behind_other_frames_and_a_close_is_a_good_bye() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let server = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut ping = [0; PING.len()];
            stream.read_exact(&mut ping).unwrap();
            let text = [&[0x81, 126, 0, 200][..], &[b'x'; 200]].concat();
            stream.write_all(&[&text[..], &[0x8a, 0]].concat()).unwrap();
            stream.read_exact(&mut ping).unwrap();
            stream.write_all(&[0x88, 2, 3, 0xe9]).unwrap();
        });
        let mut connection = Connection::open(address, Duration::from_secs(20), Duration::ZERO).unwrap();
        assert_eq!([ping(&mut connection), ping(&mut connection)], [Ok(true), Ok(false)]);
        server.join().unwrap();
    }
}
