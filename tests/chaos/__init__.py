"""Faults from outside, one after the other and at random: nothing is lost."""
