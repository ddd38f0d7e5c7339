//! The stored form of a piece: a head and chunks, each with an id of its own in the store.
//!
//! What a view's fingerprint covers (the columns, their types, the folds, the tile length) is not repeated in the
//! bytes: state is read back only by a kernel of the same spec. All of it is deterministic: equal pieces with equal
//! chunk boundaries are equal bytes.
//!
//! # Layout, version 3
//!
//! Every head and every chunk begins with one byte, the version, and ends with a CRC-32 (IEEE, four bytes,
//! little-endian) of all bytes before it. A reader refuses another version by [`EncodingError::UnknownVersion`].
//!
//! * `u` is an unsigned LEB128 varint of at most 64 bits; `s` is a signed number as `u` of `(n << 1) ^ (n >> 63)`.
//! * `w` is a wide integer: one byte, the number of bytes that follow (0 to 32), then the fewest bytes of its two's
//!   complement, little-endian; the top bit of the last one is the sign. Zero is the single byte 0.
//! * `option(x)` is a byte 0, or a byte 1 and x. Times are microseconds UTC.
//!
//! ```text
//! head    = version flags [s absorbed] [s newest] [s oldest] [s complete_after] u(next chunk id)
//!           spans of rows, spans of tiles, hash chunks, [base] [rows] [tiles] crc
//!           flags: bits 0 to 6 say which of the seven in brackets are there; bit 7 is 0
//!           base: a state for each fold of the unbounded frames, in the kernel's order
//!           rows, tiles: the newest chunk of each while it is short, which has no entry of its own then
//! spans   = u(n) n·(u(chunk id) u(rows or tiles in it) s(first - last of the one before) u(last - first))
//!           ascending; first: its first event time, or its first tile's start; last: its last event time; before the first
//!           one stands 0
//! hash chunks = u(n) n·(u(chunk id) u(hashes in it))
//! chunk   = version kind body crc                      kind: 0 rows, 1 tiles, 2 id hashes
//! rows    = u(n) s(first time) (n-1)·u(time - time before)
//!           s(first offset) (n-1)·s(offset - offset before)
//!           [column of event ids, if the source names one] a column for each column of the spec
//!           ascending by time, then offset; n is 1 to 256 as written today
//! tiles   = u(n) n·tile                                ascending by start; n is 1 to 64 as written today
//! tile    = s(start) u(min time - start) u(max time - min time) u(h) h·(hash, 8 bytes) states
//!           states: one for each fold, in the kernel's order; hashes ascend
//! hashes  = u(h) h·(hash, 8 bytes)                     of the events in the base, in no order
//! ```
//!
//! A hash is the first eight bytes of SHA-256 over the event time (8 bytes, little-endian) and the event id (a
//! string's or binary's bytes; a number in 16 bytes, a 256-bit decimal in 32, little-endian; floats as under value).
//!
//! A **column** of n rows is a byte, 0 if no row is NULL, else 1 and a bitmap (⌈n/8⌉ bytes, lowest bit first, 1 = not
//! NULL); then the m rows that are not NULL:
//!
//! ```text
//! numbers, dates, times, decimals   m·(the arrow value, little-endian, as wide as its type)
//! booleans                          ⌈m/8⌉ bytes, lowest bit first
//! strings, binaries (all sorts)     m·u(length), then the bytes of all
//! fixed size binary                 m·(its bytes)
//! lists, maps                       m·u(length), then one column of all items (of a map: of its entries)
//! fixed size list                   one column of m·size items
//! struct                            a column of m rows for each field
//! dictionary                        a column of m values
//! null                              nothing
//! ```
//!
//! A **state** is written by its fold's kind:
//!
//! ```text
//! COUNT                             s(count)
//! SUM, AVG of integers, decimals    u(count) w(sum)
//! SUM, AVG of doubles               u(count) exact
//! VAR, STDDEV                       u(count) exact(sum) exact(sum of squares)
//! MIN, MAX                          option(value)
//! DISTINCT                          u(n) n·value, ascending
//! FIRST_VALUE, LAST_VALUE           option(s(time) s(partition) s(offset) option(value))
//! exact                             a byte: bit 0 the sum is negative, bit 1 there are counts
//!                                   [u(NaNs) u(+infinities) u(-infinities)]
//!                                   u(d) [s(low) d·(digit, 4 bytes, little-endian)]
//!                                   |sum| = Σ digit_i · 2^(32·(low + i) - 2176)
//! value                             strings, binaries: u(length) bytes; others: w(number), where a float is its bits
//!                                   as a signed integer, all but the sign flipped if negative
//! ```

pub(crate) mod bytes;
pub(crate) mod column;
pub(crate) mod extend;
pub(crate) mod piece;
pub(crate) mod state;

pub use piece::PieceDelta;

#[cfg(doc)]
use crate::kernel::EncodingError;
