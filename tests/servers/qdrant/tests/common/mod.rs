//! Starts the built server as a process of its own, so that a test can kill it.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use qdrant_client::Qdrant;

pub struct Server {
    process: Child,
    address: String,
    control: String,
}

impl Server {
    pub fn start(storage: &Path, extra: &[&str]) -> Self {
        let mut process = Command::new(env!("CARGO_BIN_EXE_qdrant-testserver"))
            .args(["--listen", "127.0.0.1:0", "--control", "127.0.0.1:0", "--storage"])
            .arg(storage)
            .args(extra)
            .stdout(Stdio::piped())
            .spawn()
            .expect("the server starts");
        let stdout = process.stdout.take().expect("stdout is a pipe");
        let mut lines = BufReader::new(stdout).lines();
        let mut announced = |what: &str| {
            let line = lines.next().expect("a line").expect("stdout is text");
            let address = line.strip_prefix(what).expect("the announced address");
            address.trim().to_owned()
        };
        Self { address: announced("listening"), control: announced("control"), process }
    }

    pub fn client(&self) -> Qdrant {
        self.client_with_key(None)
    }

    pub fn client_with_key(&self, key: Option<&str>) -> Qdrant {
        let mut config = Qdrant::from_url(&format!("http://{}", self.address));
        config.set_api_key(key.unwrap_or_default());
        if key.is_none() {
            config.api_key = None;
        }
        config.skip_compatibility_check().build().expect("a client")
    }

    /// Sends one line to the control port and returns the answer.
    pub fn control(&self, command: &str) -> String {
        let mut stream = TcpStream::connect(&self.control).expect("the control port");
        writeln!(stream, "{command}").expect("the command is sent");
        let mut answer = String::new();
        let mut reader = BufReader::new(stream);
        reader.read_line(&mut answer).expect("an answer");
        assert!(answer.starts_with("ok"), "{command}: {answer}");
        answer
    }

    /// `kill -9`.
    pub fn kill(mut self) {
        self.process.kill().expect("the server is killed");
        self.process.wait().expect("the server is gone");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
