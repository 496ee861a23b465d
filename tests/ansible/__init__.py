"""The Ansible collection: what it says of itself."""
