-- To whom a mail goes, as in its header; null: to whom all mails go. A process of the version before sends every mail to those.
alter table mail add column recipients text;
