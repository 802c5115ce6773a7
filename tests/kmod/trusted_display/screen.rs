// SPDX-License-Identifier: GPL-2.0

//! What is on the screen, and how long the buffer that holds it is kept.
//!
//! The screen is told of the next picture before the buffer of the one before is
//! let go of, so that it never looks at memory that has another owner. Where it
//! can't be told, the buffer is kept for ever.
//!
//! `ramfb` can't be switched off: black is the kernel's page of zeros.

use kernel::{
    device::Device,
    new_mutex,
    prelude::*,
    sync::{
        aref::ARef,
        atomic::{
            Atomic,
            Relaxed, //
        },
        Arc,
        Mutex, //
    }, //
};

use crate::{
    fw_cfg::{
        self,
        FwCfg, //
    },
    import::Import,
    picture::{
        Picture,
        Show, //
    },
};

/// Edge of the black square that a page of zeros makes, in pixels.
const BLACK: u32 = 32;

/// A buffer on the screen, and who has put it there.
struct Shown {
    client: u64,
    buffer: Import,
}

/// A screen that is switched on.
///
/// The order of the fields is that of their drop, but [`Display::switch_off`] has
/// made it black before.
struct Screen {
    fw_cfg: FwCfg,
    shown: Option<Shown>,
}

impl Screen {
    /// Shows a picture of `next`, and lets go of the one before.
    fn flip(&mut self, picture: Picture, next: Option<Shown>) -> Result {
        if let Err(error) = self.fw_cfg.show(picture) {
            if self.fw_cfg.is_lost() {
                // It may be on the screen, or the one before may.
                keep_for_ever(next);
                keep_for_ever(self.shown.take());
            }
            return Err(error);
        }
        drop(core::mem::replace(&mut self.shown, next));
        Ok(())
    }

    /// Whether this client's picture is on it.
    fn is_of(&self, client: u64) -> bool {
        matches!(&self.shown, Some(shown) if shown.client == client)
    }

    /// Makes the screen black, and lets go of what was on it.
    fn blank(&mut self) {
        let black = Picture {
            address: fw_cfg::zeros(),
            width: BLACK,
            height: BLACK,
            stride: BLACK * 4,
        };
        if let Err(error) = self.flip(black, None) {
            pr_err!("the screen can't be made black: {:?}\n", error);
            keep_for_ever(self.shown.take());
        }
    }
}

/// Keeps a buffer that the screen may look at.
fn keep_for_ever(shown: Option<Shown>) {
    if let Some(shown) = shown {
        pr_err!(
            "a buffer of {} bytes is kept for ever\n",
            shown.buffer.size()
        );
        core::mem::forget(shown);
    }
}

/// The display. It outlives its device for those who have its file open.
#[pin_data]
pub(crate) struct Display {
    device: ARef<Device>,
    clients: Atomic<u64>,
    /// None when it is switched off.
    #[pin]
    screen: Mutex<Option<Screen>>,
}

impl Display {
    /// Switches the display of `device` on: black.
    ///
    /// # Errors
    ///
    /// `ENOENT` when QEMU has no `ramfb`; `EIO`, `ENOMEM`.
    pub(crate) fn new(device: &Device, mut fw_cfg: FwCfg) -> Result<Arc<Self>> {
        fw_cfg.find_screen()?;
        let mut screen = Screen {
            fw_cfg,
            shown: None,
        };
        screen.blank();
        Arc::pin_init(
            pin_init!(Self {
                device: device.into(),
                clients: Atomic::new(0),
                screen <- new_mutex!(Some(screen)),
            }),
            GFP_KERNEL,
        )
    }

    /// Makes the screen black and lets go of everything; later requests get
    /// `ENODEV`.
    pub(crate) fn switch_off(&self) {
        if let Some(mut screen) = self.screen.lock().take() {
            screen.blank();
        }
    }
}

/// Somebody who shows pictures; what it shows is its own.
pub(crate) struct Client {
    display: Arc<Display>,
    number: u64,
}

impl Client {
    /// Another one.
    pub(crate) fn new(display: Arc<Display>) -> Self {
        let number = display.clients.fetch_add(1, Relaxed);
        Self { display, number }
    }

    /// Shows a picture instead of the one before.
    ///
    /// # Errors
    ///
    /// Those of `RINGFENCE_DISPLAY_IOCTL_SHOW`. The picture before stays then.
    pub(crate) fn show(&self, show: &Show) -> Result {
        show.check()?;
        let mut screen = self.display.screen.lock();
        let screen = Option::as_mut(&mut screen).ok_or(ENODEV)?;
        let buffer = Import::new(show.fd, &self.display.device)?;
        let picture = show.locate(buffer.start(), buffer.size())?;
        screen.flip(
            picture,
            Some(Shown {
                client: self.number,
                buffer,
            }),
        )
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        let mut screen = self.display.screen.lock();
        match Option::as_mut(&mut screen) {
            Some(screen) if screen.is_of(self.number) => screen.blank(),
            _ => {}
        }
    }
}
