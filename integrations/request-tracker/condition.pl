# When Nightbell is told (custom condition of the scrip "Tell Nightbell").
#
# A new ticket that is critical; a priority that becomes critical, or ceases to be; and, of a critical ticket, another owner,
# another AdminCc, or another status.

return 0 unless RT->Config->Get('NightbellURL');
# Reminders and approvals are tickets of other types.
return 0 if $self->TicketObj->Type ne 'ticket';
my $critical = RT->Config->Get('NightbellCritical') || 80;

my $transaction = $self->TransactionObj;
my $type        = $transaction->Type  // '';
my $field       = $transaction->Field // '';
my $priority    = $self->TicketObj->Priority // 0;

if ($type eq 'Set' and $field eq 'Priority') {
    my $before = ($transaction->OldValue // 0) >= $critical;
    my $after  = ($transaction->NewValue // 0) >= $critical;
    return $before != $after;
}
return 0 if $priority < $critical;
return 1 if $type eq 'Create' or $type eq 'Status';
return 1 if $type eq 'Set' and $field eq 'Owner';
return 1 if $type eq 'AddWatcher' and $field eq 'AdminCc';
return 0;
