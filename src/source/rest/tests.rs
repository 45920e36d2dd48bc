use super::*;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const PRODUCT: Product = Product {
    name: "Request Tracker",
    header: "authorization",
    prefix: "token ",
    token: "a token",
};

/// A helpdesk that gives this answer to whoever asks, and then hangs up.
async fn answering(answer: &str) -> Url {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/help", listener.local_addr().unwrap());
    let answer = answer.to_owned();
    tokio::spawn(async move {
        while let Ok((mut connection, _)) = listener.accept().await {
            let _ = connection.read(&mut [0; 4096]).await;
            let _ = connection.write_all(answer.as_bytes()).await;
        }
    });
    url.parse().unwrap()
}

fn client(url: &Url) -> Client {
    let _ = rustls::crypto::ring::default_provider().install_default();
    Client::new("acme", url, &"very-secret".to_owned().into(), &PRODUCT).unwrap()
}

async fn error(answer: &str) -> String {
    let url = answering(answer).await;
    match client(&url).get("tickets", &[]).await {
        Ok(reply) => panic!("{}", reply.body),
        Err(error) => error.0,
    }
}

#[tokio::test]
async fn every_failure_names_what_mends_it_and_no_secret() {
    for (answer, wanted) in [
        (
            "HTTP/1.1 401 No\r\n\r\n",
            "refuses the token (HTTP 401): set `sources.acme.token` to a token",
        ),
        ("HTTP/1.1 403 No\r\n\r\n", "does not let this token ask for `/tickets`"),
        (
            "HTTP/1.1 302 No\r\nLocation: https://elsewhere.test/\r\n\r\n",
            "set `sources.acme.url` to the address that it leads to",
        ),
        (
            "HTTP/1.1 404 No\r\n\r\n",
            "set `sources.acme.url` to the address of its start page",
        ),
        ("HTTP/1.1 429 No\r\n\r\n", "raise `sources.acme.poll_every`"),
        ("HTTP/1.1 502 No\r\n\r\n", "is in trouble (HTTP 502)"),
        (
            "HTTP/1.1 200 Yes\r\n\r\n<html>Please log in</html>",
            "a web page, not JSON",
        ),
        ("HTTP/1.1 200 Yes\r\n\r\nnothing", "no JSON"),
        (
            "HTTP/1.1 200 Yes\r\nContent-Length: 5\r\n\r\n{",
            "cannot be reached: the connection broke off",
        ),
    ] {
        let error = error(answer).await;
        assert!(error.contains(wanted), "{answer:?}: {error}");
        assert!(
            !error.contains("very-secret") && error.contains("http://127.0.0.1:"),
            "{error}"
        );
    }
}

#[tokio::test]
async fn an_answer_that_is_too_large_is_not_read_to_its_end() {
    let size = MAX_ANSWER + 100;
    let answer = format!("HTTP/1.1 200 Yes\r\nContent-Length: {size}\r\n\r\n{}", " ".repeat(size));

    assert!(error(&answer).await.contains("more than 8 MiB"));
}

#[tokio::test]
async fn a_helpdesk_that_is_down_is_named_with_its_key() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url: Url = format!("http://user:hidden@{}", listener.local_addr().unwrap())
        .parse()
        .unwrap();
    drop(listener);

    let error = client(&url).get("tickets", &[]).await.err().unwrap().0;

    assert!(error.contains("no connection (Connection refused"), "{error}");
    assert!(
        error.contains("`sources.acme.url`") && !error.contains("hidden"),
        "{error}"
    );
}

#[tokio::test]
async fn what_stands_below_a_folder_is_asked_for_there_and_the_clock_is_read() {
    let url = answering("HTTP/1.1 200 Yes\r\nDate: Fri, 20 Nov 2026 09:30:00 GMT\r\n\r\n{\"id\": 3}").await;
    let client = client(&url);

    let reply = client.get("tickets", &[("query", "a b")]).await.unwrap();

    assert_eq!(client.address("tickets").unwrap().path(), "/help/tickets");
    assert_eq!(client.base_url(None), url.as_str());
    assert_eq!(
        (text(&reply.body, "id").as_deref(), reply.date),
        (Some("3"), "2026-11-20T09:30:00Z".parse().ok())
    );
}

#[test]
fn a_token_that_is_none_is_said_without_showing_it() {
    let url = "http://rt.example.test".parse().unwrap();
    let error = Client::new("acme", &url, &"bad\ntoken".to_owned().into(), &PRODUCT)
        .err()
        .unwrap()
        .0;

    assert!(
        error.contains("`sources.acme.token`") && !error.contains("bad"),
        "{error}"
    );
}

#[test]
fn figures_are_read_as_people_write_them() {
    for (written, figured) in [
        ("93", Some(93.0)),
        (" 93 % ", Some(93.0)),
        ("4,5", Some(4.5)),
        ("high", None),
        ("", None),
        ("101", None),
        ("-1", None),
        ("NaN", None),
    ] {
        assert_eq!(figure(written, 100.0), figured, "{written}");
    }
}

#[test]
fn members_are_read_whatever_they_are() {
    let value = json!({"a": " x ", "b": 7, "c": "", "d": null, "e": ["y"]});
    let read = |member| text(&value, member);

    assert_eq!(
        [read("a"), read("b"), read("c"), read("d"), read("e")],
        [Some("x".into()), Some("7".into()), None, None, None]
    );
    assert_eq!((items(&value, "e").count(), items(&value, "a").count()), (1, 0));
}
