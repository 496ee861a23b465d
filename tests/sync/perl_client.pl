# Submits each job given on the command line as WORKLOAD or UNIQUE=WORKLOAD and prints, as JSON,
# what Perl's Gearman::Client tells of it: perl perl_client.pl PORT QUEUE JOB...

use strict;
use warnings;
use Gearman::Client;
use Gearman::Task;
use JSON::PP;

my ($port, $queue, @jobs) = @ARGV;
my $client = Gearman::Client->new(job_servers => ["127.0.0.1:$port"], exceptions => 1);
my $set = $client->new_task_set;
my @outcomes;
for my $job (@jobs) {
    my ($unique, $workload) = $job =~ /^(?:(\w+)=)?(.*)$/s;
    my $seen = { workload => $workload };
    push @outcomes, $seen;
    my $hex = sub { ref $_[0] ? unpack 'H*', ${ $_[0] } : defined $_[0] ? unpack 'H*', $_[0] : '' };
    $set->add_task(
        $queue, $workload,
        {
            defined $unique ? (uniq => $unique) : (),
            on_complete  => sub { $seen->{complete} .= $hex->($_[0]) },
            on_fail      => sub { $seen->{fail}++ },
            on_exception => sub { $seen->{exception} .= $hex->($_[0]) },
            on_warning   => sub { $seen->{warning} .= $hex->($_[0]) },
            on_data      => sub { $seen->{data} .= $hex->($_[0]) },
            on_status    => sub { $seen->{status} .= "$_[0]/$_[1] " },
        }
    );
}
$set->wait(timeout => 30);
my $last = $client->do_task($queue, 'complete alone', { timeout => 30 });
print JSON::PP->new->canonical->encode({ outcomes => \@outcomes, do_task => $last ? $$last : undef });
