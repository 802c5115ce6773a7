// SPDX-License-Identifier: MIT OR Apache-2.0
//! The whole stack laid out as a plan: which part needs which.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{anyhow, Result};

use crate::apt::Apt;
use crate::artefact::clip::{self, Clip};
use crate::artefact::devicetree::{self, Devicetree};
use crate::artefact::dtschema::{self, Dtschema};
use crate::artefact::firewall;
use crate::artefact::initramfs::{self, Initramfs, TestParts};
use crate::artefact::kernel::{Flavour, Kbuild, Kernel};
use crate::artefact::kselftest;
use crate::artefact::modules;
use crate::artefact::optee;
use crate::artefact::programs;
use crate::artefact::source::{self, Source};
use crate::artefact::ta;
use crate::artefact::tf_a::{self, Firmware};
use crate::artefact::userland;
use crate::cache::Cache;
use crate::engine::{Plan, Step};
use crate::film::{self, Format, Pictures};
use crate::host;
use crate::rust::Toolchain;
use crate::versions::Versions;

/// What a build is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Build {
    /// With the digest command and fault injection.
    Test,
    /// As it would be shipped.
    Product,
}

impl Build {
    /// `name` for the test build, `name-product` for the other.
    pub fn name(self, name: &str) -> String {
        match self {
            Self::Test => name.to_owned(),
            Self::Product => format!("{name}-product"),
        }
    }
}

/// The film that tests play: two seconds, small enough to be played many times.
const FILM: Format = Format {
    width: 640,
    height: 360,
    rate: 12,
    count: 24,
    quality: 4,
};

/// The film that is played before witnesses: all five seconds of the clip.
const FEATURE: Format = Format { count: 60, ..FILM };

/// Every step of one build of the stack.
pub struct Stack {
    /// The plan that has the steps.
    pub plan: Plan,
    /// The devicetree.
    pub devicetree: Devicetree,
    /// The validator of the bindings.
    pub dtschema: Dtschema,
    /// Flash image.
    pub firmware: Firmware,
    /// The kernel of the flavour asked for.
    pub kernel: Kernel,
    /// The guest's root file system.
    pub initramfs: Initramfs,
    /// The kernel's source.
    pub linux: Source,
    /// What the main job plays.
    pub clip: Clip,
    /// A short film, for tests.
    pub film: Pictures,
    /// A longer one, for those who watch.
    pub feature: Pictures,
    /// A build of the modules by Clippy.
    pub modules_clippy: Step,
    parts: Vec<(&'static str, Step)>,
}

impl Stack {
    /// Sets up the machine and lays out the stack; builds nothing yet.
    pub fn declare(cache: &Cache, flavour: Flavour, build: Build) -> Result<Self> {
        let workspace = workspace();
        let versions = Versions::load()?;
        let host = host::ensure(cache, &versions)?;
        let apt = Arc::new(Apt::new(cache, &versions.archive.suites));
        let mut plan = Plan::new(cache.clone());
        let library = Toolchain::detect()?.declare_library(&mut plan, &apt)?;

        let linux = source::declare_linux(&mut plan, &apt, &versions)?;
        let kbuild = Kbuild::declare(&mut plan, &host, &versions, linux.clone(), &library)?;
        let kernel = kbuild.declare_kernel(&mut plan, flavour)?;
        let clip = clip::declare(&mut plan, &versions.clip)?;
        let film = film::declare(&mut plan, "film", &clip, FILM)?;
        let feature = film::declare(&mut plan, "feature", &clip, FEATURE)?;
        let userland = userland::declare(&mut plan, &apt, &versions)?;
        let devicetree = devicetree::declare(&mut plan, workspace)?;
        let dtschema = dtschema::declare(&mut plan, &versions.host.dtschema)?;

        let patches = |folder: &str| workspace.join("ta/firmware").join(folder);
        let optee_source =
            source::declare(&mut plan, &apt, &versions, "optee-os", &patches("optee"))?;
        let kit = optee::declare_dev_kit(&mut plan, &optee_source)?;
        let firewall = firewall::declare(&mut plan, workspace, &library, build)?;
        let ta = ta::declare(&mut plan, workspace, &library, &kit, build)?;
        let decoder = ta::declare_decoder(&mut plan, workspace, &library, &kit, build)?;
        let optee = optee::declare(
            &mut plan,
            &optee_source,
            &devicetree,
            &firewall,
            &[&ta, &decoder],
            build,
        )?;
        let tf_a_source = source::declare(
            &mut plan,
            &apt,
            &versions,
            "arm-trusted-firmware",
            &patches("tf-a"),
        )?;
        let firmware = tf_a::declare(&mut plan, &tf_a_source, &devicetree, &optee, build)?;

        let modules = modules::declare(&mut plan, workspace, &kernel, build)?;
        let modules_clippy = modules::declare_clippy(&mut plan, workspace, &kernel)?;
        let programs = programs::declare(&mut plan, workspace, &library, &userland)?;
        let tests = match build {
            Build::Test => Some(TestParts {
                kselftest: kselftest::declare(&mut plan, &linux, &kbuild)?,
                foreign: ta::declare_foreign(&mut plan, workspace, &library, &kit)?,
            }),
            Build::Product => None,
        };
        let initramfs = initramfs::declare(
            &mut plan,
            &userland,
            &kernel,
            &modules,
            &programs,
            tests.as_ref(),
        )?;

        let parts = vec![
            ("kernel", kernel.step.clone()),
            ("devicetree", devicetree.step.clone()),
            ("firewall", firewall.step.clone()),
            ("ta", ta.step.clone()),
            ("decoder", decoder.step.clone()),
            ("optee", optee.step.clone()),
            ("tf-a", firmware.step.clone()),
            ("modules", modules.step.clone()),
            ("programs", programs.step.clone()),
            ("initramfs", initramfs.step.clone()),
        ];
        Ok(Self {
            plan,
            devicetree,
            dtschema,
            firmware,
            kernel,
            initramfs,
            linux,
            clip,
            film,
            feature,
            modules_clippy,
            parts,
        })
    }

    /// Builds the named parts, or all of them when none is named; returns where each is.
    pub fn build(&self, names: &[String]) -> Result<Vec<(&'static str, PathBuf)>> {
        if let Some(unknown) = names
            .iter()
            .find(|name| !self.parts.iter().any(|(part, _)| part == name))
        {
            let known: Vec<&str> = self.parts.iter().map(|(name, _)| *name).collect();
            return Err(anyhow!(
                "no part {unknown}; there are: {}",
                known.join(", ")
            ));
        }
        let chosen: Vec<_> = self
            .parts
            .iter()
            .filter(|(part, _)| names.is_empty() || names.iter().any(|name| name == part))
            .collect();
        let steps: Vec<&Step> = chosen.iter().map(|(_, step)| step).collect();
        self.plan.execute(&steps)?;
        Ok(chosen
            .iter()
            .map(|(name, step)| (*name, step.dir().to_owned()))
            .collect())
    }

    /// Builds what a boot takes.
    pub fn build_for_boot(&self) -> Result<()> {
        self.plan.execute(&self.boot_steps())
    }

    /// Builds what a boot takes, and makes the film that is played before witnesses.
    pub fn build_for_feature(&self) -> Result<()> {
        let mut steps = self.boot_steps();
        steps.extend([&self.clip.step, &self.feature.step]);
        self.plan.execute(&steps)
    }

    /// Builds what a boot takes, and fetches the content that is played in it.
    pub fn build_for_content(&self) -> Result<()> {
        let mut steps = self.boot_steps();
        steps.extend([&self.clip.step, &self.film.step]);
        self.plan.execute(&steps)
    }

    fn boot_steps(&self) -> Vec<&Step> {
        vec![
            &self.devicetree.step,
            &self.firmware.step,
            &self.kernel.step,
            &self.initramfs.step,
        ]
    }
}

/// Root of the checkout.
pub fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("xtask lies in the workspace")
}
