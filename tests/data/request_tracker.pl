# Fills a private Request Tracker for stories: people with phones, a queue with managers, and the user that Nightbell asks as.
# Prints that user's token.
use strict;
use warnings;
use lib '/usr/share/request-tracker5/lib';
use RT -init;

my $system = RT->SystemUser;

sub done {
    my ( $ok, $message ) = @_;
    die "$message\n" unless $ok;
    return $ok;
}

sub user {
    my (%given) = @_;
    my $user = RT::User->new($system);
    done( $user->Create( Privileged => 1, %given ) );
    return $user;
}

my $grace = user( Name => 'grace', RealName => 'Grace Hopper', EmailAddress => 'grace@example.test', MobilePhone => '+14155550101', WorkPhone => '+14155550199' );
my $mona = user( Name => 'mona', RealName => 'Mona Meyer', EmailAddress => 'mona@example.test', WorkPhone => '+493012345678' );
my $ada  = user( Name => 'ada',  RealName => 'Ada Lovelace', EmailAddress => 'ada@example.test', MobilePhone => '+14155550103' );
user( Name => 'bo', RealName => 'Bo Client', EmailAddress => 'bo@client.test', Organization => 'Acme Corp', Privileged => 0 );
done( $grace->PrincipalObj->GrantRight( Right => 'OwnTicket', Object => RT->System ) );

my $general = RT::Queue->new($system);
$general->Load('General');
my $on_call = RT::Group->new($system);
done( $on_call->CreateUserDefinedGroup( Name => 'On call' ) );
done( $on_call->AddMember( $ada->PrincipalId ) );
done( $general->AddWatcher( Type => 'AdminCc', PrincipalId => $on_call->PrincipalId ) );

for my $name ( 'AI Confidence', 'Estimated Hours' ) {
    my $field = RT::CustomField->new($system);
    done( $field->Create( Name => $name, Type => 'FreeformSingle', LookupType => 'RT::Queue-RT::Ticket' ) );
    done( $field->AddToObject($general) );
}

# Far from UTC: in which zone Request Tracker reads a question must not matter.
my $nightbell = user( Name => 'nightbell', RealName => 'Nightbell', Timezone => 'America/New_York' );
for my $right (qw(SeeQueue ShowTicket SeeCustomField SeeGroup AdminUsers CommentOnTicket)) {
    done( $nightbell->PrincipalObj->GrantRight( Right => $right, Object => RT->System ) );
}
my ( $ok, $message, $token ) = RT::AuthToken->new($system)->Create( Owner => $nightbell->id, Description => 'Nightbell' );
done( $ok, $message );
print "token $token\n";
