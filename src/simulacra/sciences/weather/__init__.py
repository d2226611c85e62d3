"""Weather at a station, day by day: its future as equally likely paths."""
