-- A line that stands for a run of attempts with the same outcome, from the attempt number run_from on.
alter table timeline add column run text;
alter table timeline add column run_from bigint;
