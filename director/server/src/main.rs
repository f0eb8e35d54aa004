//! The replica `directord`.

fn main() {}
