use proptest::prelude::*;

use super::*;

const MS: Duration = Duration::from_millis(1);

fn user(name: &str) -> UserId {
    UserId::new(name).unwrap()
}

fn config(per_second: u32, burst: u32) -> QuotaConfig {
    let (per_second, burst) = (count(per_second), count(burst));
    QuotaConfig {
        user_sends_per_second: per_second,
        user_sends_burst: burst,
        address_connects_per_second: per_second,
        address_connects_burst: burst,
        connection_typing_per_second: per_second,
        connection_typing_burst: burst,
        ..QuotaConfig::default()
    }
}

fn retry_after(verdict: Allowance) -> Duration {
    match verdict {
        Allowance::Refused { retry_after } => retry_after,
        Allowance::Allowed => panic!("allowed"),
    }
}

#[test]
fn a_burst_is_allowed_and_then_the_steady_rate() {
    let start = Instant::now();
    let quota = Quota::new(&config(10, 3), start);
    let alice = user("alice");
    for _ in 0..3 {
        assert_eq!(quota.send(&alice, start), Allowance::Allowed);
    }
    assert_eq!(retry_after(quota.send(&alice, start)), 100 * MS);
    assert_eq!(retry_after(quota.send(&alice, start + 40 * MS)), 60 * MS, "a refusal costs nothing");
    assert_eq!(quota.send(&alice, start + 100 * MS), Allowance::Allowed);
    assert_eq!(retry_after(quota.send(&alice, start + 100 * MS)), 100 * MS);
    let rested = start + 10_000 * MS;
    for _ in 0..3 {
        assert_eq!(quota.send(&alice, rested), Allowance::Allowed);
    }
    assert!(!quota.send(&alice, rested).allowed(), "a long rest saves no more than the burst");
}

#[test]
fn many_changes_at_once_cost_as_much_as_one_by_one() {
    let start = Instant::now();
    let quota = Quota::new(&config(10, 5), start);
    let alice = user("alice");
    assert!(quota.sends(&alice, 4, start).allowed());
    assert_eq!(retry_after(quota.sends(&alice, 3, start)), 200 * MS);
    assert!(quota.send(&alice, start).allowed(), "a refusal costs nothing");
    assert!(quota.sends(&user("bob"), 1_000, start).allowed(), "all that there is, at most");
    assert!(!quota.send(&user("bob"), start).allowed());
}

#[test]
fn users_and_kinds_of_limit_do_not_share_a_bucket() {
    let start = Instant::now();
    let quota = Quota::new(&config(1, 1), start);
    assert!(quota.send(&user("alice"), start).allowed());
    assert!(!quota.send(&user("alice"), start).allowed());
    assert!(quota.send(&user("bob"), start).allowed());
    assert!(quota.fetch(&user("alice"), start).allowed());
    let mut connection = ConnectionQuota::new(&config(1, 1), start);
    assert!(connection.typing(start).allowed());
    assert!(!connection.typing(start).allowed());
    assert!(connection.frame(start).allowed() && connection.watch(start).allowed());
}

#[test]
fn reconnecting_does_not_reset_a_user() {
    // The bucket of a user is not in the connection, and time alone fills it: however the table
    // turns its generations, what was used stays used.
    let start = Instant::now();
    let quota = Quota::new(&config(1, 10), start);
    let alice = user("alice");
    let mut allowed = 0;
    for step in 0..1_000u32 {
        let now = start + step * 100 * MS;
        let _other_traffic = quota.send(&user(&format!("other{step}")), now);
        let _connection = ConnectionQuota::new(&QuotaConfig::default(), now);
        allowed += u32::from(quota.send(&alice, now).allowed());
    }
    assert_eq!(allowed, 10 + 99, "the burst and one a second in 99.9 s");
}

#[test]
fn only_full_buckets_are_forgotten_and_newcomers_share_one_when_there_is_no_room() {
    let rate = Rate::new(count(1), count(2));
    let mut table = Table::new(3);
    let (second, now) = (1_000_000_000, 5_000_000_000);
    for key in ["a", "b", "c"] {
        assert!(table.take(&key, rate, now).allowed() && table.take(&key, rate, now).allowed());
    }
    assert_eq!(table.len(), 3);
    assert!(table.take(&"d", rate, now).allowed(), "a newcomer is not shut out");
    assert!(table.peek(&"e", rate, now).allowed(), "there is one left to share");
    assert!(table.take(&"e", rate, now).allowed());
    assert!(!table.peek(&"f", rate, now).allowed());
    assert!(!table.take(&"f", rate, now).allowed(), "but newcomers share a bucket");
    assert!(!table.take(&"a", rate, now).allowed(), "and nobody's bucket was given away");
    // Two seconds fill a bucket; "a" was used meanwhile, "b" and "c" are full and may go.
    assert!(table.take(&"a", rate, now + second).allowed());
    assert!(table.take(&"a", rate, now + 2 * second).allowed());
    assert!(table.take(&"a", rate, now + 4 * second).allowed());
    assert!(table.take(&"a", rate, now + 4 * second).allowed());
    assert!(!table.take(&"a", rate, now + 4 * second).allowed());
    assert!(table.peek(&"f", rate, now + 4 * second).allowed(), "there is room again");
    assert_eq!(table.len(), 1, "{:?}", table.young.keys().chain(table.old.keys()).collect::<Vec<_>>());
    assert!(table.take(&"g", rate, now + 4 * second).allowed());
    assert_eq!(table.len(), 2);
}

#[test]
fn an_idle_table_is_empty_at_the_next_use() {
    let rate = Rate::new(count(1), count(2));
    let mut table = Table::new(100);
    for key in 0..100 {
        assert!(table.take(&key, rate, 0).allowed());
    }
    assert!(table.take(&7, rate, 60_000_000_000).allowed());
    assert_eq!(table.len(), 1);
}

#[test]
fn ipv6_counts_by_64_bits_and_mapped_ipv4_as_ipv4() {
    let start = Instant::now();
    let quota = Quota::new(&config(1, 1), start);
    let allowed = |address: &str| quota.connect(address.parse().unwrap(), start).allowed();
    assert!(allowed("2001:db8:1:2::1"));
    assert!(!allowed("2001:db8:1:2:ffff::2"));
    assert!(allowed("2001:db8:1:3::1"));
    assert!(allowed("192.0.2.1"));
    assert!(!allowed("::ffff:192.0.2.1"));
    assert!(allowed("192.0.2.2"));
}

#[test]
fn loopback_is_exempt_only_where_configured() {
    let start = Instant::now();
    let addresses = ["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"].map(|text| text.parse().unwrap());
    let strict = Quota::new(&config(1, 1), start);
    let dev = Quota::new(&QuotaConfig { loopback_exempt: true, ..config(1, 1) }, start);
    for address in addresses {
        let _first = strict.connect(address, start);
        assert!(!strict.connect(address, start).allowed(), "{address}");
        assert!((0..10).all(|_| dev.connect(address, start).allowed()), "{address}");
    }
    let elsewhere = "192.0.2.1".parse().unwrap();
    assert!(dev.connect(elsewhere, start).allowed() && !dev.connect(elsewhere, start).allowed());
}

#[test]
fn looking_at_an_address_says_what_taking_would_and_counts_nothing() {
    let start = Instant::now();
    let config = QuotaConfig {
        address_requests_per_second: count(1),
        address_requests_burst: count(2),
        ..QuotaConfig::default()
    };
    let quota = Quota::new(&config, start);
    let (here, there) = ("192.0.2.1".parse().unwrap(), "192.0.2.2".parse().unwrap());
    for _ in 0..2 {
        for _ in 0..5 {
            assert!(quota.may_request(here, start).allowed());
        }
        assert!(quota.request(here, start).allowed());
    }
    assert_eq!(quota.may_request(here, start), quota.request(here, start));
    assert!(!quota.may_request(here, start).allowed());
    assert!(quota.may_request(there, start).allowed());
    assert!(quota.may_request(here, start + Duration::from_secs(1)).allowed());
}

#[test]
fn the_largest_settings_do_not_overflow() {
    let start = Instant::now();
    let config = QuotaConfig {
        user_sends_per_second: NonZeroU32::MIN,
        user_sends_burst: NonZeroU32::MAX,
        user_fetches_per_second: NonZeroU32::MAX,
        user_fetches_burst: NonZeroU32::MIN,
        users_max: 0,
        ..QuotaConfig::default()
    };
    let quota = Quota::new(&config, start);
    let later = start + Duration::from_secs(3600 * 24 * 365 * 100);
    for now in [start, later] {
        assert!(quota.send(&user("alice"), now).allowed() && quota.fetch(&user("alice"), now).allowed());
    }
}

proptest! {
    /// Against a plain token bucket: in any window of time no more than burst + rate × window pass, and
    /// whoever waits as told is let through.
    #[test]
    fn no_window_lets_more_through_than_burst_and_rate(
        per_second in 1u32..100, burst in 1u32..20, keys_max in 1usize..4,
        steps in prop::collection::vec((0u64..400, 0u8..4), 1..200),
    ) {
        let rate = Rate::new(count(per_second), count(burst));
        let mut table = Table::new(keys_max);
        let mut now_ns = 0u64;
        let mut passed: HashMap<u8, Vec<u64>> = HashMap::new();
        for (wait_ms, key) in steps {
            now_ns += wait_ms * 1_000_000;
            let known = table.young.contains_key(&key) || table.old.contains_key(&key);
            let room = known || table.len() < keys_max;
            match table.take(&key, rate, now_ns) {
                Allowance::Allowed if room => passed.entry(key).or_default().push(now_ns),
                Allowance::Allowed => {}
                Allowance::Refused { retry_after } => {
                    prop_assert!(!retry_after.is_zero());
                    if known {
                        let mut bucket = *table.young.get(&key).unwrap();
                        let then = now_ns + retry_after.as_nanos() as u64;
                        prop_assert!(!bucket.take(rate, then - 1).allowed());
                        prop_assert!(bucket.take(rate, then).allowed());
                    }
                }
            }
            prop_assert!(table.len() <= keys_max);
        }
        for times in passed.values() {
            for (first, from) in times.iter().enumerate() {
                for (last, to) in times.iter().enumerate().skip(first) {
                    let allowed = u64::from(burst) + (to - from) / rate.cost_ns;
                    prop_assert!((last - first + 1) as u64 <= allowed);
                }
            }
        }
    }
}

#[test]
fn who_sends_too_many_frames_waits_for_a_seconds_worth_and_may_send_that() {
    let start = Instant::now();
    for (per_second, burst, worth) in [(10, 20, 10), (10, 3, 3), (1, 1, 1)] {
        let rates = QuotaConfig {
            connection_frames_per_second: count(per_second),
            connection_frames_burst: count(burst),
            ..QuotaConfig::default()
        };
        let mut connection = ConnectionQuota::new(&rates, start);
        assert!((0..burst).all(|_| connection.frame(start).allowed()));
        let Allowance::Refused { retry_after } = connection.frame(start) else { panic!("{burst}") };
        assert!(retry_after <= 1_000 * MS, "{retry_after:?}");
        assert!((0..worth).all(|_| connection.frame(start + retry_after).allowed()), "{worth}");
        assert!(!connection.frame(start + retry_after).allowed(), "{worth}");
    }
}

#[test]
fn the_networks_of_one_site_share_a_bucket_of_its_own_and_leave_room_for_others() {
    let start = Instant::now();
    let quota = Quota::new(&QuotaConfig { addresses_max: 16 * 64, ..config(1, 10) }, start);
    let address = |site: u16, network: u16, host: u16| {
        IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, site, network, 0, 0, 0, host))
    };
    let mut allowed = 0;
    for network in 0..u16::MAX {
        assert!(quota.may_request(address(1, network, 1), start).allowed(), "requests are counted apart");
        allowed += u32::from(quota.connect(address(1, network, 1), start).allowed());
    }
    assert_eq!(allowed, 10 * SITE_FACTOR);
    let refused = quota.connect(address(1, 7, 2), start);
    assert_eq!(retry_after(refused), Duration::from_secs(1) / SITE_FACTOR, "for the site as a whole");
    // Whoever comes from elsewhere has all that is theirs: nobody shares a bucket.
    for other in 2..50 {
        for host in 0..10 {
            assert!(quota.connect(address(other, 0, host), start).allowed(), "{other}");
        }
        assert!(!quota.connect(address(other, 0, 99), start).allowed(), "a /64 is one subscriber");
        assert!(quota.connect(address(other, 1, 0), start).allowed());
    }
    // What a network was refused did not count for its site.
    let quiet = address(60, 1, 0);
    for _ in 0..1_000 {
        let _ = quota.connect(quiet, start);
    }
    assert!(quota.connect(address(60, 2, 0), start).allowed());
}

#[test]
fn a_back_end_has_a_rate_of_its_own() {
    let start = Instant::now();
    let quota = Quota::new(&QuotaConfig { backend_sends_burst: count(600), ..config(1, 1) }, start);
    let shop = user("shop");
    assert!((0..600).all(|_| quota.send_of_back_end(&shop, start).allowed()));
    assert!(!quota.send_of_back_end(&shop, start).allowed());
    assert!(quota.send(&shop, start).allowed(), "in its sessions it is a user like others");
}
