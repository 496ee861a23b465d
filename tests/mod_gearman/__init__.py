"""Mod-Gearman through the relay: keys, rewriting, callbacks, dead letters."""
