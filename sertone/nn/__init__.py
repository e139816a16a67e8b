"""The parts that models are made of: encoders, fusions, attention, heads."""
