-- What waits for a slot, in the order in which it came; and receipts that wait for their message. By expressions, so that
-- no planner can prefer an index by state, through which it would read everything that is pending.
drop index delivery_waiting;
create index delivery_line on delivery ((case when state in ('pending', 'deferred') then received_at end), id)
    where (case when state in ('pending', 'deferred') then received_at end) is not null;
create index receipt_late on receipt ((case when applied_at is null then received_at end))
    where (case when applied_at is null then received_at end) is not null;
-- For the foreign key: whoever inserts a delivery is asked for those that repeat it.
create index delivery_resends on delivery (resend_of) where resend_of is not null;
