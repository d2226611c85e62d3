"""Epidemics: reported cases by state, week by week, and what they will be in the weeks to come."""
