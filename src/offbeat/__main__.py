"""`python -m offbeat` is `offbeat`."""

from offbeat.commands import main

main()
