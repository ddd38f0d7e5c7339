//! Names in Redis, and what a key's hash holds.
//!
//! ```text
//! <project>:<view>:<fingerprint>:{<key>}                 hash: a key's state
//!     <partition>          the absorbed offset in digits, a line feed, the head
//!     <partition>.<n>      chunk n
//! <project>:<view>:<fingerprint>:@progress:{<tag>}       hash: partition → next offset
//! <project>:@views                                       set: <view>:<fingerprint>
//! ```
//!
//! The braces are the cluster's hash tag: an entity's state in all views lies on one node, and each key is written by
//! itself. `%`, `:`, `{` and `}` in a view's name are percent-encoded; an entity key stands as it is.

use std::collections::BTreeMap;
use std::io::Write as _;

use bytes::Bytes;
use redis::{RedisWrite, ToRedisArgs};

use crate::kernel::EntityKey;
use crate::online::{StoredPiece, ViewId};

/// Names of one project.
#[derive(Debug, Clone)]
pub struct Layout {
    project: String,
}

impl Layout {
    pub fn new(project: &str) -> Self {
        Self { project: escape(project) }
    }

    /// The names of a view's entities.
    pub fn keys(&self, view: &ViewId) -> impl Fn(&EntityKey) -> String + use<> {
        let prefix = self.prefix(view);
        move |key| [&prefix, "{", key.as_str(), "}"].concat()
    }

    /// What the keys of all of a view's entities match, as `SCAN` has it.
    pub fn pattern(&self, view: &ViewId) -> String {
        glob(&self.prefix(view)) + "{*}"
    }

    /// What the keys of all entities of all views match.
    pub fn all(&self) -> String {
        glob(&format!("{}:", self.project)) + "*{*}"
    }

    /// The view of an entity's key.
    pub fn view_of(&self, key: &str) -> Option<ViewId> {
        let mut parts = key.strip_prefix(&self.project)?.strip_prefix(':')?.splitn(3, ':');
        let (name, fingerprint, entity) = (parts.next()?, parts.next()?, parts.next()?);
        entity.starts_with('{').then(|| ViewId { name: unescape(name), fingerprint: fingerprint.to_owned() })
    }

    /// The entity of a key that matches the pattern.
    pub fn entity(&self, view: &ViewId, key: &str) -> Option<EntityKey> {
        let text = key.strip_prefix(&self.prefix(view))?.strip_prefix('{')?.strip_suffix('}')?;
        Some(EntityKey::from(text.to_owned()))
    }

    pub fn progress(&self, view: &ViewId, tag: &str) -> String {
        format!("{}@progress:{{{tag}}}", self.prefix(view))
    }

    pub fn views(&self) -> String {
        format!("{}:@views", self.project)
    }

    pub fn member(&self, view: &ViewId) -> String {
        format!("{}:{}", escape(&view.name), view.fingerprint)
    }

    pub fn view(&self, member: &str) -> Option<ViewId> {
        let (name, fingerprint) = member.split_once(':')?;
        Some(ViewId { name: unescape(name), fingerprint: fingerprint.to_owned() })
    }

    fn prefix(&self, view: &ViewId) -> String {
        format!("{}:{}:{}:", self.project, escape(&view.name), view.fingerprint)
    }
}

/// A head's field.
pub fn head_field(partition: i32) -> String {
    partition.to_string()
}

pub fn chunk_field(partition: i32, chunk: u32) -> String {
    format!("{partition}.{chunk}")
}

/// The partition that a field of a key's hash belongs to.
pub fn partition(field: &str) -> Option<i32> {
    field.split_once('.').map_or(field, |(partition, _)| partition).parse().ok()
}

/// A head as it is stored, an argument of a command.
pub struct HeadValue<'a> {
    pub absorbed: i64,
    pub head: &'a [u8],
}

impl ToRedisArgs for HeadValue<'_> {
    fn write_redis_args<W: ?Sized + RedisWrite>(&self, to: &mut W) {
        let mut value = to.writer_for_next_arg();
        // A command is in memory: that takes everything.
        let _ = writeln!(value, "{}", self.absorbed).and_then(|()| value.write_all(self.head));
    }
}

/// A key's hash as pieces, ascending by partition. The error says what is wrong, and in which partition.
pub fn pieces(fields: Vec<(Vec<u8>, Vec<u8>)>) -> Result<Vec<StoredPiece>, (i32, &'static str)> {
    let mut heads: BTreeMap<i32, StoredPiece> = BTreeMap::new();
    let mut chunks: BTreeMap<(i32, u32), Bytes> = BTreeMap::new();
    for (field, value) in fields {
        let field = std::str::from_utf8(&field).map_err(|_| (0, "a field is not text"))?;
        match field.split_once('.') {
            None => {
                let partition = field.parse().map_err(|_| (0, "a field is neither a head nor a chunk"))?;
                heads.insert(partition, piece(partition, value).map_err(|wrong| (partition, wrong))?);
            }
            Some((partition, chunk)) => {
                let place = partition.parse().ok().zip(chunk.parse().ok());
                chunks.insert(place.ok_or((0, "a field is neither a head nor a chunk"))?, Bytes::from(value));
            }
        }
    }
    for ((partition, number), bytes) in chunks {
        heads.get_mut(&partition).ok_or((partition, "a chunk has no head"))?.chunks.push((number, bytes));
    }
    Ok(heads.into_values().collect())
}

/// A piece without its chunks, from its head's field.
pub fn piece(partition: i32, value: Vec<u8>) -> Result<StoredPiece, &'static str> {
    let wrong = "its head does not begin with an offset";
    let value = Bytes::from(value);
    let end = value.iter().position(|byte| *byte == b'\n').ok_or(wrong)?;
    let digits = value.get(..end).and_then(|digits| std::str::from_utf8(digits).ok());
    let absorbed = digits.and_then(|text| text.parse().ok()).ok_or(wrong)?;
    Ok(StoredPiece { partition, absorbed, head: value.slice(end + 1..), chunks: vec![] })
}

/// A text as a pattern that matches it alone.
fn glob(text: &str) -> String {
    let mut pattern = String::new();
    for c in text.chars() {
        if matches!(c, '*' | '?' | '[' | ']' | '\\' | '^' | '-') {
            pattern.push('\\');
        }
        pattern.push(c);
    }
    pattern
}

const ESCAPED: [(char, &str); 4] = [('%', "%25"), (':', "%3A"), ('{', "%7B"), ('}', "%7D")];

fn escape(text: &str) -> String {
    let escaped = |c: char| ESCAPED.iter().find(|(plain, _)| *plain == c).map(|(_, escaped)| *escaped);
    text.chars().map(|c| escaped(c).map_or_else(|| c.to_string(), str::to_owned)).collect()
}

fn unescape(text: &str) -> String {
    ESCAPED.iter().rev().fold(text.to_owned(), |text, (plain, escaped)| text.replace(escaped, &plain.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_back() {
        let layout = Layout::new("shop:eu");
        for (name, fingerprint) in [("user_spend", "f1"), ("vue é:{}%3A", "")] {
            let view = ViewId { name: name.into(), fingerprint: fingerprint.into() };
            assert_eq!(layout.view(&layout.member(&view)), Some(view.clone()));
            for key in ["1", "", "{x}", "a}b", "a:b"] {
                let key = EntityKey::from(key.to_owned());
                assert_eq!(layout.view_of(&layout.keys(&view)(&key)), Some(view.clone()));
                assert_eq!(layout.entity(&view, &layout.keys(&view)(&key)), Some(key));
            }
        }
        let view = ViewId { name: "user_spend".into(), fingerprint: "f1".into() };
        assert_eq!(layout.view_of(&layout.progress(&view, "7")), None);
        assert_eq!(layout.keys(&view)(&EntityKey::from("42".to_owned())), "shop%3Aeu:user_spend:f1:{42}");
    }

    #[test]
    fn a_damaged_hash_is_an_error() {
        let field = |name: &str, value: &[u8]| (name.as_bytes().to_vec(), value.to_vec());
        let read = |fields: Vec<_>| pieces(fields);
        let whole = read(vec![field("0.1", b"x"), field("0", b"-7\nhead\n"), field("-1", b"2\n")]).unwrap();
        assert_eq!((whole[0].partition, whole[0].absorbed, whole[0].head.len()), (-1, 2, 0));
        assert_eq!((whole[1].absorbed, whole[1].head.as_ref()), (-7, b"head\n".as_slice()));
        for damaged in
            [vec![field("0.1", b"x")], vec![field("0", b"x\n")], vec![field("x", b"")], vec![field("0", b"1")]]
        {
            assert!(read(damaged).is_err());
        }
    }
}
