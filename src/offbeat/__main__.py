"""`python -m offbeat` is `offbeat`."""

from offbeat.cli.commands import main

main()
