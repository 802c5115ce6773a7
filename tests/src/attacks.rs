// SPDX-License-Identifier: MIT OR Apache-2.0

//! The attacks that the guest's suites run against live protected buffers, and
//! what refuses each: the README's table.

/// What refuses an attack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refuser {
    /// Granule protection, at the access.
    Cpu,
    /// Linux: its own checks, or this project's driver.
    Kernel,
    /// The trusted application.
    Application,
    /// OP-TEE's core, or the firewall in it.
    Optee,
    /// The firmware at EL3.
    Firmware,
    /// It is carried out, and brings nothing home.
    InVain,
    /// Nothing, on this machine.
    Nothing,
}

impl Refuser {
    /// What the README calls it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Cpu => "CPU",
            Self::Kernel => "kernel",
            Self::Application => "trusted application",
            Self::Optee => "OP-TEE",
            Self::Firmware => "EL3",
            Self::InVain => "in vain",
            Self::Nothing => "**nothing on QEMU**",
        }
    }
}

/// An attack.
#[derive(Debug, Clone, Copy)]
pub struct Attack {
    /// Its test, with the suite.
    pub test: &'static str,
    /// What is tried.
    pub what: &'static str,
    /// What refuses it.
    pub refuser: Refuser,
    /// How that shows.
    pub how: &'static str,
}

impl Attack {
    /// Its line in the README's table.
    pub fn row(&self) -> String {
        let how = match self.how {
            "" => String::new(),
            how => format!(": {how}"),
        };
        format!(
            "| {} | {}{how} | `{}` |",
            self.what,
            self.refuser.name(),
            self.test
        )
    }
}

/// The head of the README's table.
pub const HEAD: &str = "| attack | what refuses | test |\n| --- | --- | --- |";

const fn attack(
    test: &'static str,
    what: &'static str,
    refuser: Refuser,
    how: &'static str,
) -> Attack {
    Attack {
        test,
        what,
        refuser,
        how,
    }
}

/// All of them.
pub const ATTACKS: &[Attack] = {
    use Refuser::{Application, Cpu, Firmware, InVain, Kernel, Nothing, Optee};
    &[
        attack("attacks::mmap", "`mmap` of the buffer: shared, private, every protection, in part, beyond its end, with huge pages", Kernel, "EPERM, EINVAL beyond the end"),
        attack("attacks::mmap_over_memory", "`mmap` in the place of other memory, `mremap`, opening it again by its path", Kernel, "EPERM, ENXIO"),
        attack("attacks::cpu_access", "`DMA_BUF_IOCTL_SYNC`", Kernel, "EACCES"),
        attack("attacks::read_and_write", "`read`, `write`, `pread`, `preadv`, `ftruncate` and their kin", Kernel, "EINVAL, ESPIPE"),
        attack("attacks::splice_and_copy", "`splice`, `sendfile`, `copy_file_range`", Kernel, "EINVAL"),
        attack("attacks::io_uring", "io_uring: reads, writes, splices, registered files", Kernel, "EINVAL"),
        attack("attacks::dev_mem_mapping", "root maps the pages by `/dev/mem`", Cpu, "SIGKILL"),
        attack("video::a_protected_picture_is_shown_that_linux_cant_read", "the same, of the picture that is on the screen at the moment", Cpu, "SIGKILL"),
        attack("video::an_encrypted_film_is_on_the_screen_and_nowhere_else", "root searches all memory that Linux has for pieces of the film that is on the screen", InVain, "there are none"),
        attack("attacks::dev_mem_calls", "root reads and writes `/dev/mem`", Kernel, "EFAULT"),
        attack("attacks::borrowed_pages", "`vmsplice`, `process_vm_readv` of pages mapped by `/dev/mem`", Kernel, "EFAULT"),
        attack("doomed::kernel_reads_for_root", "root has the kernel read them, by `/proc/self/mem`", Cpu, "the kernel stops"),
        attack("attacks::proc_kcore", "`/proc/kcore`", Kernel, "it is not in there"),
        attack("attacks::stolen_descriptor", "a descriptor taken from its holder by `pidfd_getfd`", Kernel, "can be had, opens nothing"),
        attack("attacks::holders_memory", "`process_vm_readv` and `/proc/PID/mem` of the holder", Kernel, "EFAULT, EIO"),
        attack("attacks::debugged_holder", "`ptrace`: the holder is made to map its buffer", Kernel, "EPERM"),
        attack("attacks::killed_holders", "processes killed at random points", InVain, "all is released, and zero"),
        attack("attacks::reader_beside_protect", "a mapping made before, read without pause on another CPU while the page is protected", Cpu, "SIGKILL"),
        attack("attacks::reader_beside_release", "readers waiting for the page to open", InVain, "it is zero when it opens"),
        attack("attacks::reader_beside_allocation", "readers while neighbours come and go", Cpu, "SIGKILL"),
        attack("attacks::release_and_allocate", "the next owner looks for old content", InVain, "zeroed by the secure world"),
        attack("doomed::kernel_reads", "a kernel module maps the pages (`memremap`, `ioremap`, `vmap`), and reads them", Cpu, "the kernel stops"),
        attack("doomed::kernel_writes", "the same, and writes to them", Cpu, "the kernel stops"),
        attack("attacks::firmware_calls", "the kernel calls the firmware's service, and every number around it", Firmware, "unknown function"),
        attack("attacks::forged_login", "user space claims the kernel's login; PROTECT and UNPROTECT without it", Kernel, "EPERM; trusted application: access denied"),
        attack("attacks::firewall_from_outside", "user space opens the firewall", Optee, "access denied"),
        attack("attacks::foreign_application", "another signed trusted application opens the firewall, and ours", Optee, "access denied; trusted application: the same"),
        attack("decoder::the_decoder_may_map_and_no_more", "the decoder, as if a bitstream had taken it over, asks the firewall for all it has", Optee, "access denied"),
        attack("decoder::hostile_bitstreams_are_refused_and_survived", "bitstreams with bits flipped, cut short, spliced", Application, "refused, or a spoilt picture; the next one is right"),
        attack("attacks::replayed_handles", "handles of closed buffers, handles nearly right", Application, "item not found"),
        attack("attacks::kernel_fences_anything", "the kernel wants other memory protected: its own, OP-TEE's, devices', around a live buffer", Optee, "access denied, conflict"),
        attack("attacks::kernel_opens_the_fence", "the kernel, which may, has a live buffer opened", InVain, "zeroed by the secure world"),
        attack("attacks::unlisted_device", "a device that is not on `ringfence,consumers` attaches", Kernel, "EACCES"),
        attack("attacks::vmap", "a driver wants the buffer in the kernel's address space", Kernel, "EINVAL, EACCES"),
        attack("attacks::pages_of_a_mapping", "a driver looks for pages behind a DMA mapping", Kernel, "there are none"),
        attack("attacks::narrow_device", "a device whose DMA mask does not reach the buffer", Kernel, "EIO"),
        attack("swiotlb::forced_bounce_buffers", "`swiotlb=force`: bounce buffers for every device", Kernel, "EIO"),
        attack("attacks::device_by_address", "a device that is told a physical address", Nothing, "it reads and writes"),
        attack("attacks::module_unload", "the modules are unloaded", Kernel, "EAGAIN"),
        attack("attacks::unbound_heap", "the heap's driver is unbound by sysfs", InVain, "it stays fenced"),
        attack("attacks::unbound_application", "the trusted application's driver is unbound by sysfs", InVain, "it stays fenced"),
        attack("kexec::a_new_kernel_finds_nothing_of_the_old_ones", "another kernel is started by kexec", InVain, "fenced until it is zeroed"),
    ]
};
