-- Who acknowledged an alert, and when; null: nobody.
alter table alert add column acknowledged_at bigint;
alter table alert add column acknowledged_by text;
-- `sms`, `link`, `api`, `page`, `command`.
alter table alert add column acknowledged_via text;
-- The delivery that told them of it.
alter table alert add column acknowledged_delivery text;
-- From when on nobody else is told because of it; null: they are.
alter table alert add column quieted_at bigint;
