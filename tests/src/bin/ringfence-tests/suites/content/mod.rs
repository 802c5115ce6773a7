// SPDX-License-Identifier: MIT OR Apache-2.0

//! Protected content: keys, samples, and films.

mod films;
mod keys;
mod samples;
mod supplicant;

use std::path::PathBuf;

use ringfence_tests::content::{self, Content};

use super::fixture::{path, provision};
use super::Test;

pub use supplicant::child;

pub const TESTS: &[Test] = &[
    (
        "licences_need_a_device_key",
        keys::licences_need_a_device_key,
    ),
    (
        "a_device_key_is_replaced_by_a_later_one_only",
        keys::device_keys_are_not_rolled_back,
    ),
    (
        "a_licence_that_has_ended_is_refused",
        keys::expired_licences_are_refused,
    ),
    (
        "a_clock_that_is_turned_back_revives_no_licence",
        keys::time_does_not_go_back,
    ),
    (
        "licences_and_heaps_need_no_supplicant",
        supplicant::a_stopped_supplicant_stops_nobody,
    ),
    (
        "clients_killed_in_secure_storage_disturb_nobody",
        supplicant::killed_clients_disturb_nobody,
    ),
    (
        "a_supplicant_that_is_killed_comes_back",
        supplicant::a_killed_supplicant_comes_back,
    ),
    (
        "cenc_samples_arrive_as_they_were",
        samples::cenc_samples_arrive,
    ),
    (
        "cbcs_samples_arrive_as_they_were",
        samples::cbcs_samples_arrive,
    ),
    (
        "samples_longer_than_a_command_arrive_in_pieces",
        samples::long_samples_arrive,
    ),
    (
        "samples_that_do_not_add_up_are_refused",
        samples::malformed_samples_are_refused,
    ),
    ("a_film_is_decrypted_frame_by_frame", films::a_film_plays),
    (
        "a_film_is_decoded_picture_by_picture",
        films::a_film_is_decoded,
    ),
    (
        "a_wrong_key_gives_nothing_of_the_film",
        films::a_wrong_key_gives_nothing,
    ),
    ("two_films_at_once_stay_apart", films::two_films_stay_apart),
    (
        "films_that_can_not_be_played_say_why",
        films::damaged_films_say_why,
    ),
    (
        "a_player_that_is_killed_leaves_nothing",
        films::a_killed_player_leaves_nothing,
    ),
    (
        "a_film_ends_when_the_application_panics_and_the_next_one_plays",
        films::a_panic_ends_a_film,
    ),
];

/// What the host has prepared, with the device key brought that it takes.
fn prepared() -> anyhow::Result<Content> {
    let file = PathBuf::from(path(content::FILE.as_ref())?);
    let folder = file.parent().unwrap_or(&file);
    let content = Content::read(folder)?;
    provision(&content.provision)?;
    Ok(content)
}
