"""Several machines: each has a run folder of its own, and a gateway that keeps in it what the others show.

Agents see only the files of their run folder, as on one machine; so none knows where another one lives. What
gateways say to each other is in `peer`; numbers and JSON are checked on arrival, nothing is unpickled here.
"""
