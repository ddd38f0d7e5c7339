//! How a message says which schema it was written with.
//!
//! Two framings, told apart by the first byte: Avro's single-object encoding (`C3 01`, the schema's fingerprint in eight
//! bytes, little endian) and Confluent's wire format (`00`, the schema's id in a registry in four bytes, big endian).
//! Either is followed by the datum alone.

use std::fmt;

use arrow_avro::schema::{Fingerprint, FingerprintAlgorithm};

/// What names the schema that a message was written with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum WriterId {
    /// CRC-64-AVRO (Rabin) of the schema's parsing canonical form: single-object encoding.
    Rabin(u64),
    /// The schema's id in a schema registry: Confluent's wire format.
    Registry(u32),
}

const SINGLE_OBJECT: [u8; 2] = [0xC3, 0x01];
const CONFLUENT: [u8; 1] = [0x00];

impl fmt::Display for WriterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            WriterId::Rabin(fingerprint) => write!(f, "{fingerprint:016x}"),
            WriterId::Registry(id) => write!(f, "with registry id {id}"),
        }
    }
}

impl WriterId {
    /// What a message says of its writer's schema, or why it says nothing.
    pub(super) fn of(payload: &[u8]) -> Result<WriterId, String> {
        match payload {
            [] => Err("the message is empty; expected an event; hint: if it is a tombstone, \
                       a tombstone takes no event back"
                .into()),
            [0xC3, 0x01, a, b, c, d, e, f, g, h, ..] => {
                Ok(WriterId::Rabin(u64::from_le_bytes([*a, *b, *c, *d, *e, *f, *g, *h])))
            }
            [0x00, a, b, c, d, ..] => Ok(WriterId::Registry(u32::from_be_bytes([*a, *b, *c, *d]))),
            [0xC3, 0x01, ..] => {
                Err("the message ends within its header; expected c3 01 and 8 bytes of fingerprint".into())
            }
            [0x00, ..] => Err("the message ends within its header; expected 00 and 4 bytes of schema id".into()),
            [first, ..] => Err(format!(
                "the message starts with byte {first:02x}; expected Avro single-object encoding, which starts with \
                 c3 01, or Confluent's wire format, which starts with 00"
            )),
        }
    }

    /// The datum of a message written with this schema, framed.
    pub(super) fn frame(self, datum: &[u8]) -> Vec<u8> {
        match self {
            WriterId::Rabin(fingerprint) => [&SINGLE_OBJECT[..], &fingerprint.to_le_bytes(), datum].concat(),
            WriterId::Registry(id) => [&CONFLUENT[..], &id.to_be_bytes(), datum].concat(),
        }
    }

    /// As arrow-avro knows it, with the algorithm that makes it expect this framing.
    pub(super) fn fingerprint(self) -> (Fingerprint, FingerprintAlgorithm) {
        match self {
            WriterId::Rabin(fingerprint) => (Fingerprint::Rabin(fingerprint), FingerprintAlgorithm::Rabin),
            WriterId::Registry(id) => (Fingerprint::Id(id), FingerprintAlgorithm::Id),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_framed_says_who_wrote_it() {
        for writer in [WriterId::Rabin(0), WriterId::Rabin(u64::MAX - 1), WriterId::Registry(0), WriterId::Registry(7)]
        {
            let framed = writer.frame(&[1, 2]);
            assert_eq!(WriterId::of(&framed), Ok(writer));
            assert!(framed.ends_with(&[1, 2]));
        }
        assert_eq!(WriterId::Registry(258).frame(&[9]), [0, 0, 0, 1, 2, 9]);
        assert_eq!(WriterId::Rabin(258).frame(&[9]), [0xC3, 1, 2, 1, 0, 0, 0, 0, 0, 0, 9]);
    }

    #[test]
    fn what_is_not_framed_has_a_reason() {
        let cases: [(&[u8], &str); 5] = [
            (&[], "a tombstone takes no event back"),
            (&[0xC3, 1, 2, 3], "8 bytes of fingerprint"),
            (&[0, 0, 0, 1], "4 bytes of schema id"),
            (b"{}", "starts with byte 7b"),
            (&[0xC3], "starts with byte c3"),
        ];
        for (payload, reason) in cases {
            let said = WriterId::of(payload).unwrap_err();
            assert!(said.contains(reason), "{said}");
        }
    }
}
