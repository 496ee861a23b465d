"""What things cost: programs that print numbers. Run as `python -m tests.bench.bench_...`."""
