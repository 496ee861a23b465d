"""The Ansible role on booted systems."""
