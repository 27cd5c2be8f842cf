"""Runs whose timing is known before any arithmetic: timetables (`schedule`), and dependency levels."""
