//! List and label files as people's tools write them.

use std::path::Path;

use crate::DataError;

/// Largest list or label file; a line for each of a few million images.
const MAX_BYTES: u64 = 512 << 20;

/// Reads a text file: UTF-8, with or without a byte order mark, else UTF-16 with one, else GB18030.
pub fn read_text(path: &Path) -> Result<String, DataError> {
    let io = |source| DataError::Io {
        path: path.to_owned(),
        source,
    };
    let size = std::fs::metadata(path).map_err(io)?.len();
    if size > MAX_BYTES {
        return Err(DataError::Invalid(format!(
            "{} is too large for a list file ({size} bytes)",
            path.display()
        )));
    }
    let bytes = std::fs::read(path).map_err(io)?;
    decode_text(&bytes).ok_or_else(|| {
        DataError::Invalid(format!(
            "{} is neither UTF-8 nor GB18030 text",
            path.display()
        ))
    })
}

/// See [`read_text`].
pub fn decode_text(bytes: &[u8]) -> Option<String> {
    if let Some((encoding, mark)) = encoding_rs::Encoding::for_bom(bytes) {
        return encoding
            .decode_without_bom_handling_and_without_replacement(&bytes[mark..])
            .map(Into::into);
    }
    match std::str::from_utf8(bytes) {
        Ok(text) => Some(text.to_owned()),
        Err(_) => encoding_rs::GB18030
            .decode_without_bom_handling_and_without_replacement(bytes)
            .map(Into::into),
    }
}

/// Lines with their numbers from 1, trimmed; empty ones are left out.
pub fn lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines()
        .enumerate()
        .map(|(i, line)| (i + 1, line.trim()))
        .filter(|(_, line)| !line.is_empty())
}

/// A path of a list as it is looked up: `/` between parts, no `./` in front.
pub fn normal_path(path: &str) -> String {
    let mut path = path.replace('\\', "/");
    while let Some(rest) = path.strip_prefix("./") {
        path = rest.to_owned();
    }
    path
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn utf8_gb18030_and_marked_text_are_read() {
        let gb = encoding_rs::GB18030
            .encode("玫瑰/花 1.jpg 0\n")
            .0
            .into_owned();
        assert_eq!(decode_text(&gb).unwrap(), "玫瑰/花 1.jpg 0\n");
        assert_eq!(decode_text(b"\xef\xbb\xbfrose\r\n").unwrap(), "rose\r\n");
        assert_eq!(decode_text(&[0xff, 0xfe, b'a', 0, b'b', 0]).unwrap(), "ab");
        assert_eq!(decode_text("tulpe – ü".as_bytes()).unwrap(), "tulpe – ü");
        assert_eq!(decode_text(&[0xff, 0x00, 0x81]), None);
        assert_eq!(
            lines("a\r\n\n b \n").collect::<Vec<_>>(),
            [(1, "a"), (3, "b")]
        );
        assert_eq!(normal_path(r".\rose\r1.jpg"), "rose/r1.jpg");
    }
}
