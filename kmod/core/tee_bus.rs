// SPDX-License-Identifier: GPL-2.0

//! Drivers for trusted applications that OP-TEE enumerates on its bus.

use crate::{
    bindings,
    tee::Uuid, //
};
use kernel::{
    container_of,
    device::Device,
    error::{
        from_result,
        to_result, //
    },
    prelude::*,
    sync::Arc,
    types::Opaque, //
};

/// A driver for one trusted application.
pub trait Driver: Send + Sync + 'static {
    /// The trusted application is there.
    ///
    /// # Errors
    ///
    /// Whatever keeps the driver from using it.
    fn probe(&self, device: &Device) -> Result;

    /// The trusted application, or all of the TEE, is about to go.
    ///
    /// Every session must be closed when this returns.
    fn remove(&self);
}

/// A driver's registration on the TEE bus, until it is dropped.
///
/// # Invariants
///
/// `raw` is registered, and refers to `ids`, which end with a null UUID.
#[pin_data(PinnedDrop)]
pub struct Registration<T: Driver> {
    #[pin]
    raw: Opaque<bindings::tee_client_driver>,
    ids: Opaque<[bindings::tee_client_device_id; 2]>,
    driver: Arc<T>,
}

// SAFETY: The driver may be used from any thread, and so may the registration.
unsafe impl<T: Driver> Send for Registration<T> {}
// SAFETY: A shared reference gives access to nothing.
unsafe impl<T: Driver> Sync for Registration<T> {}

impl<T: Driver> Registration<T> {
    /// Registers `driver` for the trusted application `application`.
    ///
    /// # Errors
    ///
    /// The driver core's.
    pub fn new(
        name: &'static CStr,
        module: &'static ThisModule,
        application: Uuid,
        driver: Arc<T>,
    ) -> impl PinInit<Self, Error> {
        let ids = [
            bindings::tee_client_device_id {
                uuid: bindings::uuid_t { b: application },
            },
            pin_init::zeroed(),
        ];
        try_pin_init!(&this in Self {
            driver,
            ids: Opaque::new(ids),
            raw <- Opaque::try_ffi_init(move |slot: *mut bindings::tee_client_driver| {
                // SAFETY: `slot` is valid for writes. `this` is being initialised at its final
                // place, and its `ids` are already.
                unsafe {
                    slot.write(pin_init::zeroed());
                    (*slot).probe = Some(Self::probe);
                    (*slot).remove = Some(Self::remove);
                    (*slot).id_table = Opaque::cast_into(&raw const (*this.as_ptr()).ids).cast();
                    (*slot).driver.name = name.as_char_ptr();
                }
                // SAFETY: The structure is complete. It is pinned, and unregistered before it is
                // freed; the other fields were initialised first, as the callbacks need.
                to_result(unsafe {
                    bindings::__tee_client_driver_register(slot, module.as_ptr())
                })
            }),
        })
    }

    /// # Safety
    ///
    /// `device` must be bound, or being bound, to a driver registered by [`Self::new`].
    unsafe fn parts<'a>(device: *mut bindings::tee_client_device) -> (&'a T, &'a Device) {
        // SAFETY: By the function's contract the device is live, and its driver is the one that is
        // embedded in `raw` of a `Registration`, which outlives the binding.
        unsafe {
            let raw = &raw mut (*device).dev;
            let driver = container_of!((*raw).driver, bindings::tee_client_driver, driver);
            let registration = container_of!(Opaque::cast_from(driver), Self, raw);
            (&*(*registration).driver, Device::from_raw(raw))
        }
    }

    /// # Safety
    ///
    /// Called by the TEE bus only, with a device that it binds to this driver.
    unsafe extern "C" fn probe(device: *mut bindings::tee_client_device) -> c_int {
        // SAFETY: By the function's contract the device is being bound to this driver.
        let (driver, device) = unsafe { Self::parts(device) };
        from_result(|| driver.probe(device).map(|()| 0))
    }

    /// # Safety
    ///
    /// Called by the TEE bus only, with a device that is bound to this driver.
    unsafe extern "C" fn remove(device: *mut bindings::tee_client_device) {
        // SAFETY: By the function's contract the device is bound to this driver.
        let (driver, _) = unsafe { Self::parts(device) };
        driver.remove();
    }
}

#[pinned_drop]
impl<T: Driver> PinnedDrop for Registration<T> {
    fn drop(self: Pin<&mut Self>) {
        // SAFETY: By the type invariants the driver is registered.
        unsafe { bindings::tee_client_driver_unregister(self.raw.get()) };
    }
}
