//! Who is to be told of a ticket of osTicket. Absent: asking for the rows.

use super::questions::{MemberRow, StaffRow, TicketRow};
use serde_json::{Value, json};
use std::collections::{BTreeSet, HashMap};

/// Who works on a ticket that is assigned to a team, or looks after a client.
enum Named {
    Staff(i64),
    Team(i64),
}

/// Reads `s3` and `t1`.
fn read_account_manager(text: &str) -> Option<Named> {
    let (kind, id) = text.trim().split_at_checked(1)?;
    let id = id.parse().ok().filter(|id| *id > 0)?;
    match kind {
        "s" => Some(Named::Staff(id)),
        "t" => Some(Named::Team(id)),
        _ => None,
    }
}

/// The people of an installation, as far as these tickets name them.
#[derive(Default)]
pub struct People {
    staff: HashMap<i64, StaffRow>,
    /// Of each team those who lead it, then the others.
    teams: HashMap<i64, Vec<MemberRow>>,
}

impl People {
    /// The teams that these tickets name.
    pub fn teams_of(tickets: &[TicketRow]) -> BTreeSet<i64> {
        let teams = tickets.iter().flat_map(|ticket| {
            let account = ticket.account_manager.as_deref().and_then(read_account_manager);
            let account = match account {
                Some(Named::Team(id)) => id,
                Some(Named::Staff(_)) | None => 0,
            };
            [ticket.team_id, account]
        });
        teams.filter(|id| *id > 0).collect()
    }

    pub fn add_members(&mut self, members: Vec<MemberRow>) {
        for member in members {
            self.teams.entry(member.team_id).or_default().push(member);
        }
        for members in self.teams.values_mut() {
            members.sort_by_key(|member| (member.leads == 0, member.staff_id));
        }
    }

    /// Everybody whom these tickets name, by themselves or by their teams.
    pub fn named_by(&self, tickets: &[TicketRow]) -> BTreeSet<i64> {
        let of_tickets = tickets.iter().flat_map(|ticket| {
            let account = ticket.account_manager.as_deref().and_then(read_account_manager);
            let account = match account {
                Some(Named::Staff(id)) => id,
                Some(Named::Team(_)) | None => 0,
            };
            [ticket.staff_id, ticket.manager_id.unwrap_or(0), account]
        });
        let of_teams = self.teams.values().flatten().map(|member| member.staff_id);
        of_tickets.chain(of_teams).filter(|id| *id > 0).collect()
    }

    pub fn add_staff(&mut self, staff: Vec<StaffRow>) {
        self.staff.extend(staff.into_iter().map(|person| (person.id, person)));
    }

    /// Who is to be told of a ticket, each once: whom it is assigned to (a team only where it is nobody who still works
    /// there), the department's manager, and who looks after the client.
    pub fn of(&self, ticket: &TicketRow) -> Vec<Value> {
        let mut named: Vec<(&'static str, i64)> = Vec::new();
        if self.staff.contains_key(&ticket.staff_id) {
            named.push(("assignee", ticket.staff_id));
        } else {
            named.extend(self.active_in(ticket.team_id).map(|member| ("team", member.staff_id)));
        }
        named.push(("manager", ticket.manager_id.unwrap_or(0)));
        match ticket.account_manager.as_deref().and_then(read_account_manager) {
            Some(Named::Staff(id)) => named.push(("project_manager", id)),
            // Who leads it answers for it; where nobody does, all do.
            Some(Named::Team(id)) => {
                let has_lead = self.active_in(id).any(|member| member.leads != 0);
                let asked = self.active_in(id).filter(|member| member.leads != 0 || !has_lead);
                named.extend(asked.map(|member| ("project_manager", member.staff_id)));
            }
            None => {}
        }
        let mut known = BTreeSet::new();
        let people = named.into_iter().filter_map(|(role, id)| {
            let person = self.staff.get(&id).filter(|_| known.insert(id))?;
            Some(recipient(role, person))
        });
        people.collect()
    }

    /// Those of a team who still work there.
    fn active_in(&self, team_id: i64) -> impl Iterator<Item = &MemberRow> {
        let members = self.teams.get(&team_id).into_iter().flatten();
        members.filter(|member| self.staff.contains_key(&member.staff_id))
    }
}

fn recipient(role: &str, person: &StaffRow) -> Value {
    let text = |text: &Option<String>| {
        text.as_deref()
            .map(str::trim)
            .filter(|text| !text.is_empty())
            .map(str::to_owned)
    };
    let names = [text(&person.first_name), text(&person.last_name)];
    let name = names.into_iter().flatten().collect::<Vec<_>>().join(" ");
    json!({
        "staff_id": person.id.to_string(),
        "role": role,
        "name": name,
        "login": text(&person.login),
        "email": text(&person.email),
        "phone": text(&person.mobile).or_else(|| text(&person.phone)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ticket() -> TicketRow {
        TicketRow {
            id: 3,
            number: Some("108749".into()),
            state: Some("open".into()),
            staff_id: 0,
            team_id: 0,
            department: Some("Support".into()),
            manager_id: Some(0),
            client: Some("Bo Client".into()),
            organisation: None,
            account_manager: None,
        }
    }

    fn member(team_id: i64, staff_id: i64, leads: bool) -> MemberRow {
        MemberRow {
            team_id,
            staff_id,
            leads: i64::from(leads),
        }
    }

    /// People 1 to 5 work there; team 1 has a lead, team 2 has not. Person 9 has left.
    fn people() -> People {
        let person = |id: i64| StaffRow {
            id,
            login: Some(format!("login{id}")),
            first_name: Some("Grace".into()),
            last_name: Some(String::new()),
            email: None,
            mobile: Some(if id == 2 {
                String::new()
            } else {
                format!("+1415555010{id}")
            }),
            phone: Some("030 1234567".into()),
        };
        let mut people = People::default();
        people.add_members(vec![
            member(1, 4, false),
            member(1, 3, false),
            member(1, 4, true),
            member(2, 5, false),
            member(2, 9, false),
        ]);
        people.add_staff((1..=5).map(person).collect());
        people
    }

    fn named(ticket: &TicketRow) -> Vec<String> {
        let named = people().of(ticket).into_iter().map(|person| {
            let text = |name: &str| person[name].as_str().unwrap().to_owned();
            format!("{} {}", text("role"), text("staff_id"))
        });
        named.collect()
    }

    #[test]
    fn a_team_is_told_where_nobody_who_still_works_there_has_the_ticket() {
        let of = |staff_id, team_id| {
            named(&TicketRow {
                staff_id,
                team_id,
                ..ticket()
            })
        };

        assert_eq!(of(2, 1), ["assignee 2"]);
        assert_eq!(of(0, 1), ["team 4", "team 3"]);
        assert_eq!(of(9, 2), ["team 5"]);
        assert_eq!(of(9, 0), [""; 0]);
    }

    #[test]
    fn managers_are_told_too_and_nobody_twice() {
        let of = |manager, account: &str| {
            named(&TicketRow {
                staff_id: 2,
                manager_id: Some(manager),
                account_manager: Some(account.to_owned()),
                ..ticket()
            })
        };

        assert_eq!(of(1, "s3"), ["assignee 2", "manager 1", "project_manager 3"]);
        assert_eq!(of(2, "s2"), ["assignee 2"]);
        assert_eq!(of(9, "s9"), ["assignee 2"]);
        assert_eq!(of(0, "t1"), ["assignee 2", "project_manager 4"]);
        assert_eq!(of(0, "t2"), ["assignee 2", "project_manager 5"]);
        for nobody in ["", "s", "s0", "x3", "é", "3"] {
            assert_eq!(of(0, nobody), ["assignee 2"], "{nobody}");
        }
    }

    #[test]
    fn a_person_has_the_mobile_number_or_else_the_other() {
        let people = people();

        let (grace, second) = (&people.staff[&1], &people.staff[&2]);

        assert_eq!(
            recipient("assignee", grace),
            json!({"staff_id": "1", "role": "assignee", "name": "Grace", "login": "login1", "email": null,
                "phone": "+14155550101"})
        );
        assert_eq!(recipient("assignee", second)["phone"], "030 1234567");
    }
}
