//! A look at a file's bytes: their checksum, and where its last whole line ends.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;

use crc32fast::Hasher;

use super::location::Format;

/// The first bytes of a stretch.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Extent {
    pub bytes: u64,
    pub crc: u32,
    /// Whole lines in it: those that end outside quotes.
    pub lines: u64,
}

/// What was found between two places of a file.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Scan {
    pub all: Extent,
    /// Up to the end of the last whole line.
    pub whole: Extent,
    /// Whether it ends between quotes.
    pub quoted: bool,
}

/// Whether files of a format can be read on where they were appended to.
pub(super) fn is_text(format: Format) -> bool {
    matches!(format, Format::Csv | Format::NdJson)
}

/// Reads a file between two places; less, if it is shorter.
pub(super) fn scan(path: &Path, format: Format, from: u64, to: u64) -> io::Result<Scan> {
    let mut file = File::open(path)?;
    file.seek(SeekFrom::Start(from))?;
    let mut rest = file.take(to.saturating_sub(from));
    let mut buffer = vec![0; 1 << 18];
    let (mut hasher, mut scan) = (Hasher::new(), Scan::default());
    loop {
        let read = match rest.read(&mut buffer) {
            Ok(0) => break,
            Ok(read) => read,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            Err(e) => return Err(e),
        };
        let chunk = buffer.get(..read).unwrap_or_default();
        let mut end = None;
        if is_text(format) {
            for (i, byte) in chunk.iter().enumerate() {
                match byte {
                    b'"' if format == Format::Csv => scan.quoted = !scan.quoted,
                    b'\n' if !scan.quoted => {
                        scan.all.lines += 1;
                        end = Some(i + 1);
                    }
                    _ => {}
                }
            }
        }
        let (head, tail) = chunk.split_at(end.unwrap_or(0));
        hasher.update(head);
        if end.is_some() {
            let bytes = scan.all.bytes + head.len() as u64;
            scan.whole = Extent { bytes, crc: hasher.clone().finalize(), lines: scan.all.lines };
        }
        hasher.update(tail);
        scan.all.bytes += read as u64;
    }
    scan.all.crc = hasher.finalize();
    Ok(scan)
}
