"""Whole forwards, end to end: the program as a process between job servers, good and bad ones.

Every relay here must account for each job when it ends, and almost every test compares sets of
jobs. Nothing is said about speed but as a ratio; times are deadlines, or distances between records.
"""
