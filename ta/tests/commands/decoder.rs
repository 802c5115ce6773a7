// SPDX-License-Identifier: MIT OR Apache-2.0

//! RESOLVE, which tells the decoder where a buffer is.

use crate::model::{
    decoder, instance, powered_on, public, Call, ModelFirewall, BASE, UI, WHOLE, WHOLE_SIZE,
};
use ringfence_proto::command::result;
use ringfence_ta::instance::MAX_PUBLIC_SESSIONS;
use ringfence_ta::policy::Client;
use ringfence_ta::refusal::Refusal;

#[test]
fn the_decoder_learns_where_a_video_buffer_is() {
    let (firewall, mut instance, kernel) = powered_on(1);
    let decoder = decoder(&mut instance);
    let handle = instance.protect(&kernel, BASE, 0x3000).expect("protected");
    let range = instance.resolve(&decoder, handle.raw()).expect("resolved");
    assert_eq!((range.start(), range.size()), (BASE, 0x3000));
    assert_eq!(firewall.calls(Call::Map), 0);
}

#[test]
fn nobody_else_does() {
    let (_, mut instance, kernel) = powered_on(1);
    let public = public(&mut instance);
    let handle = instance.protect(&kernel, BASE, 0x3000).expect("protected");
    for session in [&kernel, &public] {
        for handle in [handle.raw(), 0, 77] {
            let refusal = instance.resolve(session, handle).err();
            assert_eq!(refusal, Some(Refusal::NotTheDecoder));
            assert_eq!(
                refusal.map(|refusal| refusal.code()),
                Some(result::ACCESS_DENIED)
            );
        }
    }
}

#[test]
fn the_decoder_is_not_the_kernel() {
    let firewall = ModelFirewall::new();
    let mut instance = instance(&firewall, 1);
    let decoder = decoder(&mut instance);
    let refused = Some(Refusal::NotTheKernel);
    assert_eq!(instance.protect(&decoder, BASE, 0x1000).err(), refused);
    assert_eq!(instance.unprotect(&decoder, 1).err(), refused);
    assert_eq!(instance.list(&decoder).err(), refused);
}

#[test]
fn other_use_cases_and_handles_are_refused() {
    let (_, mut instance, kernel) = powered_on(1);
    let decoder = decoder(&mut instance);
    let ui = instance.protect(&kernel, UI, 0x1000).expect("protected");
    assert_eq!(
        instance.resolve(&decoder, ui.raw()).err(),
        Some(Refusal::UseCase)
    );
    let whole = instance
        .protect(&kernel, WHOLE, WHOLE_SIZE)
        .expect("a region");
    for handle in [0, 77, u64::MAX, whole.raw()] {
        assert_eq!(
            instance.resolve(&decoder, handle).err(),
            Some(Refusal::UnknownHandle),
            "{handle}"
        );
    }
}

#[test]
fn a_released_handle_is_refused() {
    let (firewall, mut instance, kernel) = powered_on(1);
    let decoder = decoder(&mut instance);
    let handle = instance.protect(&kernel, BASE, 0x1000).expect("protected");
    assert!(instance.resolve(&decoder, handle.raw()).is_ok());
    // Also when the release fails: from then on the handle opens nothing.
    firewall.fail(Call::Unprotect, 0);
    assert!(instance.unprotect(&kernel, handle.raw()).is_err());
    firewall.heal();
    let refused = Some(Refusal::UnknownHandle);
    assert_eq!(instance.resolve(&decoder, handle.raw()).err(), refused);
    assert_eq!(instance.unprotect(&kernel, handle.raw()), Ok(()));
    assert_eq!(instance.resolve(&decoder, handle.raw()).err(), refused);
    // What takes its place has another name.
    let next = instance.protect(&kernel, BASE, 0x1000).expect("protected");
    assert_eq!(instance.resolve(&decoder, handle.raw()).err(), refused);
    assert!(instance.resolve(&decoder, next.raw()).is_ok());
}

/// The firewall limits decoders; user space's sessions are no reason to refuse
/// one.
#[test]
fn user_space_cannot_keep_the_decoder_out() {
    let firewall = ModelFirewall::new();
    let mut instance = instance(&firewall, 1);
    for _ in 0..MAX_PUBLIC_SESSIONS {
        instance.open(Client::Public).expect("admitted");
    }
    assert!(instance.open(Client::Decoder).is_ok());
    assert!(instance.open(Client::Public).is_err());
}
