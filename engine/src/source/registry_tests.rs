//! What is said when there is no answer, over real sockets; the calls themselves are tested on a real registry, with
//! the command line.

use std::io::{Read, Write};
use std::net::TcpListener;

use super::*;

/// A server that gives one answer to every request, and tells what it was asked.
fn answering(status: &'static str, body: &'static str) -> (String, std::sync::mpsc::Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let (asked, receiver) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut request = vec![];
            let mut buffer = [0; 4096];
            while !request.windows(4).any(|w| w == b"\r\n\r\n") {
                let read = stream.read(&mut buffer).unwrap();
                request.extend_from_slice(&buffer[..read]);
            }
            let _ = asked.send(String::from_utf8(request).unwrap());
            let length = body.len();
            let head = format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n");
            stream.write_all((head + body).as_bytes()).unwrap();
        }
    });
    (url, receiver)
}

#[test]
fn only_the_registrys_own_words_mean_that_there_is_no_schema() {
    let (url, _) = answering("404 Not Found", r#"{"error_code":40403,"message":"Schema not found"}"#);
    assert_eq!(SchemaRegistry::new(&url).unwrap().schema(7), Ok(None));
    let (url, _) = answering("404 Not Found", r#"{"error_code":40401,"message":"Subject not found"}"#);
    let registry = SchemaRegistry::new(&url).unwrap();
    assert_eq!(registry.latest("t-value"), Ok(None));
    assert_eq!(registry.compatible("t-value", "{}"), Ok(Ok(())));
    // A wrong path is not "no schema": all events would become dead letters.
    for body in ["", "<html>", r#"{"error_code":404,"message":"HTTP 404 Not Found"}"#] {
        let (url, _) = answering("404 Not Found", body);
        let error = SchemaRegistry::new(&format!("{url}/base/")).unwrap().schema(7).unwrap_err().to_string();
        let said = [
            format!("schema registry {url}/base: GET /schemas/ids/7 was answered with status 404"),
            "hint: is the URL the registry's?".into(),
        ];
        assert!(said.iter().all(|said| error.contains(said)), "{error}");
    }
}

#[test]
fn whatever_else_is_no_answer_is_an_error() {
    let contract =
        Contract::parse("t.v1", r#"{"type":"record","name":"T","fields":[{"name":"x","type":"int"}]}"#).unwrap();
    let cases = [
        ("200 OK", "no JSON", "expected an answer of a schema registry"),
        ("200 OK", r#"{"schema": 1}"#, "expected a schema"),
        ("500 Internal Server Error", r#"{"message":"on fire"}"#, "status 500: on fire"),
        ("401 Unauthorized", "", "is not allowed (status 401)"),
        ("403 Forbidden", "", "user and password"),
    ];
    for (status, body, expected) in cases {
        let (url, _) = answering(status, body);
        let error = SchemaRegistry::new(&url).unwrap().schema(7).unwrap_err().to_string();
        assert!(error.contains(expected) && error.contains(&url), "{error}");
    }
    let (url, _) = answering("409 Conflict", r#"{"error_code":409,"message":"reader type"}"#);
    let error = SchemaRegistry::new(&url).unwrap().register("t-value", &contract).unwrap_err().to_string();
    assert!(error.contains("refuses t-value: reader type; hint: it is incompatible"), "{error}");
    let (url, _) = answering("200 OK", r#"{"is_compatible":false,"messages":["a","b"]}"#);
    let said = SchemaRegistry::new(&url).unwrap().compatible("t-value", "{}");
    assert_eq!(said, Ok(Err(vec!["a".into(), "b".into()])));
}

#[test]
fn a_schema_is_asked_for_once_with_credentials_that_nobody_sees() {
    let (url, asked) = answering("200 OK", r#"{"schema":"\"long\""}"#);
    let with = url.replace("http://", "http://me:p%40ss%zz@");
    let registry = SchemaRegistry::new(&with).unwrap();
    assert_eq!(registry.schema(258), Ok(Some("\"long\"".into())));
    assert_eq!(registry.schema(258), Ok(Some("\"long\"".into())));
    assert_eq!(WriterSchemas::schema(&registry, WriterId::Registry(258)), Ok(Some("\"long\"".into())));
    assert_eq!(WriterSchemas::schema(&registry, WriterId::Rabin(258)), Ok(None));
    let requests: Vec<String> = asked.try_iter().collect();
    assert_eq!(requests.len(), 1);
    assert!(requests[0].starts_with("GET /schemas/ids/258 HTTP/1.1\r\n"), "{}", requests[0]);
    let expected = format!("authorization: basic {}", BASE64.encode("me:p@ss%zz")).to_lowercase();
    assert!(requests[0].to_lowercase().contains(&expected), "{}", requests[0]);
    assert_eq!(registry.url(), url);
    assert!(!format!("{registry:?}").contains("p@ss") && !format!("{registry:?}").contains("Basic"));
}

#[test]
fn what_is_no_url_is_refused_without_its_password() {
    for url in [
        "",
        "host:8081",
        "me:secret@host",
        "ftp://me:secret@host",
        "http://",
        "http://me:secret@",
        "http://a b",
        "http://h/?q",
    ] {
        let error = SchemaRegistry::new(url).unwrap_err().to_string();
        assert!(error.contains("not a URL") && !error.contains("secret"), "{url}: {error}");
    }
    // A password may hold what a host can't.
    assert_eq!(SchemaRegistry::new("http://me:a@b/c@host:1/base/").unwrap().url(), "http://host:1/base");
    let error = SchemaRegistry::new("http://me:secret@127.0.0.1:1").unwrap().latest("t-value").unwrap_err().to_string();
    assert!(error.contains("no answer") && !error.contains("secret"), "{error}");
}

#[test]
fn a_subject_is_one_part_of_the_path() {
    assert_eq!(escaped("shop.orders-value"), "shop.orders-value");
    assert_eq!(escaped("a/b ü"), "a%2Fb%20%C3%BC");
}

/// A registry that takes a connection and then says nothing must not hold a source for ever.
#[test]
fn a_call_ends() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let registry = SchemaRegistry::new(&format!("http://{}", listener.local_addr().unwrap())).unwrap();
    let started = std::time::Instant::now();
    let error = registry.schema(1).unwrap_err();
    assert!(matches!(error, RegistryError::Unreachable { .. }), "{error}");
    assert!(started.elapsed() < CALL + Duration::from_secs(5));
}
