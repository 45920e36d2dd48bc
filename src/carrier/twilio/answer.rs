//! What Twilio's answer to an attempt means: the table that decides between "again", "never", "hold everything" and
//! "it may have been sent". Pure; `messages` makes the call.

use super::{
    codes::{self, Class},
    receipt,
};
use crate::domain::{
    answer::{Answer, HoldCause, ProbeAnswer},
    report::Explanation,
};
use jiff::SignedDuration;
use serde::Deserialize;

/// What a call means that brought no reply. Only a connection that was never made is surely no message.
pub fn of_failure(error: &reqwest::Error) -> Answer {
    if error.is_connect() {
        return Answer::NotSent {
            retry_after: None,
            why: "the provider could not be reached",
            code: None,
        };
    }
    let why = if error.is_timeout() {
        "the provider did not answer in time"
    } else {
        "the connection broke before the answer"
    };
    Answer::Unknown { why }
}

#[derive(Deserialize)]
struct Created {
    sid: String,
    status: Option<String>,
}

#[derive(Deserialize)]
struct Refusal {
    code: i64,
}

/// What a reply means. `body` is `None` if it could not be read to its end.
pub fn of_reply(status: u16, retry_after: Option<SignedDuration>, body: Option<&[u8]>) -> Answer {
    let code = read::<Refusal>(body).map(|refusal| refusal.code);
    let why = match (status, code) {
        (200..=299, _) => match read::<Created>(body).filter(|created| !created.sid.is_empty()) {
            Some(created) => {
                let word = created.status.unwrap_or_else(|| "accepted".into());
                return Answer::Accepted {
                    message_id: created.sid,
                    status: receipt::status(&word),
                    word,
                };
            }
            None => "the provider's answer could not be read",
        },
        // "Never processed and always safe to retry" (twilio.com/docs/api/errors/20429).
        (429, _) => return busy(retry_after, code),
        // A refusal that names this recipient stays one, though it came as "forbidden".
        (403, Some(code)) if matches!(class_of(code), Some(Class::Refuse | Class::OptedOut)) => {
            return by_code(code, retry_after);
        }
        (401 | 403, _) => return halted(status, code),
        (400..=499, Some(code)) => return by_code(code, retry_after),
        (500..=599, _) => THEIR_ERROR,
        (_, _) => "the provider's answer was none that we know",
    };
    Answer::Unknown { why }
}

fn read<'a, T: Deserialize<'a>>(body: Option<&'a [u8]>) -> Option<T> {
    serde_json::from_slice(body?).ok()
}

fn class_of(code: i64) -> Option<Class> {
    codes::find(code).map(|known| known.class)
}

const THEIR_ERROR: &str = "the provider had an error of its own";

fn busy(retry_after: Option<SignedDuration>, code: Option<i64>) -> Answer {
    Answer::NotSent {
        retry_after,
        why: "the provider is busy",
        code,
    }
}

/// What a 4xx means by the class of its code. One that we do not know is about this message, as most are.
fn by_code(code: i64, retry_after: Option<SignedDuration>) -> Answer {
    let class = class_of(code).unwrap_or(Class::Refuse);
    match class {
        Class::Refuse | Class::OptedOut => Answer::Refused {
            code: Some(code),
            opted_out: class == Class::OptedOut,
        },
        Class::Again => busy(retry_after, Some(code)),
        Class::MaybeSent => Answer::Unknown { why: THEIR_ERROR },
        Class::HoldCredentials | Class::HoldSender | Class::HoldAccount | Class::HoldSettings => {
            halted(400, Some(code))
        }
    }
}

/// Every message would be refused. Where no code says why, it is who signs in.
fn halted(status: u16, code: Option<i64>) -> Answer {
    let fault = code.and_then(|code| class_of(code)?.fault());
    let fault = fault.unwrap_or(HoldCause::Credentials);
    let known = code.map_or_else(
        || {
            Explanation::new(
                format!("Twilio answered {status} and no code of its own."),
                "See that nothing between here and Twilio answers in its place.",
            )
        },
        codes::explain,
    );
    Answer::Halted {
        fault,
        code,
        explanation: Explanation {
            advice: format!("{} {}", known.advice, settings_of(fault)),
            ..known
        },
    }
}

/// Where the configuration says what is at fault.
fn settings_of(fault: HoldCause) -> &'static str {
    match fault {
        HoldCause::Credentials => "Check `twilio.account_sid` with its auth token or API key.",
        HoldCause::Sender => "Check `twilio.from` or `twilio.messaging_service_sid`.",
        HoldCause::Account => "Check `twilio.account_sid`.",
        HoldCause::Settings => "Check `public_url`, `twilio.status_callback_url` and `twilio.validity_period`.",
    }
}

/// What the answer to a question that sends nothing says of our account.
pub fn of_probe(status: u16) -> ProbeAnswer {
    match status {
        200..=299 => ProbeAnswer::Accepted,
        // Who signs in is wrong, or the account's own path leads nowhere: a message would meet the same.
        401 | 404 => ProbeAnswer::Refused,
        429 => ProbeAnswer::Unclear,
        400..=499 => ProbeAnswer::Forbidden,
        _ => ProbeAnswer::Unclear,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(code: i64) -> String {
        format!(
            r#"{{"code":{code},"message":"+14155550101 …","more_info":"https://www.twilio.com/docs/errors/{code}","status":400}}"#
        )
    }

    /// What comes of an answer: the variant with what it was given, but for texts for people.
    fn gist(answer: Answer) -> (&'static str, Option<HoldCause>, Option<i64>) {
        match answer {
            Answer::NotSent { code, .. } => ("again", None, code),
            Answer::Refused { code, opted_out: false } => ("never", None, code),
            Answer::Refused { code, opted_out: true } => ("opted out", None, code),
            Answer::Halted { fault, code, .. } => ("hold", Some(fault), code),
            Answer::Accepted { .. } | Answer::Unknown { .. } | Answer::Broken => ("another", None, None),
        }
    }

    fn is_unknown(answer: &Answer) -> bool {
        matches!(answer, Answer::Unknown { .. })
    }

    #[test]
    fn a_message_that_was_made_is_accepted_with_its_status() {
        let created = br#"{"sid":"SM1","status":"queued","error_code":null}"#;
        let accepted = of_reply(201, None, Some(created));

        assert_eq!(
            accepted,
            Answer::Accepted {
                message_id: "SM1".into(),
                word: "queued".into(),
                status: Some(crate::domain::delivery::MessageStatus::Accepted)
            }
        );
    }

    #[test]
    fn each_row_of_the_table() {
        use HoldCause::{Account, Credentials, Sender, Settings};
        for (status, code, what, fault) in [
            (429, 20429, "again", None),
            (400, 21611, "again", None),
            (401, 20003, "hold", Some(Credentials)),
            (403, 20008, "hold", Some(Credentials)),
            (403, 99_999, "hold", Some(Credentials)),
            (400, 20003, "hold", Some(Credentials)),
            (400, 20005, "hold", Some(Account)),
            // A path that leads nowhere, and a sender that is not ours: every message would meet them. Until issue 10
            // they failed every alert for good. Which other codes hold is listed in `codes`.
            (404, 20404, "hold", Some(Account)),
            (400, 21606, "hold", Some(Sender)),
            (400, 21609, "hold", Some(Settings)),
            // About this person, this text or this country, also where it comes as "forbidden".
            (400, 21211, "never", None),
            (400, 21408, "never", None),
            (403, 21408, "never", None),
            (400, 21608, "never", None),
            (400, 21614, "never", None),
            (400, 21617, "never", None),
            (400, 99_999, "never", None),
            (400, 21610, "opted out", None),
            (403, 21610, "opted out", None),
        ] {
            let answer = of_reply(status, None, Some(error(code).as_bytes()));
            assert_eq!(gist(answer), (what, fault, Some(code)), "{status} {code}");
        }
    }

    #[test]
    fn whatever_is_not_certain_is_unknown() {
        for status in 100..=599 {
            for body in [
                None,
                Some(&b""[..]),
                Some(b"{\"sid\":"),
                Some(b"<html>502</html>"),
                Some(b"{}"),
                Some(b"{\"code\":null}"),
                Some(b"[]"),
            ] {
                let answer = of_reply(status, None, body);
                let certain = matches!(status, 401 | 403 | 429);
                assert_eq!(is_unknown(&answer), !certain, "{status} {body:?} {answer:?}");
            }
        }
        for status in 500..=599 {
            assert!(
                is_unknown(&of_reply(status, None, Some(error(20503).as_bytes()))),
                "5xx is unknown whatever its code says"
            );
            assert!(is_unknown(&of_reply(status, None, Some(br#"{"sid":"SM1"}"#))));
        }
        for code in [20500, 20503, 30410] {
            assert!(is_unknown(&of_reply(400, None, Some(error(code).as_bytes()))), "{code}");
        }
    }

    #[test]
    fn what_halts_is_explained_with_the_setting_to_check() {
        for (code, meaning, setting) in [
            (None, "Twilio answered 401", "twilio.account_sid"),
            (Some(21606), "", "twilio.from"),
        ] {
            let body = code.map_or_else(|| "<html>".to_owned(), error);
            let Answer::Halted { explanation, .. } = of_reply(401, None, Some(body.as_bytes())) else {
                panic!("{code:?} does not halt");
            };
            assert!(
                explanation.meaning.contains(meaning) && explanation.advice.contains(setting),
                "{explanation:?}"
            );
        }
    }

    #[test]
    fn only_a_probe_that_is_forbidden_itself_says_nothing_of_messages() {
        for (probe, statuses) in [
            (ProbeAnswer::Accepted, &[200][..]),
            (ProbeAnswer::Refused, &[401, 404]),
            (ProbeAnswer::Forbidden, &[403]),
            (ProbeAnswer::Unclear, &[429, 500, 302]),
        ] {
            for status in statuses {
                assert_eq!(of_probe(*status), probe, "{status}");
            }
        }
    }

    #[test]
    fn the_provider_may_ask_for_a_pause() {
        let pause = Some(SignedDuration::from_secs(7));

        assert_eq!(of_reply(429, pause, None), busy(pause, None));
    }
}
