//! The overview: today's limit, how today's deliveries stand, the last thirty days as a picture, and what needs a person's
//! attention, each with what mends it. Nothing here takes longer the more deliveries there are.

use super::{
    actions,
    deliveries::with_tickets,
    failure::Failure,
    form::Fields,
    layout::{self, Notice, Page, Section},
    rendering::view,
    totals::{DAYS, DayTotal},
    viewer::Viewer,
};
use crate::{
    domain::{
        alarm::AlarmKind,
        day::{LocalDay, after},
        delivery::State as DeliveryState,
    },
    http::{
        admin::api::{
            deliveries::Delivery,
            limit::{self, DailyLimit},
            query::Phones,
        },
        deadline::now,
        error::Problem,
        state::{AppState, SharedState},
    },
    store::{AlertFilter, AlertState, DeliveryFilter, RecentAlarm},
};
use axum::{Extension, extract::State, http::Uri, response::Response};
use jiff::{SignedDuration, Timestamp};
use minijinja::{Value, context};
use serde_json::{Value as Json, json};

/// How far back open tickets are shown: beyond it, a helpdesk never said that they are over.
const OPEN_SINCE: SignedDuration = SignedDuration::from_hours(7 * 24);
/// How far back alarms are shown that nothing else shows to be over.
const RECENT: SignedDuration = SignedDuration::from_hours(3 * 24);
/// At most so many of them are looked at.
const MAX_ALARMS: i64 = 500;
/// At most so many of one kind are shown; a link leads to the rest.
const SHOWN: usize = 5;

/// `GET /admin/`.
pub async fn show(
    State(app): SharedState,
    Extension(viewer): Extension<Viewer>,
    uri: Uri,
) -> Result<Response, Failure> {
    let today = app.today();
    let limit = limit::status(&app, today).await?;
    let days = app.pages.totals.until(today, &app.store, &app.time_zone).await;
    let view = context! {
        limit => view(&limit),
        gauge => gauge(&limit),
        today => view(&states_of(days.last())),
        chart => view(&chart(&days)),
        attention => view(&attention(&app, &limit).await?),
        open => view(&open(&app).await?),
    };
    let page = Page {
        template: "overview.html",
        section: Section::Overview,
        title: "Overview".to_owned(),
        notice: Notice::of(&uri),
        view,
    };
    layout::page(&app, &viewer, page).await
}

/// `POST /admin/`: the buttons of what needs attention.
pub async fn act(State(app): SharedState, Extension(fields): Extension<Fields>) -> Result<Response, Failure> {
    let word = match fields.text("action").as_str() {
        "mail-soon" => {
            app.store.mail_soon(now()).await?;
            "mail-soon"
        }
        "probe-soon" => {
            app.store.probe_soon(&app.route, now()).await?;
            "probe-soon"
        }
        _ => return Err(actions::unknown().into()),
    };
    Ok(layout::done("/admin/", word))
}

/// How full the limit is, in thousandths of the gauge's width.
fn gauge(limit: &DailyLimit) -> Value {
    let (used, most) = (limit.status.used.max(0), limit.status.limit.max(0));
    let permille = if most == 0 {
        1_000
    } else {
        used.saturating_mul(1_000) / most
    };
    let tone = match permille {
        0..800 => "good",
        800..1_000 => "doubtful",
        _ => "bad",
    };
    context! { filled => permille.min(1_000), tone, free => (most - used).max(0) }
}

/// How the deliveries of a day stand; null while they are being counted.
fn states_of(day: Option<&DayTotal>) -> Json {
    let Some(day) = day else { return Json::Null };
    let counts = day.counts.as_ref().map(|counts| {
        let shown = counts
            .iter()
            .map(|(state, count)| json!({"state": state, "count": count}));
        shown.collect::<Vec<_>>()
    });
    json!({"day": day.day.to_string(), "counts": counts})
}

/// The last days as bars: what was delivered, what failed, and everything else, each with its place in a picture that is 30
/// units wide for each day and 120 high.
fn chart(days: &[DayTotal]) -> Json {
    const HEIGHT: i64 = 120;
    let counted: Vec<_> = days
        .iter()
        .map(|day| (day.day, day.counts.as_ref().map(|counts| sums(counts))))
        .collect();
    let totals = counted
        .iter()
        .filter_map(|(_, sums)| sums.map(|[good, bad, other]| good + bad + other));
    let most = totals.clone().max().unwrap_or(0);
    let height = |count: i64| match count {
        0 => 0,
        // What is there can be seen.
        count => (count * HEIGHT / most.max(1)).max(2),
    };
    let bar = |(place, (day, sums)): (usize, &(LocalDay, Option<[i64; 3]>))| {
        let [good, bad, other] = sums.unwrap_or_default();
        let heights = [height(good), height(bad), height(other)];
        json!({
            "day": day.to_string(), "is_counted": sums.is_some(),
            "good": good, "bad": bad, "other": other, "total": good + bad + other,
            "x": place * 30 + 4,
            "good_height": heights[0], "good_y": HEIGHT - heights[0],
            "bad_height": heights[1], "bad_y": HEIGHT - heights[0] - heights[1],
            "other_height": heights[2], "other_y": HEIGHT - heights[0] - heights[1] - heights[2],
        })
    };
    let sum = |part: usize| {
        counted
            .iter()
            .filter_map(|(_, sums)| sums.map(|sums| sums[part]))
            .sum::<i64>()
    };
    json!({
        "bars": counted.iter().enumerate().map(bar).collect::<Vec<_>>(),
        "width": DAYS * 30, "most": most, "total": totals.sum::<i64>(),
        "good": sum(0), "bad": sum(1), "other": sum(2),
        "is_counting": counted.iter().any(|(_, sums)| sums.is_none()),
    })
}

/// What was delivered, what failed, and everything else.
fn sums(counts: &[(DeliveryState, i64)]) -> [i64; 3] {
    counts.iter().fold([0; 3], |mut sums, (state, count)| {
        let part = match state {
            DeliveryState::Delivered => 0,
            DeliveryState::Failed
            | DeliveryState::Undelivered
            | DeliveryState::Unconfirmed
            | DeliveryState::Expired => 1,
            DeliveryState::Pending
            | DeliveryState::Deferred
            | DeliveryState::Sending
            | DeliveryState::Unknown
            | DeliveryState::Accepted
            | DeliveryState::Sent
            | DeliveryState::Suppressed
            | DeliveryState::Canceled => 2,
        };
        sums[part] += count;
        sums
    })
}

/// The newest alerts of the last days whose tickets are still critical: whether somebody takes care of each.
async fn open(app: &AppState) -> Result<Json, Problem> {
    let filter = AlertFilter {
        state: Some(AlertState::Open),
        received: Some((after(now(), -OPEN_SINCE), Timestamp::MAX)),
        ..AlertFilter::default()
    };
    let page = app
        .store
        .alerts(&filter, None, i64::try_from(SHOWN).unwrap_or(1))
        .await?;
    Ok(json!({"alerts": page.items, "more": page.next.is_some()}))
}

/// What a person has to look at, the most urgent first.
async fn attention(app: &AppState, limit: &DailyLimit) -> Result<Vec<Json>, Problem> {
    let alarms = app.store.recent_alarms(after(now(), -RECENT), MAX_ALARMS).await?;
    let mut found = untold(app, &alarms).await?;
    found.extend(provider(app).await?);
    found.extend(said(
        &alarms,
        AlarmKind::LastRecipientOptedOut,
        Some(("/admin/opt-outs", "See the opt-outs")),
    ));
    found.extend(unconfirmed(app).await?);
    found.extend(mail(app).await?);
    if limit.status.deferred > 0 {
        let count = limit.status.deferred;
        found.push(json!({
            "tone": "doubtful",
            "title": format!("{count} deliver{} for a free slot of today's limit", if count == 1 { "y waits" } else { "ies wait" }),
            "text": "They go out as soon as a slot is free, at the latest tomorrow. Raise the limit if these alerts are real.",
            "links": [
                {"href": "/admin/settings#limit", "label": "Change the limit"},
                {"href": "/admin/deliveries?state=deferred", "label": "See them"},
            ],
        }));
    }
    found.extend(failures(app).await?);
    found.extend(said(&alarms, AlarmKind::ClockDiffers, None));
    found.extend(said(&alarms, AlarmKind::ClockJumped, None));
    Ok(found)
}

/// Alerts of which nobody was told yet.
async fn untold(app: &AppState, alarms: &[RecentAlarm]) -> Result<Vec<Json>, Problem> {
    let of_kind = alarms
        .iter()
        .filter(|alarm| alarm.kind == AlarmKind::NobodyTold.as_str());
    let ids: Vec<String> = of_kind.filter_map(|alarm| alarm.alert_id.clone()).collect();
    if ids.is_empty() {
        return Ok(Vec::new());
    }
    let tickets = app.store.untold_of(&ids).await?;
    if tickets.is_empty() {
        return Ok(Vec::new());
    }
    let count = tickets.len();
    Ok(vec![json!({
        "tone": "bad",
        "title": if count == 1 { "Nobody was told of this ticket".to_owned() } else { format!("Nobody was told of {count} tickets") },
        "text": "Call somebody now. Each alert says why its people were not told.",
        "tickets": tickets.iter().take(SHOWN).collect::<Vec<_>>(),
        "more": count.saturating_sub(SHOWN),
    })])
}

/// What is wrong with the provider.
async fn provider(app: &AppState) -> Result<Option<Json>, Problem> {
    let name = app.route.provider.as_str();
    if let Some(held) = app.store.held(&app.route).await? {
        return Ok(Some(json!({
            "tone": "bad",
            "title": format!("{name} refuses our {}: all sends are held", held.fault),
            "since": held.since,
            "text": held.fault.alarm().advice(),
            "button": {"path": "/admin/", "action": "probe-soon", "label": "Ask the provider again now"},
        })));
    }
    let since = app.store.unreachable_since(&app.route).await?;
    Ok(since.map(|since| {
        json!({
            "tone": "bad",
            "title": format!("{name} cannot be reached"),
            "since": since,
            "text": AlarmKind::ProviderUnreachable.advice(),
        })
    }))
}

/// The newest alarm of a kind.
fn said(alarms: &[RecentAlarm], kind: AlarmKind, link: Option<(&str, &str)>) -> Option<Json> {
    let alarm = alarms.iter().find(|alarm| alarm.kind == kind.as_str())?;
    let links = link.map(|(href, label)| json!({"href": href, "label": label}));
    Some(json!({
        "tone": "doubtful",
        "title": layout::capital(&alarm.detail),
        "since": alarm.raised_at,
        "text": kind.advice(),
        "links": links.into_iter().collect::<Vec<_>>(),
    }))
}

/// Messages of which nobody can tell whether they were sent.
async fn unconfirmed(app: &AppState) -> Result<Option<Json>, Problem> {
    let filter = DeliveryFilter {
        state: Some(DeliveryState::Unconfirmed.as_str()),
        ..DeliveryFilter::default()
    };
    let page = app
        .store
        .deliveries(&filter, None, i64::try_from(SHOWN).unwrap_or(1))
        .await?;
    let page = page.map(|view| Delivery::of(view, Phones::Masked));
    if page.items.is_empty() {
        return Ok(None);
    }
    Ok(Some(json!({
        "tone": "bad",
        "title": "Nobody can tell whether these messages were sent",
        "text": "Call the person, or send it again: they may then get it twice. Nightbell goes on searching.",
        "deliveries": with_tickets(app, &page.items).await?,
        "links": page.next.map(|_| json!([{"href": "/admin/deliveries?state=unconfirmed", "label": "See all of them"}])),
    })))
}

/// Mails that should have gone.
async fn mail(app: &AppState) -> Result<Option<Json>, Problem> {
    if !app.has_mail {
        return Ok(None);
    }
    let trouble = app.store.mail_trouble().await?;
    Ok(trouble.map(|trouble| {
        let reason = trouble.reason.map(|reason| format!("The server says: {reason}")).unwrap_or_default();
        let count = trouble.waiting;
        json!({
            "tone": "doubtful",
            "title": if count == 1 { "A mail cannot be sent".to_owned() } else { format!("{count} mails cannot be sent") },
            "since": trouble.since,
            "text": format!("They are kept and tried again. {reason}"),
            "button": {"path": "/admin/", "action": "mail-soon", "label": "Try again now"},
        })
    }))
}

/// Messages that ended without success and stand in no report yet.
async fn failures(app: &AppState) -> Result<Option<Json>, Problem> {
    let (count, failures) = app.store.unreported_failures(SHOWN).await?;
    if count == 0 {
        return Ok(None);
    }
    let ids = failures.iter().filter_map(|failure| failure.alert_id.as_deref());
    let tickets = app.store.tickets_of(ids).await?;
    let rows = failures.iter().map(|failure| {
        let mut row = actions::to_value(failure);
        row["recipient"] = json!({"name": failure.name, "role": failure.role});
        row["ticket"] = json!(
            tickets
                .iter()
                .find(|ticket| Some(&ticket.alert_id) == failure.alert_id.as_ref())
        );
        actions::decorate(&mut row, None);
        row
    });
    Ok(Some(json!({
        "tone": "doubtful",
        "title": format!("{count} message{} failed since the last report", if count == 1 { "" } else { "s" }),
        "text": "The next nightly report lists them too.",
        "deliveries": rows.collect::<Vec<_>>(),
        "links": if count > SHOWN { json!([
            {"href": "/admin/deliveries?state=failed", "label": "All failed"},
            {"href": "/admin/deliveries?state=undelivered", "label": "All undelivered"},
        ]) } else { Json::Null },
    })))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn day(text: &str, counts: Option<Vec<(DeliveryState, i64)>>) -> DayTotal {
        DayTotal {
            day: LocalDay::parse(text).unwrap(),
            counts,
        }
    }

    #[test]
    fn bars_stand_on_each_other_and_what_is_there_can_be_seen() {
        let counts = vec![
            (DeliveryState::Delivered, 900),
            (DeliveryState::Failed, 1),
            (DeliveryState::Sent, 99),
        ];
        let chart = chart(&[day("2026-11-19", None), day("2026-11-20", Some(counts))]);
        let bar = &chart["bars"][1];

        assert_eq!((&bar["good_height"], &bar["good_y"]), (&json!(108), &json!(12)));
        assert_eq!((&bar["bad_height"], &bar["bad_y"]), (&json!(2), &json!(10)));
        assert_eq!((&chart["most"], &chart["is_counting"]), (&json!(1_000), &json!(true)));
        assert_eq!(chart["bars"][0]["is_counted"], false);
    }
}
