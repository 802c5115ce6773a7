// SPDX-License-Identifier: MIT OR Apache-2.0
//! Orders to the emulator itself, in its machine protocol (QEMU, `docs/interop/qmp-spec.rst`).

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;

use anyhow::{bail, Context, Result};
use serde_json::{json, Value};

/// A connection to the emulator.
#[derive(Debug)]
pub struct Monitor {
    answers: BufReader<UnixStream>,
    orders: UnixStream,
    is_ready: bool,
}

impl Monitor {
    /// The connection over a socket, of which the emulator has the other end.
    pub fn new(socket: UnixStream) -> Result<Self> {
        Ok(Self {
            orders: socket.try_clone()?,
            answers: BufReader::new(socket),
            is_ready: false,
        })
    }

    /// Saves what is on the screen now as a PNG.
    pub fn screendump(&mut self, path: &Path) -> Result<()> {
        if !self.is_ready {
            self.execute("qmp_capabilities", json!({}))?;
            self.is_ready = true;
        }
        let path = path.to_str().context("a path that is no text")?;
        self.execute("screendump", json!({"filename": path, "format": "png"}))
    }

    /// Gives an order and waits for the answer to it.
    fn execute(&mut self, command: &str, arguments: Value) -> Result<()> {
        let mut line = serde_json::to_vec(&json!({"execute": command, "arguments": arguments}))?;
        line.push(b'\n');
        self.orders.write_all(&line)?;
        loop {
            let mut line = String::new();
            if self.answers.read_line(&mut line)? == 0 {
                bail!("QEMU has gone away during {command}");
            }
            let answer: Value = serde_json::from_str(&line).context("QEMU's answer")?;
            if let Some(error) = answer.get("error") {
                bail!("QEMU refuses {command}: {}", error["desc"]);
            }
            if answer.get("return").is_some() {
                return Ok(());
            }
            // The greeting, or an event.
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A monitor whose emulator says `lines`, and what it was told.
    fn told(lines: &str) -> (Result<()>, String) {
        let (ours, mut theirs) = UnixStream::pair().expect("a pair of sockets");
        theirs.write_all(lines.as_bytes()).expect("room for them");
        theirs
            .shutdown(std::net::Shutdown::Write)
            .expect("it is open");
        let mut monitor = Monitor::new(ours).expect("a clone");
        let outcome = monitor.screendump(Path::new("/x.png"));
        drop(monitor);
        let orders = BufReader::new(theirs).lines();
        (outcome, orders.map_while(Result::ok).collect())
    }

    #[test]
    fn a_picture_is_taken_after_the_greeting_and_between_events() {
        let said = "{\"QMP\":{}}\n{\"return\":{}}\n{\"event\":\"RESET\"}\n{\"return\":{}}\n";
        let (outcome, orders) = told(said);
        outcome.expect("taken");
        assert!(orders.contains("qmp_capabilities") && orders.contains("/x.png"));
    }

    #[test]
    fn a_refusal_is_an_error_that_says_why() {
        let said = "{\"QMP\":{}}\n{\"return\":{}}\n{\"error\":{\"desc\":\"no console\"}}\n";
        let (outcome, _) = told(said);
        assert!(format!("{:#}", outcome.expect_err("refused")).contains("no console"));
        assert!(told("{\"QMP\":{}}\n").0.is_err());
    }
}
