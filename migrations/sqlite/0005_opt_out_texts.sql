-- The text from which the number of an opt-out was read; null where it is not known: what earlier versions stored, and
-- what the provider told us, which is the very number that was texted. Earlier versions could misread foreign numbers,
-- so the next report lists theirs once, for a person to look at; report_day says which one did.
alter table opt_out add column phone_text text;
alter table opt_out add column report_day text;
