//! Text from clients, made harmless for a log line.

/// Appends `text` to a line so that it can neither end the line nor close a quoted field.
///
/// Control bytes, the double quote, the backslash and everything beyond ASCII become `\xHH`, as
/// nginx and Apache write them; the original can be recovered. Other text is appended as it is.
pub fn append(line: &mut Vec<u8>, text: &[u8]) {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    for &byte in text {
        if matches!(byte, b' '..=b'~') && byte != b'"' && byte != b'\\' {
            line.push(byte);
        } else {
            line.extend_from_slice(&[b'\\', b'x', HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn escaped(text: &[u8]) -> String {
        let mut line = Vec::new();
        append(&mut line, text);
        String::from_utf8(line).expect("only ASCII comes out")
    }

    #[test]
    fn plain_text_stays_as_it_is() {
        assert_eq!(escaped(b"/a?b=c&d=%20 (x) 'y' ~"), "/a?b=c&d=%20 (x) 'y' ~");
    }

    #[test]
    fn line_ends_quotes_and_terminal_sequences_are_escaped() {
        assert_eq!(escaped(b"a\r\nb\"c\\d\x1b[2J\x7f"), r"a\x0D\x0Ab\x22c\x5Cd\x1B[2J\x7F");
    }

    #[test]
    fn bytes_beyond_ascii_are_escaped() {
        assert_eq!(escaped("é\u{2028}".as_bytes()), r"\xC3\xA9\xE2\x80\xA8");
        assert_eq!(escaped(&[0xff]), r"\xFF");
    }
}
