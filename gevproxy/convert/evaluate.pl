# Evaluates configuration files as gearman_proxy.pl does, one after the other in one interpreter,
# and prints what they have defined as JSON in ASCII. Started by evaluate.py: perl THIS FILE...
#
# Whatever a file prints goes to standard error, which nobody reads. Perl's own error messages may
# quote the file and so a password: only their place and kind are passed on.
# Every text leaves here as bytes, each a character below 256. Core modules only.

package Gevproxy::Convert;
use strict;
use warnings;
use B ();
use B::Deparse ();
use JSON::PP ();
use Tie::Hash ();

my $MOST = 16 * 1024 * 1024;    # bytes of a result: a configuration of any size, no accident

my (@errors, @missing, @lost, %places, %twice, %unset, %configs);

# `do FILE` hides what went wrong in it, and `exit` would end us: both tell us first.
BEGIN {
    no warnings 'once';
    *CORE::GLOBAL::do = sub (;$) {
        my ($package, $by, $line) = caller;
        return run_file($_[0], $package, $by, $line);
    };
    *CORE::GLOBAL::exit = sub (;$) {
        my (undef, $file, $line) = caller;
        push @errors, { kind => 'exit', file => $file, line => $line };
        CORE::die("exit\n");
    };
}

sub run_file {
    my ($file, $package, $by, $line) = @_;
    delete $INC{$file};
    my $ours = !defined $by || $configs{$by};
    $configs{$file} = 1 if $ours;
    my $do = eval "package $package; sub { CORE::do(\$_[0]) }";
    my @result = $do->($file);
    if ($ours && $@) {
        push @errors, error_of($@, $file) if $@ ne "exit\n";
    }
    elsif ($ours && !exists $INC{$file}) {
        push @missing, { file => $by // '', line => $line, text => bytes($file) };
    }
    return wantarray ? @result : $result[-1];
}

sub error_of {
    my ($message, $file) = @_;
    my ($place, $line) = ($file, 0);
    ($place, $line) = ($1, $2) if !ref $message && $message =~ /\bat (\S[^\n]*?) line (\d+)/;
    ($place, $line) = ($file, 0) if !$configs{$place};
    my %error = (kind => 'died', file => $place, line => $line + 0);
    if ($message =~ /^Can't locate ([\w\/]+\.pm) in \@INC/) {
        @error{'kind', 'text'} = ('module', join '::', split m{/}, substr $1, 0, -3);
    }
    elsif ($message =~ /^Can't locate (\S+) (?:in \@INC|at )/) {
        @error{'kind', 'text'} = ('file', bytes($1));
    }
    elsif ($message =~ /, near "|\bat EOF\b|<-- HERE in m/
        || $message =~ /^(?:syntax error|Missing right|Can't find string terminator|Global symbol)/
        || $message =~ /^(?:Bareword|Unrecognized character|Unmatched|BEGIN failed)/)
    {
        $error{kind} = 'syntax';
    }
    return \%error;
}

# Perl keeps the last of two definitions without a word; this notes where each was made.
package Gevproxy::Convert::Queues {
    our @ISA = ('Tie::StdHash');

    sub STORE {
        my ($self, $key, $value) = @_;
        my (undef, $file, $line) = caller;
        $twice{$key} = $places{$key} if $places{$key};
        $places{$key} = { file => $file, line => $line };
        $self->{$key} = $value;
    }

    sub DELETE { delete $places{ $_[1] }; delete $_[0]{ $_[1] } }
    sub CLEAR { %places = (); %{ $_[0] } = () }
}

# Which variables of the environment were asked for in vain.
package Gevproxy::Convert::Environment {
    our @ISA = ('Tie::StdHash');

    sub FETCH {
        my ($self, $name) = @_;
        my (undef, $file, $line) = caller;
        $unset{$name} //= { file => $file, line => $line }
            if defined $file && $configs{$file} && !defined $self->{$name};
        return $self->{$name};
    }
}

package Gevproxy::Convert;

# After each file: what `$queues = {...}` has made of the hash that we watch.
sub watch {
    my ($file) = @_;
    my $now = $GearmanProxy::queues;
    return if ref $now ne 'HASH' || ref tied %$now eq 'Gevproxy::Convert::Queues';
    for my $key (sort keys %places) {
        push @lost, { %{ $places{$key} }, text => bytes($key), by => $file } if !exists $now->{$key};
        $twice{$key} = $places{$key} if exists $now->{$key};
    }
    %places = map { $_ => { file => $file, line => 0 } } keys %$now;
    my %values = %$now;
    my %kept = %places;
    my %again = %twice;
    tie %$now, 'Gevproxy::Convert::Queues';
    %$now = %values;
    %places = %kept;
    %twice = %again;
}

sub bytes {
    my ($text) = @_;
    $text = "$text";
    utf8::encode($text) if utf8::is_utf8($text);
    return $text;
}

my (@codes, %code_at);

sub value {
    my ($value) = @_;
    return { type => 'undef' } if !defined $value;
    return { type => 'text', text => bytes($value) } if !ref $value;
    return { type => ref $value } if ref $value ne 'CODE';
    return { type => 'undefined sub' } if !defined &$value;
    $code_at{$value} //= push(@codes, code($value)) - 1;
    return { type => 'code', code => $code_at{$value} };
}

sub code {
    my ($code) = @_;
    my $cv = B::svref_2object($code);
    my $text = eval { B::Deparse->new->coderef2text($code) } // '';
    my $start = $cv->START;
    return {
        text => bytes($text),
        name => bytes($cv->GV->can('NAME') ? $cv->GV->NAME : '__ANON__'),
        file => bytes($cv->FILE // ''),
        line => ($start->can('line') ? $start->line : 0) + 0,
        scalars => scalars($cv, $text),
    };
}

# The values of the scalars that a callback names and does not make itself, as they are now.
sub scalars {
    my ($cv, $text) = @_;
    my %found;
    my ($names, $values) = map { [$_->ARRAY] } $cv->PADLIST->ARRAY;
    my (%captured, %own);
    for my $at (0 .. $#$names) {
        my $name = $names->[$at];
        next if !$name->can('PV') || !defined $name->PV || $name->PV !~ /^\$(\w+)$/;
        next if ref $name->OURSTASH eq 'B::HV';    # `our`: a global variable
        my $value = $name->FLAGS & B::SVf_FAKE() ? $values->[$at] : undef;
        $captured{$1} = $value->object_2svref if $value && $value->can('object_2svref');
        $own{$1} = 1 if !$captured{$1};
    }
    for my $name ($text =~ /\$\{?([A-Za-z_]\w*(?:::\w+)*)/g) {
        next if $own{$name};
        no strict 'refs';
        my $global = $name =~ /::/ ? $name : $cv->STASH->NAME . "::$name";
        my $at = $captured{$name} // \${$global};
        $found{$name} = defined $$at ? bytes($$at) : undef if !ref $$at;
    }
    return \%found;
}

sub queue {
    my ($key, $value) = @_;
    my %queue = (key => bytes($key), %{ value($value) }, place => $places{$key});
    if (ref $value eq 'HASH') {
        $queue{same} = $value + 0;    # the same number is the same hash
        $queue{options} = { map { bytes($_) => value($value->{$_}) } keys %$value };
    }
    $queue{first} = $twice{$key} if $twice{$key};
    return \%queue;
}

sub main {
    open my $out, '>&', \*STDOUT or die;
    open STDOUT, '>&', \*STDERR or die;
    my %environment = %ENV;
    tie %ENV, 'Gevproxy::Convert::Environment';
    %ENV = %environment;
    # What gearman_proxy.pl sets before it reads the first file.
    $GearmanProxy::queues = {};
    ($GearmanProxy::logfile, $GearmanProxy::debug, $GearmanProxy::statusqueue) = ('', 0, '');
    tie %$GearmanProxy::queues, 'Gevproxy::Convert::Queues';
    for my $file (@ARGV) {
        local @ARGV;
        run_file($file, 'GearmanProxy', undef, 0);
        watch($file);
    }
    my $queues = $GearmanProxy::queues;
    my %result = (
        logfile => value($GearmanProxy::logfile),
        debug => value($GearmanProxy::debug),
        statusqueue => value($GearmanProxy::statusqueue),
        shape => ref $queues,
        queues => ref $queues eq 'HASH' ? [map { queue($_, $queues->{$_}) } sort keys %$queues] : [],
        codes => \@codes,
        errors => \@errors,
        missing => \@missing,
        lost => \@lost,
        unset => [map { { %{ $unset{$_} }, text => bytes($_) } } sort keys %unset],
    );
    my $json = JSON::PP->new->ascii->canonical->encode(\%result);
    die if length $json > $MOST;
    print {$out} $json;
    close $out or die;
}

main();
