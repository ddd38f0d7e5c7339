//! Servers that a test may harm: a Redis of its own, and what stands between an engine and a Redis.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use crate::support::PATIENCE;

/// A Redis of the test's own, which it may kill.
pub struct Redis {
    pub folder: tempfile::TempDir,
    pub port: u16,
    child: Child,
}

impl Redis {
    pub fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let port = free_port();
        let child = Self::spawn(folder.path(), port);
        let redis = Self { folder, port, child };
        redis.wait();
        redis
    }

    /// One that was started with more than a port.
    pub fn of(folder: tempfile::TempDir, port: u16, child: Child) -> Self {
        Self { folder, port, child }
    }

    fn spawn(folder: &Path, port: u16) -> Child {
        let mut command = Command::new("redis-server");
        command.args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--appendonly", "yes"]);
        command.arg("--dir").arg(folder).stdout(Stdio::null());
        command.spawn().unwrap_or_else(|e| panic!("redis-server: {e}; hint: apt-get install redis-server"))
    }

    fn wait(&self) {
        let deadline = Instant::now() + PATIENCE;
        while self.run(&["PING"]) != "PONG" {
            assert!(Instant::now() < deadline, "redis-server does not answer");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    pub fn run(&self, args: &[&str]) -> String {
        let output = Command::new("redis-cli").args(["-p", &self.port.to_string()]).args(args).output().unwrap();
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// STOP, and it takes bytes but answers nothing; CONT, and it goes on where it was.
    pub fn signal(&self, signal: &str) {
        let kill = format!("kill -{signal} {}", self.child.id());
        assert!(Command::new("sh").arg("-c").arg(kill).status().unwrap().success());
    }

    pub fn start_again(&mut self) {
        self.child = Self::spawn(self.folder.path(), self.port);
        self.wait();
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// An address that leads to a Redis, as a proxy does: a connection stays with the server that it was made to.
pub struct Proxy {
    port: u16,
    to: Arc<AtomicU16>,
    gate: Arc<Gate>,
}

/// What becomes of what clients send.
#[derive(Default)]
struct Gate {
    is: Mutex<Is>,
    changed: Condvar,
}

#[derive(Default, PartialEq, Clone, Copy)]
enum Is {
    #[default]
    Open,
    /// The next write of timelines closes it.
    Armed,
    Closed,
}

impl Proxy {
    pub fn start(to: u16) -> Self {
        let address = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = address.local_addr().unwrap().port();
        let (to, gate) = (Arc::new(AtomicU16::new(to)), Arc::<Gate>::default());
        let proxy = Self { port, to: to.clone(), gate: gate.clone() };
        std::thread::spawn(move || {
            for client in address.incoming() {
                let client = client.unwrap();
                let Ok(server) = TcpStream::connect(("127.0.0.1", to.load(Ordering::SeqCst))) else { continue };
                let (client_again, server_again) = (client.try_clone().unwrap(), server.try_clone().unwrap());
                let gate = gate.clone();
                std::thread::spawn(move || pass(client_again, server_again, |bytes| gate.pass(bytes)));
                std::thread::spawn(move || pass(server, client, |_| ()));
            }
        });
        proxy
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// New connections are made to another server.
    pub fn lead_to(&self, port: u16) {
        self.to.store(port, Ordering::SeqCst);
    }

    /// The next write of timelines, and whatever is sent after it, stays on the way until [`Proxy::release`].
    pub fn hold_a_write(&self) {
        self.gate.set(Is::Armed);
    }

    /// Whether a write of timelines is on the way.
    pub fn holds(&self) -> bool {
        *self.gate.is.lock().unwrap() == Is::Closed
    }

    pub fn release(&self) {
        self.gate.set(Is::Open);
    }
}

impl Gate {
    fn set(&self, is: Is) {
        *self.is.lock().unwrap() = is;
        self.changed.notify_all();
    }

    fn pass(&self, bytes: &[u8]) {
        let contains = |word: &[u8]| bytes.windows(word.len()).any(|window| window == word);
        let mut is = self.is.lock().unwrap();
        // A commit's write is a script too, but of progress.
        if *is == Is::Armed && contains(b"EVALSHA") && !contains(b"@progress") {
            *is = Is::Closed;
        }
        drop(self.changed.wait_while(is, |is| *is == Is::Closed).unwrap());
    }
}

fn pass(mut from: TcpStream, mut into: TcpStream, before: impl Fn(&[u8])) {
    let mut bytes = vec![0; 1 << 16];
    while let Ok(n) = from.read(&mut bytes)
        && n > 0
    {
        before(&bytes[..n]);
        if into.write_all(&bytes[..n]).is_err() {
            break;
        }
    }
    let _ = into.shutdown(Shutdown::Both);
}
