//! Decoding and parsing of XML files: encodings and document types.

use encoding_rs::{Encoding, UTF_8, UTF_16BE, UTF_16LE};
use roxmltree::{Document, ParsingOptions};
use std::borrow::Cow;

/// Maximum length of an XML declaration, bytes.
const LONGEST_DECLARATION: usize = 400;

/// Error returned when an XML file cannot be turned into text.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum EncodingError {
    #[error("encoding {label:?} is not supported; save the file as UTF-8")]
    Unsupported {
        /// Name of the encoding as declared.
        label: String,
    },
    #[error(
        "not valid {encoding}, {basis}; correct the encoding of the XML declaration, or save the \
         file as UTF-8"
    )]
    Malformed {
        encoding: &'static str,
        /// How the encoding was determined, as a clause of the message.
        basis: &'static str,
    },
}

/// Decodes an XML file by its byte order mark, else by the declared encoding, else as UTF-8. Line
/// numbers of the text are those of the file.
///
/// # Errors
/// If the encoding is not supported, or the bytes are not valid in it.
pub fn decode(bytes: &[u8]) -> Result<Cow<'_, str>, EncodingError> {
    if bytes.starts_with(&[0xFF, 0xFE, 0, 0]) || bytes.starts_with(&[0, 0, 0xFE, 0xFF]) {
        return Err(EncodingError::Unsupported { label: "UTF-32".to_owned() });
    }
    let (encoding, basis) = match (Encoding::for_bom(bytes), bytes) {
        (Some((encoding, _)), _) => (encoding, "which its byte order mark names"),
        (None, [b'<', 0, ..]) => (UTF_16LE, "which its first bytes are in"),
        (None, [0, b'<', ..]) => (UTF_16BE, "which its first bytes are in"),
        (None, _) => match declared_encoding(bytes) {
            None => (UTF_8, "which files without a declared encoding are in"),
            Some(label) => {
                let encoding = Encoding::for_label(label.as_bytes())
                    .ok_or(EncodingError::Unsupported { label })?;
                // The declaration was readable as single bytes, so the file is not UTF-16: some
                // writers declare the encoding of their strings instead of that of the file.
                let encoding =
                    if encoding == UTF_16LE || encoding == UTF_16BE { UTF_8 } else { encoding };
                (encoding, "which it declares")
            }
        },
    };
    // `decode` also handles byte order marks, but reports errors as replacement characters.
    let (text, had_errors) = encoding.decode_with_bom_removal(bytes);
    if had_errors {
        return Err(EncodingError::Malformed { encoding: encoding.name(), basis });
    }
    Ok(match late_declaration(&text) {
        Some(declaration) => Cow::Owned(blanked(&text, declaration)),
        None => text,
    })
}

/// Returns the encoding of the XML declaration.
fn declared_encoding(bytes: &[u8]) -> Option<String> {
    let start = bytes.windows(5).take(20_000).position(|window| window == b"<?xml")?;
    let head = &bytes[start..bytes.len().min(start + LONGEST_DECLARATION)];
    let head = &head[..head.windows(2).position(|window| window == b"?>")?];
    let at = head.windows(8).position(|window| window == b"encoding")? + 8;
    let rest = head[at..].trim_ascii_start().strip_prefix(b"=")?.trim_ascii_start();
    let quote = *rest.first().filter(|byte| matches!(byte, b'"' | b'\''))?;
    let label = rest[1..].split(|&byte| byte == quote).next()?;
    Some(String::from_utf8_lossy(label).into_owned())
}

/// Returns the range of an XML declaration that is preceded only by comments and white space. XML
/// allows the declaration only at the very beginning, but CARLA's maps have a license before it.
fn late_declaration(text: &str) -> Option<std::ops::Range<usize>> {
    let mut rest = text;
    loop {
        rest = rest.trim_start();
        if rest.starts_with("<?xml ") {
            let start = text.len() - rest.len();
            return (start > 0).then_some(start..start + rest.find("?>")? + 2);
        }
        rest = rest.strip_prefix("<!--")?;
        rest = &rest[rest.find("-->")? + 3..];
    }
}

/// Returns `text` with everything in `range` except line breaks replaced by spaces.
fn blanked(text: &str, range: std::ops::Range<usize>) -> String {
    let blank = |letter: char| if letter == '\n' { '\n' } else { ' ' };
    let middle: String = text[range.clone()].chars().map(blank).collect();
    format!("{}{middle}{}", &text[..range.start], &text[range.end..])
}

/// Error returned when a text is not an XML document that can be read.
#[derive(Debug, thiserror::Error)]
pub enum DocumentError {
    #[error("not well-formed XML")]
    Malformed(#[source] roxmltree::Error),
    /// The document type declares entities, which could expand to any size.
    #[error(
        "its DOCTYPE declares entities, which are not read: replace them by their text and remove \
         the declaration"
    )]
    Entities(#[source] roxmltree::Error),
}

impl DocumentError {
    /// Returns the 1-based line of the error.
    pub fn line(&self) -> u32 {
        let (Self::Malformed(source) | Self::Entities(source)) = self;
        source.pos().row
    }
}

/// Parses a document. A document type is ignored, unless it declares entities.
///
/// # Errors
/// If `text` is not well-formed, or declares entities.
pub fn parse(text: &str) -> Result<Document<'_>, DocumentError> {
    match Document::parse(text) {
        Err(found @ roxmltree::Error::DtdDetected) if text.contains("<!ENTITY") => {
            Err(DocumentError::Entities(found))
        }
        Err(roxmltree::Error::DtdDetected) => {
            let options = ParsingOptions { allow_dtd: true, ..ParsingOptions::default() };
            Document::parse_with_options(text, options).map_err(DocumentError::Malformed)
        }
        parsed => parsed.map_err(DocumentError::Malformed),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "<?xml version=\"1.0\" encoding=\"LABEL\"?>\n<town name=\"Malmö\"/>";

    fn utf_16(text: &str, order: fn(u16) -> [u8; 2], mark: bool) -> Vec<u8> {
        let units = mark.then_some(0xFEFF).into_iter().chain(text.encode_utf16());
        units.flat_map(order).collect()
    }

    #[track_caller]
    fn check(bytes: &[u8], label: &str) {
        let text = decode(bytes).unwrap();
        assert_eq!(text, TEXT.replace("LABEL", label));
        let document = parse(&text).unwrap();
        assert_eq!(document.root_element().attribute("name"), Some("Malmö"));
    }

    #[test]
    fn files_are_decoded_by_mark_declaration_or_as_utf_8() {
        let with = |label: &str| TEXT.replace("LABEL", label);
        for order in [u16::to_le_bytes as fn(u16) -> [u8; 2], u16::to_be_bytes] {
            for mark in [true, false] {
                check(&utf_16(&with("UTF-16"), order, mark), "UTF-16");
            }
        }
        check(with("utf-8").as_bytes(), "utf-8");
        check(&[b"\xEF\xBB\xBF", with("UTF-8").as_bytes()].concat(), "UTF-8");
        // .NET's string writers declare UTF-16 in files that are stored as UTF-8.
        check(with("utf-16").as_bytes(), "utf-16");
        for label in ["ISO-8859-1", "latin1", "windows-1252"] {
            let bytes: Vec<u8> = with(label).chars().map(|letter| letter as u32 as u8).collect();
            check(&bytes, label);
        }
        let (bytes, ..) =
            encoding_rs::SHIFT_JIS.encode("<?xml encoding='Shift_JIS'?><a b='東京'/>");
        assert!(decode(&bytes).unwrap().contains("東京"));
    }

    #[test]
    fn bytes_of_another_encoding_are_rejected_by_name() {
        let refused = |bytes: &[u8]| decode(bytes).unwrap_err().to_string();
        let latin = b"<?xml version='1.0'?><a b='\xF6'/>";
        assert!(refused(latin).contains("not valid UTF-8, which files without"));
        let declared = b"<?xml version='1.0' encoding='UTF-8'?><a b='\xF6'/>";
        assert!(refused(declared).contains("not valid UTF-8, which it declares"));
        assert!(
            refused(b"<?xml encoding='EBCDIC-9'?><a/>").contains("\"EBCDIC-9\" is not supported")
        );
        assert!(refused(b"\xFF\xFE\0\0<\0\0\0").contains("UTF-32"));
    }

    #[test]
    fn declaration_after_a_license_is_ignored() {
        let text = decode(b"<!-- License\n of the map -->\n<?xml version='1.0'?>\n<map/>").unwrap();
        let document = parse(&text).unwrap();
        assert_eq!(document.text_pos_at(document.root_element().range().start).row, 4);
    }

    #[test]
    fn document_type_is_accepted_but_entities_are_rejected() {
        let accepted = [
            "<!DOCTYPE OpenDRIVE><OpenDRIVE/>",
            "<!DOCTYPE OpenDRIVE SYSTEM 'OpenDRIVE.dtd'><OpenDRIVE/>",
            "<!DOCTYPE routes [<!ELEMENT routes ANY>]><routes/>",
        ];
        for text in accepted {
            parse(text).unwrap();
        }
        let bomb = "<!DOCTYPE a [<!ENTITY x 'xxxxxxxxxx'><!ENTITY y '&x;&x;&x;&x;'>]><a>&y;</a>";
        assert!(parse(bomb).unwrap_err().to_string().contains("declares entities"));
        assert!(matches!(parse("<a>"), Err(DocumentError::Malformed(_))));
    }
}
