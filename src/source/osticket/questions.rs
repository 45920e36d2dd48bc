//! What osTicket's database is asked, and the rows of its answers. Every question goes from a key or an index, whatever the
//! size of the tables; an installation's own numbers are looked up by name. Absent: `…_ticket__cdata`, a copy of a ticket's
//! form that osTicket drops and builds anew whenever an admin changes a form, and which is missing meanwhile: the answers in
//! the form itself cost a millisecond more for a hundred tickets, are always there, and have the admin's own fields too.

use sqlx::FromRow;
use std::collections::BTreeSet;

/// Events that are read at once.
pub const MOST_EVENTS: usize = 500;

/// The questions to an installation whose tables begin so.
pub struct Questions<'a>(pub &'a str);

#[derive(FromRow)]
pub struct EventRow {
    pub id: i64,
    /// Not of events of osTicket's tasks.
    pub ticket_id: Option<i64>,
    /// In seconds since 1970.
    pub at: Option<i64>,
}

#[derive(Clone, FromRow)]
pub struct TicketRow {
    pub id: i64,
    pub number: Option<String>,
    pub state: Option<String>,
    /// 0 where there is none, as in all that follow.
    pub staff_id: i64,
    pub team_id: i64,
    pub department: Option<String>,
    pub manager_id: Option<i64>,
    pub client: Option<String>,
    pub organisation: Option<String>,
    /// Of the organisation: `s3` for somebody of the staff, `t1` for a team.
    pub account_manager: Option<String>,
}

/// What a ticket's form says in one field.
#[derive(Clone, FromRow)]
pub struct AnswerRow {
    pub ticket_id: i64,
    /// The field's own name, as an admin may set it.
    pub name: Option<String>,
    pub kind: String,
    /// Whether it is a field of the form that every ticket has.
    pub is_main: i64,
    pub value: Option<String>,
    /// Of a priority: its name, where it is one that is there.
    pub priority: Option<String>,
}

#[derive(FromRow)]
pub struct MemberRow {
    pub team_id: i64,
    pub staff_id: i64,
    pub leads: i64,
}

#[derive(Clone, FromRow)]
pub struct StaffRow {
    pub id: i64,
    pub login: Option<String>,
    pub first_name: Option<String>,
    pub last_name: Option<String>,
    pub email: Option<String>,
    pub mobile: Option<String>,
    pub phone: Option<String>,
}

#[derive(FromRow)]
pub struct PriorityRow {
    pub id: i64,
    pub name: String,
}

impl Questions<'_> {
    /// The newest event, 0 if there is none.
    pub fn newest_event(&self) -> String {
        let p = self.0;
        format!("select cast(coalesce(max(id), 0) as signed) from {p}thread_event")
    }

    /// The events after one but for those that were read already, the oldest first.
    pub fn events_after(&self, id: i64, but: &BTreeSet<i64>) -> String {
        let (p, but) = (self.0, list(but));
        format!(
            "select cast(te.id as signed) as id, cast(th.object_id as signed) as ticket_id,
                cast(unix_timestamp(te.timestamp) as signed) as at
             from {p}thread_event te left join {p}thread th on th.id = te.thread_id and th.object_type = 'T'
             where te.id > {id} and te.id not in ({but}) order by te.id limit {MOST_EVENTS}"
        )
    }

    /// These tickets with what is known of them by keys.
    pub fn tickets(&self, ids: &[i64]) -> String {
        let (p, ids) = (self.0, list(ids));
        format!(
            "select cast(t.ticket_id as signed) as id, t.number, s.state, cast(t.staff_id as signed) as staff_id,
                cast(t.team_id as signed) as team_id, d.name as department, cast(d.manager_id as signed) as manager_id,
                u.name as client, o.name as organisation, o.manager as account_manager
             from {p}ticket t
             left join {p}ticket_status s on s.id = t.status_id
             left join {p}department d on d.id = t.dept_id
             left join {p}user u on u.id = t.user_id
             left join {p}organization o on o.id = u.org_id
             where t.ticket_id in ({ids})"
        )
    }

    /// What stands in the forms of these tickets: priority, subject, and two fields that an admin may have added.
    pub fn answers(&self, ids: &[i64]) -> String {
        let (p, ids) = (self.0, list(ids));
        format!(
            "select straight_join cast(e.object_id as signed) as ticket_id, f.name, f.type as kind,
                coalesce(fo.type = 'T', 0) as is_main, v.value, p.priority
             from {p}form_entry e
             join {p}form_entry_values v on v.entry_id = e.id
             join {p}form_field f on f.id = v.field_id
             left join {p}form fo on fo.id = e.form_id
             left join {p}ticket_priority p on p.priority_id = v.value_id and f.type = 'priority'
             where e.object_type = 'T' and e.object_id in ({ids})
                and (f.type = 'priority' or f.name in ('subject', 'ai_confidence', 'estimated_hours'))"
        )
    }

    /// Who leads and who is in these teams.
    pub fn members(&self, team_ids: &BTreeSet<i64>) -> String {
        let (p, ids) = (self.0, list(team_ids));
        format!(
            "select cast(team_id as signed) as team_id, cast(lead_id as signed) as staff_id, 1 as leads
             from {p}team where team_id in ({ids}) and lead_id > 0
             union all
             select cast(team_id as signed), cast(staff_id as signed), 0 from {p}team_member where team_id in ({ids})"
        )
    }

    /// Those of these people who work there still, on vacation or not.
    pub fn staff(&self, ids: &BTreeSet<i64>) -> String {
        let (p, ids) = (self.0, list(ids));
        format!(
            "select cast(staff_id as signed) as id, username as login, firstname as first_name, lastname as last_name,
                email, mobile, phone
             from {p}staff where isactive = 1 and staff_id in ({ids})"
        )
    }

    /// All priorities: a handful, most urgent first.
    pub fn priorities(&self) -> String {
        let p = self.0;
        format!(
            "select cast(priority_id as signed) as id, priority as name from {p}ticket_priority order by priority_urgency"
        )
    }

    /// Open tickets of these priorities, and those whose priority stands there as a text alone.
    pub fn open_tickets_of(&self, priority_ids: &[i64]) -> String {
        let (p, ids) = (self.0, list(priority_ids));
        format!(
            "select distinct straight_join cast(t.ticket_id as signed)
             from {p}ticket_status s
             join {p}ticket t on t.status_id = s.id
             join {p}form_entry e on e.object_type = 'T' and e.object_id = t.ticket_id
             join {p}form_entry_values v on v.entry_id = e.id
             join {p}form_field f on f.id = v.field_id and f.type = 'priority'
             where s.state = 'open' and (v.value_id in ({ids}) or (v.value_id is null and v.value <> ''))"
        )
    }
}

fn list<'a>(ids: impl IntoIterator<Item = &'a i64>) -> String {
    let ids: Vec<String> = ids.into_iter().map(ToString::to_string).collect();
    // No id is 0: an empty list is no SQL.
    if ids.is_empty() { "0".to_owned() } else { ids.join(",") }
}
