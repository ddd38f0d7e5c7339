//! The bytes of a block of the embedded log.
//!
//! `version (1) | count u32 | count × (timestamp i64 | length u32 | payload)`, little endian. The offsets are
//! the block's first and the ones after it.

use bytes::Bytes;

use super::log::LogRecord;

const VERSION: u8 = 1;
const BLOCK_HEADER: usize = 5;
const RECORD_HEADER: usize = 12;

/// A block of messages, of at most `u32::MAX` bytes each.
pub(super) fn encode_block(records: &[&(i64, Bytes)]) -> Vec<u8> {
    let size: usize = records.iter().map(|(_, payload)| RECORD_HEADER + payload.len()).sum();
    let mut block = Vec::with_capacity(BLOCK_HEADER + size);
    block.push(VERSION);
    block.extend_from_slice(&(records.len() as u32).to_le_bytes());
    for (timestamp, payload) in records {
        block.extend_from_slice(&timestamp.to_le_bytes());
        block.extend_from_slice(&(payload.len() as u32).to_le_bytes());
        block.extend_from_slice(payload);
    }
    block
}

/// The messages of a block, one by one.
pub(super) struct Block {
    bytes: Bytes,
    left: u32,
    offset: i64,
}

impl Block {
    /// Copies the block out of the database's page: its messages outlive the read.
    pub(super) fn parse(first_offset: i64, bytes: &[u8]) -> Result<Block, String> {
        match bytes {
            [VERSION, a, b, c, d, rest @ ..] => Ok(Block {
                bytes: Bytes::copy_from_slice(rest),
                left: u32::from_le_bytes([*a, *b, *c, *d]),
                offset: first_offset,
            }),
            [version, ..] if *version != VERSION => {
                Err(format!("block of version {version}, this release reads version {VERSION}"))
            }
            _ => Err("block without a header".into()),
        }
    }

    fn record(&mut self) -> Option<LogRecord> {
        let (timestamp, rest) = self.bytes.split_first_chunk::<8>()?;
        let (length, _) = rest.split_first_chunk::<4>()?;
        let (timestamp, length) = (i64::from_le_bytes(*timestamp), u32::from_le_bytes(*length) as usize);
        let end = RECORD_HEADER.checked_add(length)?;
        if self.bytes.len() < end {
            return None;
        }
        let payload = self.bytes.split_to(end).slice(RECORD_HEADER..);
        Some(LogRecord { offset: self.offset, timestamp, payload })
    }
}

impl Iterator for Block {
    type Item = Result<LogRecord, String>;

    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        let record = self.record();
        self.offset += 1;
        Some(record.ok_or_else(|| {
            self.left = 0;
            "block ends within a message".into()
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_round_trips_and_a_damaged_one_is_an_error() {
        let records = [(5, Bytes::from_static(b"one")), (-6, Bytes::new()), (i64::MAX, Bytes::from(vec![9; 70_000]))];
        let encoded = encode_block(&records.iter().collect::<Vec<_>>());
        let decoded: Vec<_> = Block::parse(40, &encoded).unwrap().map(Result::unwrap).collect();
        let expected: Vec<_> = records
            .iter()
            .zip(40..)
            .map(|((timestamp, payload), offset)| LogRecord { offset, timestamp: *timestamp, payload: payload.clone() })
            .collect();
        assert_eq!(decoded, expected);
        for cut in 0..40 {
            let damaged = Block::parse(0, &encoded[..cut]).and_then(|block| block.collect::<Result<Vec<_>, _>>());
            assert!(damaged.is_err(), "cut at {cut}");
        }
        let mut newer = encoded;
        newer[0] = 2;
        assert_eq!(Block::parse(0, &newer).err().unwrap(), "block of version 2, this release reads version 1");
    }
}
