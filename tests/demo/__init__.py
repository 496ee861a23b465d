"""`gevproxy demo` as a person starts it: from a checkout and from a wheel."""
