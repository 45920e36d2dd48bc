//! What a channel sends by: pace, times and limits of its own, in the section that has its name.

use super::reader::Reader;
use jiff::SignedDuration;

/// Shorter times than this are a unit forgotten.
const SHORTEST: SignedDuration = SignedDuration::from_millis(50);

/// How a channel's messages are sent.
#[derive(Clone, Copy, Debug)]
pub struct ChannelRules {
    /// Messages a second; 0 is unpaced.
    pub per_second: f64,
    pub max_in_flight: usize,
    pub lease: SignedDuration,
    pub timeout: SignedDuration,
    pub reconcile_after: SignedDuration,
    pub resend_when_absent: bool,
    pub poll_after: SignedDuration,
    pub expire_after: SignedDuration,
}

impl ChannelRules {
    /// Reads `<section>.per_second` and those after it.
    pub fn read(reader: &mut Reader, section: &str) -> Self {
        let key = |member: &str| format!("{section}.{member}");
        let rules = Self {
            per_second: reader.decimal(&key("per_second"), 1.0, 0.0, 10_000.0),
            max_in_flight: usize::try_from(reader.number(&key("max_in_flight"), 64, 1, 10_000)).unwrap_or(64),
            lease: reader.duration(&key("lease"), "60s", SHORTEST, SignedDuration::from_hours(1)),
            timeout: reader.duration(&key("timeout"), "15s", SHORTEST, SignedDuration::from_mins(10)),
            reconcile_after: reader.duration(&key("reconcile_after"), "3m", SHORTEST, SignedDuration::from_hours(24)),
            resend_when_absent: reader.flag(&key("resend_when_absent"), true),
            poll_after: reader.duration(&key("poll_after"), "10m", SHORTEST, SignedDuration::from_hours(24)),
            expire_after: reader.duration(
                &key("expire_after"),
                "72h",
                SHORTEST,
                SignedDuration::from_hours(24 * 365),
            ),
        };
        if rules.lease < rules.timeout * 2 {
            reader.fault(
                &key("lease"),
                &format!(
                    "is less than twice `{section}.timeout`: a slow call could be taken for lost; make it at least twice as long"
                ),
            );
        }
        rules
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault_keys(environment: &[(&str, &str)]) -> Vec<String> {
        let mut reader = Reader::default();
        let own = |(name, value): &(&str, &str)| (format!("NIGHTBELL_{name}"), (*value).to_owned());
        reader.read_environment(environment.iter().map(own));
        ChannelRules::read(&mut reader, "sms");
        let (faults, _, _) = reader.finish();
        faults.into_iter().map(|fault| fault.key).collect()
    }

    #[test]
    fn a_lease_shorter_than_two_time_outs_is_refused() {
        assert_eq!(fault_keys(&[("SMS__LEASE", "20s")]), ["sms.lease"]);
        assert_eq!(fault_keys(&[("SMS__LEASE", "20s"), ("SMS__TIMEOUT", "10s")]), [""; 0]);
    }
}
