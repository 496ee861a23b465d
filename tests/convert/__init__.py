"""gevproxy convert: Perl configurations as people write them, and what becomes of them."""
