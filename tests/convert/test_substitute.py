"""A translated callback does what Perl does: real Perl and our rules on the same texts."""

import json
import os
import subprocess
from pathlib import Path

import pytest

from gevproxy.convert.evaluate import evaluate
from gevproxy.convert.substitute import Untranslatable, rules
from gevproxy.stages.rewrite import compile_rules
from tests.mod_gearman.payloads import CHECK, RESULT

TEXTS = [
    CHECK,
    RESULT,
    CHECK + RESULT,
    CHECK.rstrip(b"\n"),
    b"",
    b"\n",
    b"\n\n\n",
    b"a=1",
    b"a=1\n",
    b"\na=1\n\na=2",
    b"a=\na=\na=",
    b"A=1\na=2\nb=a=3\n",
    b"a=1\r\na=2\r\n",
    b"xa=1 a=2\ta=3\x0ba=4\xe9\xa0\x85a=\0\n\xc3\xa9=a.b=axb",
    b"x #a = 1 a  a =  ",
    b"timeout=60\ntimeout=5\ntimeout=",
    bytes(range(256)) * 2,
]

PROLOGUE = r"""
my ($lexical, $path, $regex, $none) = ("a", "/usr/lib (64)", "a|b", undef);
$global = "g\\1\$x"; our $ours = "b=";
my ($name, %hash, @array) = ("a", k => "v");
"""

# Bodies of a sub, as people write them. All of these are rewrite rules.
TRANSLATED = [
    r"my($data) = @_; $data =~ s/^a=.*$/a=b/gmx; return($data);",
    r"my($data, $job, $config, $self) = @_; $data =~ s/^a=.*$/a=b/gm; return($data, $uniq);",
    r"my $data = shift; $data =~ s/^a=.*$/a=b/gm; $data",
    r"my $data = shift(@_); $data =~ s/^a=.*$/a=b/gm; return $data;",
    r"my $data = $_[0]; $data =~ s/^a=.*$/a=b/gm; return ($data, undef);",
    r"(my $data = shift) =~ s/^a=.*$/a=b/gm; $data",
    r"local $_ = shift; s/^a=.*$/a=b/gm; s/b/c/g; return $_;",
    r"my ($d) = @_; return $d =~ s/^a=.*$/b/gmr;",
    r"use strict; use warnings; my ($d) = @_; $d =~ s/a/b/g; $d",
    r"no warnings 'once'; my ($d) = @_; $d =~ s/a/b/g; $d",
    # the flags
    r"my ($d) = @_; $d =~ s/A=(\d)/a=$1$1/gi; $d",
    r"my ($d) = @_; $d =~ s/a=.*b/x/gs; $d",
    r"my ($d) = @_; $d =~ s/a=.*b/x/gms; $d",
    r"my ($d) = @_; $d =~ s/^a=.*$/x/g; $d",
    r"my ($d) = @_; $d =~ s/a=.$/x/g; $d",
    r"my ($d) = @_; $d =~ s/a=.$/x/gm; $d",
    r"my ($d) = @_; $d =~ s/=\n?$/x/g; $d",
    r"my ($d) = @_; $d =~ s/ a = .* $ # a comment (" + "\n" + r" /a b/gmx; $d",
    r"my ($d) = @_; $d =~ s/[ #] a\ =\ (?: \d | [ ] ) /x/gx; $d",
    # the first match alone
    r"my ($d) = @_; $d =~ s/^a=(.*)$/b=$1/m; $d",
    r"my ($d) = @_; $d =~ s/^a=(.*)$/b=$1/; $d",
    r"my ($d) = @_; $d =~ s/a(=)/b$1/; $d",
    r"my ($d) = @_; $d =~ s/(b)|(a)/[$1$2]/; $d",
    r"my ($d) = @_; $d =~ s/^(A)=/$1$1=/im; $d",
    r"my ($d) = @_; $d =~ s/=.*a/x/s; $d",
    r"my ($d) = @_; $d =~ s/\n//; $d =~ s/\n$//; $d",
    # what a pattern may have
    r"my ($d) = @_; $d =~ s/\d+\.\d{1,6}/0/g; $d =~ s/\d{3}/3/g; $d =~ s/\d{2,}?/2/g; $d",
    r"my ($d) = @_; $d =~ s/[a-c]+?=[^\n]/<$&>/g; $d",
    r"my ($d) = @_; $d =~ s/\s+/_/g; $d",
    r"my ($d) = @_; $d =~ s/\S\w\W/_/g; $d",
    r"my ($d) = @_; $d =~ s/[\w.\-]+=/x=/g; $d",
    r"my ($d) = @_; $d =~ s/^(?:a|b)=(?:1|2)$|c/x/gm; $d",
    r"my ($d) = @_; $d =~ s/((a)(=))(.)?/$4$3$2$1/g; $d",
    r"my ($d) = @_; $d =~ s/^a=.*\n//gm; $d",
    r"my ($d) = @_; $d =~ s/\t\r?\n?/\t\n\r/g; $d",
    r"my ($d) = @_; $d =~ s/\$|\@|\\|\//-/g; $d",
    r"my ($d) = @_; $d =~ s{^command_line=/usr/lib/nagios/(.*)$}{command_line=/opt/$1}gm; $d",
    r"my ($d) = @_; $d =~ s|/usr/lib/|[{(</]|g; $d",
    r"my ($d) = @_; $d =~ s,a=,b/c,; $d =~ s'b'$x@y'g; $d",
    # what a replacement may have
    r'my ($d) = @_; $d =~ s/a/\\1 \\g<0> \$ \@ " \x41\t\e é/g; $d',
    r"my ($d) = @_; $d =~ s/(a)/${1}x$1-\1/g; $d",
    r"my ($d) = @_; $d =~ s/a//g; $d",
    # variables
    r"my ($d) = @_; $d =~ s/^a=.*$/a=$lexical-${lexical}x-$global-$ours-$GearmanProxy::ours/gm; $d",
    r"my ($d) = @_; $d =~ s/^$lexical=.*$/${lexical}[0]=$path/gm; $d",
    r"my ($d) = @_; $d =~ s/^(?:$regex)=.*$/x/gm; $d",
    r"my ($d) = @_; $d =~ s/\Q$path\E|${lexical}[=]/x/g; $d",
    r"my ($d) = @_; $d =~ s/\Q$path\E | $ours/x/gx; $d",
]

# These are a person's, whatever they do.
REFUSED = [
    r"",
    r"return $_[0];",
    r"my ($d) = @_; $d =~ s/a/b/g;",
    r"my ($d) = @_; return $d =~ s/a/b/g;",
    r"my ($d, $e) = @_; $d =~ s/a/b/g; $e",
    r"my ($d, $e) = @_; $e =~ s/a/b/g; $d",
    r"my ($d, $e) = @_; $d =~ s/a/$e/g; $d",
    r"my ($d) = @_; $d =~ s/a/b/g; return ($d, '-');",
    r"my ($d) = @_; $d =~ s/a/b/g; return ($d, $name);",
    r"my ($d) = @_; $d =~ s/a/b/g; return ($d, $d);",
    r"my ($d) = @_; $d =~ s/a/b/ge; $d",
    r"my ($d) = @_; $d =~ s/a/b/g if $d =~ m/c/; $d",
    r"my ($d) = @_; $d =~ s/a/b/g for 1 .. 2; $d",
    r"my ($d) = @_; $d =~ tr/a/b/; $d",
    r"my ($d) = @_; $d =~ s/a/b/g; $d .= 'x'; $d",
    r"my ($d) = @_; $d =~ s/a*/b/g; $d",
    r"my ($d) = @_; $d =~ s/^/b/gm; $d",
    r"my ($d) = @_; $d =~ s/$/b/gm; $d",
    r"my ($d) = @_; $d =~ s/a|/b/g; $d",
    r"my ($d) = @_; $d =~ s/a\n^/b/gm; $d",
    r"my ($d) = @_; $d =~ s/(?<=a)b/c/g; $d",
    r"my ($d) = @_; $d =~ s/(?<n>a)/$+{n}/g; $d",
    r"my ($d) = @_; $d =~ s/(a)\1/b/g; $d",
    r"my ($d) = @_; $d =~ s/\ba\b/b/g; $d",
    r"my ($d) = @_; $d =~ s/\h\R\K\x41/b/g; $d",
    r"my ($d) = @_; $d =~ s/[[:alpha:]]/b/g; $d",
    r"my ($d) = @_; $d =~ s/[a&&b]/b/g; $d",
    r"my ($d) = @_; $d =~ s/a++/b/g; $d",
    r"my ($d) = @_; $d =~ s/a{,3}b/b/g; $d",
    r"my ($d) = @_; $d =~ s/é/b/g; $d",
    r"my ($d) = @_; $d =~ s/a/$none/g; $d",
    r"my ($d) = @_; $d =~ s/a/$hash{k}/g; $d",
    r"my ($d) = @_; $d =~ s/a/$array[0]/g; $d",
    r"my ($d) = @_; $d =~ s/a/@array/g; $d",
    r"my ($d) = @_; $d =~ s/a/\U$name/g; $d",
    r"my ($d) = @_; $d =~ s/$hash{k}/b/g; $d",
    r"my ($d) = @_; $d =~ s/a$!/b/g; $d",
    r"my ($d) = @_; $d =~ s/(a)/${1}0/g; $d",  # B::Deparse writes $10
    r"my ($d) = @_; $d =~ s/(a)/$2/g; $d",
    r"my ($d) = @_; $d =~ s/^a|b/c/m; $d",
    r"use feature 'unicode_strings'; my ($d) = @_; $d =~ s/\w/b/g; $d",
    r"use v5.14; my ($d) = @_; $d =~ s/\w/b/g; $d",
    r"use re '/a'; my ($d) = @_; $d =~ s/a/b/g; $d",
    r"use locale; my ($d) = @_; $d =~ s/\w/b/gi; $d",
]

RUN = r"""
use JSON::PP;
package GearmanProxy;
our $queues = {};
do $ARGV[0]; die $@ if $@;
my @texts = map { pack 'H*', $_ } @ARGV[1 .. $#ARGV];
my @results;
for my $key (sort keys %$queues) {
    my $callback = $queues->{$key}{data_callback};
    push @results, [map { unpack 'H*', ($callback->("$_", undef, undef, undef))[0] } @texts];
}
print JSON::PP->new->encode(\@results);
"""


def written(folder: Path, bodies: list[str]) -> Path:
    """Write a Perl configuration with a queue for each body."""
    file = folder / "callbacks.cfg"
    queues = (
        f'$queues->{{"h/{number:03}"}} = {{ data_callback => sub {{ {body} }} }};'
        for number, body in enumerate(bodies)
    )
    file.write_text(PROLOGUE + "\n".join(queues) + "\n1;\n")
    return file


def by_perl(file: Path) -> list[list[bytes]]:
    """Return what Perl itself makes of each text with each callback."""
    command = ["perl", "-e", RUN, str(file), *(text.hex() for text in TEXTS)]
    done = subprocess.run(command, capture_output=True, check=True, timeout=60)
    return [[bytes.fromhex(text) for text in texts] for texts in json.loads(done.stdout)]


def by_rules(file: Path) -> list[list[bytes]]:
    """Return what our rules make of each text, for each callback."""
    evaluated = evaluate([str(file)], environ=os.environ, seconds=60)
    results: list[list[bytes]] = []
    for queue in evaluated.queues:
        code = evaluated.codes[queue.options["data_callback"].code]
        results.append([])
        for text in TEXTS:
            changed = text
            for rule in compile_rules(rules(code)):
                changed = rule(changed)
            results[-1].append(changed)
    return results


def test_rules_do_what_the_callback_does(tmp_path: Path) -> None:
    file = written(tmp_path, TRANSLATED)
    expected = by_perl(file)
    idle = [body for body, texts in zip(TRANSLATED, expected, strict=True) if texts == TEXTS]
    assert idle == [], "each callback is to change something"
    for body, ours, theirs in zip(TRANSLATED, by_rules(file), expected, strict=True):
        assert ours == theirs, body


def test_what_is_not_surely_the_same_is_refused(tmp_path: Path) -> None:
    file = written(tmp_path, REFUSED)
    evaluated = evaluate([str(file)], environ=os.environ, seconds=60)
    for queue, body in zip(evaluated.queues, REFUSED, strict=True):
        with pytest.raises(Untranslatable):
            pytest.fail(f"{body}: {rules(evaluated.codes[queue.options['data_callback'].code])}")
