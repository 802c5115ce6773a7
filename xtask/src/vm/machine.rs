// SPDX-License-Identifier: MIT OR Apache-2.0
//! The emulated machine: QEMU's command line.

use std::ffi::OsString;
use std::path::Path;

use crate::artefact::devicetree::Board;

/// Where the kernel lies; TF-A enters it there. Physical address.
pub const KERNEL_ADDRESS: u64 = 0x6000_0000;

/// Where the root file system lies. Physical address.
pub const INITRAMFS_ADDRESS: u64 = 0x6800_0000;

/// Start of the guest's memory. Physical address.
pub const MEMORY_START: u64 = 0x4000_0000;

/// Size of a board's memory, in bytes. Larger ones have more at the end.
pub fn memory_size(board: Board) -> u64 {
    match board {
        Board::Ordinary | Board::Translated => 2 << 30,
        Board::Bench => 5 << 29,
    }
}

/// How many processors a board has. All of a machine whose time counts instructions share one clock:
/// a second one would count in what the first is measured by.
fn processors(board: Board) -> &'static str {
    match board {
        Board::Ordinary | Board::Translated => "2",
        Board::Bench => "1",
    }
}

/// What decides QEMU's devicetree.
///
/// SVE and SME must be off: TF-A traps floating point for the secure world otherwise.
pub fn board(board: Board) -> [String; 8] {
    let mut machine =
        "virt,secure=on,virtualization=on,gic-version=3,dtb-randomness=off".to_owned();
    if board == Board::Translated {
        machine.push_str(",iommu=smmuv3");
    }
    [
        "-machine",
        &machine,
        "-cpu",
        "max,x-rme=on,sve=off,sme=off,pauth-impdef=on",
        "-smp",
        processors(board),
        "-m",
        &format!("{}M", memory_size(board) >> 20),
    ]
    .map(str::to_owned)
}

/// Devices of a board that QEMU has when it is asked for them.
fn devices(board: Board) -> &'static [&'static str] {
    match board {
        Board::Ordinary | Board::Bench => &[],
        // It copies from memory and to memory, at any address that it is told.
        Board::Translated => &["edu,dma_mask=0xffffffffffffffff"],
    }
}

/// Arguments of one boot, as they are put together.
#[derive(Debug, Default)]
pub struct Arguments {
    board: Board,
    words: Vec<OsString>,
}

impl Arguments {
    /// The board without any device that QEMU would add by itself, emulated by TCG.
    pub fn new(board: Board) -> Self {
        let mut arguments = Self {
            board,
            words: Vec::new(),
        };
        for argument in [
            "-nodefaults",
            "-no-user-config",
            "-display",
            "none",
            "-no-reboot",
            "-accel",
            "tcg",
        ] {
            arguments.words.push(argument.into());
        }
        for argument in self::board(board) {
            arguments.words.push(argument.into());
        }
        for device in devices(board) {
            arguments.option("-device", *device);
        }
        arguments
    }

    /// Adds an option with its value.
    pub fn option(&mut self, name: &str, value: impl Into<OsString>) -> &mut Self {
        self.words.push(name.into());
        self.words.push(value.into());
        self
    }

    /// Puts a file's bytes into the guest's memory before it starts.
    pub fn load(&mut self, path: &Path, address: u64) -> &mut Self {
        self.option(
            "-device",
            format!("loader,file={},addr={address:#x},force-raw=on", quote(path)),
        )
    }

    /// Gives the guest a file under `opt/ringfence/` in fw_cfg.
    pub fn config(&mut self, name: &str, path: &Path) -> &mut Self {
        self.option(
            "-fw_cfg",
            format!("name=opt/ringfence/{name},file={}", quote(path)),
        )
    }

    /// Uses the open file `fd` of QEMU as the guest's memory.
    pub fn memory(&mut self, fd: i32) -> &mut Self {
        let object = format!(
            "memory-backend-file,id=ram,mem-path=/proc/self/fd/{fd},size={},share=on",
            memory_size(self.board)
        );
        self.option("-object", object)
            .option("-machine", "memory-backend=ram")
    }

    /// Connects the character device `id` to the connected socket `fd`.
    pub fn socket(&mut self, id: &str, fd: i32) -> &mut Self {
        self.option("-chardev", format!("socket,id={id},fd={fd}"))
    }

    /// Gives the guest a screen that shows any of its memory, and takes orders about the machine
    /// itself on the character device `monitor`.
    pub fn screen(&mut self, monitor: &str) -> &mut Self {
        self.option("-device", "ramfb")
            .option("-mon", format!("chardev={monitor},mode=control"))
    }

    /// The finished list.
    pub fn into_inner(self) -> Vec<OsString> {
        self.words
    }
}

/// A path within one of QEMU's comma-separated options.
pub fn quote(path: &Path) -> String {
    path.to_string_lossy().replace(',', ",,")
}
