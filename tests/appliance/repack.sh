#!/bin/sh
# Makes another version of each package: repack.sh FROM INTO VERSION works|refuses
#
# It has the program of the package that it is made of. One that "refuses" finds fault with every
# configuration, as a version would that no longer knows an option.
set -eu
from=$1 into=$2 version=$3 kind=$4
mkdir -p "$into"
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
for package in "$from"/gevproxy_*+deb*.deb; do
    release=${package##*+deb}
    tree=$scratch/$release
    dpkg-deb --raw-extract "$package" "$tree"
    sed -i "s/^Version: .*/Version: $version+deb${release%%_*}/" "$tree/DEBIAN/control"
    if [ "$kind" = refuses ]; then
        for file in "$tree"/usr/lib/gevproxy/lib/python3.*/site-packages/gevproxy/cli.py; do
            echo 'import sys; sys.argv[1:2] == ["check"] and sys.exit("this version refuses it")' | cat - "$file" > "$scratch/cli.py"
            cp "$scratch/cli.py" "$file"
        done
    fi
    dpkg-deb --root-owner-group -Znone --build "$tree" "$into/gevproxy_$version+deb$release" > /dev/null
done
