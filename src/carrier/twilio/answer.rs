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
        Answer::NotSent {
            retry_after: None,
            why: "the provider could not be reached",
            code: None,
        }
    } else if error.is_timeout() {
        Answer::Unknown {
            why: "the provider did not answer in time",
        }
    } else {
        Answer::Unknown {
            why: "the connection broke before the answer",
        }
    }
}

#[derive(Deserialize)]
struct Created {
    sid: String,
    #[serde(default)]
    status: Option<String>,
}

#[derive(Deserialize)]
struct Refusal {
    code: i64,
}

/// What a reply means. `body` is `None` if it could not be read to its end.
pub fn of_reply(status: u16, retry_after: Option<SignedDuration>, body: Option<&[u8]>) -> Answer {
    let code = body
        .and_then(|body| serde_json::from_slice::<Refusal>(body).ok())
        .map(|refusal| refusal.code);
    match (status, code) {
        (200..=299, _) => match body
            .and_then(|body| serde_json::from_slice::<Created>(body).ok())
            .filter(|created| !created.sid.is_empty())
        {
            Some(created) => {
                let word = created.status.unwrap_or_else(|| "accepted".into());
                Answer::Accepted {
                    message_id: created.sid,
                    status: receipt::status(&word),
                    word,
                }
            }
            None => Answer::Unknown {
                why: "the provider's answer could not be read",
            },
        },
        // "Never processed and always safe to retry" (twilio.com/docs/api/errors/20429).
        (429, _) => Answer::NotSent {
            retry_after,
            why: "the provider is busy",
            code,
        },
        // A refusal that names this recipient stays one, though it came as "forbidden".
        (403, Some(code))
            if codes::find(code).is_some_and(|known| matches!(known.class, Class::Refuse | Class::OptedOut)) =>
        {
            by_code(code, retry_after)
        }
        (401 | 403, _) => halted(status, code),
        (400..=499, Some(code)) => by_code(code, retry_after),
        (500..=599, _) => Answer::Unknown {
            why: "the provider had an error of its own",
        },
        (_, _) => Answer::Unknown {
            why: "the provider's answer was none that we know",
        },
    }
}

/// What a 4xx means by the class of its code. One that we do not know is about this message, as most are.
fn by_code(code: i64, retry_after: Option<SignedDuration>) -> Answer {
    let class = codes::find(code).map_or(Class::Refuse, |known| known.class);
    match class {
        Class::Refuse | Class::OptedOut => Answer::Refused {
            code: Some(code),
            opted_out: class == Class::OptedOut,
        },
        Class::Again => Answer::NotSent {
            retry_after,
            why: "the provider is busy",
            code: Some(code),
        },
        Class::MaybeSent => Answer::Unknown {
            why: "the provider had an error of its own",
        },
        Class::HoldCredentials | Class::HoldSender | Class::HoldAccount | Class::HoldSettings => {
            halted(400, Some(code))
        }
    }
}

/// Every message would be refused. Where no code says why, it is who signs in.
fn halted(status: u16, code: Option<i64>) -> Answer {
    let fault = code
        .and_then(|code| codes::find(code)?.class.fault())
        .unwrap_or(HoldCause::Credentials);
    let known = code.map_or_else(
        || Explanation {
            meaning: format!("Twilio answered {status} and no code of its own."),
            advice: "See that nothing between here and Twilio answers in its place.".into(),
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

    fn not_sent(code: Option<i64>) -> Answer {
        Answer::NotSent {
            retry_after: None,
            why: "the provider is busy",
            code,
        }
    }

    fn halted(fault: HoldCause, code: i64) -> Answer {
        let known = codes::explain(code);
        Answer::Halted {
            fault,
            code: Some(code),
            explanation: Explanation {
                advice: format!("{} {}", known.advice, settings_of(fault)),
                ..known
            },
        }
    }

    fn refused(code: i64) -> Answer {
        Answer::Refused {
            code: Some(code),
            opted_out: false,
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
        let rows = [
            (429, error(20429), not_sent(Some(20429))),
            (429, String::new(), not_sent(None)),
            (400, error(21611), not_sent(Some(21611))),
            (401, error(20003), halted(HoldCause::Credentials, 20003)),
            (403, error(20008), halted(HoldCause::Credentials, 20008)),
            (403, error(99_999), halted(HoldCause::Credentials, 99_999)),
            (400, error(20003), halted(HoldCause::Credentials, 20003)),
            (400, error(20005), halted(HoldCause::Account, 20005)),
            // A path that leads nowhere, and a sender that is not ours: every message would meet them. Until issue 10
            // they failed every alert for good.
            (404, error(20404), halted(HoldCause::Account, 20404)),
            (400, error(21603), halted(HoldCause::Sender, 21603)),
            (400, error(21606), halted(HoldCause::Sender, 21606)),
            (400, error(21212), halted(HoldCause::Sender, 21212)),
            (400, error(21701), halted(HoldCause::Sender, 21701)),
            (400, error(21703), halted(HoldCause::Sender, 21703)),
            (400, error(21659), halted(HoldCause::Sender, 21659)),
            (400, error(21660), halted(HoldCause::Sender, 21660)),
            (400, error(21609), halted(HoldCause::Settings, 21609)),
            // About this person, this text or this country, also where it comes as "forbidden".
            (400, error(21211), refused(21211)),
            (400, error(21408), refused(21408)),
            (403, error(21408), refused(21408)),
            (
                403,
                error(21610),
                Answer::Refused {
                    code: Some(21610),
                    opted_out: true,
                },
            ),
            (400, error(21608), refused(21608)),
            (400, error(21614), refused(21614)),
            (400, error(21617), refused(21617)),
            (400, error(99_999), refused(99_999)),
            (
                400,
                error(21610),
                Answer::Refused {
                    code: Some(21610),
                    opted_out: true,
                },
            ),
        ];

        for (status, body, answer) in rows {
            assert_eq!(of_reply(status, None, Some(body.as_bytes())), answer, "{status} {body}");
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
    fn an_answer_without_a_code_halts_by_its_status() {
        let answer = of_reply(401, None, Some(b"<html>"));

        assert!(
            matches!(
                &answer,
                Answer::Halted { fault: HoldCause::Credentials, code: None, explanation } if explanation.meaning.contains("401")
            ),
            "{answer:?}"
        );
    }

    #[test]
    fn only_a_probe_that_is_forbidden_itself_says_nothing_of_messages() {
        let probes = [200, 401, 403, 404, 429, 500, 302].map(of_probe);

        assert_eq!(
            probes,
            [
                ProbeAnswer::Accepted,
                ProbeAnswer::Refused,
                ProbeAnswer::Forbidden,
                ProbeAnswer::Refused,
                ProbeAnswer::Unclear,
                ProbeAnswer::Unclear,
                ProbeAnswer::Unclear,
            ]
        );
    }

    #[test]
    fn the_provider_may_ask_for_a_pause() {
        let pause = Some(SignedDuration::from_secs(7));

        assert_eq!(
            of_reply(429, pause, None),
            Answer::NotSent {
                retry_after: pause,
                why: "the provider is busy",
                code: None
            }
        );
    }
}
