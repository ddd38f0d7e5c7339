//! What stands between an engine and a real S3 server, and answers as a bad day does.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rand::RngExt;
use rand_chacha::ChaCha8Rng;

/// What becomes of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// It is refused with this status.
    Refused(u16),
    /// The connection ends before the server hears of it.
    CutBefore,
    /// The server does what is asked, and the answer is cut off.
    CutAfter,
    /// The server does what is asked, and no answer comes until the client gives up.
    NoAnswer,
    /// The answer comes drop by drop.
    Slow,
}

pub const FAULTS: [Fault; 6] =
    [Fault::Refused(500), Fault::Refused(503), Fault::CutBefore, Fault::CutAfter, Fault::NoAnswer, Fault::Slow];

/// What there is to hold against requests.
#[derive(Default)]
enum Weather {
    #[default]
    Calm,
    /// Every request meets this.
    Always(Fault),
    /// One in three meets any of them; a write one of those that fewest have met.
    Random(Box<ChaCha8Rng>),
}

pub struct Proxy {
    port: u16,
    weather: Arc<Mutex<Weather>>,
    /// How many requests met each of [`FAULTS`]; writes alone.
    met: Arc<[AtomicUsize; FAULTS.len()]>,
}

impl Proxy {
    /// In front of an endpoint such as http://127.0.0.1:19000.
    pub fn start(endpoint: &str) -> Self {
        let address = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = address.local_addr().unwrap().port();
        let server = endpoint.trim_start_matches("http://").trim_end_matches('/').to_owned();
        let (weather, met) = (Arc::<Mutex<Weather>>::default(), Arc::<[AtomicUsize; FAULTS.len()]>::default());
        let proxy = Self { port, weather: weather.clone(), met: met.clone() };
        std::thread::spawn(move || {
            for client in address.incoming() {
                let (server, weather, met) = (server.clone(), weather.clone(), met.clone());
                // A client that is gone before it is answered is no fault of the proxy's.
                std::thread::spawn(move || client.and_then(|client| serve(client, &server, &weather, &met)));
            }
        });
        proxy
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    pub fn calm(&self) {
        *self.weather.lock().unwrap() = Weather::Calm;
    }

    pub fn always(&self, fault: Fault) {
        *self.weather.lock().unwrap() = Weather::Always(fault);
    }

    pub fn random(&self, random: ChaCha8Rng) {
        *self.weather.lock().unwrap() = Weather::Random(Box::new(random));
    }

    /// How many writes met each of [`FAULTS`].
    pub fn met(&self) -> [usize; FAULTS.len()] {
        std::array::from_fn(|i| self.met[i].load(Ordering::SeqCst))
    }
}

fn serve(
    mut client: TcpStream,
    server: &str,
    weather: &Mutex<Weather>,
    met: &[AtomicUsize; FAULTS.len()],
) -> std::io::Result<()> {
    // One request a connection: what a fault leaves behind is no other request's.
    let request = request(&mut client)?;
    let writes = request.starts_with(b"PUT");
    let fault = match &mut *weather.lock().unwrap() {
        Weather::Calm => None,
        Weather::Always(fault) => Some(*fault),
        Weather::Random(random) => random.random_bool(0.3).then(|| {
            let drawn = random.random_range(0..FAULTS.len());
            let rarest = (0..FAULTS.len()).map(|i| (i + drawn) % FAULTS.len());
            let rarest = rarest.min_by_key(|which| met[*which].load(Ordering::SeqCst));
            FAULTS[rarest.filter(|_| writes).unwrap_or(drawn)]
        }),
    };
    if let Some(which) = FAULTS.iter().position(|known| Some(*known) == fault)
        && writes
    {
        met[which].fetch_add(1, Ordering::SeqCst);
    }
    match fault {
        Some(Fault::CutBefore) => return client.shutdown(Shutdown::Both),
        Some(Fault::Refused(status)) => {
            let body = "<Error><Code>SlowDown</Code><Message>a bad day</Message></Error>";
            let head =
                format!("HTTP/1.1 {status} Bad Day\r\nConnection: close\r\nContent-Length: {}\r\n\r\n", body.len());
            return client.write_all((head + body).as_bytes());
        }
        _ => {}
    }
    let mut answering = TcpStream::connect(server)?;
    answering.write_all(&request)?;
    let mut answer = vec![];
    answering.read_to_end(&mut answer)?;
    match fault {
        Some(Fault::CutAfter) => client.write_all(&answer[..answer.len() / 2])?,
        // Until the client hangs up.
        Some(Fault::NoAnswer) => _ = client.read(&mut [0])?,
        Some(Fault::Slow) => {
            for part in answer.chunks(answer.len() / 5 + 1) {
                client.write_all(part)?;
                std::thread::sleep(Duration::from_millis(40));
            }
        }
        _ => client.write_all(&answer)?,
    }
    client.shutdown(Shutdown::Both)
}

/// A whole request, which is to be the connection's last.
fn request(client: &mut TcpStream) -> std::io::Result<Vec<u8>> {
    let (mut bytes, mut part) = (vec![], vec![0; 1 << 16]);
    let (head, length) = loop {
        let n = client.read(&mut part)?;
        if n == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        bytes.extend_from_slice(&part[..n]);
        if let Some(head) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            let text = String::from_utf8_lossy(&bytes[..head]).to_ascii_lowercase();
            let length = text.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse().ok());
            break (head, length.unwrap_or(0));
        }
    };
    let body = head + 4;
    while bytes.len() < body + length {
        let n = client.read(&mut part)?;
        if n == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        bytes.extend_from_slice(&part[..n]);
    }
    bytes.splice(head..head, b"\r\nConnection: close".iter().copied());
    Ok(bytes)
}
