//! Minimum length of a shared library, from its program headers.
//!
//! The loader maps the segments that the headers list without checking the file's length; accessing a
//! page beyond the end kills the process with SIGBUS.

use std::io::{self, Read, Seek, SeekFrom};

/// Length of a 64-bit ELF header.
const HEADER_BYTES: usize = 64;
/// Length of one 64-bit program header.
const PROGRAM_HEADER_BYTES: u64 = 56;

/// Returns the length that the segments of a little-endian 64-bit ELF file need, or `None` for any
/// other file, which the loader rejects.
pub(super) fn needed_length(file: &mut (impl Read + Seek)) -> io::Result<Option<u64>> {
    let mut header = [0; HEADER_BYTES];
    match file.read_exact(&mut header) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        read => read?,
    }
    // Magic number, class and byte order.
    if header[..6] != *b"\x7fELF\x02\x01" {
        return Ok(None);
    }
    let table = u64_at(&header, 32);
    let entries = u64::from(u16::from_le_bytes([header[56], header[57]]));
    let mut needed = table.saturating_add(entries * PROGRAM_HEADER_BYTES);
    for entry in 0..entries {
        let mut segment = [0; PROGRAM_HEADER_BYTES as usize];
        file.seek(SeekFrom::Start(table.saturating_add(entry * PROGRAM_HEADER_BYTES)))?;
        match file.read_exact(&mut segment) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => break,
            read => read?,
        }
        let (offset, length) = (u64_at(&segment, 8), u64_at(&segment, 32));
        needed = needed.max(offset.saturating_add(length));
    }
    Ok(Some(needed))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("the slice has 8 bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Cursor;

    /// Returns a file that contains only headers, for one segment with this offset and length.
    fn file(offset: u64, length: u64) -> Vec<u8> {
        let mut bytes = vec![0; HEADER_BYTES + PROGRAM_HEADER_BYTES as usize];
        bytes[..6].copy_from_slice(b"\x7fELF\x02\x01");
        bytes[32..40].copy_from_slice(&64_u64.to_le_bytes());
        bytes[56] = 1;
        bytes[72..80].copy_from_slice(&offset.to_le_bytes());
        bytes[96..104].copy_from_slice(&length.to_le_bytes());
        bytes
    }

    fn needed(bytes: Vec<u8>) -> Option<u64> {
        needed_length(&mut Cursor::new(bytes)).unwrap()
    }

    #[test]
    fn length_is_the_end_of_the_last_segment() {
        assert_eq!(needed(file(1000, 24)), Some(1024));
        assert_eq!(needed(file(0, 10)), Some(120), "the headers themselves");
        assert_eq!(needed(file(u64::MAX, 24)), Some(u64::MAX));
        // Truncated within the table.
        assert_eq!(needed(file(1000, 24)[..100].to_vec()), Some(120));
    }

    #[test]
    fn files_that_are_not_elf_have_no_length() {
        assert_eq!(needed(Vec::new()), None);
        assert_eq!(needed(vec![b'#'; 200]), None);
    }
}
