# Tells Nightbell of a ticket (custom action commit code of the scrip "Tell Nightbell").
#
# Scrips run before the user's page comes back, so Nightbell has 2 seconds; it answers in milliseconds. What it does not get
# it finds by its own poll, if it has a token of this Request Tracker. A failure never stops the ticket.

use Digest::SHA ();
use JSON ();
use LWP::UserAgent ();
use MIME::Base64 ();

my $url    = RT->Config->Get('NightbellURL') or return 1;
my $secret = RT->Config->Get('NightbellSecret');
if ( !$secret ) {
    RT->Logger->error('Nightbell is not told of tickets: NightbellURL is set, and NightbellSecret is not');
    return 1;
}

# With the rights of the system: whoever changes a ticket need not be allowed to see all phones.
my $ticket = RT::Ticket->new( RT->SystemUser );
$ticket->Load( $self->TicketObj->id );
my $transaction = $self->TransactionObj;

my ( @recipients, %known );
my $add = sub {
    my ( $user, $role ) = @_;
    return if $user->id == RT->Nobody->id or $user->id == RT->SystemUser->id or $user->Disabled;
    return if $known{ $user->id }++ or @recipients == 100;
    my $phone = $user->MobilePhone || $user->WorkPhone;
    push @recipients, {
        staff_id => $user->Name,
        login    => $user->Name,
        role     => $role,
        name     => $user->RealName || $user->Name,
        ( $user->EmailAddress ? ( email => $user->EmailAddress ) : () ),
        ( $phone ? ( phone => $phone ) : () ),
    };
};
$add->( $ticket->OwnerObj, 'assignee' );
for my $group ( $ticket->AdminCc, $ticket->QueueObj->AdminCc ) {
    my $managers = $group->UserMembersObj( Recursively => 1 );
    while ( my $user = $managers->Next ) {
        $add->( $user, 'manager' );
    }
}

my ( $confidence, $hours );
my $fields = $ticket->CustomFields;
while ( my $field = $fields->Next ) {
    my $name = lc $field->Name;
    next unless $name eq 'ai confidence' or $name eq 'estimated hours';
    ( my $text = $ticket->FirstCustomFieldValue( $field->id ) // '' ) =~ s/,/./;
    next unless $text =~ /^\s*(\d+(?:\.\d+)?)\s*%?\s*$/;
    if   ( $name eq 'ai confidence' ) { $confidence = $1 + 0 if $1 <= 100 }
    else                              { $hours      = $1 + 0 if $1 <= 100_000 }
}
$hours = $ticket->TimeEstimated / 60 if !defined $hours and $ticket->TimeEstimated;

my $clients = $ticket->Requestor->UserMembersObj( Recursively => 1 );
my $client  = $clients->First;

my $is_closed = $ticket->QueueObj->LifecycleObj->IsInactive( $ticket->Status );
my $at        = $transaction->CreatedObj->ISO( Timezone => 'UTC' );
$at =~ s/ /T/;

my $body = JSON::encode_json( {
    id          => 'rt-transaction-' . $transaction->id,
    type        => $is_closed ? 'ticket.closed' : 'ticket.urgency_changed',
    occurred_at => "${at}Z",
    ticket      => {
        id      => '' . $ticket->id,
        number  => '' . $ticket->id,
        subject => $ticket->Subject || '(no subject)',
        urgency => '' . $ticket->Priority,
        group   => $ticket->QueueObj->Name,
        url     => RT->Config->Get('WebURL') . 'Ticket/Display.html?id=' . $ticket->id,
        ( defined $hours      ? ( estimated_hours => $hours )                             : () ),
        ( defined $confidence ? ( ai              => { confidence_percent => $confidence } ) : () ),
    },
    (   $client
        ? ( client => {
                name => $client->RealName || $client->EmailAddress || $client->Name,
                ( $client->Organization ? ( organisation => $client->Organization ) : () ),
            } )
        : ()
    ),
    recipients => \@recipients,
} );

# Standard Webhooks (standardwebhooks.com): the key is the base64 behind `whsec_`, and id, time and body are signed.
my $id   = 'rt-transaction-' . $transaction->id;
my $time = time;
( my $key = $secret ) =~ s/^whsec_//;
my $signature = Digest::SHA::hmac_sha256_base64( "$id.$time.$body", MIME::Base64::decode_base64($key) );
$signature .= '=' while length($signature) % 4;

my $agent  = LWP::UserAgent->new( timeout => 2, max_redirect => 0 );
my $answer = $agent->post(
    $url,
    'Content-Type'      => 'application/json',
    'Webhook-Id'        => $id,
    'Webhook-Timestamp' => $time,
    'Webhook-Signature' => "v1,$signature",
    Content             => $body,
);
RT->Logger->error( 'Nightbell was not told of ticket ' . $ticket->id . ': ' . $answer->status_line )
    unless $answer->is_success;
return 1;
