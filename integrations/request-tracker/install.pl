#!/usr/bin/perl
# Puts the scrip "Tell Nightbell" into Request Tracker 5, for all queues, or brings one that is there up to date.
#
#   perl install.pl              (as a user who may read Request Tracker's configuration)
#   perl install.pl --remove
#
# Beside it, Request Tracker's own configuration (/etc/request-tracker5/RT_SiteConfig.d/90-nightbell.pm) needs:
#
#   Set($NightbellURL,    'https://nightbell.example.com/v1/hooks/rt');
#   Set($NightbellSecret, 'whsec_…');       # as `sources.rt.secret`
#   Set($NightbellCritical, 80);            # from which priority on; 80 where it is not set
#   1;

use strict;
use warnings;
use FindBin ();
use lib '/usr/share/request-tracker5/lib', '/opt/rt5/lib', '/opt/rt5/local/lib';
use RT -init;

use constant NAME => 'Tell Nightbell';

my $remove = grep { $_ eq '--remove' } @ARGV;

my $scrips = RT::Scrips->new( RT->SystemUser );
$scrips->Limit( FIELD => 'Description', VALUE => NAME );
my $scrip = $scrips->First;

if ($remove) {
    die "There is no scrip \"" . NAME . "\".\n" unless $scrip;
    my ( $ok, $message ) = $scrip->Delete;
    die "The scrip was not removed: $message\n" unless $ok;
    print "The scrip \"" . NAME . "\" is removed.\n";
    exit 0;
}

my %code = (
    CustomIsApplicableCode => text('condition.pl'),
    CustomPrepareCode      => 'return 1;',
    CustomCommitCode       => text('commit.pl'),
);
if ($scrip) {
    for my $field ( sort keys %code ) {
        next if ( $scrip->$field // '' ) eq $code{$field};
        my $set = "Set$field";
        my ( $ok, $message ) = $scrip->$set( $code{$field} );
        die "The scrip was not brought up to date: $message\n" unless $ok;
    }
    print "The scrip \"" . NAME . "\" is up to date.\n";
}
else {
    my ( $ok, $message ) = RT::Scrip->new( RT->SystemUser )->Create(
        Description    => NAME,
        Queue          => 0,
        ScripCondition => 'User Defined',
        ScripAction    => 'User Defined',
        Template       => 'Blank',
        %code,
    );
    die "The scrip was not made: $message\n" unless $ok;
    print "The scrip \"" . NAME . "\" is there, for all queues.\n";
}
print "NightbellURL is not set: nothing is sent until it is (see the head of this file).\n"
    unless RT->Config->Get('NightbellURL');

sub text {
    my $file = "$FindBin::Bin/$_[0]";
    open my $handle, '<:encoding(UTF-8)', $file or die "$file cannot be read: $!\n";
    local $/;
    return scalar <$handle>;
}
