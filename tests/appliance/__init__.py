"""The appliance on a really booted Debian: units, package and role. `make test-appliance`."""
