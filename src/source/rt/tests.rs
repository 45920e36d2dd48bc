use super::*;
use crate::{
    config::{Reader, read_sources},
    domain::phone::Region,
};

/// A source of Request Tracker with this table of urgencies beside that of its preset.
fn tracker(settings: &[(&str, &str)]) -> RequestTracker {
    let mut given = vec![
        ("SOURCES__RT__KIND", "rt"),
        ("SOURCES__RT__URL", "http://rt.example.test/rt"),
    ];
    given.extend(settings);
    let mut reader = Reader::with(&given);
    let sources = read_sources(&mut reader, Region::parse("US").unwrap());
    let url = "http://127.0.0.1:1/rt".parse().unwrap();
    let client = Client::new("rt", &url, &"1-2-abc".to_owned().into(), &PRODUCT).unwrap();
    RequestTracker::new(client, &sources["rt"])
}

/// A ticket as REST2 shows one, with an owner and two managers.
fn item() -> Value {
    let person = |name: &str, real: &str, mobile: &str, work: &str| {
        json!({"type": "user", "id": name, "Name": name, "RealName": real, "EmailAddress": format!("{name}@example.test"),
            "MobilePhone": mobile, "WorkPhone": work})
    };
    json!({"id": "12", "type": "ticket", "Subject": "Gas leak in hall 3", "Status": "open", "Priority": "95", "LastUpdated": "2026-11-20T10:02:00Z",
        "TimeEstimated": "90", "Owner": person("noor", "Noor Aziz", "", "(415) 555-0144"),
        "AdminCc": [person("olaf", "", "+4915112345678", "030 1"), person("noor", "Noor Aziz", "", "(415) 555-0144")],
        "Queue": {"id": "4", "Name": "Facilities", "AdminCc": ""},
        "Requestor": [{"type": "user", "id": "kim@client.test", "RealName": "", "EmailAddress": "kim@client.test", "Organization": "Hall Ltd"}],
        "CustomFields": [{"id": "1", "name": "AI confidence", "values": ["87,5 %"]}, {"id": "2", "name": "Estimated Hours", "values": []}]})
}

#[tokio::test]
async fn a_ticket_becomes_an_event_with_its_owner_and_managers_once_each() {
    let rt = tracker(&[]);

    let seen = rt.read(&item(), true).await.unwrap();

    assert_eq!(
        (seen.id.as_str(), seen.urgency.as_str(), seen.is_open),
        ("12", "95", true)
    );
    assert_eq!(
        seen.event,
        json!({
            "occurred_at": "2026-11-20T10:02:00Z",
            "ticket": {"number": "12", "subject": "Gas leak in hall 3", "url": "http://rt.example.test/rt/Ticket/Display.html?id=12",
                "estimated_hours": 1.5, "ai": {"confidence_percent": 87.5}, "group": "Facilities"},
            "client": {"name": "kim@client.test", "organisation": "Hall Ltd"},
            "recipients": [
                {"staff_id": "noor", "login": "noor", "role": "assignee", "name": "Noor Aziz", "email": "noor@example.test", "phone": "(415) 555-0144"},
                {"staff_id": "olaf", "login": "olaf", "role": "manager", "name": "olaf", "email": "olaf@example.test", "phone": "+4915112345678"},
            ],
        })
    );
}

#[tokio::test]
async fn a_ticket_that_nobody_owns_has_no_assignee_and_one_that_is_not_critical_no_recipients() {
    let rt = tracker(&[]);
    let mut item = item();
    item["Owner"] = json!({"type": "user", "id": 6, "Name": "Nobody", "RealName": "Nobody in particular"});
    item["AdminCc"] = json!([]);
    item["CustomFields"] = json!("");
    item["Subject"] = json!("");

    let seen = rt.read(&item, true).await.unwrap();
    assert_eq!(
        (&seen.event["recipients"], &seen.event["ticket"]["subject"]),
        (&json!([]), &json!(""))
    );

    item["Owner"]["Name"] = json!("noor");
    assert_eq!(rt.read(&item, false).await.unwrap().event["recipients"], json!([]));
    item["Priority"] = json!("20");
    assert_eq!(rt.read(&item, true).await.unwrap().event["recipients"], json!([]));
}

#[tokio::test]
async fn an_answer_that_is_no_ticket_is_an_error_that_names_the_key() {
    let error = tracker(&[]).read(&json!({"id": "1"}), true).await.unwrap_err().0;

    assert!(
        error.contains("a ticket without `id` or `Priority`") && error.contains("`sources.rt.url`"),
        "{error}"
    );
}

#[test]
fn changes_are_asked_for_early_enough_in_every_time_zone() {
    let since = "2026-11-20T10:00:00Z".parse().ok();

    assert_eq!(changed_since(since), "LastUpdated >= '2026-11-19 19:00:00'");
    assert_eq!(changed_since(None), "id > 0");
    assert_eq!(changed_since(Some(Timestamp::UNIX_EPOCH)), "id > 0");
}

#[test]
fn the_table_of_urgencies_becomes_a_search() {
    let query = |settings: &[(&str, &str)]| critical_query(&tracker(settings).critical);
    let open = "Status = '__Active__' AND ";

    assert_eq!(query(&[]), Some(format!("{open}((Priority >= 80))")));
    for (entry, condition) in [
        ("> 80", "(Priority >= 81)"),
        ("90..95.5", "(Priority >= 90 AND Priority <= 95)"),
        ("< 1", "(Priority <= 0)"),
        ("100", "Priority = 100"),
    ] {
        let matcher = Matcher::parse(entry).unwrap();
        assert_eq!(super::condition(&matcher).as_deref(), Some(condition), "{entry}");
    }
    assert_eq!(super::condition(&Matcher::parse("on fire").unwrap()), None);
}

#[tokio::test]
async fn a_table_without_numbers_is_a_fault_that_is_named() {
    let mut rt = tracker(&[]);
    rt.critical = Urgencies::default();

    let error = rt.critical().await.unwrap_err().0;

    assert!(
        error.contains("`sources.rt.urgency` calls no number critical"),
        "{error}"
    );
}
