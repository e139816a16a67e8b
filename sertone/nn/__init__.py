"""The building blocks of models: encoders, fusions, poolings, attention, heads, losses."""
