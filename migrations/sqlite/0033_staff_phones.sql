-- Whether somebody who texts us is in the directory.
create index if not exists staff_phone on staff (phone);
