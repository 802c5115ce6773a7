// SPDX-License-Identifier: MIT OR Apache-2.0

//! The suites, and what holds for every test: it leaves the heaps as full and
//! this process with as many open files as they were.
//!
//! What heaps like these get wrong elsewhere, and which of these tests look for
//! it, is [`ringfence_tests::bad_cases`].

mod access;
mod accounting;
mod allocate;
mod attacks;
mod camera;
mod charged;
mod clients;
mod cma;
mod command;
mod content;
mod cycles;
mod decoder;
mod dmabuf;
mod fallback;
mod faults;
mod fixture;
mod fuzz;
mod heaps;
mod inject;
mod iommu;
mod kexec;
mod kselftest;
mod lifecycle;
mod modules;
mod no_tee;
mod parity;
mod protect;
mod recovery;
mod region;
mod region_mode;
mod scenario;
mod soak;
mod stale;
mod system;
mod tee;
mod video;

use std::env;
use std::fs;
use std::io::{self, Write};
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use libtest_mimic::{Arguments, Failed, Trial};
use ringfence::control::Control;
use ringfence::heap::HeapInfo;
use ringfence_tests::guest::{deadline, debug, memory, module};

/// How the machine must have been booted for a suite.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Boot {
    /// With all modules loaded.
    Default,
    /// Without the module optee; the heaps' modules are loaded if they are not.
    NoTee,
    /// With the kernel's own heaps as well, and ours by other names.
    Upstream,
    /// With memory of heaps charged to control groups; the heaps' modules are loaded if they are not.
    Charged,
    /// With `swiotlb=force` on the kernel's command line.
    Bounced,
    /// One for each test, which is to end in a crash.
    Doomed,
    /// On a machine whose PCI devices have an IOMMU.
    Translated,
    /// Without any module.
    Bare,
    /// With the kernel's image and the initramfs on the share.
    Images,
}

impl Boot {
    fn word(self) -> &'static str {
        match self {
            Self::Default => "default",
            Self::NoTee => "no-tee",
            Self::Upstream => "upstream",
            Self::Charged => "charged",
            Self::Bounced => "swiotlb=force",
            Self::Doomed => "doomed",
            Self::Translated => "iommu",
            Self::Bare => "bare",
            Self::Images => "images",
        }
    }
}

/// A test: its name, and what it does.
type Test = (&'static str, fn() -> anyhow::Result<()>);

/// The tests of a suite.
#[derive(Clone, Copy)]
enum Tests {
    /// They are known.
    Fixed(&'static [Test]),
    /// They are known, but for those that only some kernels can run.
    WithMore(&'static [Test], fn() -> &'static [Test]),
    /// They are known when another program has run.
    Made(fn() -> Vec<Trial>),
}

struct Suite {
    name: &'static str,
    boot: Boot,
    tests: Tests,
}

impl Suite {
    fn trials(&self) -> Vec<Trial> {
        let (tests, more) = match self.tests {
            Tests::Fixed(tests) => (tests, &[][..]),
            Tests::WithMore(tests, more) => (tests, more()),
            Tests::Made(make) => return make(),
        };
        tests
            .iter()
            .chain(more)
            .map(|&(name, test)| {
                Trial::test(format!("{}::{name}", self.name), move || {
                    without_traces(test).map_err(|error| Failed::from(format!("{error:#}")))
                })
            })
            .collect()
    }
}

/// First argument that makes the program a process which allocates, from the heap
/// that the second one names, as many bytes as the third one says, until it is
/// killed.
const ALLOCATE_FOR_EVER: &str = "--allocate-for-ever";

/// All suites. One that unloads modules comes after those that need them.
const SUITES: &[Suite] = &[
    Suite {
        name: "heaps",
        boot: Boot::Default,
        tests: Tests::Fixed(heaps::TESTS),
    },
    Suite {
        name: "allocate",
        boot: Boot::Default,
        tests: Tests::Fixed(allocate::TESTS),
    },
    Suite {
        name: "accounting",
        boot: Boot::Default,
        tests: Tests::Fixed(accounting::TESTS),
    },
    Suite {
        name: "system",
        boot: Boot::Default,
        tests: Tests::WithMore(system::TESTS, system::on_this_kernel),
    },
    Suite {
        name: "charged",
        boot: Boot::Charged,
        tests: Tests::Fixed(charged::TESTS),
    },
    Suite {
        name: "cma",
        boot: Boot::Default,
        tests: Tests::WithMore(cma::TESTS, cma::on_this_kernel),
    },
    Suite {
        name: "clients",
        boot: Boot::Default,
        tests: Tests::Fixed(clients::TESTS),
    },
    Suite {
        name: "kselftest",
        boot: Boot::Default,
        tests: Tests::Made(kselftest::trials),
    },
    Suite {
        name: "protect",
        boot: Boot::Default,
        tests: Tests::Fixed(protect::TESTS),
    },
    Suite {
        name: "tee",
        boot: Boot::Default,
        tests: Tests::Fixed(tee::TESTS),
    },
    Suite {
        name: "access",
        boot: Boot::Default,
        tests: Tests::Fixed(access::TESTS),
    },
    Suite {
        name: "region-mode",
        boot: Boot::Default,
        tests: Tests::Fixed(region_mode::TESTS),
    },
    Suite {
        name: "dmabuf",
        boot: Boot::Default,
        tests: Tests::Fixed(dmabuf::TESTS),
    },
    Suite {
        name: "command",
        boot: Boot::Default,
        tests: Tests::Fixed(command::TESTS),
    },
    Suite {
        name: "content",
        boot: Boot::Default,
        tests: Tests::Fixed(content::TESTS),
    },
    Suite {
        name: "recovery",
        boot: Boot::Default,
        tests: Tests::Fixed(recovery::TESTS),
    },
    Suite {
        name: "inject",
        boot: Boot::Default,
        tests: Tests::Fixed(inject::TESTS),
    },
    Suite {
        name: "fallback",
        boot: Boot::Default,
        tests: Tests::Fixed(fallback::TESTS),
    },
    Suite {
        name: "camera",
        boot: Boot::Default,
        tests: Tests::Fixed(camera::TESTS),
    },
    Suite {
        name: "iommu",
        boot: Boot::Translated,
        tests: Tests::Fixed(iommu::TESTS),
    },
    Suite {
        name: "stale",
        boot: Boot::Default,
        tests: Tests::WithMore(stale::TESTS, stale::on_this_kernel),
    },
    Suite {
        name: "modules",
        boot: Boot::Default,
        tests: Tests::Fixed(modules::TESTS),
    },
    Suite {
        name: "cycles",
        boot: Boot::Default,
        tests: Tests::Fixed(cycles::TESTS),
    },
    Suite {
        name: "scenario",
        boot: Boot::Bare,
        tests: Tests::Made(scenario::trials),
    },
    Suite {
        name: "parity",
        boot: Boot::Upstream,
        tests: Tests::Fixed(parity::TESTS),
    },
    Suite {
        name: "no-tee",
        boot: Boot::NoTee,
        tests: Tests::Fixed(no_tee::TESTS),
    },
    Suite {
        name: "attacks",
        boot: Boot::Default,
        tests: Tests::Fixed(attacks::TESTS),
    },
    Suite {
        name: "swiotlb",
        boot: Boot::Bounced,
        tests: Tests::WithMore(attacks::BOUNCED, camera::bounced),
    },
    Suite {
        name: "doomed",
        boot: Boot::Doomed,
        tests: Tests::Fixed(attacks::DOOMED),
    },
    Suite {
        name: "faults",
        boot: Boot::Default,
        tests: Tests::WithMore(faults::TESTS, faults::on_this_kernel),
    },
    Suite {
        name: "fuzz",
        boot: Boot::Default,
        tests: Tests::Fixed(fuzz::TESTS),
    },
    Suite {
        name: "decoder",
        boot: Boot::Default,
        tests: Tests::Fixed(decoder::TESTS),
    },
    Suite {
        name: "lifecycle",
        boot: Boot::Default,
        tests: Tests::Fixed(lifecycle::TESTS),
    },
    Suite {
        name: "kexec",
        boot: Boot::Images,
        tests: Tests::Fixed(kexec::TESTS),
    },
    Suite {
        name: "video",
        boot: Boot::Default,
        tests: Tests::WithMore(video::TESTS, video::on_this_kernel),
    },
    Suite {
        name: "soak",
        boot: Boot::Default,
        tests: Tests::Fixed(soak::TESTS),
    },
];

/// How long what a test set going may take to come to rest.
const SETTLING: Duration = Duration::from_secs(60);

pub fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().collect();
    let rest = arguments.get(1..).unwrap_or_default();
    if let Some(verdict) = memory::child(rest)
        .or_else(|| soak::child(rest))
        .or_else(|| content::child(rest))
    {
        return verdict;
    }
    if let [_, ALLOCATE_FOR_EVER, heap, size] =
        arguments.iter().map(String::as_str).collect::<Vec<_>>()[..]
    {
        // It is killed, or has failed.
        let _ = cma::allocate_for_ever(heap, size);
        return ExitCode::FAILURE;
    }
    match arguments.get(1).map(String::as_str) {
        Some("list") => {
            list();
            ExitCode::SUCCESS
        }
        Some(word) if !word.starts_with('-') => match SUITES.iter().find(|s| s.name == word) {
            Some(suite) => match prepare(suite) {
                Ok(()) => run(&[suite], &arguments[2..]),
                Err(error) => {
                    eprintln!("{word}: {error:#}");
                    ExitCode::FAILURE
                }
            },
            None => {
                eprintln!("there is no suite {word}; `ringfence-tests list` shows them");
                ExitCode::from(2)
            }
        },
        _ => {
            let suites: Vec<_> = SUITES
                .iter()
                .filter(|suite| suite.boot == Boot::Default)
                .collect();
            run(&suites, arguments.get(1..).unwrap_or_default())
        }
    }
}

fn list() {
    for suite in SUITES {
        // Whoever does not read on has seen enough.
        let _ = writeln!(io::stdout(), "{} {}", suite.name, suite.boot.word());
    }
}

/// Loads the heaps for suites that may be the first in a bare machine.
fn prepare(suite: &Suite) -> anyhow::Result<()> {
    if matches!(suite.boot, Boot::NoTee | Boot::Charged) {
        for name in [module::CARVEOUT, module::SYSTEM, module::CMA] {
            module::load(name)?;
        }
    }
    Ok(())
}

fn run(suites: &[&Suite], options: &[String]) -> ExitCode {
    let program = String::from("ringfence-tests");
    let mut arguments = Arguments::from_iter(std::iter::once(&program).chain(options));
    arguments.test_threads = Some(1);
    let trials = suites.iter().flat_map(|suite| suite.trials()).collect();
    libtest_mimic::run(&arguments, trials).exit_code()
}

/// What a test must leave as it was. A heap that is offline has no figures.
#[derive(Debug, PartialEq)]
struct Traces {
    heaps: Vec<HeapInfo>,
    open_files: usize,
}

impl Traces {
    fn read() -> anyhow::Result<Self> {
        let mut heaps: Vec<_> = Control::open()?
            .heaps()?
            .into_iter()
            .filter(|heap| heap.online)
            .collect();
        // Memory that Linux uses as well is never as free as it was.
        let shared = |heap: &&mut HeapInfo| heap.cpu_access && !region::is_carveout(&heap.name);
        for heap in heaps.iter_mut().filter(shared) {
            heap.free = 0;
            heap.largest_free = 0;
        }
        forget_idle_fences(&mut heaps);
        Ok(Self {
            heaps,
            open_files: fs::read_dir("/proc/self/fd")?.count(),
        })
    }
}

/// Runs a test and fails it if it leaves anything behind. Memory must be back
/// at once, but for tests of what comes back by and by: these wait themselves.
fn without_traces(test: fn() -> anyhow::Result<()>) -> anyhow::Result<()> {
    let before = Traces::read()?;
    test()?;
    let mut after = Traces::read()?;
    // A heap that the test brought up has no figures from before.
    after
        .heaps
        .retain(|heap| before.heaps.iter().any(|old| old.name == heap.name));
    anyhow::ensure!(
        after == before,
        "left behind: {after:#?}\nbefore: {before:#?}"
    );
    Ok(())
}

/// Makes figures those of when the last fence has come down: a region that is fenced as a
/// whole stays so for a while after its last buffer.
fn forget_idle_fences(heaps: &mut [HeapInfo]) {
    for heap in heaps.iter_mut().filter(|heap| heap.whole_region) {
        if heap.buffers == 0 && heap.quarantined == 0 {
            heap.protected_bytes = 0;
        }
    }
}

/// Waits until every heap has the figures that it had before, and no region without
/// buffers is fenced.
fn settled(before: &[HeapInfo]) -> anyhow::Result<()> {
    let mut before = before.to_vec();
    forget_idle_fences(&mut before);
    deadline::until(SETTLING, "the heaps come to rest", || {
        let now = Control::open()?.heaps()?;
        anyhow::ensure!(now == before, "{now:#?}\nbefore: {before:#?}");
        Ok(Some(()))
    })
}

/// How long a heap's worker may take to look once more when there is nothing to scrub.
const LAST_LOOK: Duration = Duration::from_millis(200);

/// Waits until no heap's worker has anything to do: what fails in the background then fails for the
/// one heap that gets it something.
fn workers_at_rest() -> anyhow::Result<()> {
    deadline::until(SETTLING, "all memory is clean", || {
        for heap in Control::open()?.heaps()? {
            if region::is_carveout(&heap.name) && debug::figure(&heap.name, "dirty")? > 0 {
                return Ok(None);
            }
        }
        Ok(Some(()))
    })?;
    thread::sleep(LAST_LOOK);
    Ok(())
}
