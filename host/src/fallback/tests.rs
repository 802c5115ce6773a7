// SPDX-License-Identifier: MIT OR Apache-2.0

//! Fallback among models of heaps.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::{Arc, Mutex};

use rustix::io::Errno;

use super::*;

/// A buffer of a model, which says when it is gone.
struct Piece {
    size: u64,
    free: Rc<Cell<u64>>,
    properties: Option<Properties>,
}

impl Drop for Piece {
    fn drop(&mut self) {
        self.free.set(self.free.get() + self.size);
    }
}

struct Model {
    name: &'static str,
    free: Rc<Cell<u64>>,
    promises: Option<Properties>,
    has: Option<Properties>,
    fails: Option<Errno>,
}

fn model(name: &'static str, free: u64, properties: &[Property]) -> Model {
    let properties = Some(properties.iter().copied().collect());
    Model {
        name,
        free: Rc::new(Cell::new(free)),
        promises: properties,
        has: properties,
        fails: None,
    }
}

impl Source for Model {
    type Buffer = Piece;

    fn name(&self) -> &str {
        self.name
    }

    fn promises(&self) -> Result<Option<Properties>, Error> {
        Ok(self.promises)
    }

    fn allocate(&self, size: u64) -> Result<Piece, Error> {
        let errno = match self.fails {
            Some(errno) => Some(errno),
            None if size > self.free.get() => Some(Errno::NOMEM),
            None => None,
        };
        if let Some(errno) = errno {
            return Err(Error::Allocation {
                heap: self.name.to_owned(),
                size,
                reason: std::io::Error::from(errno).into(),
            });
        }
        self.free.set(self.free.get() - size);
        Ok(Piece {
            size,
            free: Rc::clone(&self.free),
            properties: self.has,
        })
    }

    fn properties(&self, buffer: &Piece) -> Result<Option<Properties>, Error> {
        Ok(buffer.properties)
    }
}

const CAMERA: [Property; 1] = [Property::Contiguous];
const SYSTEM: [Property; 1] = [Property::CpuAccess];

fn refusals(outcome: Result<Allocation<Piece>, Error>) -> Vec<String> {
    match outcome {
        Err(Error::NoneServed { refused, .. }) => refused.iter().map(ToString::to_string).collect(),
        Err(other) => panic!("{other}"),
        Ok(allocation) => panic!("{} served", allocation.heap),
    }
}

#[test]
fn the_wanted_heap_serves_while_it_has_room_and_the_next_one_after() {
    let told = Arc::new(Mutex::new(Vec::new()));
    let hears = Arc::clone(&told);
    let allocator = Allocator::of(
        vec![model("camera", 2, &CAMERA), model("system", 9, &SYSTEM)],
        Properties::default(),
    )
    .on_fallback(move |allocation| {
        let text = format!("{} for {}", allocation.heap, allocation.refused[0].heap);
        hears.lock().unwrap().push(text);
    });
    let buffers: Vec<_> = (0..3).map(|_| allocator.allocate(1).unwrap()).collect();
    let heaps: Vec<_> = buffers.iter().map(|one| one.heap.as_str()).collect();
    assert_eq!(heaps, ["camera", "camera", "system"]);
    assert!(!buffers[1].is_fallback() && buffers[2].is_fallback());
    assert_eq!(*told.lock().unwrap(), ["system for camera"]);
    let metrics = allocator.metrics();
    assert_eq!(
        metrics.served,
        [("camera".to_owned(), 2), ("system".to_owned(), 1)]
    );
    assert_eq!((metrics.fallbacks, metrics.failures), (1, 0));
}

#[test]
fn what_is_required_is_never_traded_away() {
    let allocator = Allocator::of(
        vec![model("camera", 1, &CAMERA), model("system", 9, &SYSTEM)],
        Properties::from_iter([Property::Contiguous]),
    );
    let _all = allocator.allocate(1).unwrap();
    let refused = refusals(allocator.allocate(1));
    assert!(refused[0].starts_with("camera: no free run"), "{refused:?}");
    assert_eq!(refused[1], "system: its buffers are not contiguous");
    assert_eq!(allocator.sources[1].free.get(), 9);
    assert_eq!(allocator.metrics().failures, 1);
}

#[test]
fn a_buffer_that_is_not_what_its_heap_promised_is_given_back() {
    let mut liar = model("liar", 5, &CAMERA);
    liar.has = Some(Properties::default());
    let allocator = Allocator::of(vec![liar], Properties::from_iter(CAMERA));
    assert_eq!(
        refusals(allocator.allocate(1)),
        ["liar: its buffers are not contiguous"]
    );
    assert_eq!(allocator.sources[0].free.get(), 5);
}

#[test]
fn another_drivers_heap_serves_only_when_nothing_is_required() {
    let foreign = || Model {
        promises: None,
        has: None,
        ..model("foreign", 5, &[])
    };
    let anything = Allocator::of(vec![foreign()], Properties::default());
    assert!(anything.allocate(1).is_ok());
    let contiguous = Allocator::of(vec![foreign()], Properties::from_iter(CAMERA));
    assert!(refusals(contiguous.allocate(1))[0].contains("does not say"));
}

#[test]
fn an_offline_heap_is_said_to_be_offline() {
    let offline = Model {
        fails: Some(Errno::NODEV),
        ..model("camera", 5, &[])
    };
    let allocator = Allocator::of(vec![offline], Properties::from_iter(CAMERA));
    assert!(refusals(allocator.allocate(1))[0].contains("absent"));
}

#[test]
fn what_another_heap_could_not_mend_ends_the_search() {
    for errno in [Errno::INVAL, Errno::MFILE, Errno::INTR] {
        let broken = Model {
            fails: Some(errno),
            ..model("camera", 5, &CAMERA)
        };
        let allocator = Allocator::of(
            vec![broken, model("system", 5, &SYSTEM)],
            Properties::default(),
        );
        assert!(matches!(
            allocator.allocate(1),
            Err(Error::Allocation { .. })
        ));
        assert_eq!(allocator.metrics().failures, 1);
    }
}

#[test]
fn a_policy_that_makes_no_sense_is_refused() {
    let none: [&str; 0] = [];
    assert_eq!(Policy::new(none, []), Err(PolicyError::NoHeaps));
    assert_eq!(
        Policy::new(["a", "b", "a"], []),
        Err(PolicyError::Twice("a".into()))
    );
    assert_eq!(
        Policy::new(["a"], [Property::Protected, Property::CpuAccess]),
        Err(PolicyError::ProtectedWithCpuAccess)
    );
    assert!(Policy::new(["a", "b"], [Property::Protected]).is_ok());
}

#[test]
fn properties_are_known_by_name() {
    for property in Property::ALL {
        assert_eq!(property.name().parse(), Ok(property));
    }
    assert!("contigous".parse::<Property>().is_err());
}
