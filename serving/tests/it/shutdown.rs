//! Slow requests: they finish when the server stops, up to a limit.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use tidemark_serving::Config;

use crate::server::{Server, config};

const BODY: &str = r#"{"rows": [{"user_id": 1, "amount": 1}]}"#;

/// A request of which the server has the first half, and is working on it.
fn half_sent(server: &Server) -> TcpStream {
    let mut stream = TcpStream::connect(server.address).unwrap();
    let head = format!(
        "POST /v1/services/fraud_v1 HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
        BODY.len()
    );
    stream.write_all(format!("{head}{}", &BODY[..10]).as_bytes()).unwrap();
    // It, and the one that asks.
    server.until("/metrics", |a| a.text.contains("tidemark_http_requests_in_flight 2"));
    stream
}

fn rest(mut stream: TcpStream) -> String {
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    text
}

#[test]
fn a_request_in_flight_finishes_and_no_new_one_is_taken() {
    let mut server = Server::with_events();
    let mut stream = half_sent(&server);
    server.stop();
    let deadline = Instant::now() + Duration::from_secs(10);
    while TcpStream::connect(server.address).is_ok() {
        assert!(Instant::now() < deadline, "still listening");
        std::thread::yield_now();
    }
    stream.write_all(&BODY.as_bytes()[10..]).unwrap();
    let answer = rest(stream);
    assert!(answer.starts_with("HTTP/1.1 200 OK") && answer.contains(r#""spend_1h":20.5"#), "{answer}");
    server.stopped().unwrap();
}

#[test]
fn a_request_that_never_ends_does_not_hold_the_server() {
    let mut server = Server::with_events();
    let stream = half_sent(&server);
    let begun = Instant::now();
    server.stop();
    server.stopped().unwrap();
    let took = begun.elapsed();
    assert!((Duration::from_secs(2)..Duration::from_secs(8)).contains(&took), "{took:?}");
    drop(stream);
}

#[test]
fn a_request_that_takes_too_long_is_told_so() {
    let server = Server::start(Config { timeout: Duration::from_millis(300), ..config() });
    server.drain();
    let answer = rest(half_sent(&server));
    assert!(answer.starts_with("HTTP/1.1 503") && answer.contains("no answer within 0.3 seconds"), "{answer}");
    assert!(answer.contains("application/problem+json"), "{answer}");
}
