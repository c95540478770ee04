//! Text arguments of the old line-based opcodes.

/// Decodes a Python string literal without its quotes, as opcode `S` writes it (`repr` of a
/// Python 2 `str`); `None` when it is malformed.
pub(super) fn string_literal(line: &[u8]) -> Option<Vec<u8>> {
    let (&quote, rest) = line.split_first()?;
    let (&end, body) = rest.split_last()?;
    if quote != end || !matches!(quote, b'\'' | b'"') {
        return None;
    }
    let mut out = Vec::with_capacity(body.len());
    let mut bytes = body.iter().copied();
    while let Some(b) = bytes.next() {
        if b != b'\\' {
            out.push(b);
            continue;
        }
        out.push(match bytes.next()? {
            b'n' => b'\n',
            b't' => b'\t',
            b'r' => b'\r',
            b'x' => hex(bytes.next()?)? << 4 | hex(bytes.next()?)?,
            c @ (b'\\' | b'\'' | b'"') => c,
            _ => return None,
        });
    }
    Some(out)
}

/// Decodes the `raw-unicode-escape` text of opcode `V`.
pub(super) fn raw_unicode(line: &[u8]) -> Option<String> {
    let mut out = String::with_capacity(line.len());
    let mut at = 0;
    while at < line.len() {
        let digits = match (line[at], line.get(at + 1)) {
            (b'\\', Some(b'u')) => 4,
            (b'\\', Some(b'U')) => 8,
            (b, _) => {
                out.push(char::from(b));
                at += 1;
                continue;
            }
        };
        let mut code = 0u32;
        for &b in line.get(at + 2..at + 2 + digits)? {
            code = code.checked_mul(16)? | u32::from(hex(b)?);
        }
        out.push(char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER));
        at += 2 + digits;
    }
    Some(out)
}

fn hex(b: u8) -> Option<u8> {
    char::from(b).to_digit(16).map(|d| d as u8)
}

/// Bytes of a text that holds only code points below 256 (`latin1`).
pub(super) fn latin1(text: &str) -> Option<Vec<u8>> {
    text.chars()
        .map(|c| u8::try_from(u32::from(c)).ok())
        .collect()
}
