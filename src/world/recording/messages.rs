//! Messages of an MCAP file in their order, with every length checked before memory is reserved for
//! it: the library reserves as much for a name as its length says, up to 4 GB. Chunks are bounded by
//! the reader's limit, and the window of a zstd frame by zstd itself, at 128 MB.

use mcap::McapError;
use mcap::records::op;
use mcap::sans_io::{LinearReadEvent, LinearReader, LinearReaderOptions};
use std::collections::BTreeMap;
use std::io::{self, Read};
use std::sync::Arc;

/// A channel that messages are of.
#[derive(PartialEq, Eq, Debug)]
pub(super) struct Channel {
    pub(super) topic: String,
    /// Name of its schema, if it has one.
    pub(super) schema: Option<String>,
    pub(super) message_encoding: String,
}

/// A message with its channel.
pub(super) struct Message {
    pub(super) channel: Arc<Channel>,
    pub(super) data: Vec<u8>,
}

/// Reads messages. Yields nothing after the first error.
pub(super) struct Messages<R> {
    source: R,
    reader: LinearReader,
    schemas: BTreeMap<u16, String>,
    channels: BTreeMap<u16, Arc<Channel>>,
    /// Behind the data section schemas and channels are repeated.
    is_in_summary: bool,
    is_over: bool,
}

impl<R: Read> Messages<R> {
    pub(super) fn new(source: R, options: LinearReaderOptions) -> Self {
        Self {
            source,
            reader: LinearReader::new_with_options(options),
            schemas: BTreeMap::new(),
            channels: BTreeMap::new(),
            is_in_summary: false,
            is_over: false,
        }
    }

    fn message(&mut self) -> Result<Option<Message>, McapError> {
        while let Some(event) = self.reader.next_event() {
            let (opcode, data) = match event? {
                LinearReadEvent::ReadRequest(bytes) => {
                    let read = read_some(&mut self.source, self.reader.insert(bytes))?;
                    self.reader.notify_read(read);
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
                    let (id, name) = (fields.number()?, fields.text()?);
                    self.schemas.insert(id, name);
                }
                op::CHANNEL => {
                    let (id, schema) = (fields.number()?, fields.number()?);
                    let (topic, message_encoding) = (fields.text()?, fields.text()?);
                    let schema = self.schemas.get(&schema).cloned();
                    let channel = Arc::new(Channel { topic, schema, message_encoding });
                    if self.channels.get(&id).is_some_and(|before| *before != channel) {
                        return Err(McapError::ConflictingChannels(channel.topic.clone()));
                    }
                    self.channels.insert(id, channel);
                }
                op::MESSAGE => {
                    let id = fields.number()?;
                    // Sequence number, log time and publish time are in the message, too.
                    fields.take(4 + 8 + 8)?;
                    let channel = self.channels.get(&id).cloned();
                    let channel = channel.ok_or(McapError::UnknownChannel(0, id))?;
                    return Ok(Some(Message { channel, data: fields.0.to_vec() }));
                }
                _ => {}
            }
        }
        Ok(None)
    }
}

impl<R: Read> Iterator for Messages<R> {
    type Item = Result<Message, McapError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.is_over {
            return None;
        }
        let message = self.message().transpose();
        self.is_over = !matches!(message, Some(Ok(_)));
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

/// What is left of a record.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn take(&mut self, bytes: usize) -> Result<&'a [u8], McapError> {
        let (taken, rest) = self.0.split_at_checked(bytes).ok_or_else(too_short)?;
        self.0 = rest;
        Ok(taken)
    }

    fn number(&mut self) -> Result<u16, McapError> {
        let (number, rest) = self.0.split_first_chunk().ok_or_else(too_short)?;
        self.0 = rest;
        Ok(u16::from_le_bytes(*number))
    }

    fn text(&mut self) -> Result<String, McapError> {
        let (length, rest) = self.0.split_first_chunk().ok_or_else(too_short)?;
        self.0 = rest;
        let text = self.take(u32::from_le_bytes(*length) as usize)?;
        let text = str::from_utf8(text);
        Ok(text.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?.to_owned())
    }
}

/// Error of a record that ends before a length in it does.
fn too_short() -> McapError {
    McapError::UnexpectedEof
}
