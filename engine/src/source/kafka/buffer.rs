//! What was fetched of one partition and not read yet: decisions only, no I/O.
//!
//! Guarantees: a read from an offset gives the messages at and after it with none left out, whatever was fetched before;
//! if what is buffered doesn't connect to that offset, it asks for a seek. A stretch without messages (transaction
//! markers, what compaction took) is skipped only once the broker has said that its end lies behind it.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::source::Message;

/// How long the end may stay out of reach before the partition is looked at anew.
const PATIENCE: Duration = Duration::from_secs(1);
/// Payload of a read that is kept for a reader who reads it again.
const SHORT: usize = 1 << 20;
/// What a message takes beside its payload: its place here, and the allocator's rounding.
const PLACE: usize = size_of::<Message>() + 16;

#[derive(Debug, Default)]
pub struct Buffer {
    /// Every message from `base` on and below `next` is in `messages`. None before the first seek.
    reach: Option<Reach>,
    messages: VecDeque<Message>,
    bytes: usize,
    /// Where to fetch from next, for the consumer to do.
    pub seek: Option<i64>,
    /// The end as the broker said last; None before it was asked.
    pub end: Option<i64>,
    /// Offsets that the fetcher skipped.
    pub gap: Option<(i64, i64)>,
    /// It may have ended before what was fetched of it, for the consumer to ask.
    pub doubtful: bool,
    /// The partition ended before what was read of it: it is another one.
    pub shrunk: Option<(i64, i64)>,
    /// The fetcher has read to the end, and nothing has come since.
    at_end: bool,
    /// Since when the reader stands before an end that it doesn't reach.
    stuck: Option<Instant>,
    /// The last read, for a reader who reads it again; a long one is fetched again.
    last: Option<(i64, Vec<Message>)>,
}

#[derive(Debug, Clone, Copy)]
struct Reach {
    base: i64,
    next: i64,
    /// The end when the fetcher was sent to `base`; nothing has come since.
    untouched: Option<i64>,
}

/// What a read found.
#[derive(Debug, PartialEq, Eq)]
pub enum Taken {
    /// At least one message.
    Messages(Vec<Message>),
    /// There is nothing below this offset.
    Gap(i64),
    Nothing,
}

impl Buffer {
    /// Takes a fetched message. What doesn't come after what is there is from before a seek, and ignored.
    pub fn push(&mut self, message: Message) {
        let Some(reach) = self.reach.as_mut().filter(|reach| self.seek.is_none() && message.offset >= reach.next)
        else {
            return;
        };
        if message.offset > reach.next {
            let from = self.gap.map_or(reach.next, |(from, _)| from);
            self.gap = Some((from, message.offset));
        }
        reach.next = message.offset + 1;
        reach.untouched = None;
        self.end = self.end.max(Some(reach.next));
        self.at_end = false;
        self.bytes += message.payload.len();
        self.messages.push_back(message);
    }

    /// The fetcher was sent to `seek`, when the partition's end was at `end`.
    pub fn sought(&mut self, offset: i64, end: i64) {
        if self.seek == Some(offset) {
            self.seek = None;
        }
        self.clear();
        self.end = Some(end);
        self.reach = Some(Reach { base: offset, next: offset, untouched: Some(end) });
    }

    /// How far the fetcher has come.
    pub fn reached(&self) -> Option<i64> {
        self.reach.map(|reach| reach.next)
    }

    /// The broker says where the partition ends. It was asked when the fetcher had come to `reached`: only what was there
    /// before the question can be missing from the answer, whatever came meanwhile.
    pub fn ends_at(&mut self, end: i64, reached: Option<i64>) {
        match reached.filter(|reached| end < *reached) {
            Some(reached) => {
                self.shrunk.get_or_insert((end, reached));
            }
            None => self.end = self.end.max(Some(end)),
        }
    }

    /// The client says where the partition ended some time ago. If that is before what was fetched, the broker is to be
    /// asked whether that was fetched since.
    pub fn ended_at(&mut self, end: i64) {
        self.end = self.end.max(Some(end));
        self.doubtful |= self.reach.is_some_and(|reach| end < reach.next);
    }

    /// The fetcher has read to the end.
    pub fn reached_end(&mut self) {
        if self.seek.is_some() {
            return;
        }
        self.at_end = true;
        if let Some(reach) = &mut self.reach
            && let Some(end) = reach.untouched.take()
        {
            reach.next = reach.next.max(end);
        }
    }

    /// Messages at and after `from`: at most so many, and about so many bytes.
    pub fn read(&mut self, from: i64, max_records: usize, max_bytes: usize) -> Taken {
        if let Some((_, messages)) = self.last.as_ref().filter(|(offset, _)| *offset == from) {
            return Taken::Messages(messages.clone());
        }
        let connected = self.seek.is_none() && self.reach.is_some_and(|r| r.base <= from && from <= r.next);
        if !connected {
            self.look_from(from);
            return Taken::Nothing;
        }
        while self.messages.front().is_some_and(|message| message.offset < from) {
            self.pop();
        }
        let (mut taken, mut bytes) = (vec![], 0);
        while let Some(message) = self.messages.front()
            && (taken.is_empty() || (taken.len() < max_records && bytes + message.payload.len() <= max_bytes))
        {
            bytes += message.payload.len();
            taken.extend(self.pop());
        }
        let Some(reach) = &mut self.reach else { return Taken::Nothing };
        if let Some(last) = taken.last() {
            reach.base = last.offset + 1;
            self.stuck = None;
            self.last = (bytes <= SHORT).then(|| (from, taken.clone()));
            return Taken::Messages(taken);
        }
        reach.base = from;
        if from < reach.next {
            reach.base = reach.next;
            return Taken::Gap(reach.next);
        }
        if self.at_end && self.end.is_some_and(|end| from < end) {
            let since = *self.stuck.get_or_insert_with(Instant::now);
            if since.elapsed() >= PATIENCE {
                self.look_from(from);
            }
        } else {
            self.stuck = None;
        }
        Taken::Nothing
    }

    /// Whether a read from an offset takes at least half of what it may: one that is begun before it is asked for isn't shorter for it.
    pub fn has_much(&self, from: i64, max_records: usize, max_bytes: usize) -> bool {
        let next = self.messages.front().is_some_and(|message| message.offset == from);
        next && self.seek.is_none() && (self.messages.len() >= max_records / 2 || self.bytes >= max_bytes / 2)
    }

    /// Whether everything there was has been read.
    pub fn exhausted(&self) -> bool {
        let before_end = self.reach.zip(self.end).is_none_or(|(reach, end)| reach.next < end);
        self.seek.is_none() && self.messages.is_empty() && self.at_end && !before_end
    }

    /// Memory that it takes, about.
    pub fn bytes(&self) -> usize {
        self.bytes + self.messages.len() * PLACE
    }

    fn look_from(&mut self, offset: i64) {
        self.clear();
        self.reach = None;
        self.seek = Some(offset);
    }

    fn clear(&mut self) {
        self.messages.clear();
        self.bytes = 0;
        self.at_end = false;
        self.stuck = None;
        self.last = None;
    }

    fn pop(&mut self) -> Option<Message> {
        let message = self.messages.pop_front()?;
        self.bytes -= message.payload.len();
        Some(message)
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn message(offset: i64) -> Message {
        Message { offset, ingested_at: 0, payload: Bytes::from_static(b"abc") }
    }

    fn offsets(taken: Taken) -> Vec<i64> {
        match taken {
            Taken::Messages(messages) => messages.iter().map(|message| message.offset).collect(),
            Taken::Gap(to) => panic!("a gap to {to}"),
            Taken::Nothing => vec![],
        }
    }

    fn at(offset: i64, end: i64) -> Buffer {
        let mut buffer = Buffer::default();
        assert_eq!(buffer.read(offset, 10, 1000), Taken::Nothing);
        assert_eq!(buffer.seek, Some(offset));
        buffer.push(message(0)); // from before the seek
        buffer.reached_end(); // so is this
        buffer.sought(offset, end);
        buffer
    }

    #[test]
    fn a_read_leaves_nothing_out() {
        let mut buffer = at(5, 9);
        (5..9).for_each(|offset| buffer.push(message(offset)));
        assert_eq!(offsets(buffer.read(5, 2, 1000)), [5, 6]);
        assert_eq!(offsets(buffer.read(5, 2, 1000)), [5, 6], "read again");
        assert_eq!(offsets(buffer.read(7, 10, 4)), [7], "by bytes");
        assert_eq!(buffer.bytes(), 3 + PLACE);
        assert_eq!(offsets(buffer.read(8, 10, 1000)), [8]);
        assert_eq!(buffer.read(9, 10, 1000), Taken::Nothing);
        assert!(!buffer.exhausted());
        buffer.reached_end();
        assert!(buffer.exhausted());
        assert_eq!(offsets(buffer.read(6, 2, 1000)), [] as [i64; 0]);
        assert_eq!(buffer.seek, Some(6), "what was read before is fetched again");
        assert!(!buffer.exhausted());
    }

    #[test]
    fn much_is_half_of_what_a_read_takes_and_connects_to_where_it_begins() {
        let mut buffer = at(5, 20);
        (5..9).for_each(|offset| buffer.push(message(offset)));
        assert!(buffer.has_much(5, 8, 1000) && !buffer.has_much(5, 10, 1000));
        assert!(buffer.has_much(5, 100, buffer.bytes * 2) && !buffer.has_much(5, 100, buffer.bytes * 2 + 2));
        assert!(!buffer.has_much(4, 2, 1000) && !buffer.has_much(6, 2, 1000), "it doesn't begin there");
        assert_eq!(buffer.bytes(), buffer.bytes + 4 * PLACE);
    }

    #[test]
    fn a_long_read_is_fetched_again() {
        let mut buffer = at(5, 20);
        (5..12).for_each(|offset| buffer.push(Message { payload: vec![0; SHORT / 2].into(), ..message(offset) }));
        assert_eq!(offsets(buffer.read(5, 2, 2 * SHORT)), [5, 6]);
        assert_eq!(offsets(buffer.read(5, 2, 2 * SHORT)), [5, 6], "short enough");
        assert_eq!(offsets(buffer.read(7, 3, 2 * SHORT)), [7, 8, 9]);
        assert_eq!(offsets(buffer.read(7, 3, 2 * SHORT)), [] as [i64; 0]);
        assert_eq!(buffer.seek, Some(7));
    }

    #[test]
    fn a_partition_that_begins_anew_is_noticed() {
        let mut buffer = at(5, 9);
        (5..8).for_each(|offset| buffer.push(message(offset)));
        buffer.ends_at(9, buffer.reached());
        assert_eq!((buffer.shrunk, buffer.gap), (None, None));
        buffer.ended_at(8);
        assert!(!buffer.doubtful);
        buffer.ended_at(7);
        assert!(buffer.doubtful);
        buffer.ends_at(7, Some(7));
        assert_eq!(buffer.shrunk, None, "an answer from before the last message");
        assert_eq!(buffer.end, Some(9));
        buffer.push(message(9));
        assert_eq!(buffer.gap, Some((8, 9)));
        buffer.push(message(2)); // from before a seek
        assert_eq!(buffer.shrunk, None);
        let mut buffer = at(5, 9);
        buffer.push(message(5));
        buffer.ends_at(3, buffer.reached());
        assert_eq!(buffer.shrunk, Some((3, 6)));
    }

    #[test]
    fn a_skip_ahead_keeps_what_is_buffered() {
        let mut buffer = at(0, 10);
        (0..10).for_each(|offset| buffer.push(message(offset)));
        assert_eq!(offsets(buffer.read(4, 2, 1000)), [4, 5]);
        assert_eq!(buffer.read(20, 2, 1000), Taken::Nothing);
        assert_eq!(buffer.seek, Some(20));
    }

    #[test]
    fn what_holds_no_messages_is_skipped_once_the_end_lies_behind_it() {
        let mut buffer = at(5, 9);
        assert_eq!(buffer.read(5, 2, 1000), Taken::Nothing);
        buffer.reached_end();
        assert_eq!(buffer.read(5, 2, 1000), Taken::Gap(9));
        assert_eq!(buffer.read(9, 2, 1000), Taken::Nothing);
        assert!(buffer.exhausted());
        // An end that was learned of later says nothing of what the fetcher has passed.
        let mut buffer = at(5, 6);
        buffer.push(message(5));
        buffer.end = Some(9);
        assert_eq!(offsets(buffer.read(5, 2, 1000)), [5]);
        buffer.reached_end();
        assert_eq!(buffer.read(6, 2, 1000), Taken::Nothing);
        assert!(!buffer.exhausted());
        buffer.stuck = Instant::now().checked_sub(PATIENCE);
        assert_eq!(buffer.read(6, 2, 1000), Taken::Nothing);
        assert_eq!(buffer.seek, Some(6), "it is looked at anew");
    }
}
