//! Bytes in and out: varints, checksums, and a reader that answers with an error where bytes are missing.

use arrow::datatypes::i256;

use crate::kernel::EncodingError;

/// The version that this build writes and the only one that it reads.
pub(crate) const VERSION: u8 = 3;
const CHECKSUM: usize = 4;

#[derive(Debug, Default)]
pub(crate) struct Writer(Vec<u8>);

impl Writer {
    /// Starts with the version.
    pub fn versioned() -> Self {
        /// What most heads fit in.
        const ROOM: usize = 128;
        let mut bytes = Vec::with_capacity(ROOM);
        bytes.push(VERSION);
        Writer(bytes)
    }

    /// Ends with the checksum.
    pub fn sealed(mut self) -> Vec<u8> {
        let checksum = crc32fast::hash(&self.0);
        self.0.extend(checksum.to_le_bytes());
        self.0
    }

    pub fn byte(&mut self, byte: u8) {
        self.0.push(byte);
    }

    pub fn bytes(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    /// Bits, the lowest first, a byte for eight.
    pub fn bits(&mut self, bits: impl Iterator<Item = bool>) {
        let (mut byte, mut count) = (0u8, 0);
        for bit in bits {
            byte |= u8::from(bit) << count;
            count += 1;
            if count == 8 {
                self.byte(byte);
                (byte, count) = (0, 0);
            }
        }
        if count > 0 {
            self.byte(byte);
        }
    }

    pub fn unsigned(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    pub fn length(&mut self, length: usize) {
        self.unsigned(length as u64);
    }

    pub fn signed(&mut self, value: i64) {
        self.unsigned(((value << 1) ^ (value >> 63)) as u64);
    }

    /// A length byte and the fewest bytes of the two's complement.
    pub fn wide(&mut self, value: i256) {
        let bytes = value.to_le_bytes();
        let sign = if value.is_negative() { 0xff } else { 0 };
        let mut length = bytes.iter().rposition(|byte| *byte != sign).map_or(0, |last| last + 1);
        // The top bit of what is left says the sign.
        if length > 0 && length < bytes.len() && (bytes[length - 1] ^ sign) & 0x80 != 0 {
            length += 1;
        }
        if length == 0 && sign != 0 {
            length = 1;
        }
        self.byte(length as u8);
        self.bytes(&bytes[..length]);
    }
}

#[derive(Debug)]
pub(crate) struct Reader<'a> {
    bytes: &'a [u8],
    offset: usize,
}

impl<'a> Reader<'a> {
    /// Checks the version and the checksum.
    pub fn open(bytes: &'a [u8]) -> Result<Self, EncodingError> {
        let found = *bytes.first().ok_or(EncodingError::Truncated { offset: 0 })?;
        if found != VERSION {
            return Err(EncodingError::UnknownVersion { found, known: VERSION });
        }
        let end = bytes
            .len()
            .checked_sub(CHECKSUM)
            .filter(|end| *end > 0)
            .ok_or(EncodingError::Truncated { offset: bytes.len() })?;
        let (body, checksum) = bytes.split_at(end);
        if crc32fast::hash(body).to_le_bytes() != checksum {
            let message = "the checksum doesn't match the bytes: they are damaged or cut short".to_owned();
            return Err(EncodingError::Corrupt { offset: end, message });
        }
        Ok(Reader { bytes: body, offset: 1 })
    }

    /// Of nothing: there is nothing to read.
    pub fn empty() -> Self {
        Reader { bytes: &[], offset: 0 }
    }

    /// What has not been read.
    pub fn rest(&self) -> &'a [u8] {
        self.bytes.get(self.offset..).unwrap_or_default()
    }

    /// All bytes must have been read.
    pub fn close(self) -> Result<(), EncodingError> {
        match self.remaining() {
            0 => Ok(()),
            left => Err(self.corrupt(format!("{left} bytes are left over"))),
        }
    }

    pub fn corrupt(&self, message: impl Into<String>) -> EncodingError {
        EncodingError::Corrupt { offset: self.offset, message: message.into() }
    }

    pub fn remaining(&self) -> usize {
        self.bytes.len() - self.offset
    }

    pub fn bytes(&mut self, length: usize) -> Result<&'a [u8], EncodingError> {
        let end = self.offset.checked_add(length).filter(|end| *end <= self.bytes.len());
        let end = end.ok_or(EncodingError::Truncated { offset: self.bytes.len() })?;
        let bytes = &self.bytes[self.offset..end];
        self.offset = end;
        Ok(bytes)
    }

    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], EncodingError> {
        let bytes = self.bytes(N)?;
        bytes.try_into().map_err(|_| EncodingError::Truncated { offset: self.offset })
    }

    pub fn byte(&mut self) -> Result<u8, EncodingError> {
        Ok(self.array::<1>()?[0])
    }

    /// A byte that is 0 or 1.
    pub fn flag(&mut self) -> Result<bool, EncodingError> {
        match self.byte()? {
            0 => Ok(false),
            1 => Ok(true),
            other => Err(self.corrupt(format!("{other} where 0 or 1 was expected"))),
        }
    }

    pub fn unsigned(&mut self) -> Result<u64, EncodingError> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                break;
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(self.corrupt("a number longer than 64 bits"))
    }

    pub fn signed(&mut self) -> Result<i64, EncodingError> {
        let value = self.unsigned()?;
        Ok((value >> 1) as i64 ^ -((value & 1) as i64))
    }

    /// A number of things that take at least `size` bytes each.
    pub fn length(&mut self, size: usize) -> Result<usize, EncodingError> {
        let value = self.unsigned()?;
        let length = usize::try_from(value)
            .ok()
            .filter(|length| length.checked_mul(size).is_some_and(|size| size <= self.remaining()));
        length.ok_or_else(|| {
            self.corrupt(format!("{value} items of {size} bytes, only {} bytes follow", self.remaining()))
        })
    }

    pub fn wide(&mut self) -> Result<i256, EncodingError> {
        let length = self.byte()?;
        if length > 32 {
            return Err(self.corrupt(format!("a number of {length} bytes, expected 32 at most")));
        }
        let bytes = self.bytes(usize::from(length))?;
        let sign = if bytes.last().is_some_and(|top| top & 0x80 != 0) { 0xff } else { 0 };
        let mut wide = [sign; 32];
        wide[..bytes.len()].copy_from_slice(bytes);
        Ok(i256::from_le_bytes(wide))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_come_back() {
        let numbers = [0, 1, -1, 63, -64, 64, 127, -128, 128, 255, -256, 1 << 40, i64::MAX, i64::MIN];
        let mut writer = Writer::versioned();
        for number in numbers {
            writer.signed(number);
            writer.unsigned(number as u64);
            writer.wide(i256::from_i128(i128::from(number)));
            writer.wide(i256::from_i128(i128::from(number)).wrapping_mul(i256::from_i128(i128::MAX)));
        }
        writer.wide(i256::MIN);
        writer.wide(i256::MAX);
        let bytes = writer.sealed();
        let mut reader = Reader::open(&bytes).unwrap();
        for number in numbers {
            assert_eq!(reader.signed().unwrap(), number);
            assert_eq!(reader.unsigned().unwrap(), number as u64);
            let wide = i256::from_i128(i128::from(number));
            assert_eq!(reader.wide().unwrap(), wide);
            assert_eq!(reader.wide().unwrap(), wide.wrapping_mul(i256::from_i128(i128::MAX)));
        }
        assert_eq!(reader.wide().unwrap(), i256::MIN);
        assert_eq!(reader.wide().unwrap(), i256::MAX);
        reader.close().unwrap();
    }
}
