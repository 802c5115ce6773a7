//! Front door of the project.
mod carveouts;
fn main() {}
