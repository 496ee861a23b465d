"""Metrics over HTTP: right, bounded, and packaged with what reads them."""
