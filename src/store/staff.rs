//! The staff directory: people with their phones, and the keys by which an event's people are found among them. An entry and
//! its keys are always written together. Absent: who is meant by what is found (see `domain::staff`).

use super::{
    Db,
    error::StoreError,
    page::Page,
    query::Query,
    sql::{Rows, Sql, args, row, sql},
    tx::Tx,
    types::{Ms, ms},
};
use crate::domain::{
    phone::PhoneNumber,
    staff::{Found, Groups, Person},
};
use jiff::Timestamp;
use serde::Serialize;
use std::collections::BTreeSet;

/// Somebody of a helpdesk, with the phone that Nightbell keeps for them.
#[derive(Clone, Serialize, sqlx::FromRow, utoipa::ToSchema)]
pub struct StaffMember {
    #[schema(examples("default"))]
    pub source: String,
    /// The helpdesk's own id of the person.
    #[schema(examples("2"))]
    pub staff_id: String,
    #[schema(required, examples("grace"))]
    pub login: Option<String>,
    #[schema(required, examples("grace@acme.example"))]
    pub email: Option<String>,
    #[schema(required, examples("Grace Hopper"))]
    pub name: Option<String>,
    /// In E.164; masked unless `?reveal=phone` asks for it.
    #[schema(examples("+1415****101"))]
    pub phone: String,
    /// For events that say none.
    #[schema(required, examples("assignee"))]
    pub role: Option<String>,
    /// Whose rules the number was read by, where it was named.
    #[schema(required, examples("US"))]
    pub region: Option<String>,
    /// The groups of whose critical tickets this person is told too; `*` is every group.
    #[sqlx(try_from = "String")]
    #[schema(value_type = Vec<String>, examples("Billing"))]
    pub manages: Groups,
    #[sqlx(try_from = "Ms")]
    pub created_at: Timestamp,
    #[sqlx(try_from = "Ms")]
    pub updated_at: Timestamp,
}

/// Which people are listed.
#[derive(Default)]
pub struct StaffFilter {
    pub source: Option<String>,
    /// A part of an id, login, e-mail address, name or managed group.
    pub text: Option<String>,
    /// The whole number of somebody; who has it is listed beside those who are found by the text.
    pub phone: Option<PhoneNumber>,
}

/// What became of entries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PutStaff {
    pub added: u64,
    /// They were there, and say something else now.
    pub changed: u64,
}

row! {
    PersonRow<'a> {
        source: &'a str as text,
        staff_id: &'a str as text,
        login: &'a Option<String> as text,
        email: &'a Option<String> as text,
        name: &'a Option<String> as text,
        phone: &'a str as text,
        role: &'a Option<String> as text,
        region: Option<String> as text,
        manages: String as text,
        at: i64 as number,
    }
}

row! {
    IdRow<'a> { source: &'a str as text, staff_id: &'a str as text }
}

row! {
    KeyRow<'a> { source: &'a str as text, key: String as text, staff_id: &'a str as text }
}

row! {
    WantedRow { key: String as text }
}

const COLUMNS: &str = "(source, staff_id, login, email, name, phone, role, region, manages, created_at, updated_at)
     select r.source, r.staff_id, r.login, r.email, r.name, r.phone, r.role, r.region, r.manages, r.at, r.at from ";

const ADD: Sql = sql!(
    "insert into staff ",
    COLUMNS,
    PersonRow::ROWS,
    " where true on conflict (source, staff_id) do nothing"
);

const REPLACE: Sql = sql!(
    "insert into staff ",
    COLUMNS,
    PersonRow::ROWS,
    " where true on conflict (source, staff_id) do update set login = excluded.login, email = excluded.email,
        name = excluded.name, phone = excluded.phone, role = excluded.role, region = excluded.region,
        manages = excluded.manages, updated_at = excluded.updated_at
     where staff.phone <> excluded.phone or staff.manages <> excluded.manages
        or coalesce(staff.login, '') <> coalesce(excluded.login, '')
        or coalesce(staff.email, '') <> coalesce(excluded.email, '')
        or coalesce(staff.name, '') <> coalesce(excluded.name, '')
        or coalesce(staff.role, '') <> coalesce(excluded.role, '')
        or coalesce(staff.region, '') <> coalesce(excluded.region, '')"
);

const CLEAR_KEYS: Sql = sql!(
    "delete from staff_key where (source, staff_id) in (select r.source, r.staff_id from ",
    IdRow::ROWS,
    ")"
);

const ADD_KEYS: Sql = sql!(
    "insert into staff_key (source, key, staff_id) select r.source, r.key, r.staff_id from ",
    KeyRow::ROWS
);

const MEMBER: &str =
    "select s.source, s.staff_id, s.login, s.email, s.name, s.phone, s.role, s.region, s.manages, s.created_at,
        s.updated_at from staff s";

/// From the key to the person, each by an index.
const FIND: Sql = sql!(
    "select k.key, s.staff_id, s.login, s.email, s.name, s.role, s.phone from ",
    WantedRow::ROWS,
    " cross join staff_key k cross join staff s
     where k.source = $2 and k.key = r.key and s.source = k.source and s.staff_id = k.staff_id
     order by k.key, s.staff_id"
);

#[derive(sqlx::FromRow)]
struct FoundRow {
    key: String,
    staff_id: String,
    login: Option<String>,
    email: Option<String>,
    name: Option<String>,
    role: Option<String>,
    phone: PhoneNumber,
}

impl Db {
    /// Adds people, or puts their entries in the place of those that are there, in one transaction. Nobody may stand among
    /// them twice.
    pub async fn put_staff(&self, people: &[Person], now: Timestamp) -> Result<PutStaff, StoreError> {
        // PostgreSQL waits for others who write the same rows: everybody in the same order.
        let mut sorted: Vec<&Person> = people.iter().collect();
        sorted.sort_by_key(|person| (&person.source, &person.staff_id));
        let rows: Rows = sorted.iter().map(|person| person_row(person, now)).collect();
        let mut tx = self.begin().await?;
        let added = tx.execute(ADD, args![rows.clone()]).await?;
        // Those that are new are the same already. The others are locked by it, so that their keys are too.
        let changed = tx.execute(REPLACE, args![rows]).await?;
        replace_keys(&mut tx, &sorted).await?;
        tx.commit().await?;
        Ok(PutStaff { added, changed })
    }

    /// Removes a person. Returns whether they were there.
    pub async fn remove_staff(&self, source: &str, staff_id: &str) -> Result<bool, StoreError> {
        const LOCK: Sql = sql!("update staff set updated_at = updated_at where source = $1 and staff_id = $2");
        const REMOVE: Sql = sql!("delete from staff where source = $1 and staff_id = $2");
        const REMOVE_KEYS: Sql = sql!("delete from staff_key where source = $1 and staff_id = $2");
        let mut tx = self.begin().await?;
        tx.execute(LOCK, args![source, staff_id]).await?;
        tx.execute(REMOVE_KEYS, args![source, staff_id]).await?;
        let removed = tx.execute(REMOVE, args![source, staff_id]).await?;
        tx.commit().await?;
        Ok(removed > 0)
    }

    pub async fn staff_member(&self, source: &str, staff_id: &str) -> Result<Option<StaffMember>, StoreError> {
        self.reads()
            .optional(
                sql!(MEMBER, " where s.source = $1 and s.staff_id = $2"),
                args![source, staff_id],
            )
            .await
    }

    /// Lists people by their sources and ids, after the cursor.
    pub async fn staff(
        &self,
        filter: &StaffFilter,
        after: Option<&str>,
        limit: i64,
    ) -> Result<Page<StaffMember>, StoreError> {
        const LIST: Sql = sql!(
            MEMBER,
            " where (s.source, s.staff_id) > ($1, $2) and (cast($3 as text) is null or s.source = $3)
                and (cast($4 as text) is null or s.phone = $5 or exists (select 1 from staff_key k
                    where k.source = s.source and k.staff_id = s.staff_id and lower(k.key) like $4 escape '!'))
              order by s.source, s.staff_id limit $6"
        );
        let (source, staff_id) = read_cursor(after.unwrap_or_default());
        let phone = filter.phone.as_ref().map(PhoneNumber::as_e164);
        let text = filter.text.as_deref().map(pattern);
        let found = self
            .reads()
            .all(LIST, args![source, staff_id, &filter.source, text, phone, limit + 1])
            .await?;
        Ok(Page::cut(found, limit, |member: &StaffMember| {
            cursor(&member.source, &member.staff_id)
        }))
    }

    /// Everybody of a source to whom one of the keys belongs, once for each of theirs.
    pub async fn find_staff(&self, source: &str, keys: BTreeSet<String>) -> Result<Vec<Found>, StoreError> {
        let keys: Rows = keys.into_iter().map(|key| WantedRow { key }).collect();
        let found: Vec<FoundRow> = self.reads().all(FIND, args![keys, source]).await?;
        let found = found.into_iter().map(|row| Found {
            key: row.key,
            staff_id: row.staff_id,
            login: row.login,
            email: row.email,
            name: row.name,
            role: row.role,
            phone: row.phone,
        });
        Ok(found.collect())
    }
}

fn person_row(person: &Person, now: Timestamp) -> PersonRow<'_> {
    PersonRow {
        source: &person.source,
        staff_id: &person.staff_id,
        login: &person.login,
        email: &person.email,
        name: &person.name,
        phone: person.phone.as_e164(),
        role: &person.role,
        region: person.region.map(|region| region.to_string()),
        manages: person.manages.as_text(),
        at: ms(now),
    }
}

async fn replace_keys(tx: &mut Tx, people: &[&Person]) -> Result<(), StoreError> {
    let ids = people.iter().map(|person| IdRow {
        source: &person.source,
        staff_id: &person.staff_id,
    });
    let keys = people.iter().flat_map(|person| {
        person.keys().into_iter().map(|key| KeyRow {
            source: &person.source,
            key,
            staff_id: &person.staff_id,
        })
    });
    tx.execute(CLEAR_KEYS, args![ids.collect::<Rows>()]).await?;
    tx.execute(ADD_KEYS, args![keys.collect::<Rows>()]).await?;
    Ok(())
}

/// What any key has behind its kind, in small letters.
fn pattern(text: &str) -> String {
    let escaped = text
        .to_lowercase()
        .replace('!', "!!")
        .replace('%', "!%")
        .replace('_', "!_");
    format!("%:%{escaped}%")
}

/// The place of a person in the list. An id may have any characters, and so may a source, but for the slash between them.
fn cursor(source: &str, staff_id: &str) -> String {
    format!("{}/{staff_id}", source.replace('%', "%25").replace('/', "%2F"))
}

fn read_cursor(cursor: &str) -> (String, &str) {
    let (source, staff_id) = cursor.split_once('/').unwrap_or((cursor, ""));
    (source.replace("%2F", "/").replace("%25", "%"), staff_id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_leads_back_to_its_person() {
        for (source, staff_id) in [("default", "2"), ("a/b%2F", "x/y"), ("", "")] {
            assert_eq!(read_cursor(&cursor(source, staff_id)), (source.to_owned(), staff_id));
        }
        assert_eq!(read_cursor("nonsense"), ("nonsense".to_owned(), ""));
    }

    #[test]
    fn a_search_takes_no_wildcards() {
        assert_eq!(pattern("50%_Off!"), "%:%50!%!_off!!%");
    }
}
