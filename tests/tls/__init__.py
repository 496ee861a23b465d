"""TLS: every fault of certificates, nothing lost, nothing in plain text."""
