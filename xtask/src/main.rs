//! Front door of the project.
fn main() {}
