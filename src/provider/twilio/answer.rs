//! What Twilio's answer to an attempt means: the table that decides between "again", "never", "hold everything" and
//! "it may have been sent". Pure; `client` makes the call.

use super::{
    codes::{self, Kind},
    receipt,
};
use crate::domain::news::Answer;
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
                let status = created.status.unwrap_or_else(|| "accepted".into());
                Answer::Accepted {
                    message_id: created.sid,
                    news: receipt::news(&status),
                    status,
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
        (401 | 403, _) => Answer::Halted { code },
        (400..=499, Some(code)) => by_code(code, retry_after),
        (500..=599, _) => Answer::Unknown {
            why: "the provider had an error of its own",
        },
        (_, _) => Answer::Unknown {
            why: "the provider's answer was none that we know",
        },
    }
}

/// What a 4xx means by the class of its code.
fn by_code(code: i64, retry_after: Option<SignedDuration>) -> Answer {
    let known = codes::find(code);
    match (code, known.map(|known| known.kind)) {
        (codes::OPTED_OUT, _) => Answer::Refused {
            code: Some(code),
            opted_out: true,
        },
        // These two may have sent it already, says Twilio's own page of each.
        (20500 | 30410, _) => Answer::Unknown {
            why: "the provider had an error of its own",
        },
        // The account as a whole is suspended, closed or switched off.
        (20005 | 30002 | 30037, _) | (_, Some(Kind::Auth)) => Answer::Halted { code: Some(code) },
        _ if known.is_some_and(|known| known.retryable) => Answer::NotSent {
            retry_after,
            why: "the provider is busy",
            code: Some(code),
        },
        _ => Answer::Refused {
            code: Some(code),
            opted_out: false,
        },
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
                status: "queued".into(),
                news: Some(crate::domain::delivery::News::Accepted)
            }
        );
    }

    #[test]
    fn each_row_of_the_table() {
        let rows = [
            (429, error(20429), not_sent(Some(20429))),
            (429, String::new(), not_sent(None)),
            (400, error(21611), not_sent(Some(21611))),
            (401, error(20003), Answer::Halted { code: Some(20003) }),
            (401, "<html>".into(), Answer::Halted { code: None }),
            (403, error(20008), Answer::Halted { code: Some(20008) }),
            (400, error(20003), Answer::Halted { code: Some(20003) }),
            (400, error(20005), Answer::Halted { code: Some(20005) }),
            (
                400,
                error(21610),
                Answer::Refused {
                    code: Some(21610),
                    opted_out: true,
                },
            ),
            (
                400,
                error(21211),
                Answer::Refused {
                    code: Some(21211),
                    opted_out: false,
                },
            ),
            (
                400,
                error(21608),
                Answer::Refused {
                    code: Some(21608),
                    opted_out: false,
                },
            ),
            (
                400,
                error(99_999),
                Answer::Refused {
                    code: Some(99_999),
                    opted_out: false,
                },
            ),
            (
                404,
                error(20404),
                Answer::Refused {
                    code: Some(20404),
                    opted_out: false,
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
        assert!(is_unknown(&of_reply(400, None, Some(error(30410).as_bytes()))));
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
