// SPDX-License-Identifier: MIT OR Apache-2.0

//! The kernel's commands: naming, releasing and finding protected ranges again.

use crate::model::{
    instance, kernel, powered_on, public, Call, Collect, ModelFirewall, TestInstance, BASE, SIZE,
    UI, WHOLE, WHOLE_SIZE,
};
use ringfence_proto::command::{result, RangeKind, RangeState, UseCase, PROTOCOL_VERSION};
use ringfence_proto::message::DigestRequest;
use ringfence_ta::instance::{Instance, MAX_PUBLIC_SESSIONS};
use ringfence_ta::policy::Client;
use ringfence_ta::refusal::Refusal;

const FIREWALL_SAYS: Refusal = Refusal::Tee(result::GENERIC);

fn one_byte() -> DigestRequest {
    DigestRequest {
        key: [0; 32],
        offset: 0,
        length: 1,
    }
}

#[test]
fn user_space_cannot_protect_release_or_list() {
    let (firewall, mut instance, kernel) = powered_on(1);
    let handle = instance
        .protect(&kernel, BASE, 0x1000)
        .expect("protected")
        .raw();
    let calls = firewall.0.borrow().calls.len();

    let public = public(&mut instance);
    let refused = Refusal::NotTheKernel;
    assert_eq!(refused.code(), result::ACCESS_DENIED);
    assert_eq!(instance.hello(&public), Err(refused));
    assert_eq!(
        instance.protect(&public, BASE + 0x1000, 0x1000),
        Err(refused)
    );
    assert_eq!(instance.unprotect(&public, handle), Err(refused));
    assert_eq!(instance.name(&public, WHOLE, 0x1000), Err(refused));
    assert_eq!(instance.scrub(&public, WHOLE, 0x1000), Err(refused));
    assert_eq!(instance.abilities(&public), Err(refused));
    assert_eq!(instance.list(&public).err(), Some(refused));
    assert_eq!(firewall.0.borrow().calls.len(), calls);
    assert_eq!(instance.unprotect(&kernel, handle), Ok(()));
}

#[test]
fn hello_tells_protocol_and_granule() {
    let (firewall, mut instance, kernel) = powered_on(1);
    assert_eq!(instance.hello(&kernel), Ok((PROTOCOL_VERSION, 4096)));
    assert_eq!(instance.hello(&kernel), Ok((PROTOCOL_VERSION, 4096)));
    assert_eq!(firewall.calls(Call::Info), 1);
}

#[test]
fn a_firewall_of_another_protocol_is_refused() {
    let firewall = ModelFirewall::new();
    firewall.0.borrow_mut().protocol = 1;
    let mut instance = instance(&firewall, 1);
    let kernel = kernel(&mut instance);
    assert_eq!(instance.hello(&kernel), Err(Refusal::Firewall));
}

#[test]
fn a_range_is_named_listed_and_released() {
    let (firewall, mut instance, kernel) = powered_on(0x77);
    let video = instance.protect(&kernel, BASE, 0x3000).expect("protected");
    let ui = instance.protect(&kernel, UI, 0x1000).expect("protected");
    let listed: Vec<_> = instance.list(&kernel).expect("list").records().collect();
    assert_eq!(
        listed
            .iter()
            .map(|record| (record.handle, record.start, record.size, record.use_case))
            .collect::<Vec<_>>(),
        [
            (0x77, BASE, 0x3000, UseCase::SecureVideo.raw()),
            (0x78, UI, 0x1000, UseCase::TrustedUi.raw())
        ]
    );
    assert!(listed
        .iter()
        .all(|record| record.state == RangeState::Protected.raw()));
    assert_eq!(instance.unprotect(&kernel, video.raw()), Ok(()));
    assert_eq!(
        instance.unprotect(&kernel, video.raw()),
        Err(Refusal::UnknownHandle)
    );
    assert_eq!(instance.unprotect(&kernel, ui.raw()), Ok(()));
    assert!(instance.list(&kernel).expect("list").is_empty());
    assert!(firewall.0.borrow().ledger.is_empty());
}

#[test]
fn what_is_no_range_never_reaches_the_firewall() {
    let (firewall, mut instance, kernel) = powered_on(1);
    let page = 0x1000;
    for (start, size) in [
        (BASE, 0),
        (BASE, 1),
        (BASE + 1, page),
        (BASE, u64::MAX),
        (u64::MAX, page),
        (0u64.wrapping_sub(page), page),
        (BASE, 0u64.wrapping_sub(BASE)),
    ] {
        let refusal = instance.protect(&kernel, start, size).err();
        assert_eq!(
            refusal.map(|refusal| refusal.code()),
            Some(result::BAD_PARAMETERS)
        );
    }
    assert_eq!(firewall.calls(Call::Protect), 0);
}

#[test]
fn the_firewalls_refusals_are_handed_on() {
    let (firewall, mut instance, kernel) = powered_on(1);
    let outside = instance.protect(&kernel, BASE + SIZE, 0x1000);
    assert_eq!(outside, Err(Refusal::Tee(result::ACCESS_DENIED)));
    assert!(instance.protect(&kernel, BASE, 0x2000).is_ok());
    let overlap = instance.protect(&kernel, BASE + 0x1000, 0x2000);
    assert_eq!(overlap, Err(Refusal::Tee(result::ACCESS_CONFLICT)));
    firewall.fail(Call::Protect, 0);
    let broken = instance.protect(&kernel, BASE + 0x2000, 0x1000);
    assert_eq!(broken, Err(FIREWALL_SAYS));
    assert_eq!(instance.list(&kernel).expect("list").len(), 1);
}

#[test]
fn a_range_that_cannot_be_named_is_opened_again() {
    let firewall = ModelFirewall::new();
    let mut instance: TestInstance = Instance::new(firewall.clone(), Box::new(|| 5));
    let kernel = kernel(&mut instance);
    assert!(instance.protect(&kernel, BASE, 0x1000).is_ok());
    assert_eq!(
        instance.protect(&kernel, BASE + 0x1000, 0x1000),
        Err(Refusal::Entropy)
    );
    assert_eq!(firewall.0.borrow().ledger.len(), 1);
}

#[test]
fn a_range_that_can_be_neither_named_nor_opened_is_found_again() {
    let firewall = ModelFirewall::new();
    let mut draws = [5, 5, 5, 5, 5, 6].into_iter();
    let random = Box::new(move || draws.next().expect("another draw"));
    let mut instance: TestInstance = Instance::new(firewall.clone(), random);
    let kernel = kernel(&mut instance);
    assert!(instance.protect(&kernel, BASE, 0x1000).is_ok());
    firewall.fail(Call::Unprotect, 0);
    assert_eq!(
        instance.protect(&kernel, BASE + 0x1000, 0x1000),
        Err(Refusal::Entropy)
    );
    firewall.heal();
    // The next command of any kind reads the ledger, and names it.
    assert_eq!(instance.unprotect(&kernel, 6), Ok(()));
    assert_eq!(instance.unprotect(&kernel, 5), Ok(()));
    assert!(firewall.0.borrow().ledger.is_empty());
}

#[test]
fn a_full_table_protects_nothing() {
    let (firewall, mut instance, kernel) = powered_on(1);
    for page in 0..8 {
        assert!(instance
            .protect(&kernel, BASE + page * 0x1000, 0x1000)
            .is_ok());
    }
    assert_eq!(
        instance.protect(&kernel, BASE + 0x8000, 0x1000),
        Err(Refusal::Full)
    );
    assert_eq!(firewall.calls(Call::Protect), 8);
    assert_eq!(Refusal::Full.code(), result::OUT_OF_MEMORY);
}

#[test]
fn a_failed_release_closes_the_handle_to_content_and_can_be_repeated() {
    let (firewall, mut instance, kernel) = powered_on(1);
    let handle = instance
        .protect(&kernel, BASE, 0x1000)
        .expect("protected")
        .raw();
    let mut seen = Collect::default();
    assert_eq!(instance.digest(handle, &one_byte(), &mut seen), Ok(()));

    firewall.fail(Call::Unprotect, 0);
    assert_eq!(instance.unprotect(&kernel, handle), Err(FIREWALL_SAYS));
    assert_eq!(
        instance.digest(handle, &one_byte(), &mut seen),
        Err(Refusal::UnknownHandle)
    );
    assert_eq!(instance.list(&kernel).expect("list").len(), 1);
    assert_eq!(
        instance.digest(handle, &one_byte(), &mut seen),
        Err(Refusal::UnknownHandle)
    );
    firewall.heal();
    assert_eq!(instance.unprotect(&kernel, handle), Ok(()));
    assert!(firewall.0.borrow().ledger.is_empty());
}

#[test]
fn a_quarantined_range_is_shown_closed_and_can_be_released() {
    let (firewall, mut instance, kernel) = powered_on(1);
    let handle = instance
        .protect(&kernel, BASE, 0x1000)
        .expect("protected")
        .raw();
    firewall.set_state(BASE, RangeState::Quarantined);
    let info = instance.info(&kernel).expect("info");
    assert_eq!((info.ranges, info.quarantined), (1, 1));
    let record = instance.list(&kernel).expect("list").records().next();
    let record = record.expect("listed");
    assert_eq!(
        (record.handle, record.state),
        (handle, RangeState::Quarantined.raw())
    );
    let mut seen = Collect::default();
    assert_eq!(
        instance.digest(handle, &one_byte(), &mut seen),
        Err(Refusal::UnknownHandle)
    );
    assert_eq!(instance.unprotect(&kernel, handle), Ok(()));
}

#[test]
fn a_new_instance_finds_the_ranges_and_forgets_the_handles() {
    let firewall = ModelFirewall::new();
    let mut before = instance(&firewall, 1);
    let session = kernel(&mut before);
    let old = before
        .protect(&session, BASE, 0x2000)
        .expect("protected")
        .raw();
    drop(before);

    let mut after = instance(&firewall, 100);
    let session = kernel(&mut after);
    let mut seen = Collect::default();
    assert_eq!(
        after.digest(old, &one_byte(), &mut seen),
        Err(Refusal::UnknownHandle)
    );
    assert_eq!(after.unprotect(&session, old), Err(Refusal::UnknownHandle));
    let record = after.list(&session).expect("list").records().next();
    let record = record.expect("listed");
    assert_eq!(
        (record.start, record.size, record.handle),
        (BASE, 0x2000, 100)
    );
    assert_eq!(after.unprotect(&session, 100), Ok(()));
}

#[test]
fn the_ledger_is_read_once_the_firewall_can_be_reached() {
    let firewall = ModelFirewall::new();
    let mut before = instance(&firewall, 1);
    let session = kernel(&mut before);
    assert!(before.protect(&session, BASE, 0x1000).is_ok());
    drop(before);

    let mut after = instance(&firewall, 100);
    firewall.fail(Call::List, 0);
    assert_eq!(after.synchronise(), Err(FIREWALL_SAYS));
    let session = kernel(&mut after);
    assert_eq!(after.unprotect(&session, 100), Err(FIREWALL_SAYS));
    assert_eq!(
        after.protect(&session, BASE + 0x1000, 0x1000),
        Err(FIREWALL_SAYS)
    );
    firewall.heal();
    assert_eq!(after.unprotect(&session, 100), Ok(()));
    let lists = firewall.calls(Call::List);
    assert_eq!(after.unprotect(&session, 100), Err(Refusal::UnknownHandle));
    assert_eq!(firewall.calls(Call::List), lists);
}

#[test]
fn user_space_cannot_use_up_the_sessions_of_the_kernel() {
    let firewall = ModelFirewall::new();
    let mut instance = instance(&firewall, 1);
    let mut sessions: Vec<_> = (0..MAX_PUBLIC_SESSIONS)
        .map(|_| public(&mut instance))
        .collect();
    assert_eq!(instance.open(Client::Public).err(), Some(Refusal::Full));
    let mut kernel = kernel(&mut instance);
    instance.close(&mut kernel);
    assert_eq!(instance.open(Client::Public).err(), Some(Refusal::Full));
    instance.close(&mut sessions[0]);
    assert!(instance.open(Client::Public).is_ok());
}

#[test]
fn abilities_are_the_firewalls() {
    let (_, mut instance, kernel) = powered_on(1);
    assert_eq!(instance.abilities(&kernel), Ok((4096, 7)));
}

#[test]
fn a_region_opens_to_nothing_but_its_parts() {
    let (firewall, mut instance, kernel) = powered_on(0x50);
    let region = instance
        .protect(&kernel, WHOLE, WHOLE_SIZE)
        .expect("protected");
    let part = instance
        .name(&kernel, WHOLE + 0x1000, 0x2000)
        .expect("named");
    // A part may be as large as a region.
    let mut seen = Collect::default();
    assert_eq!(
        instance.digest(region.raw(), &one_byte(), &mut seen),
        Err(Refusal::UnknownHandle)
    );
    assert_eq!(instance.digest(part.raw(), &one_byte(), &mut seen), Ok(()));
    let kinds: Vec<_> = instance
        .list(&kernel)
        .expect("list")
        .records()
        .map(|record| record.kind)
        .collect();
    assert_eq!(kinds, [RangeKind::Region.raw(), RangeKind::Part.raw()]);
    assert_eq!(
        instance.name(&kernel, WHOLE, 0x2000),
        Err(Refusal::Tee(result::ACCESS_CONFLICT))
    );
    assert_eq!(
        instance.scrub(&kernel, WHOLE, 0x2000),
        Err(Refusal::Tee(result::ACCESS_CONFLICT))
    );
    assert_eq!(instance.scrub(&kernel, WHOLE, 0x1000), Ok(()));
    assert_eq!(instance.unprotect(&kernel, part.raw()), Ok(()));
    assert_eq!(firewall.calls(Call::Forget), 1);
    assert_eq!(firewall.calls(Call::Unprotect), 0);
    assert_eq!(instance.unprotect(&kernel, region.raw()), Ok(()));
    assert!(firewall.0.borrow().ledger.is_empty());
}

#[test]
fn a_part_as_large_as_its_region_keeps_its_own_handle() {
    let firewall = ModelFirewall::new();
    let mut before = instance(&firewall, 1);
    let session = kernel(&mut before);
    assert!(before.protect(&session, WHOLE, WHOLE_SIZE).is_ok());
    let part = before.name(&session, WHOLE, WHOLE_SIZE).expect("named");
    assert_eq!(before.list(&session).expect("list").len(), 2);
    let mut seen = Collect::default();
    assert_eq!(before.digest(part.raw(), &one_byte(), &mut seen), Ok(()));
    drop(before);

    // A new instance names both again.
    let mut after = instance(&firewall, 100);
    let session = kernel(&mut after);
    let records: Vec<_> = after.list(&session).expect("list").records().collect();
    assert_eq!(records.len(), 2);
    for record in records {
        let usable = after.digest(record.handle, &one_byte(), &mut seen).is_ok();
        assert_eq!(usable, record.kind == RangeKind::Part.raw());
    }
}

#[test]
fn a_part_that_cannot_be_named_is_forgotten() {
    let firewall = ModelFirewall::new();
    let mut instance: TestInstance = Instance::new(firewall.clone(), Box::new(|| 5));
    let kernel = kernel(&mut instance);
    assert!(instance.protect(&kernel, WHOLE, WHOLE_SIZE).is_ok());
    assert_eq!(instance.name(&kernel, WHOLE, 0x1000), Err(Refusal::Entropy));
    assert_eq!(firewall.calls(Call::Forget), 1);
    assert_eq!(firewall.0.borrow().ledger.len(), 1);
}

#[test]
fn a_part_that_is_not_forgotten_opens_to_nothing_any_more() {
    let (firewall, mut instance, kernel) = powered_on(1);
    assert!(instance.protect(&kernel, WHOLE, WHOLE_SIZE).is_ok());
    let part = instance.name(&kernel, WHOLE, 0x1000).expect("named").raw();
    firewall.fail(Call::Forget, 0);
    assert_eq!(instance.unprotect(&kernel, part), Err(FIREWALL_SAYS));
    let mut seen = Collect::default();
    assert_eq!(
        instance.digest(part, &one_byte(), &mut seen),
        Err(Refusal::UnknownHandle)
    );
    firewall.heal();
    assert_eq!(instance.unprotect(&kernel, part), Ok(()));
}

#[test]
fn what_is_no_range_is_no_part() {
    let (firewall, mut instance, kernel) = powered_on(1);
    for (start, size) in [(WHOLE, 0), (WHOLE + 1, 0x1000), (u64::MAX, 0x1000)] {
        assert_eq!(
            instance.name(&kernel, start, size),
            Err(Refusal::OutOfBounds)
        );
        assert_eq!(
            instance.scrub(&kernel, start, size),
            Err(Refusal::OutOfBounds)
        );
    }
    assert_eq!(firewall.calls(Call::Name) + firewall.calls(Call::Scrub), 0);
}
