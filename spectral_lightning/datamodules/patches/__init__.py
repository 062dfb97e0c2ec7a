"""Patches of photographs."""
