"""Timelines of long recordings: segments, speakers, and live streams."""
