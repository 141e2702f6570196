//! Sessions: what happens between Hello and Close.

pub mod quota;
