//! What a certificate says about itself: names and validity, for operators. Verifies nothing.

use std::net::IpAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer;

/// A certificate with less than two weeks left should have been renewed.
const SOON_S: i64 = 14 * 24 * 3600;

/// The facts of one certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateFacts {
    /// Not valid before this, in Unix seconds.
    pub not_before_s: i64,
    /// Not valid after this, in Unix seconds.
    pub not_after_s: i64,
    /// DNS names and addresses it is good for.
    pub names: Vec<String>,
    /// Who it is, as a distinguished name.
    pub subject: String,
    /// Who signed it, as a distinguished name.
    pub issuer: String,
}

impl CertificateFacts {
    /// Reads a certificate in DER form; `None` if it is damaged.
    pub fn read(der: &[u8]) -> Option<Self> {
        let (_, certificate) = X509Certificate::from_der(der).ok()?;
        let validity = certificate.validity();
        let alternatives = certificate.subject_alternative_name().ok().flatten();
        let names = alternatives.map(|names| names.value.general_names.iter().filter_map(text).collect());
        Some(Self {
            not_before_s: validity.not_before.timestamp(),
            not_after_s: validity.not_after.timestamp(),
            names: names.unwrap_or_default(),
            subject: certificate.subject().to_string(),
            issuer: certificate.issuer().to_string(),
        })
    }

    /// Seconds left; negative once it has run out.
    pub fn left_s(&self, now: SystemTime) -> i64 {
        self.not_after_s - unix_s(now)
    }

    /// It should have been renewed by now: less than two weeks are left, or less than a seventh of a life that is
    /// short from the start.
    pub fn ends_soon(&self, now: SystemTime) -> bool {
        let life_s = self.not_after_s - self.not_before_s;
        self.left_s(now) < SOON_S.min(life_s / 7)
    }

    /// Why it is not valid now.
    pub fn invalid(&self, now: SystemTime) -> Option<String> {
        let now_s = unix_s(now);
        let date = |at_s| jiff::Timestamp::from_second(at_s).map_or_else(|_| "?".into(), |at| at.to_string());
        if now_s > self.not_after_s {
            return Some(format!("it ended at {}", date(self.not_after_s)));
        }
        (now_s < self.not_before_s).then(|| format!("it is valid only from {}", date(self.not_before_s)))
    }
}

fn unix_s(time: SystemTime) -> i64 {
    time.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs() as i64
}

fn text(name: &GeneralName<'_>) -> Option<String> {
    match name {
        GeneralName::DNSName(name) => Some((*name).to_owned()),
        GeneralName::IPAddress(bytes) => {
            let address = match bytes.len() {
                4 => <[u8; 4]>::try_from(*bytes).map(IpAddr::from).ok()?,
                _ => <[u8; 16]>::try_from(*bytes).map(IpAddr::from).ok()?,
            };
            Some(address.to_string())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_ends_soon_by_what_it_has_left_of_its_life() {
        const DAY_S: i64 = 24 * 3600;
        let left = |life_days: i64, left_days: i64| {
            let facts = CertificateFacts {
                not_before_s: 0,
                not_after_s: life_days * DAY_S,
                names: Vec::new(),
                subject: String::new(),
                issuer: String::new(),
            };
            facts.ends_soon(UNIX_EPOCH + Duration::from_secs(((life_days - left_days) * DAY_S) as u64))
        };
        assert_eq!([left(365, 15), left(365, 13), left(90, 14), left(90, 12)], [false, true, false, true]);
        // One of thirteen days is renewed when two are left.
        assert_eq!([left(13, 13), left(13, 2), left(13, 1)], [false, false, true]);
    }
}
