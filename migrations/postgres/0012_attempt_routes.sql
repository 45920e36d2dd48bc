-- The route by which an attempt went; null where a version began it that knew none.
alter table attempt add column route text;
