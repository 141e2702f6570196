//! Numbers as clients write them in JSON: whole ones also as `12.0`, ages of clients with a bad clock.

use std::fmt;
use std::marker::PhantomData;

use serde::de::{self, Deserialize, Deserializer, Unexpected, Visitor};

/// Up to here every whole number is exact as a floating point number.
const EXACT_MAX: f64 = 9_007_199_254_740_992.0;

/// A number that is whole, however JSON writes it; in binary a number as any other.
struct Whole<T>(T);

impl<'de, T: TryFrom<u64> + Deserialize<'de>> Deserialize<'de> for Whole<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Number<T>(PhantomData<T>);
        impl<T: TryFrom<u64>> Visitor<'_> for Number<T> {
            type Value = T;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "a whole number from 0 to 2^{}-1", 8 * size_of::<T>())
            }
            fn visit_u64<E: de::Error>(self, number: u64) -> Result<T, E> {
                T::try_from(number).map_err(|_| E::invalid_value(Unexpected::Unsigned(number), &self))
            }
            fn visit_i64<E: de::Error>(self, number: i64) -> Result<T, E> {
                Err(E::invalid_value(Unexpected::Signed(number), &self))
            }
            fn visit_f64<E: de::Error>(self, number: f64) -> Result<T, E> {
                if number.fract() == 0.0 && (0.0..=EXACT_MAX).contains(&number) {
                    return self.visit_u64(number as u64);
                }
                Err(E::invalid_value(Unexpected::Float(number), &self))
            }
        }
        if deserializer.is_human_readable() {
            return deserializer.deserialize_any(Number(PhantomData)).map(Self);
        }
        T::deserialize(deserializer).map(Self)
    }
}

/// For `deserialize_with`: a whole number.
pub fn whole<'de, T, D>(deserializer: D) -> Result<T, D::Error>
where
    T: TryFrom<u64> + Deserialize<'de>,
    D: Deserializer<'de>,
{
    Whole::deserialize(deserializer).map(|number| number.0)
}

/// For `deserialize_with`: a whole number, or none.
pub fn whole_or_none<'de, T, D>(deserializer: D) -> Result<Option<T>, D::Error>
where
    T: TryFrom<u64> + Deserialize<'de>,
    D: Deserializer<'de>,
{
    Option::<Whole<T>>::deserialize(deserializer).map(|number| number.map(|number| number.0))
}

/// For `deserialize_with`: an age in milliseconds, or none. A clock that was set back makes it negative, a
/// fine one gives it a fraction: it counts from 0 on, and in whole milliseconds.
pub fn age_or_none<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    struct Age(u64);
    impl<'de> Deserialize<'de> for Age {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            struct Number;
            impl Visitor<'_> for Number {
                type Value = u64;
                fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                    f.write_str("a number of milliseconds")
                }
                fn visit_u64<E>(self, number: u64) -> Result<u64, E> {
                    Ok(number)
                }
                fn visit_i64<E>(self, number: i64) -> Result<u64, E> {
                    Ok(u64::try_from(number).unwrap_or(0))
                }
                fn visit_f64<E>(self, number: f64) -> Result<u64, E> {
                    Ok(number as u64) // rounds towards 0 and ends at the edges
                }
            }
            deserializer.deserialize_any(Number).map(Self)
        }
    }
    if deserializer.is_human_readable() {
        return Option::<Age>::deserialize(deserializer).map(|age| age.map(|age| age.0));
    }
    Option::deserialize(deserializer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, serde::Deserialize)]
    struct Numbers {
        #[serde(default, deserialize_with = "whole_or_none")]
        small: Option<u16>,
        #[serde(default, deserialize_with = "age_or_none")]
        age: Option<u64>,
    }

    fn read(text: &str) -> Option<(Option<u16>, Option<u64>)> {
        serde_json::from_str::<Numbers>(text).ok().map(|numbers| (numbers.small, numbers.age))
    }

    #[test]
    fn a_whole_number_may_have_a_fraction_of_zero_and_nothing_else() {
        for (text, number) in
            [("12", 12), ("12.0", 12), ("1.2e1", 12), ("0.0", 0), ("-0.0", 0), ("65535", 65_535)]
        {
            assert_eq!(read(&format!("{{\"small\":{text}}}")), Some((Some(number), None)), "{text}");
        }
        for text in
            ["-1", "-1.0", "12.5", "65536", "65536.0", "1e300", "18446744073709551616", "\"12\"", "true"]
        {
            assert_eq!(read(&format!("{{\"small\":{text}}}")), None, "{text}");
        }
        assert_eq!(read("{\"small\":null}"), Some((None, None)));
    }

    #[test]
    fn an_age_is_never_below_zero_and_whole() {
        let last = u64::MAX;
        for (text, age) in
            [("5", 5), ("-5", 0), ("-5.5", 0), ("12.0", 12), ("12.9", 12), ("1e300", last), ("-1e300", 0)]
        {
            assert_eq!(read(&format!("{{\"age\":{text}}}")), Some((None, Some(age))), "{text}");
        }
        assert_eq!(read("{\"age\":\"5\"}"), None);
        assert_eq!(read("{\"age\":null}"), Some((None, None)));
    }
}
