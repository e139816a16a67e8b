"""Small helpers without a subject of their own: processes, terminals, optional packages, wording."""
