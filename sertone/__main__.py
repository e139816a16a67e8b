"""`python -m sertone` is the command `sertone`."""

from sertone.cli import main

main()
