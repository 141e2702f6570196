//! On which wires a test runs: on each of the four, or on one that a seed chooses.

use std::future::Future;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::client::Wire;

/// Most time of one test with several steps, on one wire.
const TEST_TIME: Duration = Duration::from_secs(120);

/// What the variable `TERN_WIRE` says.
#[derive(Debug, PartialEq, Eq)]
enum Choice {
    /// Another wire for each test, and another for each seed: four seeds that follow one another are all.
    Seed(u64),
    /// This one, for every test.
    One(Wire),
    /// Every one.
    All,
}

impl Choice {
    /// Of what the variable says; without it the seed is the day.
    fn of(said: Option<&str>, day: u64) -> Self {
        let Some(said) = said.filter(|said| !said.is_empty()) else { return Self::Seed(day) };
        if said == "all" {
            return Self::All;
        }
        if let Ok(seed) = said.parse() {
            return Self::Seed(seed);
        }
        match Wire::ALL.into_iter().find(|wire| wire.name() == said) {
            Some(wire) => Self::One(wire),
            None => {
                panic!("TERN_WIRE={said}: a number, `all`, or one of {:?}", Wire::ALL.map(Wire::name))
            }
        }
    }

    fn wires(&self, test: &str) -> Vec<Wire> {
        match *self {
            Self::All => Wire::ALL.into(),
            Self::One(wire) => vec![wire],
            Self::Seed(seed) => {
                // FNV-1a: the same on every machine and with every compiler.
                let name = test.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |sum, byte| {
                    (sum ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
                });
                let all = Wire::ALL.len() as u64;
                vec![Wire::ALL[((name >> 32) % all + seed % all) as usize % Wire::ALL.len()]]
            }
        }
    }
}

/// Ends a test that hangs; used by [`for_each_wire`](crate::for_each_wire).
pub async fn bounded(test: impl Future<Output = ()>) {
    tokio::time::timeout(TEST_TIME, test).await.expect("the test hangs");
}

/// Runs a test on the wires that `TERN_WIRE` chooses, and says which; used by
/// [`on_a_wire`](crate::on_a_wire).
pub async fn on_chosen_wires<F: Future<Output = ()>>(name: &str, test: impl Fn(Wire) -> F) {
    let day = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs() / 86_400);
    let said = std::env::var("TERN_WIRE").ok();
    for wire in Choice::of(said.as_deref(), day).wires(name) {
        // Shown if the test fails.
        eprintln!("on the wire {0}; TERN_WIRE={0} repeats it", wire.name());
        bounded(test(wire)).await;
    }
}

/// Runs the same test over QUIC, WebTransport, WebSocket with binary frames and WebSocket with JSON,
/// as four tests named `<name>::quic` and so on. For promises that a wire could break.
#[macro_export]
macro_rules! for_each_wire {
    ($($(#[$doc:meta])* async fn $name:ident($wire:ident: $kind:ty) $body:block)*) => {
        $($(#[$doc])* mod $name {
            #[allow(unused_imports)]
            use super::*;

            async fn test($wire: $kind) $body

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn quic() {
                $crate::bounded(test($crate::Wire::Quic)).await;
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn webtransport() {
                $crate::bounded(test($crate::Wire::WebTransport)).await;
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn websocket_binary() {
                $crate::bounded(test($crate::Wire::WebSocketBinary)).await;
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn websocket_json() {
                $crate::bounded(test($crate::Wire::WebSocketJson)).await;
            }
        })*
    };
}

/// Written like [`for_each_wire`](crate::for_each_wire), for promises that no wire has a part in: one
/// test named `<name>`, on one wire that the seed in `TERN_WIRE` chooses (without it, the day), or on
/// the one that is named there, or on `all`.
#[macro_export]
macro_rules! on_a_wire {
    ($($(#[$doc:meta])* async fn $name:ident($wire:ident: $kind:ty) $body:block)*) => {
        $($(#[$doc])*
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $name() {
            async fn test($wire: $kind) $body

            $crate::on_chosen_wires(stringify!($name), test).await;
        })*
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn four_seeds_that_follow_one_another_are_all_wires_and_tests_of_one_seed_differ() {
        let names = ["a", "an_acked_message", "groups", "what_was_told", "x", "y", "z", "history"];
        for seed in [0, 20_783, u64::MAX - 3] {
            let mut of_the_seed = Vec::new();
            for name in names {
                let mut seen: Vec<_> =
                    (0..4).flat_map(|more| Choice::Seed(seed + more).wires(name)).map(Wire::name).collect();
                of_the_seed.push(seen[0]);
                seen.sort_unstable();
                seen.dedup();
                assert_eq!(seen.len(), 4, "{name} from {seed}");
            }
            assert!(of_the_seed.iter().any(|wire| *wire != of_the_seed[0]), "{of_the_seed:?}");
        }
    }

    #[test]
    fn a_wire_can_be_named_and_all_can_be_asked_for() {
        assert_eq!(Choice::of(None, 7), Choice::Seed(7));
        assert_eq!(Choice::of(Some(""), 7), Choice::Seed(7));
        assert_eq!(Choice::of(Some("12"), 7), Choice::Seed(12));
        assert_eq!(Choice::of(Some("all"), 7).wires("x"), Wire::ALL);
        for wire in Wire::ALL {
            assert_eq!(Choice::of(Some(wire.name()), 7).wires("x"), [wire]);
        }
    }
}
