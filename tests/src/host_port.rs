// SPDX-License-Identifier: MIT OR Apache-2.0

//! Questions to the host that runs the virtual machine.
//!
//! A guest program writes one line of JSON, a [`Request`], to the
//! virtio-serial port [`PORT_PATH`] and reads one line back, a
//! [`Reply`]. The host looks at the machine's memory from outside, where the
//! granule protection does not hide anything, so its answer also covers pages
//! that the guest must not touch. It sees the screen as well.

use std::io::{self, BufRead, BufReader, Read, Write};

use serde::{Deserialize, Serialize};

/// The port's device node in the guest.
pub const PORT_PATH: &str = "/dev/virtio-ports/ringfence.host";

/// A question.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Request {
    /// Search all RAM for a set of 16-byte plaintext needles at every byte
    /// offset. The needles themselves never enter the guest.
    Search {
        /// Name of the set, known to the host.
        needles: String,
        /// Physical ranges, (start, bytes), where finding them is right.
        expect_in: Vec<(u64, u64)>,
    },
    /// Take a picture of the screen, and keep it under this name: small letters,
    /// digits and dashes.
    Picture(String),
    /// Compare a picture that was taken with one that the host has.
    Compare {
        /// Name of the one that was taken.
        picture: String,
        /// Name of the host's.
        with: String,
    },
}

/// The answer to a [`Request`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Reply {
    /// The search was made.
    Found {
        /// Needles found wholly inside the expected ranges.
        inside: u64,
        /// Needles found anywhere else.
        outside: u64,
        /// Physical address of the first one outside, in hexadecimal.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        first_outside: Option<String>,
    },
    /// The picture was taken.
    Picture {
        /// Pixels.
        width: u32,
        /// Lines.
        height: u32,
        /// [`digest`] of its pixels, each as red, green and blue.
        digest: u64,
    },
    /// The pictures were compared.
    Likeness {
        /// Peak signal-to-noise ratio, in dB.
        psnr: f64,
    },
    /// The host could not do what was asked.
    Refused {
        /// Why.
        error: String,
    },
}

/// A digest of bytes that tells pictures apart: FNV-1a of 64 bits.
pub fn digest(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |digest, byte| {
        (digest ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3)
    })
}

/// Asks one question over an open port.
pub fn ask(port: &mut (impl Read + Write), request: &Request) -> io::Result<Reply> {
    let mut line = serde_json::to_vec(request)?;
    line.push(b'\n');
    port.write_all(&line)?;
    port.flush()?;
    let mut answer = String::new();
    if BufReader::new(port).read_line(&mut answer)? == 0 {
        return Err(io::Error::new(
            io::ErrorKind::UnexpectedEof,
            "the host closed the port without an answer",
        ));
    }
    Ok(serde_json::from_str(&answer)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A port with a canned answer that keeps what was asked.
    struct Canned {
        asked: Vec<u8>,
        answer: io::Cursor<Vec<u8>>,
    }

    impl Read for Canned {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            self.answer.read(buffer)
        }
    }

    impl Write for Canned {
        fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
            self.asked.write(buffer)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn canned(answer: &str) -> Canned {
        Canned {
            asked: Vec::new(),
            answer: io::Cursor::new(answer.as_bytes().to_vec()),
        }
    }

    fn search() -> Request {
        Request::Search {
            needles: "clip".into(),
            expect_in: vec![(0x8000_0000, 4096)],
        }
    }

    #[test]
    fn the_lines_on_the_wire() {
        let mut port = canned("{\"inside\":3,\"outside\":1,\"first_outside\":\"0x50000000\"}\n");
        let reply = ask(&mut port, &search()).unwrap();
        assert_eq!(
            port.asked,
            b"{\"search\":{\"needles\":\"clip\",\"expect_in\":[[2147483648,4096]]}}\n"
        );
        assert_eq!(
            reply,
            Reply::Found {
                inside: 3,
                outside: 1,
                first_outside: Some("0x50000000".into())
            }
        );
    }

    #[test]
    fn questions_about_the_screen() {
        let wire = |request: &Request, answer: &str| {
            let mut port = canned(answer);
            let reply = ask(&mut port, request).unwrap();
            (String::from_utf8(port.asked).unwrap(), reply)
        };
        assert_eq!(
            wire(
                &Request::Picture("frame-1".into()),
                "{\"width\":640,\"height\":360,\"digest\":7}\n"
            ),
            (
                "{\"picture\":\"frame-1\"}\n".into(),
                Reply::Picture {
                    width: 640,
                    height: 360,
                    digest: 7
                }
            )
        );
        let compare = Request::Compare {
            picture: "frame-1".into(),
            with: "1".into(),
        };
        assert_eq!(
            wire(&compare, "{\"psnr\":40.5}\n"),
            (
                "{\"compare\":{\"picture\":\"frame-1\",\"with\":\"1\"}}\n".into(),
                Reply::Likeness { psnr: 40.5 }
            )
        );
        assert_ne!(digest(b"ab"), digest(b"ba"));
    }

    #[test]
    fn nothing_outside_may_be_null_or_absent() {
        for answer in [
            "{\"inside\":3,\"outside\":0}\n",
            "{\"inside\":3,\"outside\":0,\"first_outside\":null}\n",
        ] {
            let reply = ask(&mut canned(answer), &search()).unwrap();
            assert_eq!(
                reply,
                Reply::Found {
                    inside: 3,
                    outside: 0,
                    first_outside: None
                }
            );
        }
    }

    #[test]
    fn a_closed_port_and_nonsense_are_errors() {
        assert_eq!(
            ask(&mut canned(""), &search()).unwrap_err().kind(),
            io::ErrorKind::UnexpectedEof
        );
        assert!(ask(&mut canned("{}\n"), &search()).is_err());
        assert_eq!(
            ask(&mut canned("{\"error\":\"no such needles\"}\n"), &search()).unwrap(),
            Reply::Refused {
                error: "no such needles".into()
            }
        );
    }
}
