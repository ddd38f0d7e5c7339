//! Hash tags spread over a cluster's slots, so that every server that holds keys holds one of them.

/// Slots of a Redis cluster.
const SLOTS: u16 = 16384;
/// One tag for every so many slots: a server with fewer in a row than twice that could be without one.
const STRIDE: u16 = 256;

/// The tags of a cluster; one is enough for one server.
pub fn tags(cluster: bool) -> Vec<String> {
    if !cluster {
        return vec!["0".to_owned()];
    }
    let mut found: Vec<Option<String>> = vec![None; usize::from(SLOTS / STRIDE)];
    let mut left = found.len();
    for number in 0u32.. {
        if left == 0 {
            break;
        }
        let tag = number.to_string();
        if let Some(place @ None) = found.get_mut(usize::from(slot(tag.as_bytes()) / STRIDE)) {
            *place = Some(tag);
            left -= 1;
        }
    }
    found.into_iter().flatten().collect()
}

/// The slot of a tag: CRC-16/XMODEM, as the cluster's specification has it.
fn slot(tag: &[u8]) -> u16 {
    let shift = |crc: u16, _| if crc & 0x8000 == 0 { crc << 1 } else { (crc << 1) ^ 0x1021 };
    let crc = tag.iter().fold(0u16, |crc, byte| (0..8).fold(crc ^ (u16::from(*byte) << 8), shift));
    crc % SLOTS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_the_specifications() {
        // The check value of CRC-16/XMODEM.
        assert_eq!(slot(b"123456789"), 0x31C3);
        assert_eq!(slot(b"foo"), 12182);
    }

    #[test]
    fn every_stretch_of_slots_has_its_tag() {
        let found: Vec<u16> = tags(true).iter().map(|tag| slot(tag.as_bytes()) / STRIDE).collect();
        assert_eq!(found, (0..SLOTS / STRIDE).collect::<Vec<_>>());
        assert_eq!(tags(false).len(), 1);
    }
}
