//! The language as a whole: what is accepted, what is refused and how that reads, and that nothing panics.

use std::{env, fs, path::Path};

use rand::{RngExt as _, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::*;

fn parse(text: &str) -> (Vec<Definition>, Vec<Diagnostic>) {
    parse_file(SourceFile::new("features/a.sql", text))
}

/// The only definition of a text without errors.
fn accepted(text: &str) -> Definition {
    let (mut definitions, errors) = parse(text);
    assert!(errors.is_empty(), "{}", Diagnostics::from(errors));
    assert_eq!(definitions.len(), 1, "{text}");
    definitions.remove(0)
}

/// `line:column message` of every error, in order.
fn refused(text: &str) -> Vec<String> {
    let all = Diagnostics::from(parse(text).1);
    all.sorted().iter().map(|error| format!("{}:{} {}", error.span.line, error.span.column, error.message)).collect()
}

#[test]
fn a_kafka_source() {
    let text = "-- Card transactions.\nCREATE SOURCE Transactions WITH (\n schema = 'transactions.v1', topic = 'tx', TIMESTAMP = 'event_time', event_id='id',\n 'start' = 'offset 42', max_future = '5 minutes', partitions = 4, dead_letter_topic = 'dead',\n history = 's3://b/e/*.parquet', kafka.security.protocol = 'SSL', 'kafka.fetch.min.bytes' = 5, kafka.check.crcs = TRUE, owner = 'fraud',)";
    let Definition::Source(source) = accepted(text) else { panic!("not a source") };
    assert_eq!((source.name.value.as_str(), source.name.span), ("transactions", Span::new(2, 15, 12)));
    assert_eq!(source.span, Span::new(2, 1, 33));
    assert_eq!(source.doc.as_deref(), Some("Card transactions."));
    assert_eq!(source.topic(), "tx");
    let options = &source.options;
    assert_eq!(options.connector, Connector::Kafka);
    assert_eq!(options.schema, Some(Spanned { value: "transactions.v1".into(), span: Span::new(3, 11, 17) }));
    assert_eq!((options.timestamp.value.as_str(), options.max_future), ("event_time", 300_000_000));
    assert_eq!(options.start.map(|start| start.value), Some(Start::Offset(42)));
    assert_eq!(options.partitions.map(|count| count.value), Some(4));
    let kafka: Vec<(&str, &str)> = options.kafka.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
    assert_eq!(kafka, [("check.crcs", "true"), ("fetch.min.bytes", "5"), ("security.protocol", "SSL")]);
}

#[test]
fn a_source_of_files_and_what_is_left_out() {
    let Definition::Source(source) =
        accepted("CREATE SOURCE e WITH (connector = 'Files', location = 'events/*.jsonl', timestamp = 't');")
    else {
        panic!("not a source")
    };
    assert_eq!(source.options.connector, Connector::Files);
    assert_eq!(source.options.format.as_ref().map(|format| format.value), Some(FileFormat::Ndjson));
    assert_eq!((source.options.max_future, source.topic(), source.doc.as_deref()), (DEFAULT_MAX_FUTURE, "e", None));
    for (text, format) in [
        ("location = 'a.PARQUET'", FileFormat::Parquet),
        ("location = 'a/', format = 'csv'", FileFormat::Csv),
        ("location = 'a.csv', format = 'avro'", FileFormat::Avro),
    ] {
        let Definition::Source(source) =
            accepted(&format!("CREATE SOURCE e WITH (connector = 'files', {text}, timestamp = 't')"))
        else {
            panic!("not a source")
        };
        assert_eq!(source.options.format.map(|format| format.value), Some(format), "{text}");
    }
    let time = accepted("CREATE SOURCE e WITH (schema = 's', timestamp = 't', start = '2026-01-31T01:00:00.5+01:00')");
    let Definition::Source(source) = time else { panic!("not a source") };
    assert_eq!(source.options.start.map(|start| start.value), Some(Start::Time(1_769_817_600_500_000)));
}

#[test]
fn a_table() {
    let text = "CREATE EXTERNAL TABLE Merchants (id BIGINT NOT NULL, \"Name\" VARCHAR) STORED AS CSV LOCATION 'm/' OPTIONS (has_header TRUE, 'format.delimiter' ';');";
    let Definition::Table(table) = accepted(text) else { panic!("not a table") };
    assert_eq!((table.name.value.as_str(), table.file_type), ("merchants", FileFormat::Csv));
    let columns: Vec<String> = table
        .columns
        .iter()
        .map(|column| format!("{} {} {}", column.name.value, column.data_type, column.nullable))
        .collect();
    assert_eq!(columns, ["id BIGINT false", "Name VARCHAR true"]);
    assert_eq!(table.location, Spanned { value: "m/".into(), span: Span::new(1, 93, 4) });
    let options: Vec<(&str, &str, OptionKind)> =
        table.options.iter().map(|option| (option.key.value.as_str(), option.value.as_str(), option.kind)).collect();
    assert_eq!(
        options,
        [("format.has_header", "TRUE", OptionKind::Bool), ("format.delimiter", ";", OptionKind::String)]
    );
    let Definition::Table(table) =
        accepted("CREATE EXTERNAL TABLE t LOCATION 'a' STORED AS parquet OPTIONS ('compression::c' 'zstd(3)')")
    else {
        panic!("not a table")
    };
    assert_eq!((table.file_type, table.options.len()), (FileFormat::Parquet, 1));
}

#[test]
fn views_services_and_training_sets() {
    let Definition::View(view) = accepted("CREATE VIEW v AS\n  WITH c AS (SELECT 1) SELECT *\nFROM c;") else {
        panic!("not a view")
    };
    assert_eq!(
        (view.query.to_string().as_str(), view.query_span),
        ("WITH c AS (SELECT 1) SELECT * FROM c", Span::new(2, 3, 29))
    );

    let text = "CREATE FEATURE VIEW f WITH (description = 'It''s', tile = '5 minutes', lateness = '1 day') AS SELECT k, -- the key\n COUNT(*) OVER (hour ROWS 3 PRECEDING) AS n FROM t WINDOW w AS (PARTITION BY k), hour AS (w ORDER BY ts);";
    let Definition::FeatureView(view) = accepted(text) else { panic!("not a feature view") };
    assert_eq!(view.options.description.as_deref(), Some("It's"));
    assert_eq!(
        (view.options.tile.map(|tile| tile.value), view.options.lateness.map(|l| l.value)),
        (Some(300_000_000), Some(86_400_000_000))
    );
    assert_eq!(
        view.query.to_string(),
        "SELECT k, COUNT(*) OVER (PARTITION BY k ORDER BY ts ROWS 3 PRECEDING) AS n FROM t"
    );
    assert_eq!(view.column_docs.get("k").map(String::as_str), Some("the key"));

    let Definition::FeatureService(service) = accepted(
        "CREATE FEATURE SERVICE s (user_id BIGINT, Amount DOUBLE PRECISION) WITH (owner = 'x') AS SELECT amount -- doc\nFROM request",
    ) else {
        panic!("not a service")
    };
    let signature: Vec<String> = service
        .signature
        .iter()
        .map(|column| format!("{} {} {}", column.name.value, column.data_type, column.span.column))
        .collect();
    assert_eq!(signature, ["user_id BIGINT 27", "amount DOUBLE PRECISION 43"]);
    assert_eq!((service.options.owner.as_deref(), service.column_docs.len()), (Some("x"), 1));

    let Definition::TrainingSet(set) =
        accepted("CREATE TRAINING SET ts WITH (service = 's', timestamp = 'at') AS SELECT 1 AS at")
    else {
        panic!("not a training set")
    };
    assert_eq!((set.options.service.value.as_str(), set.options.timestamp.value.as_str()), ("s", "at"));
}

#[test]
fn empty_files_and_line_endings() {
    for text in ["", "  \n", ";;", "-- only a comment", "/* and\r\n another */ ;\n-- x\n"] {
        let (definitions, errors) = parse(text);
        assert!(definitions.is_empty() && errors.is_empty(), "{text:?}");
    }
    assert_eq!(
        refused("CREATE VIEW a AS SELECT 1;\r\n\r\n\tCREATE VUE b AS SELECT 1;\r\n"),
        ["3:9 `CREATE VUE` isn't understood"]
    );
    assert_eq!(refused("/* ü */ CREATE SOURCE å.b WITH ()"), ["1:24 unexpected `.`"]);
}

#[test]
fn errors_do_not_hide_each_other() {
    let text = "CREATE SOURCE a WITH (schma = 's', topic = 5, timestamp 't', owner = x, partitions = 0);\nCREATE FEATURE VIEW b WITH (tile = '0 s', tile = '1 s', ownr = 'x') AS SELECT sum(a) OVER w, FROM t;\nCREATE VIEW c AS SELECT 1;";
    let expected = [
        "1:23 unknown option `schma`",
        "1:44 `topic` isn't a string",
        "1:57 unexpected `'t'`",
        "1:70 unexpected `x`",
        "1:86 `partitions` isn't a whole number in its range",
        "2:36 `tile` is too short",
        "2:43 option `tile` is stated twice",
        "2:57 unknown option `ownr`",
    ];
    let found = refused(text);
    for error in expected {
        assert!(found.iter().any(|line| line == error), "{error} not in {found:#?}");
    }
    assert_eq!(parse(text).0.iter().map(|d| d.name().value.clone()).collect::<Vec<_>>(), ["c"]);
}

#[test]
fn a_definition_with_a_lesser_error_still_comes_out() {
    let (definitions, errors) = parse("CREATE FEATURE VIEW b WITH (owner = 5) AS SELECT 1;");
    assert_eq!((definitions.len(), errors.len()), (1, 1));
    let (definitions, errors) = parse("CREATE SOURCE b WITH (schema = 's');");
    assert_eq!((definitions.len(), errors.len()), (0, 1));
    assert!(Diagnostics::from(errors).concern("b"));
    let (_, errors) = parse("CREATE FEATURE VIEW b AS SELECT 'x;\n");
    assert!(Diagnostics::from(errors).concern("b"));
}

#[test]
fn folders_are_read_with_every_error() {
    let folder = tempfile::tempdir().unwrap();
    let features = folder.path().join("features");
    let write = |path: &str, bytes: &[u8]| {
        let path = features.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    };
    write("b/view.sql", b"\xef\xbb\xbfCREATE VIEW a AS SELECT 1;");
    write("a.SQL", b"CREATE VIEW a AS SELECT 2; CREATE VIEW b AS SELECT 3");
    write("b/bad.sql", b"CREATE VIEW c\nAS \xff SELECT");
    write("notes.txt", b"not SQL");
    write(".hidden/x.sql", b"not SQL");
    write("empty.sql", b"");
    let (definitions, errors) = load(folder.path(), &features).unwrap();
    let names: Vec<String> =
        definitions.iter().map(|d| format!("{} {}:{}", d.name().value, d.file().path, d.name().span.column)).collect();
    assert_eq!(names, ["a features/a.SQL:13", "b features/a.SQL:40"]);
    let shown: Vec<String> = errors
        .sorted()
        .iter()
        .map(|e| format!("{}:{}:{} {}", e.file.path, e.span.line, e.span.column, e.message))
        .collect();
    assert_eq!(
        shown,
        [
            "features/b/bad.sql:2:4 the file isn't UTF-8 text",
            "features/b/view.sql:1:13 `a` is already the name of a view"
        ]
    );
    assert!(errors.to_string().contains("hint: the first is at features/a.SQL:1:13"));
    assert!(load(folder.path(), &folder.path().join("none")).unwrap_err().to_string().contains("none can't be read"));
}

/// `rejected/*.sql` hold what is refused, `rejected.txt` how that reads. `UPDATE_GOLDENS=1` writes it anew.
#[test]
fn rejected_definitions_read_as_they_should() {
    let here = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/sql/tests");
    let (_, errors) = load(&here, &here.join("rejected")).unwrap();
    let (golden, text) = (here.join("rejected.txt"), format!("{errors}\n"));
    if env::var_os("UPDATE_GOLDENS").is_some() {
        fs::write(&golden, &text).unwrap();
    }
    let expected = fs::read_to_string(&golden).unwrap();
    let difference = text.lines().zip(expected.lines()).enumerate().find(|(_, (found, expected))| found != expected);
    assert!(
        text == expected,
        "differs from {} at line {difference:#?}; UPDATE_GOLDENS=1 writes it anew",
        golden.display()
    );
}

#[test]
fn token_soup_never_panics() {
    const WORDS: [&str; 62] = [
        "CREATE",
        "SOURCE",
        "VIEW",
        "FEATURE",
        "SERVICE",
        "TRAINING",
        "SET",
        "EXTERNAL",
        "TABLE",
        "STORED",
        "AS",
        "PARQUET",
        "LOCATION",
        "OPTIONS",
        "WITH",
        "OR",
        "REPLACE",
        "IF",
        "NOT",
        "EXISTS",
        "SELECT",
        "FROM",
        "WHERE",
        "WINDOW",
        "OVER",
        "PARTITION",
        "BY",
        "ORDER",
        "ROWS",
        "RANGE",
        "BETWEEN",
        "INTERVAL",
        "PRECEDING",
        "UNION",
        "DISTINCT",
        "(",
        ")",
        ",",
        "=",
        ".",
        ";",
        "'a'",
        "'x\ny'",
        "'",
        "\"q\"",
        "\"",
        "--c\n",
        "/*",
        "*/",
        "5",
        "-",
        "1.5",
        "true",
        "a",
        "w",
        "hour",
        "request",
        "::",
        "$$",
        "ü",
        "\r\n",
        "\t",
    ];
    const SEEDS: [&str; 4] = [
        "CREATE SOURCE a WITH ( schema = 'a' , timestamp = 'b' , kafka . x = 5 ) ;",
        "CREATE FEATURE VIEW f WITH ( tile = '5 minutes' ) AS SELECT k , SUM ( a ) OVER ( w ROWS 1 PRECEDING ) AS s FROM t WINDOW w AS ( PARTITION BY k ) ;",
        "CREATE FEATURE SERVICE s ( a BIGINT , b DECIMAL ( 5 , 2 ) ) AS SELECT a FROM request LEFT JOIN v ON v . a = request . a ;",
        "CREATE EXTERNAL TABLE t ( a INT NOT NULL ) STORED AS CSV LOCATION 'x' OPTIONS ( has_header true ) ;",
    ];
    for seed in 0..4_000 {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let mut words: Vec<&str> = match random.random_range(0..5) {
            4 => Vec::new(),
            known => SEEDS[known].split(' ').collect(),
        };
        for _ in 0..random.random_range(1..12) {
            let at = random.random_range(0..=words.len());
            match random.random_range(0..3) {
                0 if at < words.len() => drop(words.remove(at)),
                1 if at < words.len() => words[at] = WORDS[random.random_range(0..WORDS.len())],
                _ => words.insert(at, WORDS[random.random_range(0..WORDS.len())]),
            }
        }
        let text = words.join(if random.random_bool(0.8) { " " } else { "" });
        let (definitions, errors) =
            std::panic::catch_unwind(|| parse(&text)).unwrap_or_else(|_| panic!("panics on seed {seed}: {text:?}"));
        // Whatever is wrong is shown at a place in the text.
        let lines = text.split('\n').count();
        for error in &errors {
            let place = error
                .file
                .line(error.span.line)
                .unwrap_or_else(|| panic!("no line {} of {lines}, seed {seed}: {text:?}", error.span.line));
            assert!(
                error.span.column as usize <= place.chars().count() + 1,
                "column {} on seed {seed}: {text:?}",
                error.span.column
            );
        }
        let shown = Diagnostics::from(errors).to_string();
        assert!(shown.starts_with("error: "), "{shown}");
        for definition in &definitions {
            assert!(definition.span().length > 1, "{text:?}");
        }
    }
}

#[test]
fn deep_and_long_statements_do_not_overflow_the_stack() {
    for opening in ["(", "(SELECT ", "f(", "CASE WHEN ", "NOT ", "- ", "a b JOIN (", "(SELECT * FROM ", "[", "EXISTS ("]
    {
        for start in ["SELECT ", "SELECT * FROM "] {
            for levels in [20, 45, 400] {
                let (definitions, errors) = parse(&format!("CREATE VIEW a AS {start}{}", opening.repeat(levels)));
                assert_eq!(definitions.len() + errors.len(), 1, "{start}{opening} {levels}");
            }
        }
    }
    for (terms, read) in [(500, 1), (3_000, 0), (100_000, 0)] {
        let (definitions, errors) = parse(&format!("CREATE VIEW a AS SELECT 1{} AS s", " + 1".repeat(terms)));
        assert_eq!((definitions.len(), errors.len()), (read, 1 - read), "{terms} terms");
    }
}

/// What ships is read without an error.
#[test]
fn shipped_definitions_are_accepted() {
    let project = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let (definitions, errors) = load(&project, &project.join("features")).unwrap();
    assert!(errors.is_empty(), "{errors}");
    for definition in &definitions {
        assert!(!format!("{definition:?}").contains("NamedWindow("), "{}", definition.name().value);
    }
    assert!(!definitions.is_empty());
}
