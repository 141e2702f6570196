mod irc;
mod oracle;
mod plan;
fn main() {}
