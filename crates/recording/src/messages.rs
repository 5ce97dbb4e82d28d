//! Reads the messages of an MCAP file in order, and checks every length before memory is allocated:
//! the `mcap` library would allocate up to 4 GB for the length of a name. Chunks are bounded by the
//! reader's limit, and the window of a zstd frame by zstd itself, at 128 MB.

use mcap::records::op;
use mcap::sans_io::{LinearReadEvent, LinearReader, LinearReaderOptions};
use mcap::{Channel, McapError, Message, Schema};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io::{self, Read};
use std::sync::Arc;

/// Reads messages. Yields nothing after the first error.
pub(super) struct Messages<R> {
    source: R,
    bytes_read: u64,
    reader: LinearReader,
    schemas: BTreeMap<u16, Arc<Schema<'static>>>,
    channels: BTreeMap<u16, Arc<Channel<'static>>>,
    /// The summary section after the data section repeats schemas and channels.
    is_in_summary: bool,
    has_ended: bool,
}

impl<R: Read> Messages<R> {
    pub(super) fn new(source: R, options: LinearReaderOptions) -> Self {
        Self {
            source,
            bytes_read: 0,
            reader: LinearReader::new_with_options(options),
            schemas: BTreeMap::new(),
            channels: BTreeMap::new(),
            is_in_summary: false,
            has_ended: false,
        }
    }

    /// Returns the number of bytes read from the source.
    pub(super) fn bytes_read(&self) -> u64 {
        self.bytes_read
    }

    /// True if the data section was read to its end and its CRC is correct.
    pub(super) fn are_complete(&self) -> bool {
        self.is_in_summary
    }

    fn message(&mut self) -> Result<Option<Message<'static>>, McapError> {
        while let Some(event) = self.reader.next_event() {
            let (opcode, data) = match event? {
                LinearReadEvent::ReadRequest(bytes) => {
                    let read = read_some(&mut self.source, self.reader.insert(bytes))?;
                    self.reader.notify_read(read);
                    self.bytes_read += read as u64;
                    continue;
                }
                LinearReadEvent::Record { opcode, data } => (opcode, data),
            };
            let mut fields = Fields(data);
            match opcode {
                op::DATA_END => self.is_in_summary = true,
                op::MESSAGE if self.is_in_summary => return Err(McapError::UnexpectedEof),
                _ if self.is_in_summary => {}
                op::SCHEMA => {
                    let (id, name, encoding) = (fields.u16()?, fields.text()?, fields.text()?);
                    let data = Cow::Owned(fields.bytes()?.to_vec());
                    self.schemas.insert(id, Arc::new(Schema { id, name, encoding, data }));
                }
                op::CHANNEL => {
                    let (id, schema) = (fields.u16()?, fields.u16()?);
                    let (topic, message_encoding) = (fields.text()?, fields.text()?);
                    let schema = self.schemas.get(&schema).cloned();
                    // Channels of recordings have no metadata.
                    let metadata = BTreeMap::new();
                    let channel =
                        Arc::new(Channel { id, topic, schema, message_encoding, metadata });
                    if self.channels.get(&id).is_some_and(|before| *before != channel) {
                        return Err(McapError::ConflictingChannels(channel.topic.clone()));
                    }
                    self.channels.insert(id, channel);
                }
                op::MESSAGE => {
                    let (id, sequence) = (fields.u16()?, fields.u32()?);
                    let (log_time, publish_time) = (fields.u64()?, fields.u64()?);
                    let channel = self.channels.get(&id).cloned();
                    let channel = channel.ok_or(McapError::UnknownChannel(0, id))?;
                    let data = Cow::Owned(fields.0.to_vec());
                    return Ok(Some(Message { channel, sequence, log_time, publish_time, data }));
                }
                _ => {}
            }
        }
        Ok(None)
    }
}

impl<R: Read> Iterator for Messages<R> {
    type Item = Result<Message<'static>, McapError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.has_ended {
            return None;
        }
        let message = self.message().transpose();
        self.has_ended = !matches!(message, Some(Ok(_)));
        message
    }
}

fn read_some(source: &mut impl Read, into: &mut [u8]) -> io::Result<usize> {
    loop {
        match source.read(into) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            read => return read,
        }
    }
}

/// Unread fields of a record.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn array<const N: usize>(&mut self) -> Result<[u8; N], McapError> {
        let (array, rest) = self.0.split_first_chunk().ok_or_else(too_short)?;
        self.0 = rest;
        Ok(*array)
    }

    fn u16(&mut self) -> Result<u16, McapError> {
        Ok(u16::from_le_bytes(self.array()?))
    }

    fn u32(&mut self) -> Result<u32, McapError> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    fn u64(&mut self) -> Result<u64, McapError> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    /// Reads a length and that number of bytes.
    fn bytes(&mut self) -> Result<&'a [u8], McapError> {
        let length = self.u32()? as usize;
        let (taken, rest) = self.0.split_at_checked(length).ok_or_else(too_short)?;
        self.0 = rest;
        Ok(taken)
    }

    fn text(&mut self) -> Result<String, McapError> {
        let text = str::from_utf8(self.bytes()?);
        Ok(text.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?.to_owned())
    }
}

/// Returns the error of a record that is shorter than a length in it.
fn too_short() -> McapError {
    McapError::UnexpectedEof
}
