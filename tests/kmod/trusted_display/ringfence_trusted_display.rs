// SPDX-License-Identifier: GPL-2.0

//! For tests on QEMU only: a stand-in for a trusted display.
//!
//! QEMU's `ramfb` shows a picture that lies at any physical address. As QEMU
//! enforces granule protection for the CPU and not for its devices, it can show a
//! protected frame that Linux can't read, which is what a display of the trusted
//! world does on silicon. This module is its driver: it attaches to the frame's
//! dma-buf as the device of the devicetree that the heap lists as a consumer, maps
//! it for that device, and tells `ramfb` where it is. No pixel goes through Linux.
//!
//! Programs reach it by `/dev/ringfence-display`: `include/ringfence_display.h`.
//!
//! - [`screen`] is the policy: what is shown, and how long its buffer is kept.
//! - [`picture`] judges what a program asks for.
//! - [`import`] has a buffer in the hands of the device.
//! - [`fw_cfg`] talks to QEMU.

#![deny(unsafe_code)]

use kernel::{
    device::Core,
    dma::{
        Device as _,
        DmaMask, //
    },
    fs::File,
    ioctl::_IOW,
    miscdevice::{
        MiscDevice,
        MiscDeviceOptions,
        MiscDeviceRegistration, //
    },
    of,
    platform,
    prelude::*,
    sync::Arc,
    uaccess::UserSlice,
    InPlaceModule, //
};

mod fw_cfg;
mod import;
mod picture;
mod screen;

use fw_cfg::FwCfg;
use picture::Show;
use screen::{
    Client,
    Display, //
};

const OPTIONS: MiscDeviceOptions = MiscDeviceOptions {
    name: c"ringfence-display",
};

/// `RINGFENCE_DISPLAY_IOCTL_SHOW`.
const SHOW: u32 = _IOW::<Show>(0xB7, 0);

#[allow(unsafe_code)]
mod current {
    //! The display that is there, for those who open the device's file.

    use super::*;

    kernel::sync::global_lock! {
        // SAFETY: The module's initialisation does it, before the driver is registered.
        pub(super) unsafe(uninit) static DISPLAY: Mutex<Option<Arc<Display>>> = None;
    }

    /// Prepares the lock. Called once, by the module's initialisation.
    pub(super) fn init() {
        // SAFETY: The only caller is the module's initialisation, which runs once.
        unsafe { DISPLAY.init() };
    }
}

/// An open file of the device.
struct OpenFile(Client);

#[vtable]
impl MiscDevice for OpenFile {
    type Ptr = Pin<KBox<Self>>;

    fn open(_file: &File, _misc: &MiscDeviceRegistration<Self>) -> Result<Self::Ptr> {
        let display = current::DISPLAY.lock().clone().ok_or(ENODEV)?;
        Ok(KBox::new(Self(Client::new(display)), GFP_KERNEL)?.into())
    }

    fn ioctl(this: Pin<&Self>, _file: &File, command: u32, address: usize) -> Result<isize> {
        if command != SHOW {
            return Err(ENOTTY);
        }
        let mut reader = UserSlice::new(UserPtr::from_addr(address), size_of::<Show>()).reader();
        this.0.show(&reader.read()?)?;
        Ok(0)
    }
}

/// A bound device.
///
/// The order of the fields is that of their drop: nobody opens it any more, and
/// then the screen goes black.
#[pin_data]
struct TrustedDisplay {
    #[pin]
    _file: MiscDeviceRegistration<OpenFile>,
    _switch: Switch,
}

/// Switches the display on and, when it is dropped, off.
struct Switch(Arc<Display>);

impl Switch {
    fn on(display: Arc<Display>) -> Result<Self> {
        let mut current = current::DISPLAY.lock();
        if current.is_some() {
            return Err(EBUSY);
        }
        *current = Some(display.clone());
        Ok(Self(display))
    }
}

impl Drop for Switch {
    fn drop(&mut self) {
        *current::DISPLAY.lock() = None;
        self.0.switch_off();
    }
}

kernel::of_device_table!(
    OF_TABLE,
    <TrustedDisplay as platform::Driver>::IdInfo,
    [(of::DeviceId::new(c"ringfence,qemu-trusted-display"), ())]
);

impl platform::Driver for TrustedDisplay {
    type IdInfo = ();
    type Data<'bound> = Self;
    const OF_ID_TABLE: Option<of::IdTable<Self::IdInfo>> = Some(&OF_TABLE);

    fn probe<'bound>(
        device: &'bound platform::Device<Core<'_>>,
        _info: Option<&'bound ()>,
    ) -> impl PinInit<Self, Error> + 'bound {
        pin_init::pin_init_scope(move || {
            reach_all(device)?;
            let register = device.resource_by_index(0).ok_or(EINVAL)?;
            let fw_cfg = FwCfg::new(device.as_ref(), register)?;
            let display = Display::new(device.as_ref(), fw_cfg).inspect_err(|&error| {
                if error == ENOENT {
                    dev_err!(device, "QEMU has no ramfb: start it with -device ramfb\n");
                }
            })?;
            let switch = Switch::on(display)?;
            Ok(try_pin_init!(Self {
                _file <- MiscDeviceRegistration::register(OPTIONS),
                _switch: switch,
            }))
        })
    }
}

/// The device reaches all memory, in one piece.
#[allow(unsafe_code)]
fn reach_all(device: &platform::Device<Core<'_>>) -> Result {
    // SAFETY: The device is being bound: nobody maps or allocates anything for it yet.
    unsafe { device.dma_set_mask_and_coherent(DmaMask::new::<64>())? };
    // SAFETY: As above.
    unsafe { device.dma_set_max_seg_size(u32::MAX) };
    Ok(())
}

#[pin_data]
struct Module {
    #[pin]
    _driver: kernel::driver::Registration<platform::Adapter<TrustedDisplay>>,
}

impl InPlaceModule for Module {
    fn init(module: &'static ThisModule) -> impl PinInit<Self, Error> {
        current::init();
        try_pin_init!(Self {
            _driver <- kernel::driver::Registration::new(c"ringfence_trusted_display", module),
        })
    }
}

module! {
    type: Module,
    name: "ringfence_trusted_display",
    authors: ["Ringfence"],
    description: "A stand-in for a trusted display on QEMU, for tests",
    license: "GPL",
    imports_ns: ["DMA_BUF"],
}
