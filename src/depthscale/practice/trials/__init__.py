"""Dropout schedules tried against each other on real training runs, paired by seed."""
