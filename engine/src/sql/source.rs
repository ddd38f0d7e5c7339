//! A source's options: which exist, which belong together, which contradict.

use chrono::DateTime;

use super::ast::{Connector, FileFormat, SourceOptions, Spanned, Start};
use super::cursor::Cursor;
use super::diagnostic::Span;
use super::duration::parse_duration;
use super::options::{OptionReader, Options};
use super::suggest::did_you_mean;

/// Events further past the clock than this are refused, unless the source says otherwise: one day.
pub const DEFAULT_MAX_FUTURE: i64 = 300_000_000;

const KNOWN: &[&str] = &[
    "connector",
    "schema",
    "topic",
    "timestamp",
    "event_id",
    "location",
    "format",
    "history",
    "max_future",
    "retention",
    "partitions",
    "start",
    "dead_letter_topic",
    "kafka.*",
    "description",
    "owner",
];
const OF_KAFKA: [&str; 6] = ["topic", "history", "partitions", "start", "dead_letter_topic", "retention"];
const OF_FILES: [&str; 2] = ["location", "format"];
const MAX_PARTITIONS: u32 = 1024;

/// Checks a source's options. `None` if what it can't be without is missing or wrong; why is then reported.
pub(super) fn source_options(cursor: &mut Cursor, options: Options, name: Span) -> Option<SourceOptions> {
    let of_client = options.values.iter().filter(|option| option.key.value.starts_with("kafka."));
    let of_client: Vec<(String, Span)> = of_client.map(|option| (option.key.value.clone(), option.key.span)).collect();
    let mut reader = OptionReader::new(cursor, KNOWN, options, name);
    let has_connector = reader.tried("connector");
    let stated = reader.choice("connector", &[("kafka", Connector::Kafka), ("files", Connector::Files)]);
    let connector = stated.map_or(Connector::Kafka, |stated| stated.value);
    // A wrong connector says nothing about which options contradict it.
    let connector_known = stated.is_some() || !has_connector;
    let place = reader.stated("location");
    let meant_files = !has_connector && place.is_some() && reader.stated("topic").is_none();

    if connector_known {
        let foreign: Vec<(String, Span)> = match connector {
            Connector::Kafka => stated_among(&reader, &OF_FILES),
            Connector::Files => stated_among(&reader, &OF_KAFKA).into_iter().chain(of_client).collect(),
        };
        for (key, span) in foreign {
            foreign_option(&mut reader, connector, &key, span);
        }
    }
    if connector_known && connector == Connector::Kafka && !meant_files && !reader.tried("schema") {
        missing_schema(&mut reader, name);
    }
    let schema = reader.text("schema");
    let location = match connector {
        Connector::Files => reader.required("location", "where the files are: location = 'events/*.parquet'"),
        Connector::Kafka => reader.text("location"),
    };
    let has_format = reader.tried("format");
    let format = match reader.choice("format", &FileFormat::NAMES) {
        None if !has_format => location.as_ref().and_then(|location| format_of(&mut reader, connector, location)),
        stated => stated,
    };
    let topic = reader.text("topic");
    let dead_letter_topic = reader.text("dead_letter_topic");
    for topic in topic.iter().chain(&dead_letter_topic) {
        check_topic(&mut reader, topic);
    }
    let start = reader.text("start").and_then(|text| start(&mut reader, text));
    let timestamp = reader.required("timestamp", "the column with the event time: timestamp = 'event_time'");
    let event_id = reader.text("event_id");
    let history = reader.text("history").filter(|history| check_history(&mut reader, history));
    let max_future = reader.duration("max_future", 0).map_or(DEFAULT_MAX_FUTURE, |max| max.value);
    let retention = reader.text("retention").and_then(|text| retention(&mut reader, text));
    let partitions = reader.count("partitions", 1..=MAX_PARTITIONS);
    let kafka = reader.below("kafka.");
    let description = reader.text("description").map(|text| text.value);
    let owner = reader.text("owner").map(|text| text.value);
    reader.finish();

    let complete = connector_known
        && match connector {
            Connector::Kafka => schema.is_some() && location.is_none() && !has_format,
            Connector::Files => location.is_some() && format.is_some(),
        };
    let timestamp = timestamp.filter(|_| complete)?;
    Some(SourceOptions {
        connector,
        schema,
        topic,
        timestamp,
        event_id,
        location,
        format,
        history,
        max_future,
        retention,
        partitions,
        start,
        dead_letter_topic,
        kafka,
        description,
        owner,
    })
}

fn stated_among(reader: &OptionReader, keys: &[&str]) -> Vec<(String, Span)> {
    keys.iter().filter_map(|key| Some(((*key).to_owned(), reader.stated(key)?))).collect()
}

fn foreign_option(reader: &mut OptionReader, connector: Connector, key: &str, span: Span) {
    match connector {
        Connector::Kafka => {
            let hint = "add connector = 'files' if it reads files, or leave it out".to_owned();
            reader.error(
                span,
                format!("`{key}` has no meaning for a source that reads a topic"),
                "options of a topic: schema, topic, timestamp, …",
                Some(hint),
            );
        }
        Connector::Files => {
            let hint = match key {
                "retention" => "leave it out: the files are their own archive, and nothing here removes one",
                _ => "leave it out, or leave out connector = 'files'",
            };
            reader.error(
                span,
                format!("`{key}` has no meaning for a source that reads files"),
                "options of files: location, format, timestamp, …",
                Some(hint.to_owned()),
            );
        }
    }
}

fn missing_schema(reader: &mut OptionReader, name: Span) {
    if !reader.misspelt("schema") {
        let hint = "schema = 'NAME.v1' reads schemas/NAME.v1.avsc; for files: connector = 'files', location = 'events/*.parquet'";
        reader.error(
            name,
            "option `schema` is missing",
            "a source takes its columns from an Avro contract or from files",
            Some(hint.to_owned()),
        );
    }
}

/// From the location's ending, if no format is stated.
fn format_of(
    reader: &mut OptionReader,
    connector: Connector,
    location: &Spanned<String>,
) -> Option<Spanned<FileFormat>> {
    let ending = location.value.rsplit_once('.').map(|(_, ending)| ending.to_ascii_lowercase()).unwrap_or_default();
    let named = FileFormat::NAMES.iter().chain(&[("jsonl", FileFormat::Ndjson)]).find(|(name, _)| *name == ending);
    if let Some((_, format)) = named {
        return Some(Spanned { value: *format, span: location.span });
    }
    if connector == Connector::Files {
        let hint = "add format = 'parquet', 'csv', 'ndjson' or 'avro'".to_owned();
        let expected = "a location that ends in .parquet, .csv, .ndjson, .jsonl, .json or .avro";
        reader.error(
            location.span,
            "the location's ending doesn't say which format its files have",
            expected,
            Some(hint),
        );
    }
    None
}

fn check_topic(reader: &mut OptionReader, topic: &Spanned<String>) {
    let legal = topic.value.len() <= 249 && ![".", ".."].contains(&topic.value.as_str());
    if !legal || !topic.value.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c)) {
        reader.error(
            topic.span,
            format!("`{}` can't be a topic's name", topic.value),
            "up to 249 letters, digits, `.`, `_` and `-`",
            None,
        );
    }
}

/// A history is named here, and not looked at: the form of its location is what can be wrong.
fn check_history(reader: &mut OptionReader, history: &Spanned<String>) -> bool {
    const EXPECTED: &str =
        "Parquet files: a pattern such as 'history/*.parquet' or 's3://bucket/events/*.parquet', a folder or a file";
    const OTHERS: [&str; 5] = ["csv", "ndjson", "jsonl", "json", "avro"];
    let location = history.value.trim();
    let scheme = location.split_once("://").map(|(scheme, _)| scheme);
    let name = location.rsplit('/').next().unwrap_or_default();
    let ending = name.rsplit_once('.').map(|(_, ending)| ending.to_ascii_lowercase());
    let wrong = if location.is_empty() {
        "is empty".to_owned()
    } else if let Some(scheme) = scheme.filter(|scheme| !HISTORY_SCHEMES.contains(scheme)) {
        format!("is under {scheme}://, which isn't read")
    } else if let Err(e) = glob::Pattern::new(location) {
        format!("is no pattern: {}", e.msg)
    } else if let Some(ending) = ending.filter(|ending| OTHERS.contains(&ending.as_str())) {
        format!("has files that end in .{ending}")
    } else {
        return true;
    };
    reader.error(history.span, format!("`history` {wrong}"), EXPECTED, None);
    false
}

const HISTORY_SCHEMES: [&str; 5] = ["file", "s3", "gs", "az", "abfss"];

/// Compaction puts files together by days, and they go by days.
fn retention(reader: &mut OptionReader, text: Spanned<String>) -> Option<Spanned<i64>> {
    const DAY: i64 = 86_400_000_000;
    const EXPECTED: &str = "how much history the archive keeps, a day at least: retention = '400 days'";
    let Spanned { value, span } = text;
    let message = match parse_duration(&value) {
        Ok(micros) if micros >= DAY => return Some(Spanned { value: micros, span }),
        Ok(_) => "`retention` is shorter than a day".to_owned(),
        Err(error) => format!("`retention`: {error}"),
    };
    reader.error(span, message, EXPECTED, Some("without the option it keeps everything".to_owned()));
    None
}

fn start(reader: &mut OptionReader, text: Spanned<String>) -> Option<Spanned<Start>> {
    let Spanned { value, span } = text;
    let lower = value.trim().to_ascii_lowercase();
    let start = match lower.as_str() {
        "earliest" => Some(Start::Earliest),
        "latest" => Some(Start::Latest),
        other => match other.strip_prefix("offset ") {
            Some(offset) => offset.trim().parse().ok().map(Start::Offset),
            None => DateTime::parse_from_rfc3339(value.trim()).ok().map(|time| Start::Time(time.timestamp_micros())),
        },
    };
    if start.is_none() {
        let expected = "'earliest', 'latest', 'offset 42', or an instant such as '2026-01-31T00:00:00Z'";
        reader.error(
            span,
            format!("`start` can't be `{value}`"),
            expected,
            did_you_mean(&lower, ["earliest", "latest"]),
        );
    }
    start.map(|value| Spanned { value, span })
}
