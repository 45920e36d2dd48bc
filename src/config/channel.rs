//! What a channel sends by: pace, times and limits of its own, in the section that has its name.

use super::reader::Reader;
use crate::domain::route::ChannelRules;
use jiff::SignedDuration;

/// Shorter times than this are a unit forgotten.
const SHORTEST: SignedDuration = SignedDuration::from_millis(50);

/// Reads `<section>.per_second` and those after it.
pub fn read_channel(reader: &mut Reader, section: &str) -> ChannelRules {
    let key = |member: &str| format!("{section}.{member}");
    let rules = ChannelRules {
        per_second: reader.decimal(&key("per_second"), 1.0, 0.0, 10_000.0),
        max_in_flight: reader.number(&key("max_in_flight"), 64, 1, 10_000),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_shorter_than_two_time_outs_is_refused() {
        let fault_keys = |environment| {
            let mut reader = Reader::with(environment);
            read_channel(&mut reader, "sms");
            reader.fault_keys()
        };

        assert_eq!(fault_keys(&[("SMS__LEASE", "20s")]), ["sms.lease"]);
        assert_eq!(fault_keys(&[("SMS__LEASE", "20s"), ("SMS__TIMEOUT", "10s")]), [""; 0]);
    }
}
