// SPDX-License-Identifier: MIT OR Apache-2.0

//! What the commands print, for people and as JSON.

use std::io::{self, Write};

use bytesize::ByteSize;
use ringfence::buffer::BufferInfo;
use ringfence::fallback::Refused;
use ringfence::heap::{HeapInfo, History};
use ringfence::status::{SecureWorld, Status};
use serde::Serialize;

/// Any dma-buf heap of the system.
#[derive(Debug, Serialize)]
pub struct AnyHeap {
    /// Its name.
    pub name: String,
    /// What the driver says of it; `None` for another driver's heap.
    pub ringfence: Option<HeapInfo>,
    /// What became of its allocations; `None` as above.
    pub history: Option<History>,
}

impl AnyHeap {
    /// What it is, how full, and what can be asked of it.
    fn lines(&self) -> String {
        let Some(info) = &self.ringfence else {
            return format!("{:24} another driver's\n", self.name);
        };
        let mut text = format!(
            "{:24} {} of {} free, {}{}, use case {}{}\n",
            self.name,
            size(info.free),
            size(info.size),
            traits(info.protected, info.cpu_access, info.contiguous),
            if info.whole_region {
                ", fenced as a whole"
            } else {
                ""
            },
            info.use_case,
            if info.online { "" } else { ", offline" },
        );
        if info.online {
            let mut wishes = format!("aligned up to {}", size(info.max_alignment));
            for (able, word) in [(info.top_down, ", top-down"), (info.no_wait, ", no-wait")] {
                if able {
                    wishes += word;
                }
            }
            text += &format!(
                "{:24} in units of {}, {wishes}; longest run {}\n",
                "",
                size(info.granule),
                size(info.largest_free),
            );
        }
        if let Some(history) = &self.history {
            text += &format!(
                "{:24} {} in {} buffers, at most {} so far; {} allocations, {} refused\n",
                "",
                size(info.used),
                info.buffers,
                size(history.high_water),
                history.allocations,
                history.failures,
            );
        }
        text
    }
}

/// A buffer as it is shown.
#[derive(Debug, Serialize)]
pub struct Shown {
    /// What the driver says of it; `None` for another driver's buffer.
    #[serde(flatten)]
    info: Option<BufferInfo>,
    /// Where it is open, for `ringfence info`.
    #[serde(skip_serializing_if = "Option::is_none")]
    path: Option<String>,
    /// The secure world's name for it, in hexadecimal, if that was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    handle: Option<String>,
}

/// A buffer, and how it was allocated.
#[derive(Debug, Serialize)]
pub struct Allocated {
    /// The buffer.
    #[serde(flatten)]
    pub buffer: Shown,
    /// The heaps that should have served before, and why they did not.
    pub refused: Vec<Refused>,
    /// How long it took, if that was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nanoseconds: Option<u128>,
}

impl Allocated {
    fn text(&self) -> String {
        let mut text = self.buffer.line();
        if let Some(nanoseconds) = self.nanoseconds {
            text += &format!(", in {} microseconds", nanoseconds.div_ceil(1000));
        }
        for refused in &self.refused {
            text += &format!("\n  not from {refused}");
        }
        text
    }
}

/// The outcome of a decryption.
#[derive(Debug, Serialize)]
pub struct Decrypted {
    /// Bytes written into the buffer.
    pub bytes: u64,
    /// The buffer.
    pub buffer: Shown,
}

impl Shown {
    /// A buffer that the driver knows.
    pub fn new(info: BufferInfo, show_handle: bool) -> Self {
        let handle = info.handle.filter(|_| show_handle);
        Self {
            info: Some(info),
            path: None,
            handle: handle.map(|handle| format!("{:#018x}", handle.raw())),
        }
    }

    /// A buffer of another driver.
    pub fn foreign() -> Self {
        Self {
            info: None,
            path: None,
            handle: None,
        }
    }

    /// The same, open at a path.
    pub fn at(self, path: String) -> Self {
        Self {
            path: Some(path),
            ..self
        }
    }

    fn line(&self) -> String {
        let mut line = match &self.info {
            Some(info) => format!(
                "{} from {}, {}, use case {}",
                size(info.size),
                info.heap,
                traits(info.protected, info.cpu_access, info.contiguous),
                info.use_case,
            ),
            None => "a buffer of another driver's heap".to_owned(),
        };
        if let Some(handle) = &self.handle {
            line += &format!(", handle {handle}");
        }
        if let Some(path) = &self.path {
            line += &format!(", open at {path}");
        }
        line
    }
}

/// Prints to standard output; a reader who has gone away is no failure.
pub fn print(text: &str) {
    let _ = writeln!(io::stdout(), "{}", text.trim_end());
}

/// Prints a JSON document.
pub fn print_json(value: &impl Serialize) {
    // Serialization into memory fails for maps with odd keys only.
    let text = serde_json::to_string(value).expect("plain structures serialize");
    print(&text);
}

/// So many bytes, for people.
pub fn size(bytes: u64) -> String {
    ByteSize::b(bytes).display().iec().to_string()
}

fn traits(protected: bool, cpu_access: bool, contiguous: bool) -> String {
    let mut words = vec![if protected { "protected" } else { "open" }];
    if contiguous {
        words.push("contiguous");
    }
    words.push(if cpu_access {
        "CPU access"
    } else {
        "no CPU access"
    });
    words.join(", ")
}

/// Shows heaps.
pub fn heaps(heaps: &[AnyHeap], json: bool) {
    if json {
        return print_json(&heaps);
    }
    let text: String = heaps.iter().map(AnyHeap::lines).collect();
    if heaps.is_empty() {
        return print("no dma-buf heaps; load the modules of Ringfence, or the kernel's own");
    }
    print(&text);
}

/// Shows a new buffer.
pub fn allocated(allocated: &Allocated, json: bool) {
    if json {
        print_json(allocated);
    } else {
        print(&allocated.text());
    }
}

/// Shows several new buffers.
pub fn all_allocated(all: &[Allocated], json: bool) {
    if json {
        return print_json(&all);
    }
    let lines: Vec<String> = all.iter().map(Allocated::text).collect();
    print(&lines.join("\n"));
}

/// Shows a buffer.
pub fn buffer(buffer: &Shown, json: bool) {
    if json {
        print_json(buffer);
    } else {
        print(&buffer.line());
    }
}

/// Shows the outcome of a decryption.
pub fn decrypted(decrypted: &Decrypted, json: bool) {
    if json {
        print_json(decrypted);
    } else {
        print(&format!(
            "{} bytes decrypted into {}",
            decrypted.bytes,
            decrypted.buffer.line()
        ));
    }
}

/// Shows how the system stands.
pub fn status(status: &Status, json: bool) {
    if json {
        return print_json(status);
    }
    let mut text = format!(
        "{:20} {:>10} {:>10} {:>10} {:>10} {:>11} {:>7}  {}\n",
        "heap", "size", "free", "longest", "protected", "quarantined", "buffers", "use case"
    );
    for heap in &status.heaps {
        text += &format!(
            "{:20} {:>10} {:>10} {:>10} {:>10} {:>11} {:>7}  {}{}{}\n",
            heap.name,
            size(heap.size),
            size(heap.free),
            size(heap.largest_free),
            size(heap.protected_bytes),
            size(heap.quarantined),
            heap.buffers,
            heap.use_case,
            if heap.whole_region {
                ", whole region"
            } else {
                ""
            },
            if heap.online { "" } else { " (offline)" },
        );
    }
    text += &match &status.secure_world {
        SecureWorld::Present {
            protocol,
            test_build,
            granule,
            regions,
            ranges,
            quarantined,
        } => format!(
            "secure world: protocol {protocol}{}, granule {}, {regions} carveouts, {ranges} ranges protected, {quarantined} in quarantine",
            if *test_build { " (test build)" } else { "" },
            size(u64::from(*granule)),
        ),
        SecureWorld::Absent { reason } => format!("secure world: {reason}"),
    };
    print(&text);
}

#[cfg(test)]
mod tests {
    use ringfence::buffer::Handle;
    use ringfence::heap::UseCase;

    use super::*;

    fn info() -> BufferInfo {
        BufferInfo {
            heap: "protected-video".into(),
            size: 1 << 20,
            protected: true,
            cpu_access: false,
            contiguous: true,
            use_case: UseCase(1),
            handle: Handle::new(0xabc),
        }
    }

    #[test]
    fn a_handle_is_shown_when_asked_for_only() {
        let hidden = Shown::new(info(), false);
        assert!(!hidden.line().contains("abc"));
        assert!(!serde_json::to_string(&hidden).unwrap().contains("abc"));
        let shown = Shown::new(info(), true);
        assert!(shown.line().contains("handle 0x0000000000000abc"));
        assert!(serde_json::to_string(&shown).unwrap().contains("abc"));
    }

    #[test]
    fn a_buffer_is_one_line() {
        assert_eq!(
            Shown::new(info(), false).at("/proc/1/fd/3".into()).line(),
            "1.0 MiB from protected-video, protected, contiguous, no CPU access, \
             use case secure-video, open at /proc/1/fd/3"
        );
    }

    #[test]
    fn a_fallback_is_shown_with_its_reason() {
        use ringfence::fallback::{Property, Reason};

        let allocated = Allocated {
            buffer: Shown::new(info(), false),
            refused: vec![Refused {
                heap: "system".into(),
                reason: Reason::Lacks(Property::Protected),
            }],
            nanoseconds: Some(1500),
        };
        assert_eq!(
            allocated.text(),
            "1.0 MiB from protected-video, protected, contiguous, no CPU access, \
             use case secure-video, in 2 microseconds\n  \
             not from system: its buffers are not protected"
        );
        let json = serde_json::to_value(&allocated).unwrap();
        assert_eq!(json["heap"], "protected-video");
        assert_eq!(json["refused"][0]["heap"], "system");
        assert_eq!(json["nanoseconds"], 1500);
    }

    #[test]
    fn a_heap_says_what_can_be_asked_of_it() {
        let mut raw = ringfence::uapi::HeapInfo::ask(0);
        raw.flags = ringfence::uapi::ONLINE | ringfence::uapi::CONTIGUOUS;
        raw.max_alignment = 1 << 30;
        raw.granule = 4096;
        raw.alloc_flags = ringfence::uapi::ALLOC_NO_WAIT;
        raw.high_water = 3 << 20;
        raw.failures = 2;
        let heap = AnyHeap {
            name: "camera".into(),
            ringfence: Some(HeapInfo::from(&raw)),
            history: Some(History::from(&raw)),
        };
        let text = heap.lines();
        assert!(text.contains("aligned up to 1.0 GiB, no-wait;"), "{text}");
        assert!(text.contains("at most 3.0 MiB so far"), "{text}");
        assert!(text.contains("2 refused"), "{text}");
    }

    #[test]
    fn json_is_flat() {
        let json = serde_json::to_value(Shown::new(info(), false)).unwrap();
        assert_eq!(json["heap"], "protected-video");
        assert_eq!(json["size"], 1 << 20);
        assert_eq!(json["use_case"], "secure-video");
    }
}
