"""Peers that mean harm, and limits that are reached."""
